//! A tree read into types with plain serde derive, with every problem of it found in one run: what is wrong
//! is reported where it stands and left out, then the value around it is read again without it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::{At, Kind, Node, Step, Value};
use crate::schedule::measure::shown;

/// One thing wrong in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub at: At,
    /// The key, as a path from the tree's root.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// What was left out of a tree, by the nodes' addresses: finds the nodes of what was read.
#[derive(Debug, Clone, Default)]
pub struct Marks(HashSet<usize>);

impl Marks {
    /// The node at the end of a path through what was *read*, and its true path. Where the way ends early, the
    /// last node on it.
    pub fn find<'n>(&self, root: &'n Node, steps: &[Step<'_>]) -> (&'n Node, String) {
        let (mut node, mut path, mut lost) = (root, String::new(), false);
        for step in steps {
            let (name, next) = match (step, &node.value) {
                (Step::Key(key), _) => {
                    ((*key).to_owned(), node.entries().iter().find(|(k, n)| &*k.text == *key && !self.left_out(n)).map(|(_, n)| n))
                }
                (Step::Index(wanted), Value::List(list)) => match list.iter().enumerate().filter(|(_, n)| !self.left_out(n)).nth(*wanted) {
                    Some((index, next)) => (format!("[{index}]"), Some(next)),
                    None => (format!("[{wanted}]"), None),
                },
                // one value where a list may stand
                (Step::Index(_), _) => (String::new(), Some(node)),
            };
            if !path.is_empty() && !name.is_empty() && !name.starts_with('[') {
                path.push('.');
            }
            path.push_str(&name);
            match next {
                Some(next) if !lost => node = next,
                _ => lost = true,
            }
        }
        (node, path)
    }

    fn left_out(&self, node: &Node) -> bool {
        self.0.contains(&address(node))
    }
}

/// Says of a struct and a key whether this version only knows its name.
pub type Later = fn(structure: &str, key: &str) -> bool;

/// Reads a tree into a type. Everything wrong with it goes into `found`; what is left is read, or `None` where
/// nothing of use is left.
pub fn read<T: de::DeserializeOwned>(root: &Node, later: Later, found: &mut Vec<Finding>) -> (Option<T>, Marks) {
    let state = State { later, found: RefCell::default(), out: RefCell::default(), assumed: RefCell::default() };
    let value = loop {
        let reader = Reader { node: root, path: Path::Root, state: &state, hidden: None };
        match T::deserialize(reader) {
            Err(fault) => state.take(fault, root, &Path::Root),
            Ok(value) => {
                let assumed: Vec<usize> = state.assumed.borrow_mut().drain().map(|(node, _)| node).collect();
                if assumed.is_empty() {
                    break Some(value);
                }
                state.out.borrow_mut().extend(assumed);
            }
        }
        if state.is_out(root) {
            break None;
        }
    };
    found.append(&mut state.found.into_inner());
    (value, Marks(state.out.into_inner()))
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node).addr()
}

/// The key under which [`WithFormat`](crate::schedule::file::WithFormat) asks for a sink's own settings.
pub const SPLIT: &str = "a sink's settings";

struct State {
    later: Later,
    found: RefCell<Vec<Finding>>,
    /// Nodes that are left out, because what is wrong with them was said.
    out: RefCell<HashSet<usize>>,
    /// Keys that are missing in a node and were said to be: made up, so that the next one missing is found too.
    assumed: RefCell<HashMap<usize, Vec<&'static str>>>,
}

impl State {
    fn say(&self, at: At, key: String, message: String) {
        self.found.borrow_mut().push(Finding { at, key, message });
    }

    fn is_out(&self, node: &Node) -> bool {
        self.out.borrow().contains(&address(node))
    }

    fn leave_out(&self, node: &Node) {
        self.out.borrow_mut().insert(address(node));
    }

    /// Reports a fault at the innermost node that it passes.
    fn take(&self, fault: Fault, node: &Node, path: &Path<'_>) {
        match fault {
            Fault::Said => {}
            Fault::Assumed => self.leave_out(node),
            Fault::Message(message) => {
                self.say(node.at, path.to_string(), message);
                self.leave_out(node);
            }
            Fault::Missing(field) => {
                let said = node.entries().iter().any(|(key, value)| &*key.text == field && self.is_out(value));
                if !said {
                    self.say(node.at, path.to_string(), format!("`{field}` is missing"));
                }
                self.assumed.borrow_mut().entry(address(node)).or_default().push(field);
            }
        }
    }
}

/// Why a value could not be read.
#[derive(Debug)]
enum Fault {
    /// Reported already.
    Said,
    /// A made-up value does not do.
    Assumed,
    /// To be reported where it happened.
    Message(String),
    /// A key that has to be there.
    Missing(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Map => "settings (KEY: VALUE) stand".into(),
            de::Unexpected::Seq => "a list stands".into(),
            de::Unexpected::Unit | de::Unexpected::Option => "nothing stands".into(),
            de::Unexpected::Str(text) => format!("{} stands", shown(text)),
            _ => "something else stands".to_owned(),
        };
        Self::Message(format!("{found} where {wanted} is expected"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// The way from the root, written out only where something is reported.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn last(&self) -> &str {
        if let Self::Key(_, key) = self { key } else { "" }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(before, key) => write!(f, "{before}.{key}"),
            Self::Index(before, index) => write!(f, "{before}[{index}]"),
        }
    }
}

struct Reader<'a> {
    node: &'a Node,
    path: Path<'a>,
    state: &'a State,
    /// A key that somebody else reads.
    hidden: Option<&'static str>,
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

    fn entries(&self) -> Result<&'a [(super::Key, Node)], Fault> {
        match &self.node.value {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            _ => self.wanted("a group of settings (KEY: VALUE)"),
        }
    }

    /// The entries to read: without what was left out, without second ones (which are reported).
    fn usable(&self, fields: Option<(&str, &'static [&'static str])>) -> Result<Vec<&'a (super::Key, Node)>, Fault> {
        let mut first: HashMap<&str, At> = HashMap::new();
        let mut usable = Vec::new();
        for entry in self.entries()? {
            let (key, node) = entry;
            if self.state.is_out(node) || self.hidden.is_some_and(|hidden| *hidden == *key.text) {
                first.entry(&key.text).or_insert(key.at);
                continue;
            }
            let path = Path::Key(&self.path, &key.text);
            if let Some(before) = first.get(&*key.text) {
                self.state.say(
                    key.at,
                    path.to_string(),
                    format!("`{}` stands here twice, first in line {}: keep one", key.text, before.line),
                );
                self.state.leave_out(node);
                continue;
            }
            first.insert(&key.text, key.at);
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

    fn made_up(&self) -> Vec<&'static str> {
        self.state.assumed.borrow().get(&address(self.node)).cloned().unwrap_or_default()
    }

    fn into_map(self, fields: Option<(&str, &'static [&'static str])>) -> Result<Entries<'a>, Fault> {
        let entries = self.usable(fields)?.into_iter();
        let made_up = if fields.is_some() { self.made_up() } else { Vec::new() };
        Ok(Entries { reader: self, entries, made_up, value: None })
    }
}

fn unknown(later: Later, structure: &str, key: &str, known: &[&str]) -> String {
    if later(structure, key) {
        return format!("{} is not supported by this version: leave it out", shown(key));
    }
    match closest(key, known.iter().copied()) {
        Some(near) => format!("{} is unknown: did you mean `{near}`?", shown(key)),
        None => format!("{} is unknown here: known are {}", shown(key), known.join(", ")),
    }
}

/// The known word that a mistyped one was probably meant to be.
pub fn closest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let lower = word.to_lowercase();
    let near = known.map(|k| (distance(&lower, &k.to_lowercase()), k)).min_by_key(|(distance, _)| *distance)?;
    (near.0 <= (word.chars().count() / 3).clamp(1, 3)).then_some(near.1)
}

/// Optimal string alignment: insertions, deletions, replacements and swapped neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        (before, last) = (last, row);
    }
    last[b.len()]
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
            let format = self.usable(None)?.into_iter().find(|(key, _)| &*key.text == "format");
            return visitor.visit_map(Split { reader: self, format, step: 0 });
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
            Value::Map(_) => match &self.usable(None)?[..] {
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
            self.state.say(key.at, Path::Key(&self.path, word).to_string(), message);
            self.state.leave_out(node);
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
fn below<'de, S: DeserializeSeed<'de>>(seed: S, node: &Node, path: Path<'_>, state: &State) -> Result<S::Value, Fault> {
    seed.deserialize(Reader { node, path, state, hidden: None }).map_err(|fault| {
        state.take(fault, node, &path);
        Fault::Said
    })
}

struct Elements<'r, 'a> {
    reader: &'r Reader<'a>,
    rest: std::iter::Enumerate<std::slice::Iter<'r, Node>>,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let state = self.reader.state;
        let Some((index, node)) = self.rest.find(|(_, node)| !state.is_out(node)) else { return Ok(None) };
        below(seed, node, Path::Index(&self.reader.path, index), state).map(Some)
    }
}

struct Entries<'a> {
    reader: Reader<'a>,
    entries: std::vec::IntoIter<&'a (super::Key, Node)>,
    made_up: Vec<&'static str>,
    value: Option<Option<&'a (super::Key, Node)>>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        if let Some(entry) = self.entries.next() {
            self.value = Some(Some(entry));
            let key: StrDeserializer<'_, Fault> = (&*entry.0.text).into_deserializer();
            return seed.deserialize(key).map(Some);
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

/// A sink's `format` and its own settings.
struct Split<'a> {
    reader: Reader<'a>,
    format: Option<&'a (super::Key, Node)>,
    step: u8,
}

impl<'de> de::MapAccess<'de> for Split<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.step += if self.step == 0 && self.format.is_none() { 2 } else { 1 };
        let name = match self.step {
            1 => "format",
            2 => "spec",
            _ => return Ok(None),
        };
        let key: StrDeserializer<'_, Fault> = name.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        if let (1, Some((key, node))) = (self.step, self.format) {
            return below(seed, node, Path::Key(&self.reader.path, &key.text), self.reader.state);
        }
        seed.deserialize(Reader { node: self.reader.node, path: self.reader.path, state: self.reader.state, hidden: Some("format") })
    }
}

struct Variant<'r, 'a> {
    reader: &'r Reader<'a>,
    word: &'r str,
    node: Option<&'r Node>,
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
            return Err(Fault::Message(format!("`{0}` needs settings: write {{{0}: …}}", self.word)));
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
struct MadeUp;

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
