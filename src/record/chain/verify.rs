//! Walks a folder and finds the first line that is not as it was written.

use std::io;
use std::path::{Path, PathBuf};

use super::{GENESIS, Link, Seal, link, seal_of, version};
use crate::record::files::{self, Raw, Reader, RecordFile};
use crate::record::line::VERSION;

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
    /// A later program wrote it, in a form that this one does not know.
    #[error("a record of version {0}, which a newer tokenferry wrote: verify it with that one")]
    Newer(u32),
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
    /// A signature does not fit its line.
    #[error("{}:{line}: the signature {why}", file.display())]
    Signature {
        /// The file of signatures.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The lines hang together, but no signature covers the last of them.
    #[error("no signature covers seq {first} to {last}: they were written without the key, or it could not be read")]
    Unsigned {
        /// `seq` of the first line that none covers.
        first: u64,
        /// `seq` of the last line.
        last: u64,
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
        if self.found.lines == 0 {
            // The name says which line came first: nothing may be missing before it.
            self.found.seq = file.first.saturating_sub(1);
        }
        loop {
            match reader.next(&mut text).map_err(unreadable)? {
                Raw::End if reader.number == 0 && !newest => return Err(broken(1, Damage::Cut)),
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
        let unknown = || match version(text) {
            Some(version) if version > VERSION => Damage::Newer(version),
            _ => Damage::NotARecord,
        };
        let Link { seq, previous, .. } = link(text).ok_or_else(unknown)?;
        let expected = self.found.seq + 1;
        if seq > expected {
            return Err(Damage::Dropped { expected, missing: seq - expected });
        } else if seq < expected {
            return Err(Damage::Reordered { expected, found: seq });
        } else if self.found.lines == 0 {
            self.found.anchor = previous;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::*;
    use crate::record::chain::seal;
    use crate::record::line::{Kind, Line};

    /// Two files of five lines each, seq 1 to 10, and the hash of each line.
    fn folder() -> (TempDir, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let mut hashes = vec![GENESIS.to_owned()];
        for first in [1, 6] {
            let mut text = Vec::new();
            for seq in first..first + 5 {
                let mut line = Line { target: Some(format!("secret-{seq}")), ..Line::new(Kind::Retired, Timestamp::UNIX_EPOCH) };
                seal(&mut line, seq, &hashes[hashes.len() - 1].clone(), &mut text);
                hashes.push(line.hash);
            }
            fs::write(directory.path().join(files::name(first)), text).unwrap();
        }
        (directory, hashes)
    }

    fn edit(directory: &TempDir, first: u64, change: impl FnOnce(&mut Vec<String>)) {
        let path = directory.path().join(files::name(first));
        let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines);
        fs::write(path, lines.into_iter().map(|line| line + "\n").collect::<String>()).unwrap();
    }

    /// The damage that is found, where; the message names both and quotes nothing of the line.
    fn damage(directory: &TempDir) -> (u64, u64, Damage) {
        let error = verify(directory.path(), None).unwrap_err();
        let text = error.to_string();
        let Broken::Line { file, line, damage } = error else { panic!("{text}") };
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(&format!("{name}:{line}: ")) && !text.contains("secret-"), "{text}");
        (name["records-".len()..][..12].parse().unwrap(), line, damage)
    }

    #[test]
    fn an_untouched_folder_is_sound() {
        let (directory, hashes) = folder();
        let found = verify(directory.path(), Some(&hashes[10])).unwrap();
        assert_eq!((found.files, found.lines, found.seq), (2, 10, 10));
        assert_eq!((found.anchor.as_str(), &found.head, found.torn), (GENESIS, &hashes[10], None));
    }

    #[test]
    fn a_changed_line_is_named() {
        let (directory, _) = folder();
        edit(&directory, 6, |lines| lines[2] = lines[2].replace("secret-8", "secret-9"));
        assert_eq!(damage(&directory), (6, 3, Damage::Changed));
    }

    #[test]
    fn a_line_changed_with_a_new_hash_of_its_own_is_named_by_the_next() {
        let (directory, hashes) = folder();
        edit(&directory, 1, |lines| {
            let mut line: Line = serde_json::from_str(&lines[1]).unwrap();
            line.target = Some("another".to_owned());
            let mut text = Vec::new();
            seal(&mut line, 2, &hashes[1], &mut text);
            lines[1] = String::from_utf8(text).unwrap().trim_end().to_owned();
        });
        assert_eq!(damage(&directory), (1, 3, Damage::Replaced));
    }

    #[test]
    fn a_cut_line_is_named() {
        let (directory, _) = folder();
        edit(&directory, 1, |lines| lines[3].truncate(40));
        assert_eq!(damage(&directory), (1, 4, Damage::Cut));
    }

    #[test]
    fn a_dropped_line_is_named_by_the_next() {
        let (directory, _) = folder();
        edit(&directory, 1, |lines| drop(lines.remove(2)));
        assert_eq!(damage(&directory), (1, 3, Damage::Dropped { expected: 3, missing: 1 }));
    }

    #[test]
    fn lines_dropped_at_the_end_of_a_closed_file_show_in_the_next_file() {
        let (directory, _) = folder();
        edit(&directory, 1, |lines| lines.truncate(3));
        assert_eq!(damage(&directory), (6, 1, Damage::Dropped { expected: 4, missing: 2 }));
    }

    #[test]
    fn a_dropped_first_line_or_an_emptied_file_is_no_mere_keeping() {
        let (directory, _) = folder();
        edit(&directory, 1, |lines| drop(lines.drain(..2)));
        assert_eq!(damage(&directory), (1, 1, Damage::Dropped { expected: 1, missing: 2 }));
        edit(&directory, 1, Vec::clear);
        assert_eq!(damage(&directory), (1, 1, Damage::Cut));
    }

    #[test]
    fn a_reordered_line_is_named() {
        let (directory, _) = folder();
        edit(&directory, 6, |lines| lines.swap(1, 3));
        assert_eq!(damage(&directory), (6, 2, Damage::Reordered { expected: 7, found: 9 }));
    }

    #[test]
    fn a_line_said_twice_is_named() {
        let (directory, _) = folder();
        edit(&directory, 6, |lines| lines.insert(2, lines[1].clone()));
        assert_eq!(damage(&directory), (6, 3, Damage::Reordered { expected: 8, found: 7 }));
    }

    #[test]
    fn a_closed_file_may_not_end_in_half_a_line() {
        let (directory, _) = folder();
        let path = directory.path().join(files::name(1));
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert_eq!(damage(&directory), (1, 5, Damage::Cut));
    }

    #[test]
    fn half_a_line_at_the_end_of_the_newest_file_is_told_but_no_damage() {
        let (directory, hashes) = folder();
        let path = directory.path().join(files::name(6));
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() - 1]).unwrap();
        let found = verify(directory.path(), None).unwrap();
        assert_eq!((found.seq, &found.head), (9, &hashes[9]));
        assert_eq!(found.torn.unwrap().file, path);
    }

    #[test]
    fn removing_the_oldest_file_whole_is_no_damage() {
        let (directory, hashes) = folder();
        fs::remove_file(directory.path().join(files::name(1))).unwrap();
        assert_eq!(verify(directory.path(), Some(&hashes[10])).unwrap().anchor, hashes[5]);
    }

    #[test]
    fn lines_cut_off_at_the_end_show_only_by_the_head() {
        let (directory, hashes) = folder();
        edit(&directory, 6, |lines| lines.truncate(3));
        assert_eq!(verify(directory.path(), None).unwrap().seq, 8);
        let error = verify(directory.path(), Some(&hashes[10])).unwrap_err();
        assert!(matches!(&error, Broken::HeadMissing { head, seq: 8 } if *head == hashes[10]), "{error}");
        fs::remove_file(directory.path().join(files::name(6))).unwrap();
        assert!(matches!(verify(directory.path(), Some(&hashes[8])), Err(Broken::HeadMissing { seq: 5, .. })));
    }

    #[test]
    fn a_head_noted_earlier_still_fits() {
        let (directory, hashes) = folder();
        for head in &hashes {
            verify(directory.path(), Some(head)).unwrap();
        }
    }
}
