//! Changes of a kubeconfig's text, each of them the least: a value replaced where it stands, or lines put in. What
//! came out is read again and compared, so that an edit that touched more than it should is refused, not written.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::tree::{Node, Value, parse};
use super::{Entry, Unmergeable, flow, is_blank, quoted};

type Text = Zeroizing<String>;

/// The text with the entries set; `whole` where it has nothing but comments.
pub(super) fn merged(text: &str, entries: &[Entry<'_>], context: &str, whole: &str) -> Result<Text, Unmergeable> {
    if text.trim_start_matches('\u{feff}').lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(Zeroizing::new([text, gap, whole].concat()));
    }
    let before = parse(text)?;
    if !matches!(before.value, Value::Map(_)) || before.get("kind").is_some_and(|kind| kind.text() != Some("Config")) {
        return Err(Unmergeable("it is no kubeconfig".into()));
    }
    if before.entries().is_empty() {
        let end = text[before.start..].find('}').map_or(text.len(), |at| before.start + at + 1);
        return Ok(replaced(text, before.start..end, whole));
    }
    let mut wanted = meaning(&before);
    let mut now = Zeroizing::new(text.to_owned());
    for entry in entries {
        now = set_entry(now, entry)?;
        wanted.set(entry)?;
    }
    now = set_current(now, context)?;
    wanted.choose(context);
    if meaning(&parse(&now)?) == wanted {
        return Ok(now);
    }
    Err(Unmergeable(
        "it is written in a way that cannot be changed without touching more than our entries: write it in plain block style".into(),
    ))
}

/// Sets one entry of one list.
fn set_entry(text: Text, entry: &Entry<'_>) -> Result<Text, Unmergeable> {
    let root = parse(&text)?;
    let Some((key, list)) = root.entry(entry.list) else { return Ok(append_list(&text, &root, entry)) };
    if is_blank(list) {
        return Ok(fill(&text, key, list, &["[", &entry.flow(), "]"].concat()));
    }
    let Some(found) = list.elements().iter().find(|element| element.get("name").and_then(Node::text) == Some(entry.name)) else {
        return append_element(&text, &root, key, list, entry);
    };
    let missing = || Unmergeable(format!("its entry `{}` under `{}` has no `{}`: take it out", entry.name, entry.list, entry.inner));
    let (inner_key, inner) = found.entry(entry.inner).ok_or_else(missing)?;
    if is_blank(inner) {
        return Ok(fill(&text, inner_key, inner, &flow(&entry.fields)));
    }
    if entry.inner == "cluster" && inner.get("insecure-skip-tls-verify").and_then(Node::text) == Some("true") {
        return Err(Unmergeable(format!("its cluster `{}` has insecure-skip-tls-verify, which excludes a CA: take it out", entry.name)));
    }
    let mut text = text;
    for (field, value) in &entry.fields {
        text = set_field(text, entry, field, value)?;
    }
    Ok(text)
}

/// Sets one field of an entry that is there.
fn set_field(text: Text, entry: &Entry<'_>, field: &str, value: &str) -> Result<Text, Unmergeable> {
    let root = parse(&text)?;
    let elements = root.get(entry.list).map(Node::elements).unwrap_or_default();
    let found = elements.iter().find(|element| element.get("name").and_then(Node::text) == Some(entry.name));
    let odd = || Unmergeable(format!("its entry `{}` under `{}` is written in a way that we do not change", entry.name, entry.list));
    let inner = found.and_then(|found| found.get(entry.inner)).filter(|inner| inner.own).ok_or_else(odd)?;
    match inner.entry(field) {
        Some((_, held)) if held.text() == Some(value) => Ok(text),
        Some((key, held)) if held.own && is_blank(held) => Ok(fill(&text, key, held, &quoted(value))),
        Some((_, held)) if held.own && held.text().is_some() => Ok(replaced(&text, held.bytes(&text), &quoted(value))),
        Some(_) => Err(odd()),
        None => {
            let (first, _) = inner.entries().first().ok_or_else(odd)?;
            Ok(before_key(&text, inner, first.start, field, &quoted(value)))
        }
    }
}

/// Puts a key with its value before the first key of a map.
fn before_key(text: &Text, map: &Node, first: usize, key: &str, value: &str) -> Text {
    let put = if text[map.start..].starts_with('{') {
        Zeroizing::new(format!("\"{key}\": {value}, "))
    } else {
        Zeroizing::new(format!("{key}: {value}{}{}", newline(text), " ".repeat(column(text, first))))
    };
    replaced(text, first..first, &put)
}

fn set_current(text: Text, context: &str) -> Result<Text, Unmergeable> {
    let root = parse(&text)?;
    let value = quoted(context);
    match root.entry("current-context") {
        Some((key, held)) if is_blank(held) => Ok(fill(&text, key, held, &value)),
        Some((_, held)) if held.text() == Some("") => Ok(replaced(&text, held.bytes(&text), &value)),
        Some(_) => Ok(text),
        None => {
            let first = root.entries().first().map_or(0, |(key, _)| key.start);
            Ok(before_key(&text, &root, first, "current-context", &value))
        }
    }
}

/// A list that is not there yet: as the last key of the file, or the first in flow style.
fn append_list(text: &Text, root: &Node, entry: &Entry<'_>) -> Text {
    let first = root.entries().first().map_or(0, |(key, _)| key.start);
    if text[root.start..].starts_with('{') {
        return before_key(text, root, first, entry.list, &["[", &entry.flow(), "]"].concat());
    }
    let (indent, newline) = (" ".repeat(column(text, first)), newline(text));
    let list = [&*indent, entry.list, ":", newline, &*entry.block(&indent, newline)].concat();
    insert_lines(text, end_of(text, first, None), &list)
}

/// One more element of a list that has some: the last in block style, the first in flow style.
fn append_element(text: &Text, root: &Node, key: &Node, list: &Node, entry: &Entry<'_>) -> Result<Text, Unmergeable> {
    let first = list.elements().first().map_or(list.start, |element| element.start);
    if !list.own {
        return Err(Unmergeable(format!("its `{}` stand elsewhere, by an alias: write them out", entry.list)));
    }
    if text[list.start..].starts_with('[') {
        return Ok(replaced(text, first..first, &[&*entry.flow(), ", "].concat()));
    }
    // Of an element in block style the dash stands before it, with nothing but space between.
    let before = text[..first].trim_end();
    let Some(dash) = before.strip_suffix('-').map(str::len) else {
        return Err(Unmergeable(format!(
            "its `{}` are written in a way that we do not change: write them in plain block style",
            entry.list
        )));
    };
    let indent = " ".repeat(column(text, dash));
    let next = root.entries().iter().map(|(other, _)| other.start).filter(|other| *other > key.start).min();
    Ok(insert_lines(text, end_of(text, key.start, next), &entry.block(&indent, newline(text))))
}

/// Where the value of the key that stands at `start` ends, in block style: before the comments and empty lines in
/// front of the next key, or at the end of the document.
fn end_of(text: &str, start: usize, next: Option<usize>) -> usize {
    let limit = next.map_or(text.len(), |next| text[..next].rfind('\n').map_or(0, |at| at + 1)).max(start);
    let (mut end, mut at) = (start, start);
    for line in text[start..limit].split_inclusive('\n') {
        if at > start && (line.starts_with("...") || line.starts_with("---")) {
            break;
        }
        at += line.len();
        let shown = line.trim();
        let outside = shown.starts_with('#') && column_of_text(line) <= column(text, start);
        if !shown.is_empty() && !outside {
            end = at;
        }
    }
    end
}

fn column_of_text(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The empty value of a key gets one.
fn fill(text: &Text, key: &Node, held: &Node, value: &str) -> Text {
    let after_key = key.bytes(text).end;
    let colon = after_key + text[after_key..].find(':').map_or(0, |at| at + 1);
    let rest = &text[colon..];
    let gap = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let written = &rest[gap..];
    let empty = match (&held.value, written.as_bytes().first()) {
        (Value::List(_) | Value::Map(_), Some(b'[' | b'{')) => written.find([']', '}']).map_or(0, |end| end + 1),
        (Value::Null, _) => ["null", "Null", "NULL", "~"].into_iter().find(|word| written.starts_with(word)).map_or(0, str::len),
        _ => 0,
    };
    let value = Zeroizing::new(format!(" {value}"));
    replaced(text, colon..colon + if empty > 0 { gap + empty } else { 0 }, &value)
}

fn insert_lines(text: &Text, at: usize, lines: &str) -> Text {
    let gap = if text[..at].ends_with('\n') { "" } else { newline(text) };
    replaced(text, at..at, &Zeroizing::new([gap, lines].concat()))
}

fn replaced(text: &str, range: std::ops::Range<usize>, with: &str) -> Text {
    let mut whole = Zeroizing::new(String::with_capacity(text.len() + with.len()));
    whole.push_str(&text[..range.start]);
    whole.push_str(with);
    whole.push_str(&text[range.end..]);
    whole
}

/// As the file ends its lines.
fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Characters before a byte in its line; what stands before keys and dashes is ASCII.
fn column(text: &str, at: usize) -> usize {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[line..at].chars().filter(|c| *c != '\u{feff}').count()
}

/// What a kubeconfig means, whatever its order and style.
#[derive(PartialEq)]
enum Meaning {
    Null,
    Text(Zeroizing<String>),
    List(Vec<Meaning>),
    Map(BTreeMap<String, Meaning>),
}

fn meaning(node: &Node) -> Meaning {
    match &node.value {
        Value::Null => Meaning::Null,
        Value::Scalar(text) => Meaning::Text(text.clone()),
        Value::List(list) => Meaning::List(list.iter().map(meaning).collect()),
        Value::Map(map) => {
            Meaning::Map(map.iter().map(|(key, value)| (key.text().unwrap_or_default().to_owned(), meaning(value))).collect())
        }
    }
    .sorted()
}

impl Meaning {
    /// Lists of named things, by name: a new one may stand first or last.
    fn sorted(mut self) -> Self {
        if let Self::List(list) = &mut self
            && list.iter().all(|element| element.name().is_some())
        {
            list.sort_by(|a, b| a.name().cmp(&b.name()));
        }
        self
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Map(map) => map.get("name").and_then(|name| if let Self::Text(text) = name { Some(text.as_str()) } else { None }),
            _ => None,
        }
    }

    fn map(&mut self) -> Result<&mut BTreeMap<String, Meaning>, Unmergeable> {
        if matches!(self, Self::Null) {
            *self = Self::Map(BTreeMap::new());
        }
        if let Self::Map(map) = self { Ok(map) } else { Err(Unmergeable("something else than settings stands where some belong".into())) }
    }

    fn set(&mut self, entry: &Entry<'_>) -> Result<(), Unmergeable> {
        let list = self.map()?.entry(entry.list.into()).or_insert(Self::Null);
        if matches!(list, Self::Null) || matches!(list, Self::Map(map) if map.is_empty()) {
            *list = Self::List(Vec::new());
        }
        let Self::List(elements) = list else { return Err(Unmergeable(format!("its `{}` are no list", entry.list))) };
        let at = elements.iter().position(|element| element.name() == Some(entry.name)).unwrap_or_else(|| {
            elements.push(Self::Map(BTreeMap::from([("name".into(), Self::Text(Zeroizing::new(entry.name.to_owned())))])));
            elements.len() - 1
        });
        let inner = elements[at].map()?.entry(entry.inner.into()).or_insert(Self::Null).map()?;
        for (key, value) in &entry.fields {
            inner.insert((*key).into(), Self::Text(Zeroizing::new((*value).to_owned())));
        }
        let taken = std::mem::replace(list, Self::Null);
        *list = taken.sorted();
        Ok(())
    }

    /// The context becomes the current one where none is.
    fn choose(&mut self, context: &str) {
        let Self::Map(map) = self else { return };
        let none = match map.get("current-context") {
            None | Some(Self::Null) => true,
            Some(Self::Text(text)) => text.is_empty(),
            Some(Self::List(list)) => list.is_empty(),
            Some(Self::Map(map)) => map.is_empty(),
        };
        if none {
            map.insert("current-context".into(), Self::Text(Zeroizing::new(context.to_owned())));
        }
    }
}
