//! A text parsed in two passes: all but the targets, then the targets one at a time.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, Options};

use super::located::Located;
use super::node::Tree;
use super::pieces::Piece;
use super::text::{Broken, MAX_BYTES, broken, looks_like_text};
use super::{At, Key, Kind, Node, START, Value};

/// Reads the whole file but its targets: the map at the root, with `targets` as null where it is a list, and
/// whether it is one.
///
/// # Errors
/// [`Broken`], the first thing that is no YAML that we take.
pub fn head(text: &str) -> Result<(Node, bool), Broken> {
    looks_like_text(text)?;
    let (mut entries, targets) = match before_targets(text) {
        Some(short) => short,
        None => whole_head(text)?,
    };
    entries.iter_mut().for_each(|(_, node)| node.settle(text));
    let at = entries.first().map_or(START, |(key, _)| key.at);
    Ok((Node::map(at, entries), targets))
}

/// Keys and values of the map at the root, and whether its targets are a list.
type Entries = (Vec<(Key, Node)>, bool);

/// The head of a text that is parsed to its end.
pub(super) fn whole_head(text: &str) -> Result<Entries, Broken> {
    parse(text, Head)
}

/// The head of a text that ends with its targets: what stands before them is parsed, and a hundred thousand of them are
/// not. `None` where that is not plain to see; what is wrong is found by parsing it all.
pub(super) fn before_targets(text: &str) -> Option<Entries> {
    const KEY: &str = "targets:";
    let start = text.find("\ntargets:")? + 1;
    let mut behind = text[start + KEY.len()..].lines();
    let blank = |line: &str| matches!(line.trim_start().bytes().next(), None | Some(b'#'));
    let rest = behind.next()?;
    if rest.starts_with('#') || !blank(rest) {
        return None;
    }
    let (mut line, mut list) = (text[..start].matches('\n').count() + 1, None);
    let key = Key { at: At { line, column: 1 }, text: "targets".into() };
    for next in behind {
        line += 1;
        // Whatever else stands at the margin is another key, or another document.
        let inside = matches!(next.bytes().next(), None | Some(b' ' | b'#')) || next == "-" || next.starts_with("- ");
        if !inside {
            return None;
        }
        if list.is_none() && !blank(next) {
            let element = next.trim_start();
            if element != "-" && !element.starts_with("- ") {
                return None;
            }
            list = Some(At { line, column: next.len() - element.len() + 1 });
        }
    }
    let at = list?;
    let (mut entries, false) = whole_head(&text[..start]).ok()? else { return None };
    if entries.iter().any(|(key, _)| &*key.text == "targets") {
        return None;
    }
    entries.push((key, Node { at, value: Value::Null, span: (0, 0) }));
    Some((entries, true))
}

/// Hands out the elements of `targets`, or with `whole` of the file itself, one after the other.
///
/// # Errors
/// [`Broken`], the first thing that is no YAML that we take.
pub fn targets(text: &str, whole: bool, mut each: impl FnMut(Node)) -> Result<(), Broken> {
    looks_like_text(text)?;
    let mut settled = |mut node: Node| {
        node.settle(text);
        each(node);
    };
    if whole { parse(text, Elements(&mut settled)) } else { parse(text, Targets(&mut settled)) }
}

/// The same of one piece of a list; lines are those of its file.
///
/// # Errors
/// [`Broken`]; the whole text may tell it better.
pub fn piece(piece: Piece<'_>, mut each: impl FnMut(Node)) -> Result<(), Broken> {
    let mut settled = |mut node: Node| {
        node.settle(piece.text);
        node.lower(piece.above);
        each(node);
    };
    parse(piece.text, Elements(&mut settled))
}

fn parse<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> Result<S::Value, Broken> {
    serde_yaml::with_deserializer_from_str_with_options(text, options(), |from| seed.deserialize(from))
        .map_err(|error| broken(text, &error))
}

fn options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_nodes: 20_000_000,
            max_events: 60_000_000,
            max_total_scalar_bytes: MAX_BYTES,
            // ten times what a schedule needs, and little enough for a thread's stack
            max_depth: 24,
            // one anchor that every target merges is fine, anchors that multiply each other are not
            max_aliases: 200_000,
            max_merge_keys: 200_000,
            enforce_alias_anchor_ratio: false,
            max_recorded_anchor_events: 100_000,
        },
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        with_snippet: false,
        // ours to report, all of them
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
    }
}

/// Refuses scalars where something else has to stand.
macro_rules! no_scalar {
    ($message:literal: $($visit:ident $type:ty),*) => {$(
        fn $visit<E: serde::de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Err(E::custom($message))
        }
    )*};
}

struct Head;

impl<'de> DeserializeSeed<'de> for Head {
    type Value = Entries;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Head {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the keys of a schedule, beginning with `version: 1`")
    }

    no_scalar!("the keys of a schedule are expected here, beginning with `version: 1`":
        visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Err(E::custom("the file is empty: begin with `version: 1`"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(A::Error::custom("the keys of a schedule are expected here, beginning with `version: 1`; targets stand under `targets:`"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut entries, mut targets) = (Vec::new(), false);
        while let Some(key) = map.next_key::<Key>()? {
            let node = if &*key.text == "targets" && !targets {
                let list = map.next_value::<Located<ListOr>>()?;
                targets = matches!(list.value, ListOr::List);
                let value = if let ListOr::Other(value) = list.value { value } else { Value::Null };
                Node { at: list.at, value, span: (0, 0) }
            } else {
                map.next_value::<Node>()?
            };
            entries.push((key, node));
        }
        Ok((entries, targets))
    }
}

/// A list, passed over, or anything else.
enum ListOr {
    List,
    Other(Value),
}

impl<'de> Deserialize<'de> for ListOr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ListOrVisitor)
    }
}

struct ListOrVisitor;

impl<'de> Visitor<'de> for ListOrVisitor {
    type Value = ListOr;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of targets")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<ListOr, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(ListOr::List)
    }

    fn visit_unit<E>(self) -> Result<ListOr, E> {
        Ok(ListOr::Other(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<ListOr, E> {
        Ok(ListOr::Other(Tree::plain(value, Kind::Bool)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<ListOr, E> {
        Ok(ListOr::Other(Tree::plain(value, Kind::Number)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<ListOr, E> {
        Ok(ListOr::Other(Tree::plain(value, Kind::Number)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<ListOr, E> {
        Ok(ListOr::Other(Tree::plain(value, Kind::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<ListOr, E> {
        Ok(ListOr::Other(Tree::plain(value, Kind::Text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ListOr, A::Error> {
        Tree.visit_map(map).map(ListOr::Other)
    }
}

/// Only `targets`, element by element; the first where it stands twice.
struct Targets<'a>(&'a mut dyn FnMut(Node));

impl<'de> DeserializeSeed<'de> for Targets<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Targets<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the keys of a schedule")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut given = false;
        while let Some(key) = map.next_key::<Key>()? {
            if &*key.text == "targets" && !std::mem::replace(&mut given, true) {
                map.next_value_seed(Elements(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Elements<'a>(&'a mut dyn FnMut(Node));

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of targets")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(node) = elements.next_element()? {
            (self.0)(node);
        }
        Ok(())
    }

    no_scalar!("a list of targets is expected here, with a dash before each: `- name: …`":
        visit_bool bool, visit_i64 i64, visit_u64 u64, visit_f64 f64, visit_str &str);

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("a list of targets is expected here, with a dash before each: `- name: …`"))
    }
}
