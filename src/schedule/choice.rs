//! What may be written in more ways than one: a sink with its format, one text or several, `prove`.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::schedule::encrypt::RecipientFile;
use crate::schedule::format::FormatFile;
use crate::schedule::measure::{Seconds, shown};
use crate::schedule::yaml::SPLIT;
use crate::token::Format;
use crate::token::age::Recipient;

/// A sink's own settings, and what any sink has among them: `format` and `encryptTo`.
#[derive(Debug, Clone, PartialEq)]
pub struct WithFormat<T> {
    /// How the token is written.
    pub format: Format,
    /// To whom it is encrypted.
    pub encrypt_to: Option<Vec<Recipient>>,
    /// The sink's own.
    pub spec: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WithFormat<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Parts<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = WithFormat<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the settings of a sink")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let (mut format, mut encrypt_to, mut spec) = (Format::default(), None, None);
                while let Some(part) = parts.next_key::<String>()? {
                    match part.as_str() {
                        "format" => format = parts.next_value::<FormatFile>()?.into(),
                        "encryptTo" => encrypt_to = Some(RecipientFile::all(parts.next_value()?)),
                        _ => spec = Some(parts.next_value()?),
                    }
                }
                Ok(WithFormat { format, encrypt_to, spec: spec.ok_or_else(|| de::Error::missing_field("spec"))? })
            }
        }
        from.deserialize_struct(SPLIT, &["format", "encryptTo", "spec"], Parts(std::marker::PhantomData))
    }
}

/// A text, or a list of texts.
#[derive(Debug, Clone, Default)]
pub struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = elements.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        from.deserialize_any(Texts)
    }
}

/// `prove`: `{every: 1h}`, or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProveFile {
    /// Whether a fresh token is tried before it is published.
    pub prove: bool,
    /// Time between later tries.
    pub every: Option<Seconds>,
}

/// The one key of `prove`.
struct Every;

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let key = String::deserialize(from)?;
        if key == "every" { Ok(Self) } else { Err(de::Error::custom(format_args!("{} is unknown here: known is every", shown(&key)))) }
    }
}

impl<'de> Deserialize<'de> for ProveFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Prove;
        impl<'de> Visitor<'de> for Prove {
            type Value = ProveFile;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("`{every: 1h}` or `false`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProveFile, E> {
                match text {
                    "true" => Ok(ProveFile { prove: true, every: None }),
                    "false" => Ok(ProveFile { prove: false, every: None }),
                    _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut settings: A) -> Result<ProveFile, A::Error> {
                let mut every = None;
                while let Some(Every) = settings.next_key()? {
                    every = Some(settings.next_value()?);
                }
                Ok(ProveFile { prove: true, every })
            }
        }
        from.deserialize_any(Prove)
    }
}
