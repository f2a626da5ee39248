//! A YAML text as a tree in which every scalar and key knows its bytes, so that one can be changed alone.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use zeroize::Zeroizing;

use super::Unmergeable;

/// A value and where it stands.
#[derive(Clone)]
pub struct Node {
    pub value: Value,
    /// First byte; of a map in block style that of its first key.
    pub start: usize,
    /// Bytes; right for scalars and keys alone.
    length: usize,
    /// Whether it stands here by itself, not by an alias.
    pub own: bool,
}

/// What a node is.
#[derive(Clone)]
pub enum Value {
    Null,
    Scalar(Zeroizing<String>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(known, _)| known.text() == Some(key)).map(|(_, node)| node)
    }

    /// The key's own node and its value.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.entries().iter().find(|(known, _)| known.text() == Some(key))
    }

    pub fn entries(&self) -> &[(Node, Node)] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    pub fn elements(&self) -> &[Node] {
        if let Value::List(elements) = &self.value { elements } else { &[] }
    }

    pub fn text(&self) -> Option<&str> {
        if let Value::Scalar(text) = &self.value { Some(text) } else { None }
    }

    /// The bytes of a scalar or key, quotes included.
    pub fn bytes(&self, source: &str) -> Range<usize> {
        let end = (self.start + self.length).min(source.len());
        let written = source.get(self.start..end).unwrap_or_default();
        self.start..self.start + written.trim_end().len()
    }
}

/// Parses a kubeconfig.
///
/// # Errors
/// [`Unmergeable`] with line and column.
pub fn parse(text: &str) -> Result<Node, Unmergeable> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: 2_000_000,
            max_events: 6_000_000,
            max_total_scalar_bytes: 64 << 20,
            max_depth: 32,
            max_aliases: 10_000,
            max_merge_keys: 10_000,
            enforce_alias_anchor_ratio: false,
            max_recorded_anchor_events: 100_000,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    serde_yaml::with_deserializer_from_str_with_options(text, options, |from| Node::deserialize(from)).map_err(|error| {
        // The parser's own words may quote the file.
        let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column())).unwrap_or_default();
        Unmergeable(format!("its YAML is broken{place}"))
    })
}

fn whole(number: Option<u64>) -> usize {
    number.and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(from)?;
        let span = spanned.defined.span();
        Ok(Self {
            value: spanned.value,
            start: whole(span.byte_offset()),
            length: whole(span.byte_len()),
            own: spanned.referenced == spanned.defined,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(scalar(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(scalar(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(scalar(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(scalar(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(scalar(value))
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

fn scalar(value: impl fmt::Display) -> Value {
    Value::Scalar(Zeroizing::new(value.to_string()))
}
