//! The YAML of a schedule as a tree in which every key and value knows its line and column. Targets are
//! handed out one at a time, so that a file with 100,000 of them stays cheap.

mod read;

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use serde_yaml::options::{DuplicateKeyPolicy, Options};

pub use read::{Finding, Marks, SPLIT, closest, read};

/// Most bytes that one file may have.
pub const MAX_BYTES: usize = 64 << 20;

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
    span: (usize, usize),
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

/// A text that is no YAML that we take: where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Where.
    pub at: At,
    /// What is wrong and the way out.
    pub message: String,
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

    /// Tells numbers from texts by how the file writes them.
    fn settle(&mut self, source: &str) {
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
        let spanned = Spanned::<Value>::deserialize(from)?;
        let bytes = spanned.defined.span();
        let span = (whole(bytes.byte_offset().unwrap_or(0)), whole(bytes.byte_len().unwrap_or(0)));
        Ok(Self { at: place(&spanned.referenced), value: spanned.value, span })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Box<str>>::deserialize(from)?;
        Ok(Self { at: place(&spanned.referenced), text: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Tree)
    }
}

fn place(location: &serde_yaml::Location) -> At {
    At { line: whole(location.line()).max(1), column: whole(location.column()).max(1) }
}

fn whole(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

struct Tree;

impl Tree {
    fn plain(text: impl fmt::Display, kind: Kind) -> Value {
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

/// Reads the whole file but its targets: the map at the root, with `targets` as null where it is a list, and
/// where that list stands.
///
/// # Errors
/// [`Broken`], the first thing that is no YAML that we take.
pub fn head(text: &str) -> Result<(Node, Option<At>), Broken> {
    looks_like_text(text)?;
    let (mut entries, targets) = parse(text, Head)?;
    entries.iter_mut().for_each(|(_, node)| node.settle(text));
    let at = entries.first().map_or(START, |(key, _)| key.at);
    Ok((Node::map(at, entries), targets))
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

fn broken(text: &str, error: &serde_yaml::Error) -> Broken {
    use serde_yaml::Error;
    let at = error.location().filter(|found| found.line() > 0).map_or_else(|| beginning(text), |found| place(&found));
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    let message = match cause {
        Error::MultipleDocuments { .. } => {
            "a second document begins here: keep one document in a file, others go under `include`".to_owned()
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            "the file nests or repeats itself beyond all measure (brackets, anchors, aliases): write it plainly".to_owned()
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => "this alias stands inside the value that it repeats: write it out".to_owned(),
        Error::NullIntoString { .. } => "the key is missing here, or null: write it in quotes".to_owned(),
        cause => {
            let text = cause.to_string();
            let line = text.lines().next().unwrap_or_default();
            let line = line.find(" at line ").map_or(line, |end| &line[..end]);
            let line = line.strip_prefix(&format!("line {} column {}: ", at.line, at.column)).unwrap_or(line);
            if matches!(cause, Error::Message { .. }) { line.to_owned() } else { format!("this is no YAML: {line}") }
        }
    };
    Broken { at, message }
}

/// Empty, huge and binary files get a word of their own: a YAML parser's would not help.
fn looks_like_text(text: &str) -> Result<(), Broken> {
    let fault = |at, message: &str| Err(Broken { at, message: message.into() });
    if text.len() > MAX_BYTES {
        return fault(START, "the file is larger than 64 MiB: split it with `include`");
    }
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    if let Some(bytes) = text.find(control) {
        return fault(position(text, bytes), "a control character stands here: this is no text file");
    }
    if is_empty(text) {
        return fault(START, "the file is empty: begin with `version: 1`");
    }
    Ok(())
}

/// Whether there is nothing but comments.
pub fn is_empty(text: &str) -> bool {
    !text.trim_start_matches('\u{feff}').lines().any(written)
}

/// The first line that is no comment.
fn beginning(text: &str) -> At {
    let line = text.trim_start_matches('\u{feff}').lines().position(written);
    line.map_or(START, |line| At { line: line + 1, column: 1 })
}

fn written(line: &str) -> bool {
    !matches!(line.trim(), "" | "---" | "...") && !line.trim_start().starts_with(['#', '%'])
}

/// Line and column of a byte.
pub fn position(text: &str, byte: usize) -> At {
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    At { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

/// What to say of a file that is no UTF-8.
pub fn not_utf8(bytes: &[u8]) -> Broken {
    let good = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
    let text = String::from_utf8_lossy(&bytes[..good]);
    Broken { at: position(&text, text.len()), message: "this is no UTF-8 text: save the file as UTF-8".into() }
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
    type Value = (Vec<(Key, Node)>, Option<At>);

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Head {
    type Value = (Vec<(Key, Node)>, Option<At>);

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
        let (mut entries, mut targets) = (Vec::new(), None);
        while let Some(key) = map.next_key::<Key>()? {
            let node = if &*key.text == "targets" && targets.is_none() {
                let list = map.next_value::<Spanned<ListOr>>()?;
                let at = place(&list.referenced);
                if let ListOr::List = list.value {
                    targets = Some(at);
                }
                let value = if let ListOr::Other(value) = list.value { value } else { Value::Null };
                Node { at, value, span: (0, 0) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        head(text).unwrap().0
    }

    fn kind(text: &str) -> (String, Kind) {
        match &tree(&format!("a: {text}\n")).get("a").unwrap().value {
            Value::Scalar { text, kind } => (text.to_string(), *kind),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let root = tree("# first\na:\n  b: [x, {c: y}]\n");
        let (key, a) = &root.entries()[0];
        assert_eq!(key.at, At { line: 2, column: 1 });
        assert_eq!(a.get("b").unwrap().at, At { line: 3, column: 6 });
        let Value::List(list) = &a.get("b").unwrap().value else { panic!() };
        assert_eq!((list[0].at, list[1].get("c").unwrap().at), (At { line: 3, column: 7 }, At { line: 3, column: 14 }));
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(tree("äöü: {é: x}\n").get("äöü").unwrap().get("é").unwrap().at, At { line: 1, column: 10 });
    }

    #[test]
    fn numbers_keep_how_they_were_written_and_quoted_ones_are_text() {
        for (text, wanted, number) in [
            ("640", "640", true),
            ("0640", "0640", true),
            ("0o640", "0o640", true),
            ("1_000", "1_000", true),
            ("1.50", "1.50", true),
            ("-3", "-3", true),
            ("\"0640\"", "0640", false),
            ("'640'", "640", false),
            ("|\n  640", "640", false),
            ("22:00", "22:00", false),
            ("80%", "80%", false),
            ("!!str 640", "640", false),
        ] {
            let (read, kind) = kind(text);
            assert_eq!((read.trim(), kind == Kind::Number), (wanted, number), "{text}");
        }
        assert_eq!(kind("true").1, Kind::Bool);
        assert_eq!(kind("yes").1, Kind::Text);
    }

    #[test]
    fn an_alias_stands_where_it_is_used_and_means_what_it_repeats() {
        let root = tree("a: &m 0640\nb: &t \"0640\"\nc: [*m, *t]\n");
        let Value::List(list) = &root.get("c").unwrap().value else { panic!() };
        assert!(matches!(&list[0].value, Value::Scalar { kind: Kind::Number, .. }));
        assert!(matches!(&list[1].value, Value::Scalar { kind: Kind::Text, .. }));
        assert_eq!(list[1].at, At { line: 3, column: 9 });
    }

    #[test]
    fn merge_keys_fill_in_what_is_left_out() {
        let root = tree("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n");
        let used = root.get("use").unwrap();
        let read = |key| if let Value::Scalar { text, .. } = &used.get(key).unwrap().value { text.to_string() } else { String::new() };
        assert_eq!((read("x"), read("y"), used.entries().len()), ("1".into(), "3".into(), 2));
    }

    #[test]
    fn targets_come_one_at_a_time_and_are_not_in_the_head() {
        let text = "targets: [a, b]\nversion: 1\n";
        let (root, at) = head(text).unwrap();
        assert_eq!(at, Some(At { line: 1, column: 10 }));
        assert!(!root.has("targets") && root.has("version"));
        let mut seen = Vec::new();
        targets(text, false, |node| seen.push(node.at.column)).unwrap();
        assert_eq!(seen, [11, 14]);
        targets("- a\n- b\n", true, |node| seen.push(node.at.line)).unwrap();
        assert_eq!(seen, [11, 14, 1, 2]);
    }

    #[test]
    fn what_is_no_text_says_so() {
        assert!(head("").unwrap_err().message.contains("empty"));
        assert!(head("\u{feff}\n---\n# x\n").unwrap_err().message.contains("empty"));
        let binary = head("version: 1\nx: \u{0}\u{1}\n").unwrap_err();
        assert_eq!((binary.at, binary.message.contains("no text")), (At { line: 2, column: 4 }, true));
        let latin1 = not_utf8(b"version: 1\nx: caf\xe9\n");
        assert_eq!((latin1.at, latin1.message.contains("UTF-8")), (At { line: 2, column: 7 }, true));
        assert!(head(&"#".repeat(MAX_BYTES + 1)).unwrap_err().message.contains("64 MiB"));
    }

    #[test]
    fn bombs_and_towers_are_refused_in_time() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let last = format!("*a{}", level - 1);
            bomb += &format!("a{level}: &a{level} [{}]\n", [&*last; 10].join(", "));
        }
        for text in [
            bomb,
            format!("a: {}", "[".repeat(100_000)),
            format!("a: {}1{}", "[".repeat(60), "]".repeat(60)),
            "a: &a [*a]\n".into(),
            "a: &a {<<: *a}\n".into(),
        ] {
            assert!(head(&text).is_err(), "{}", &text[..20.min(text.len())]);
        }
        let block: String = (0..60).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        assert!(head(&block).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "[-:{}\\[\\]&*#|>'\"!%@`,? \n\ta-c0-9<~]{0,60}") {
            let _ = head(&text);
            let _ = targets(&text, true, |_| {});
        }
    }
}
