//! The rest of serde's view: lists, maps, enums, and values made up for missing ones.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::read::{Fault, Path};
use super::reader::{BESIDE, Reader, below};
use super::{Key, Node};

pub(super) struct Elements<'r, 'a> {
    pub reader: &'r Reader<'a>,
    pub rest: std::iter::Enumerate<std::slice::Iter<'r, Node>>,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let state = self.reader.state;
        let Some((index, node)) = self.rest.find(|(_, node)| !state.is_out(node)) else { return Ok(None) };
        below(seed, node, Path::Index(&self.reader.path, index), state).map(Some)
    }

    /// So that a list is made with the room that it needs: its elements may be large, and a hundred thousand lists have one.
    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

pub(super) struct Entries<'a> {
    pub reader: Reader<'a>,
    pub entries: std::vec::IntoIter<&'a (Key, Node)>,
    pub made_up: Vec<&'static str>,
    pub value: Option<Option<&'a (Key, Node)>>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if let Some(entry) = self.entries.next() {
            self.value = Some(Some(entry));
            let (key, node) = entry;
            let read: StrDeserializer<'_, Fault> = (&*key.text).into_deserializer();
            return seed.deserialize(read).map(Some).map_err(|fault| match fault {
                Fault::Message(message) => self.reader.refuse(key, node, message),
                other => other,
            });
        }
        let Some(field) = self.made_up.pop() else { return Ok(None) };
        self.value = Some(None);
        let key: StrDeserializer<'_, Fault> = field.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.value.take().flatten() {
            Some((key, node)) => below(seed, node, Path::Key(&self.reader.path, &key.text), self.reader.state),
            None => seed.deserialize(MadeUp).map_err(|_| Fault::Assumed),
        }
    }
}

/// What any sink has, and its own settings.
pub(super) struct Split<'a> {
    pub reader: Reader<'a>,
    /// What any sink has, and this one too.
    pub beside: std::vec::IntoIter<&'a (Key, Node)>,
    pub entry: Option<&'a (Key, Node)>,
    pub over: bool,
}

impl<'de> de::MapAccess<'de> for Split<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.entry = self.beside.next();
        let name = match self.entry {
            Some((key, _)) => &*key.text,
            None if self.over => return Ok(None),
            None => "spec",
        };
        self.over = self.entry.is_none();
        let key: StrDeserializer<'_, Fault> = name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        if let Some((key, node)) = self.entry {
            return below(seed, node, Path::Key(&self.reader.path, &key.text), self.reader.state);
        }
        seed.deserialize(Reader { node: self.reader.node, path: self.reader.path, state: self.reader.state, hidden: BESIDE })
    }
}

pub(super) struct Variant<'r, 'a> {
    pub reader: &'r Reader<'a>,
    pub word: &'r str,
    pub node: Option<&'r Node>,
}

impl<'r, 'de> de::EnumAccess<'de> for Variant<'r, '_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let word: StrDeserializer<'r, Fault> = self.word.into_deserializer();
        Ok((seed.deserialize(word)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.node {
            None => Ok(()),
            Some(_) => Err(Fault::Message(format!("`{}` has no settings: write it alone", self.word))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        let Some(node) = self.node else {
            // All of its settings may be optional; then the word alone will do.
            let none = de::value::MapDeserializer::<_, Fault>::new(std::iter::empty::<(&str, &str)>());
            return seed.deserialize(none).map_err(|_| Fault::Message(format!("`{0}` needs settings: write {{{0}: …}}", self.word)));
        };
        // what is wrong below was said there, and without it nothing is left of this
        below(seed, node, Path::Key(&self.reader.path, self.word), self.reader.state)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::Assumed)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(Fault::Assumed)
    }
}

/// Stands in for a value that is missing, so that the next missing one is found in the same run.
pub(super) struct MadeUp;

impl<'de> Deserializer<'de> for MadeUp {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str("")
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(false)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u32(0)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}
