//! The texts of a schedule, cut into parts that are parsed side by side and known again.

use std::collections::BTreeMap;

use super::Sources;
use super::memo::{Digest, digest};
use crate::schedule::yaml::{self, Piece};

/// Bytes of a long list that are parsed as one piece, at least.
const PIECE: usize = 64 << 10;

/// A text: the number of its file, the text, and whether it is nothing but targets.
pub(super) type Text<'a> = (usize, &'a str, bool);

/// A text, or a piece of it.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub text: Text<'a>,
    pub piece: Option<Piece<'a>>,
    /// Of what it says in its file.
    pub digest: Digest,
    /// Whether it was planned before.
    pub known: bool,
    /// Whether it is the last one of its file.
    pub last: bool,
}

/// A schedule's parts.
pub(super) struct Texts<'a> {
    /// Of all that gives the parts their meaning.
    pub head: Digest,
    pub parts: Vec<Part<'a>>,
}

impl<'a> Texts<'a> {
    pub(super) fn of(sources: &'a Sources, variables: &BTreeMap<String, String>) -> Self {
        let includes = sources.includes.iter().map(|(path, text)| (path, text, true));
        let texts = std::iter::once((&sources.path, &sources.text, false)).chain(includes);
        let (mut parts, mut head) = (Vec::new(), sources.text.as_str());
        for (file, (path, text, whole)) in texts.enumerate() {
            let text: Text<'_> = (file, text, whole);
            let part = |piece: Option<Piece<'a>>| {
                let digest = digest(path, piece.map_or(text.1, |piece| piece.text));
                Part { text, piece, digest, known: false, last: false }
            };
            match yaml::pieces(text.1, whole, PIECE) {
                Some(pieces) => {
                    if !whole {
                        head = &text.1[..text.1.len() - pieces.iter().map(|piece| piece.text.len()).sum::<usize>()];
                    }
                    parts.extend(pieces.into_iter().map(|piece| part(Some(piece))));
                }
                None => parts.push(part(None)),
            }
            if let Some(last) = parts.last_mut() {
                last.last = true;
            }
        }
        let given: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Self { head: digest(&sources.path, &(given + head)), parts }
    }
}
