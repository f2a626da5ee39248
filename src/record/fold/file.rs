//! Folds one file, and says how well it is preserved.

use std::path::Path;

use super::blocks::{self, Parsed};
use super::{ReadError, State};
use crate::record::line::Kind;

/// What a file amounts to.
#[derive(Debug, Default)]
pub(in crate::record) struct Folded {
    /// The fold of its lines.
    pub state: State,
    /// Size of its checkpoint in bytes; nothing where the checkpoint lacks its end.
    pub checkpoint: Option<u64>,
    /// Where its last sound line ends.
    pub sound_end: u64,
    /// Lines with sound ones after them that do not fit the chain: the first such line, from 1.
    pub damaged: Option<u64>,
    /// Whether something that is no sound line stands after the last sound one.
    pub torn: bool,
    /// Lines read.
    number: u64,
    /// Where the last line read ends.
    end: u64,
    /// The first line that does not fit the chain.
    unsound: Option<u64>,
    /// Whether the last line is no line of the records.
    tail: bool,
}

impl Folded {
    /// Whether its checkpoint is whole, which makes it fit to start from.
    pub fn complete(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Takes the next line; whether to go on, or the version of a newer program that wrote it.
    fn take(&mut self, parsed: &Parsed<'_>, bytes: u64) -> Result<bool, u32> {
        self.number += 1;
        self.end += bytes;
        let (seq, previous, fits) = match parsed {
            Parsed::Newer(version) => return Err(*version),
            Parsed::Torn => {
                self.torn = true;
                return Ok(false);
            }
            Parsed::TooLong => {
                self.damaged = self.damaged.or(Some(self.number));
                return Ok(false);
            }
            Parsed::Unsound => {
                self.unsound = self.unsound.or(Some(self.number));
                self.tail = true;
                return Ok(true);
            }
            Parsed::Line(line, fits) => (line.seq, line.previous.as_ref(), *fits),
            Parsed::Link(link, fits) => (link.seq, link.previous.as_str(), *fits),
        };
        let follows = self.number == 1 || (seq == self.state.seq + 1 && previous == self.state.head);
        if !follows || !fits {
            self.unsound = self.unsound.or(Some(self.number));
        }
        // This line can be read: an unsound one at or before it is no torn tail.
        self.damaged = self.damaged.or(self.unsound);
        self.sound_end = self.end;
        self.tail = false;
        match parsed {
            Parsed::Line(line, _) => {
                self.state.apply(line);
                if line.kind == Kind::CheckpointEnd && self.checkpoint.is_none() {
                    self.checkpoint = Some(self.end);
                }
            }
            Parsed::Link(link, _) => self.state.advance(link.seq, &link.hash, link.time),
            _ => {}
        }
        Ok(true)
    }
}

/// Reads a file from its checkpoint on.
///
/// # Errors
/// [`ReadError`] where it cannot be read or was written by a newer program; damage is no error.
pub(in crate::record) fn fold_file(path: &Path) -> Result<Folded, ReadError> {
    let (mut folded, mut newer) = (Folded::default(), None);
    let read = blocks::read(path, |parsed, bytes| {
        folded.take(parsed, bytes).unwrap_or_else(|version| {
            newer = Some(version);
            false
        })
    });
    read.map_err(|source| ReadError::Unreadable { path: path.to_owned(), source })?;
    if let Some(version) = newer {
        return Err(ReadError::Newer { path: path.to_owned(), line: folded.number, version });
    }
    folded.torn |= folded.tail;
    Ok(folded)
}
