//! Questions to the history: which lines of a folder fit.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::files::{self, Raw, Reader};
use super::fold::ReadError;
use super::line::{Kind, Line};

/// How far times may run backwards from file to file (a clock set back) before lines are passed over.
const CLOCK_STEP: SignedDuration = SignedDuration::from_hours(24);

/// What is asked for; what is left empty asks for everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// Lines from then on.
    pub since: Option<Timestamp>,
    /// Lines before then.
    pub until: Option<Timestamp>,
    /// Names of targets, or globs (`*` any characters, `?` one). Lines about no target fit none.
    pub targets: Vec<String>,
    /// Kinds. Checkpoints are no events: they come only when asked for.
    pub kinds: Vec<Kind>,
    /// Lines that name that token.
    pub jti: Option<String>,
}

impl Query {
    /// Whether a line is asked for.
    pub fn matches(&self, line: &Line) -> bool {
        let kind = match line.kind {
            Kind::Checkpoint | Kind::CheckpointEnd => self.kinds.contains(&line.kind),
            kind => self.kinds.is_empty() || self.kinds.contains(&kind),
        };
        let time = self.since.is_none_or(|since| line.time >= since) && self.until.is_none_or(|until| line.time < until);
        let target = self.targets.is_empty() || line.target.as_ref().is_some_and(|name| self.targets.iter().any(|glob| fits(glob, name)));
        let token =
            self.jti.as_ref().is_none_or(|jti| line.jti.as_ref() == Some(jti) || line.sinks.iter().any(|s| s.jti.as_ref() == Some(jti)));
        kind && time && target && token
    }
}

/// Whether a name fits a glob: `*` stands for any characters, `?` for one.
pub fn fits(glob: &str, name: &str) -> bool {
    let (glob, name) = (glob.as_bytes(), name.as_bytes());
    let (mut g, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                g += 1;
                n += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                g = at + 1;
                n = from + 1;
            }
        }
    }
    glob[g..].iter().all(|&byte| byte == b'*')
}

/// The lines that a query asks for, oldest first, one in memory at a time.
///
/// `None` means: nothing more for now. Asking again later goes on where it stopped, over roll-overs too;
/// a line that is still being written is not given out before its end is there.
#[derive(Debug)]
pub struct Lines {
    directory: PathBuf,
    query: Query,
    current: Option<(files::RecordFile, Reader)>,
    text: Vec<u8>,
}

/// Opens a folder's history without taking its lock.
///
/// # Errors
/// [`ReadError`] where the folder cannot be read.
pub fn lines(directory: &Path, query: Query) -> Result<Lines, ReadError> {
    let mut lines = Lines { directory: directory.to_owned(), query, current: None, text: Vec::new() };
    let files = lines.files()?;
    if let Some(first) = lines.first_of_interest(&files) {
        lines.current = Some(open(first)?);
    }
    Ok(lines)
}

impl Iterator for Lines {
    type Item = Result<Line, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.any_line() {
                Ok(Some(line)) if self.query.matches(&line) => return Some(Ok(line)),
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Lines {
    fn any_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if let Some(line) = self.line_here()? {
                return Ok(Some(line));
            }
            let after = self.current.as_ref().map_or(0, |(file, _)| file.first + 1);
            let Some(next) = self.files()?.into_iter().find(|file| file.first >= after) else { return Ok(None) };
            // The file was still written to until the next one stood there.
            if let Some(line) = self.line_here()? {
                return Ok(Some(line));
            }
            self.current = Some(open(&next)?);
        }
    }

    fn line_here(&mut self) -> Result<Option<Line>, ReadError> {
        let Some((file, reader)) = &mut self.current else { return Ok(None) };
        let unreadable = |source| ReadError::Unreadable { path: file.path.clone(), source };
        match reader.next(&mut self.text).map_err(unreadable)? {
            Raw::End | Raw::Torn => Ok(None),
            Raw::TooLong => Err(ReadError::NotARecord { path: file.path.clone(), line: reader.number + 1 }),
            Raw::Line => {
                let line = serde_json::from_slice(&self.text);
                line.map(Some).map_err(|_| ReadError::NotARecord { path: file.path.clone(), line: reader.number })
            }
        }
    }

    fn files(&self) -> Result<Vec<files::RecordFile>, ReadError> {
        files::list(&self.directory).map_err(|source| ReadError::Unreadable { path: self.directory.clone(), source })
    }

    /// A file ends where the next one begins: those that ended well before `since` are not opened.
    fn first_of_interest<'a>(&self, files: &'a [files::RecordFile]) -> Option<&'a files::RecordFile> {
        let Some(since) = self.query.since else { return files.first() };
        let over = |file: &files::RecordFile| {
            files::begin(&file.path).is_some_and(|begin| begin.saturating_add(CLOCK_STEP).is_ok_and(|t| t < since))
        };
        let passed = files.iter().skip(1).take_while(|next| over(next)).count();
        files.get(passed)
    }
}

fn open(file: &files::RecordFile) -> Result<(files::RecordFile, Reader), ReadError> {
    let reader = Reader::open(&file.path).map_err(|source| ReadError::Unreadable { path: file.path.clone(), source })?;
    Ok((file.clone(), reader))
}
