//! Walks a folder and finds the first line that is not as it was written.

use std::io;
use std::path::{Path, PathBuf};

use super::{GENESIS, Link, Seal, link, seal_of};
use crate::record::files::{self, Raw, Reader, RecordFile};

/// A folder whose lines are all as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Lines read.
    pub lines: u64,
    /// `previous` of the first line: what the rest hangs on.
    pub anchor: String,
    /// `seq` of the last line.
    pub seq: u64,
    /// `hash` of the last line: to be noted elsewhere.
    pub head: String,
    /// Bytes after the last line of the newest file: a line being written, or one that a crash cut off
    /// before it was acknowledged. No damage.
    pub torn: Option<Torn>,
}

/// Bytes that are no line yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// In which file.
    pub file: PathBuf,
    /// How many.
    pub bytes: u64,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Its bytes are others than were written.
    #[error("changed after it was written: its hash does not fit")]
    Changed,
    /// Its end is missing.
    #[error("cut: it does not end in a hash")]
    Cut,
    /// Lines between the one before and this one are gone.
    #[error("{missing} missing before it (seq {} to {})", expected, expected + missing - 1)]
    Dropped {
        /// `seq` of the first missing one.
        expected: u64,
        /// How many.
        missing: u64,
    },
    /// It stands before or after its place.
    #[error("out of order: seq {found} stands where seq {expected} belongs")]
    Reordered {
        /// The `seq` that belongs there.
        expected: u64,
        /// The `seq` that stands there.
        found: u64,
    },
    /// It fits its own hash, but the hash before it is another than that of the line before.
    #[error("does not follow from the line before it: one of the two was written anew")]
    Replaced,
    /// Its hash fits, but it is no record.
    #[error("not a record")]
    NotARecord,
}

/// Why a folder is not as it was written.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It cannot be read.
    #[error("cannot read records at {}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is damaged.
    #[error("{}:{line}: {damage}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The lines hang together, but the noted head is not among them.
    #[error(
        "no line has the hash {head}: lines are missing at the end (the last one is seq {seq}), or that head is older than what is kept"
    )]
    HeadMissing {
        /// The head asked for.
        head: String,
        /// `seq` of the last line found.
        seq: u64,
    },
}

/// Walks the files in order, one line in memory. With a `head` that was noted earlier the folder must
/// still hold the line with that hash, so that lines cut off at the end show too.
///
/// # Errors
/// [`Broken`], with file and line of the first damage. Errors never quote a line.
pub fn verify(directory: &Path, head: Option<&str>) -> Result<Verified, Broken> {
    let files = files::list(directory).map_err(|source| Broken::Unreadable { path: directory.to_owned(), source })?;
    let mut walk = Walk {
        found: Verified { files: 0, lines: 0, anchor: GENESIS.to_owned(), seq: 0, head: GENESIS.to_owned(), torn: None },
        wanted: head,
        seen: head.is_none(),
    };
    for (index, file) in files.iter().enumerate() {
        walk.file(file, index + 1 == files.len())?;
    }
    match head {
        Some(head) if !walk.seen && walk.found.anchor != head => Err(Broken::HeadMissing { head: head.to_owned(), seq: walk.found.seq }),
        _ => Ok(walk.found),
    }
}

struct Walk<'a> {
    found: Verified,
    wanted: Option<&'a str>,
    seen: bool,
}

impl Walk<'_> {
    fn file(&mut self, file: &RecordFile, newest: bool) -> Result<(), Broken> {
        let unreadable = |source| Broken::Unreadable { path: file.path.clone(), source };
        let broken = |line, damage| Broken::Line { file: file.path.clone(), line, damage };
        let mut reader = Reader::open(&file.path).map_err(unreadable)?;
        let mut text = Vec::with_capacity(1024);
        self.found.files += 1;
        loop {
            match reader.next(&mut text).map_err(unreadable)? {
                Raw::End => return Ok(()),
                Raw::Torn if newest => {
                    self.found.torn = Some(Torn { file: file.path.clone(), bytes: text.len() as u64 });
                    return Ok(());
                }
                Raw::Torn | Raw::TooLong => return Err(broken(reader.number + 1, Damage::Cut)),
                Raw::Line => {}
            }
            match self.line(&text) {
                Ok(()) => {}
                Err(Damage::Dropped { expected, missing }) => {
                    let line = reader.number;
                    let moved = stands_later(&mut reader, expected).map_err(unreadable)?;
                    let found = expected + missing;
                    return Err(broken(
                        line,
                        if moved { Damage::Reordered { expected, found } } else { Damage::Dropped { expected, missing } },
                    ));
                }
                Err(damage) => return Err(broken(reader.number, damage)),
            }
        }
    }

    fn line(&mut self, text: &[u8]) -> Result<(), Damage> {
        let hash = match seal_of(text) {
            Seal::Fits(hash) => hash,
            Seal::Wrong => return Err(Damage::Changed),
            Seal::Missing => return Err(Damage::Cut),
        };
        let Link { seq, previous, .. } = link(text).ok_or(Damage::NotARecord)?;
        if self.found.lines == 0 {
            self.found.anchor.clone_from(&previous);
        } else if seq > self.found.seq + 1 {
            return Err(Damage::Dropped { expected: self.found.seq + 1, missing: seq - self.found.seq - 1 });
        } else if seq <= self.found.seq {
            return Err(Damage::Reordered { expected: self.found.seq + 1, found: seq });
        } else if previous != self.found.head {
            return Err(Damage::Replaced);
        }
        self.seen = self.seen || self.wanted == Some(hash);
        self.found.lines += 1;
        self.found.seq = seq;
        hash.clone_into(&mut self.found.head);
        Ok(())
    }
}

/// Whether the line with that `seq` comes later in the file: then it was moved, not dropped.
fn stands_later(reader: &mut Reader, seq: u64) -> io::Result<bool> {
    let mut text = Vec::new();
    while reader.next(&mut text)? == Raw::Line {
        if link(&text).is_some_and(|link| link.seq == seq) {
            return Ok(true);
        }
    }
    Ok(false)
}
