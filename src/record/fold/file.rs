//! Folds one file, and says how well it is preserved.

use std::path::Path;

use super::{ReadError, State};
use crate::record::chain::{self, Seal};
use crate::record::files::{Raw, Reader};
use crate::record::line::{Kind, Line, VERSION};

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
}

impl Folded {
    /// Whether its checkpoint is whole, which makes it fit to start from.
    pub fn complete(&self) -> bool {
        self.checkpoint.is_some()
    }
}

/// Reads a file from its checkpoint on.
///
/// # Errors
/// [`ReadError`] where it cannot be read or was written by a newer program; damage is no error.
pub(in crate::record) fn fold_file(path: &Path) -> Result<Folded, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: path.to_owned(), source };
    let mut reader = Reader::open(path).map_err(unreadable)?;
    let mut folded = Folded::default();
    let mut text = Vec::with_capacity(1024);
    let mut unsound = None;
    let mut tail = false;
    loop {
        match reader.next(&mut text).map_err(unreadable)? {
            Raw::End => break,
            Raw::Torn => {
                folded.torn = true;
                break;
            }
            Raw::TooLong => {
                folded.damaged = folded.damaged.or(Some(reader.number + 1));
                break;
            }
            Raw::Line => {}
        }
        // The links are read first: a kind that only a newer program knows still has its place in the chain.
        let link = chain::link(&text);
        let version = link.as_ref().map_or_else(|| chain::version(&text), |link| Some(link.version));
        if let Some(version) = version.filter(|version| *version > VERSION) {
            return Err(ReadError::Newer { path: path.to_owned(), line: reader.number, version });
        }
        let Some(link) = link else {
            unsound = unsound.or(Some(reader.number));
            tail = true;
            continue;
        };
        let follows = reader.number == 1 || (link.seq == folded.state.seq + 1 && link.previous == folded.state.head);
        if !follows || !matches!(chain::seal_of(&text), Seal::Fits(_)) {
            unsound = unsound.or(Some(reader.number));
        }
        // This line can be read: an unsound one at or before it is no torn tail.
        folded.damaged = folded.damaged.or(unsound);
        folded.sound_end = reader.end;
        tail = false;
        let Ok(line) = serde_json::from_slice::<Line>(&text) else {
            folded.state.advance(link.seq, &link.hash, link.time);
            continue;
        };
        folded.state.apply(&line);
        if line.kind == Kind::CheckpointEnd && folded.checkpoint.is_none() {
            folded.checkpoint = Some(reader.end);
        }
    }
    folded.torn |= tail;
    Ok(folded)
}
