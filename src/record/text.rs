//! A line's texts as they stand in the file: whoever folds a million lines keeps few of them, and copies none of the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Borrowed from the line's own bytes; its own where the line has it with escapes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;

        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(Borrowing)
    }
}

/// A text that may be missing.
pub(super) fn text<S: AsRef<str>>(text: Option<&S>) -> Option<&str> {
    text.map(AsRef::as_ref)
}

/// The same, to be kept.
pub(super) fn owned<S: AsRef<str>>(kept: Option<&S>) -> Option<String> {
    text(kept).map(str::to_owned)
}

/// The same, in the room of the one that was kept before.
pub(super) fn assign<S: AsRef<str>>(kept: &mut Option<String>, new: Option<&S>) {
    match (kept, text(new)) {
        (Some(kept), Some(new)) => new.clone_into(kept),
        (kept, new) => *kept = new.map(str::to_owned),
    }
}

/// Labels, to be kept.
pub(super) fn owned_labels<S: AsRef<str>>(labels: &BTreeMap<S, S>) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.as_ref().to_owned(), value.as_ref().to_owned())).collect()
}

/// Whether the labels that are kept are these.
pub(super) fn are_those<S: AsRef<str>>(kept: &BTreeMap<String, String>, new: &BTreeMap<S, S>) -> bool {
    kept.len() == new.len() && kept.iter().zip(new).all(|(kept, new)| kept.0 == new.0.as_ref() && kept.1 == new.1.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_borrowed_unless_it_has_escapes() {
        let texts: [Text<'_>; 2] = serde_json::from_str(r#"["plain", "two\nlines"]"#).unwrap();
        assert_eq!(texts, [Text(Cow::Borrowed("plain")), Text(Cow::Borrowed("two\nlines"))]);
        assert!(matches!(texts, [Text(Cow::Borrowed(_)), Text(Cow::Owned(_))]));
    }

    #[test]
    fn what_is_kept_is_what_came_last() {
        let mut kept = None;
        for new in [Some("a"), Some("bc"), None, Some("")] {
            assign(&mut kept, new.as_ref());
            assert_eq!(kept.as_deref(), new);
        }
        let mut labels = BTreeMap::new();
        for new in [vec![("a", "1"), ("b", "2")], vec![("a", "1")], vec![("a", "2")], vec![("b", "2")], vec![]] {
            let new = new.into_iter().collect();
            assert!(!are_those(&labels, &new));
            labels = owned_labels(&new);
            assert!(are_those(&labels, &new));
        }
    }
}
