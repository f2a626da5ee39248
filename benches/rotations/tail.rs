//! The records of a running daemon as they come, read once each: what measures takes no CPU from what is measured.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Rotations that were recorded so far.
pub struct Tail {
    directory: PathBuf,
    /// How far each file was read.
    read: BTreeMap<PathBuf, u64>,
    /// Lines of kind `rotated`.
    pub rotated: usize,
    /// Lines of kind `failed`, and rotations of which a place was not written.
    pub failed: usize,
    /// What the first of those says.
    pub failure: Option<String>,
    /// When the last of them was recorded.
    pub last: Option<Timestamp>,
}

impl Tail {
    /// Of that folder, which need not be there yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), read: BTreeMap::new(), rotated: 0, failed: 0, failure: None, last: None }
    }

    /// Takes in what was written since the last look.
    pub fn look(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
        files.sort();
        for file in files {
            let text = self.fresh(&file);
            for line in text.lines() {
                self.take(line);
            }
        }
    }

    /// Whole lines of a file that are new.
    fn fresh(&mut self, file: &Path) -> String {
        let from = self.read.entry(file.to_owned()).or_default();
        let mut bytes = Vec::new();
        let read = std::fs::File::open(file).and_then(|mut f| {
            f.seek(SeekFrom::Start(*from))?;
            f.read_to_end(&mut bytes)
        });
        if let Err(error) = read {
            // Closed files go when they are old.
            assert!(error.kind() == std::io::ErrorKind::NotFound, "{}: {error}", file.display());
        }
        bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
        *from += bytes.len() as u64;
        String::from_utf8(bytes).expect("records are text")
    }

    fn take(&mut self, line: &str) {
        let rotated = match field(line, "kind") {
            Some("rotated") => true,
            Some("failed") => false,
            _ => return,
        };
        self.rotated += usize::from(rotated);
        if !rotated || line.contains(r#""outcome":"owed""#) || line.contains(r#""outcome":"fellBack""#) {
            self.failed += 1;
            self.failure.get_or_insert_with(|| field(line, "error").unwrap_or("it fell back").to_owned());
        }
        let time = field(line, "time").and_then(|t| t.parse().ok());
        self.last = self.last.max(time);
    }
}

/// The first text of that key: a line opens with its own `time` and `kind`, and no text in a record holds a quote
/// that is not escaped.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{key}\":\""))?;
    rest.split('"').next()
}
