//! The tree: keys and values with their line and column.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::located::{Located, located};

/// Where something stands. Both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// The file's first character.
pub const START: At = At { line: 1, column: 1 };

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it begins; for an alias, where the alias stands.
    pub at: At,
    /// What it is.
    pub value: Value,
    /// First byte in the text (of the anchored value, for an alias), and how many.
    pub(super) span: (usize, usize),
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing after the key, `null` or `~`.
    Null,
    /// A text or number.
    Scalar {
        /// The text that it means; for a plain number or boolean, as it was written.
        text: Box<str>,
        /// What YAML readers may take it for.
        kind: Kind,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in order; a key may stand twice.
    Map(Vec<(Key, Node)>),
}

/// What YAML readers take a scalar for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Quoted, or nothing but text.
    Text,
    /// A plain number, leading zeros included: some readers take those as octal.
    Number,
    /// A plain `true` or `false`.
    Bool,
}

/// A key and where it stands.
#[derive(Debug, Clone)]
pub struct Key {
    /// Where it begins.
    pub at: At,
    /// The key.
    pub text: Box<str>,
}

/// One step down a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// To the value of a key.
    Key(&'a str),
    /// To an element, from 0.
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Node {
    /// A map that stands nowhere in particular.
    pub fn map(at: At, entries: Vec<(Key, Node)>) -> Self {
        Self { at, value: Value::Map(entries), span: (0, 0) }
    }

    /// The value of a key; the first where it stands twice.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(known, _)| &*known.text == key).map(|(_, node)| node)
    }

    /// Whether nothing stands there: no value, or a list or mapping with nothing in it.
    pub fn is_empty(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Scalar { .. } => false,
            Value::List(list) => list.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// Whether a key has a value other than null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|node| !matches!(node.value, Value::Null))
    }

    /// Keys and values; none where it is no map.
    pub fn entries(&self) -> &[(Key, Node)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    /// What it is, for messages.
    pub fn what(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "settings (KEY: VALUE)".into(),
            Value::Scalar { text, kind } => {
                let kind = match kind {
                    Kind::Text => "the text",
                    Kind::Number => "the number",
                    Kind::Bool => "the value",
                };
                format!("{kind} {}", crate::schedule::measure::shown(text))
            }
        }
    }

    /// Moves it, and all in it, down by so many lines.
    pub(super) fn lower(&mut self, lines: usize) {
        self.at.line += lines;
        match &mut self.value {
            Value::Null | Value::Scalar { .. } => {}
            Value::List(list) => list.iter_mut().for_each(|node| node.lower(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(key, node)| {
                key.at.line += lines;
                node.lower(lines);
            }),
        }
    }

    /// Tells numbers from texts by how the file writes them.
    pub(super) fn settle(&mut self, source: &str) {
        match &mut self.value {
            Value::Null => {}
            Value::List(list) => list.iter_mut().for_each(|node| node.settle(source)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.settle(source)),
            Value::Scalar { text, kind } => {
                let written = source.get(self.span.0..).unwrap_or("");
                if written.starts_with(['"', '\'', '|', '>', '!']) {
                    *kind = Kind::Text;
                    return;
                }
                if *kind != Kind::Text
                    && let Some(plain) = written.get(..self.span.1)
                {
                    *text = plain.trim().into();
                }
                if *kind == Kind::Text && text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) {
                    *kind = Kind::Number;
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Located { value, at, span } = Located::deserialize(from)?;
        Ok(Self { at, value, span })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Located { value: text, at, .. } = located(from, false)?;
        Ok(Self { at, text })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tree)
    }
}

pub(super) struct Tree;

impl Tree {
    pub(super) fn plain(text: impl fmt::Display, kind: Kind) -> Value {
        Value::Scalar { text: text.to_string().into(), kind }
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Self::plain(value, Kind::Bool))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Self::plain(value, Kind::Number))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Self::plain(value, Kind::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Self::plain(value, Kind::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Self::plain(value, Kind::Text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = elements.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}
