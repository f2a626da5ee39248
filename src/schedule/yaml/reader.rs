//! serde's view of a tree: one deserializer for each node, and the accesses that serde asks of it.

use std::collections::HashMap;

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use super::access::{Elements, Entries, Split, Variant};
use super::read::{Fault, Later, Path, State, address};
use super::{Key, Kind, Node, Value, closest};
use crate::schedule::foreign::instead;
use crate::schedule::measure::shown;

/// The key under which [`WithFormat`](crate::schedule::file::WithFormat) asks for a sink's own settings.
pub const SPLIT: &str = "a sink's settings";

/// What any sink has among its settings.
pub(super) const BESIDE: &[&str] = &["format", "encryptTo"];

/// Keys that are held against each other one by one.
const FEW: usize = 16;

pub(super) struct Reader<'a> {
    pub node: &'a Node,
    pub path: Path<'a>,
    pub state: &'a State,
    /// Keys that somebody else reads.
    pub hidden: &'static [&'static str],
}

impl<'a> Reader<'a> {
    fn wanted<T>(&self, what: &str) -> Result<T, Fault> {
        Err(Fault::Message(format!("{what} is expected here, not {}", self.node.what())))
    }

    fn text(&self) -> Result<&'a str, Fault> {
        match &self.node.value {
            Value::Scalar { text, kind: Kind::Text } => Ok(text),
            Value::Scalar { text, .. } if self.path.last() == "mode" => {
                let digits = text.trim_start_matches("0o").trim_start_matches('0');
                Err(Fault::Message(format!(
                    "{} without quotes is ambiguous (octal or decimal?): write \"{digits:0>4}\" in quotes",
                    shown(text)
                )))
            }
            Value::Scalar { text, .. } => {
                Err(Fault::Message(format!("text is expected here, and {} without quotes is none: write \"{text}\"", shown(text))))
            }
            _ => self.wanted("text"),
        }
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, Fault> {
        match &self.node.value {
            Value::Scalar { text, kind: Kind::Number }
                if text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0')) =>
            {
                text.parse().map_err(|_| Fault::Message(format!("{} is too large", shown(text))))
            }
            _ => self.wanted("a whole number from 0 on"),
        }
    }

    fn entries(&self) -> Result<&'a [(Key, Node)], Fault> {
        match &self.node.value {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            _ => self.wanted("a group of settings (KEY: VALUE)"),
        }
    }

    /// The entries to read: without what was left out, without second ones (which are reported).
    fn usable(&self, fields: Option<(&str, &'static [&'static str])>) -> Result<Vec<&'a (Key, Node)>, Fault> {
        let entries = self.entries()?;
        let first = first_of_each(entries);
        let mut usable = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, node) = entry;
            if self.state.is_out(node) || self.hidden.contains(&&*key.text) {
                continue;
            }
            let path = Path::Key(&self.path, &key.text);
            if let Some(before) = first.get(&*key.text).filter(|first| !std::ptr::eq(**first, key)) {
                self.state.say(
                    key.at,
                    path.to_string(),
                    format!("`{}` stands here twice, first in line {}: keep one", key.text, before.at.line),
                );
                self.state.leave_out(node);
                continue;
            }
            if let Some((structure, fields)) = fields
                && !fields.contains(&&*key.text)
            {
                self.state.say(key.at, path.to_string(), unknown(self.state.later, structure, &key.text, fields));
                self.state.leave_out(node);
                continue;
            }
            usable.push(entry);
        }
        Ok(usable)
    }

    /// Reports an entry at its key, and leaves it out.
    pub fn refuse(&self, key: &Key, node: &Node, message: String) -> Fault {
        self.state.say(key.at, Path::Key(&self.path, &key.text).to_string(), message);
        self.state.leave_out(node);
        Fault::Said
    }

    /// The entries of which one is to be chosen. Beside a known one an unknown one is told by itself.
    fn choices(&self, name: &str, variants: &[&str]) -> Result<Vec<&'a (Key, Node)>, Fault> {
        let mut entries = self.usable(None)?;
        let known = |entry: &&(Key, Node)| variants.contains(&&*entry.0.text);
        if entries.iter().any(known) {
            for (key, node) in entries.iter().filter(|entry| !known(entry)) {
                self.refuse(key, node, unknown(self.state.later, name, &key.text, variants));
            }
            entries.retain(known);
        }
        Ok(entries)
    }

    fn made_up(&self) -> Vec<&'static str> {
        self.state.assumed.borrow().get(&address(self.node)).cloned().unwrap_or_default()
    }

    fn into_map(self, fields: Option<(&str, &'static [&'static str])>) -> Result<Entries<'a>, Fault> {
        let entries = self.usable(fields)?.into_iter();
        let made_up = if fields.is_some() { self.made_up() } else { Vec::new() };
        Ok(Entries { reader: self, entries, made_up, value: None })
    }
}

/// The first key of each text; nothing where no key stands twice, as nearly always.
fn first_of_each(entries: &[(Key, Node)]) -> HashMap<&str, &Key> {
    if !is_any_twice(entries) {
        return HashMap::new();
    }
    // Of two with one text the one that comes last here stays.
    entries.iter().rev().map(|(key, _)| (&*key.text, key)).collect()
}

/// Whether a key stands twice.
fn is_any_twice(entries: &[(Key, Node)]) -> bool {
    // Each with each, where no list has to be made for it: nearly all groups of settings are as small.
    if entries.len() <= FEW {
        return entries.iter().enumerate().any(|(at, (key, _))| entries[..at].iter().any(|(before, _)| before.text == key.text));
    }
    let mut texts: Vec<&str> = entries.iter().map(|(key, _)| &*key.text).collect();
    texts.sort_unstable();
    texts.windows(2).any(|pair| pair[0] == pair[1])
}

fn unknown(later: Later, structure: &str, key: &str, known: &[&str]) -> String {
    if later(structure, key) {
        return format!("{} is not supported by this version: leave it out", shown(key));
    }
    if let Some(instead) = instead(structure, key) {
        return format!("{} is unknown here: {instead}", shown(key));
    }
    match closest(key, known.iter().copied()) {
        Some(near) => format!("{} is unknown: did you mean `{near}`?", shown(key)),
        None => format!("{} is unknown here: known are {}", shown(key), known.join(", ")),
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.number::<$type>()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    numbers!(deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64);

    /// A scalar is handed over as it was written, number or text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar { text, .. } => visitor.visit_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { text, kind: Kind::Bool } => visitor.visit_bool(text.eq_ignore_ascii_case("true")),
            _ => self.wanted("true or false"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Value::Null = self.node.value { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(list) => visitor.visit_seq(Elements { reader: &self, rest: list.iter().enumerate() }),
            Value::Null => visitor.visit_seq(Elements { reader: &self, rest: <&[Node]>::default().iter().enumerate() }),
            _ => self.wanted("a list"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(self.into_map(None)?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SPLIT {
            let mut beside = self.usable(None)?;
            beside.retain(|(key, _)| BESIDE.contains(&&*key.text));
            return visitor.visit_map(Split { reader: self, beside: beside.into_iter(), entry: None, over: false });
        }
        visitor.visit_map(self.into_map(Some((name, fields)))?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let one_of = variants.join(", ");
        let (word, value) = match &self.node.value {
            Value::Scalar { text, .. } => (&**text, None),
            Value::Map(_) => match &self.choices(name, variants)?[..] {
                [(key, node)] => (&*key.text, Some((key, node))),
                [] if self.node.entries().iter().any(|(_, node)| self.state.is_out(node)) => return Err(Fault::Assumed),
                [] => return Err(Fault::Message(format!("one of {one_of} is expected here"))),
                several => {
                    let names: Vec<&str> = several.iter().map(|(key, _)| &*key.text).collect();
                    return Err(Fault::Message(format!("exactly one of {one_of} is expected here, not {}: keep one", names.join(" and "))));
                }
            },
            _ => return self.wanted(&format!("one of {one_of}")),
        };
        if !variants.contains(&word) {
            let message = unknown(self.state.later, name, word, variants);
            let Some((key, node)) = value else { return Err(Fault::Message(message)) };
            self.refuse(key, node, message);
            return Err(Fault::Assumed);
        }
        visitor.visit_enum(Variant { reader: &self, word, node: value.map(|(_, node)| node) })
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if let Value::Null = self.node.value { visitor.visit_unit() } else { self.wanted("nothing") }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char bytes byte_buf unit_struct tuple tuple_struct
    }
}

/// Reads a value below, and reports what is wrong with it.
pub(super) fn below<'de, S: DeserializeSeed<'de>>(seed: S, node: &Node, path: Path<'_>, state: &State) -> Result<S::Value, Fault> {
    seed.deserialize(Reader { node, path, state, hidden: &[] }).map_err(|fault| {
        state.take(fault, node, &path);
        Fault::Said
    })
}
