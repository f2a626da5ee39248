//! The files of a records folder: their names, their order, and their lines one at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};

use super::chain;

/// Longest line that is read, in bytes: a `reloaded` line with 100,000 names is a tenth of it.
pub(super) const LONGEST: u64 = 32 << 20;

/// One file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordFile {
    /// `seq` of its first line.
    pub first: u64,
    /// Its name in the folder.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// The name of a file whose first line has that `seq`. Twelve digits, so that names sort as numbers do.
pub(super) fn name(first: u64) -> String {
    format!("records-{first:012}.jsonl")
}

/// Every records file of a folder, oldest first; whatever else lies there is passed over.
pub(super) fn list(directory: &Path) -> io::Result<Vec<RecordFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let digits = name.strip_prefix("records-").and_then(|rest| rest.strip_suffix(".jsonl"));
        let Some(first) = digits.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok()) else {
            continue;
        };
        files.push(RecordFile { first, name, path: entry.path() });
    }
    files.sort_by_key(|file| file.first);
    Ok(files)
}

/// When a file was begun: the time of its first line, where that can be read.
pub(super) fn begin(path: &Path) -> Option<Timestamp> {
    let mut text = Vec::new();
    let raw = Reader::open(path).ok()?.next(&mut text).ok()?;
    (raw == Raw::Line).then(|| chain::link(&text))?.map(|link| link.time)
}

/// Opens a file for reading, never through a symbolic link.
pub(super) fn open(path: &Path) -> io::Result<File> {
    Ok(File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?))
}

/// What stands at the reader's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
    /// A line, its newline taken off.
    Line,
    /// Bytes without a newline at the file's end: being written, or torn.
    Torn,
    /// More than any line may hold without a newline.
    TooLong,
    /// Nothing more, for now.
    End,
}

/// Reads a file line by line, one line in memory.
#[derive(Debug)]
pub(super) struct Reader {
    input: BufReader<File>,
    /// Lines read.
    pub number: u64,
    /// Where the last line read ends, in bytes from the file's start.
    pub end: u64,
}

impl Reader {
    /// Opens a file, never through a symbolic link.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { input: BufReader::with_capacity(64 << 10, open(path)?), number: 0, end: 0 })
    }

    /// Puts the next line into `line`. After `Torn` or `End` the same place is read again, so that what is
    /// appended later is found.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Raw> {
        line.clear();
        let read = (&mut self.input).take(LONGEST).read_until(b'\n', line)? as u64;
        if line.last() == Some(&b'\n') {
            line.pop();
            self.number += 1;
            self.end += read;
            return Ok(Raw::Line);
        }
        self.input.seek(SeekFrom::Start(self.end))?;
        Ok(match read {
            0 => Raw::End,
            LONGEST => Raw::TooLong,
            _ => Raw::Torn,
        })
    }
}
