//! A value with its place, read as [`serde_yaml::Spanned`] is read, and no more of it than is used: that one makes two
//! places of seven numbers each, and a large schedule has a million keys and values.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::At;

/// The word by which the reader is asked for places (`serde_yaml::Spanned`).
const ASKED: &str = "__yaml_spanned";

/// A value and where it stands.
pub(super) struct Located<T> {
    pub value: T,
    /// For an alias, where the alias stands.
    pub at: At,
    /// First byte in the text (of the anchored value, for an alias), and how many; zeros where that was not asked for.
    pub span: (usize, usize),
}

/// Reads a value and where it stands; its bytes in the text too, where they are wanted.
pub(super) fn located<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D, bytes: bool) -> Result<Located<T>, D::Error> {
    from.deserialize_newtype_struct(ASKED, Asked { bytes, value: PhantomData })
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        located(from, true)
    }
}

struct Asked<T> {
    bytes: bool,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Asked<T> {
    type Value = Located<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its place")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }

    /// `{MARKER: true, value, referenced, defined}`, in this order.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        map.next_entry::<IgnoredAny, IgnoredAny>()?;
        key(&mut map, "value")?;
        let value = map.next_value()?;
        key(&mut map, "referenced")?;
        let at = map.next_value_seed(Place)?;
        if !self.bytes {
            return Ok(Located { value, at, span: (0, 0) });
        }
        key(&mut map, "defined")?;
        let span = map.next_value_seed(Bytes)?;
        Ok(Located { value, at, span })
    }
}

/// The next key, which has to be this one.
#[inline(always)] // six are asked for each key and value of a schedule
fn key<'de, A: MapAccess<'de>>(map: &mut A, wanted: &'static str) -> Result<(), A::Error> {
    if map.next_key_seed(Named(wanted))? == Some(true) {
        return Ok(());
    }
    Err(A::Error::custom(format_args!("the YAML reader does not say `{wanted}` of a value")))
}

/// Whether it is this text.
struct Named(&'static str);

impl<'de> DeserializeSeed<'de> for Named {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Named {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}

/// Says how a value is read that comes as a struct, field by field, in a known order.
macro_rules! fields {
    ($type:ident -> $value:ty, |$map:ident| $read:block) => {
        impl<'de> DeserializeSeed<'de> for $type {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.deserialize_struct("", &[], self)
            }
        }

        impl<'de> Visitor<'de> for $type {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<$value, A::Error> $read
        }
    };
}

/// `{line, column, span, …}`: line and column.
struct Place;

fields!(Place -> At, |map| {
    key(&mut map, "line")?;
    let line: u32 = map.next_value()?;
    key(&mut map, "column")?;
    let column: u32 = map.next_value()?;
    Ok(At { line: (line as usize).max(1), column: (column as usize).max(1) })
});

/// The same: its span.
struct Bytes;

fields!(Bytes -> (usize, usize), |map| { third(&mut map, ["line", "column", "span"], Span) });

/// `{offset, len, byte_info: (offset, len)}`: the bytes; zeros where the reader does not know them.
struct Span;

fields!(Span -> (usize, usize), |map| { third(&mut map, ["offset", "len", "byte_info"], Pair) });

/// The value of the third of these keys; those of the first two are passed over.
fn third<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
    map: &mut A,
    [first, second, wanted]: [&'static str; 3],
    seed: S,
) -> Result<S::Value, A::Error> {
    for passed in [first, second] {
        key(map, passed)?;
        map.next_value::<IgnoredAny>()?;
    }
    key(map, wanted)?;
    map.next_value_seed(seed)
}

struct Pair;

impl<'de> DeserializeSeed<'de> for Pair {
    type Value = (usize, usize);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(usize, usize), D::Error> {
        from.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for Pair {
    type Value = (usize, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<(usize, usize), A::Error> {
        let mut number = || pair.next_element::<u64>().map(|number| number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0));
        Ok((number()?, number()?))
    }
}
