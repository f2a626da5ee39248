//! Questions to the history: which lines of a folder fit.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use super::chain;
use super::files::{self, Raw, Reader};
use super::fold::ReadError;
use super::line::{Kind, Line, VERSION};

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

/// Every line of the files that tell of that time and later, the checkpoint that opens the first of them included.
///
/// # Errors
/// [`ReadError`] where the folder cannot be read.
pub fn all_around(directory: &Path, since: Timestamp) -> Result<impl Iterator<Item = Result<Line, ReadError>>, ReadError> {
    let mut lines = lines(directory, Query { since: Some(since), ..Query::default() })?;
    Ok(std::iter::from_fn(move || lines.any_line().transpose()))
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
                let (path, line) = (file.path.clone(), reader.number);
                let read = serde_json::from_slice::<Line>(&self.text).ok();
                let version = read.as_ref().map_or_else(|| chain::version(&self.text), |read| Some(read.version));
                match version.filter(|version| *version > VERSION) {
                    Some(version) => Err(ReadError::Newer { path, line, version }),
                    None => read.map(Some).ok_or(ReadError::NotARecord { path, line }),
                }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(kind: Kind, target: &str, second: i64) -> Line {
        Line { target: Some(target.to_owned()), ..Line::new(kind, Timestamp::from_second(second).unwrap()) }
    }

    #[test]
    fn an_empty_query_asks_for_every_event_and_no_checkpoint() {
        let query = Query::default();
        assert!(query.matches(&line(Kind::Rotated, "a", 0)) && query.matches(&Line::new(Kind::Started, Timestamp::UNIX_EPOCH)));
        assert!(!query.matches(&line(Kind::Checkpoint, "a", 0)));
        assert!(Query { kinds: vec![Kind::Checkpoint], ..query }.matches(&line(Kind::Checkpoint, "a", 0)));
    }

    #[test]
    fn since_is_within_and_until_is_not() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let query = Query { since: at(10), until: at(20), ..Query::default() };
        let fitting: Vec<i64> = [9, 10, 19, 20].into_iter().filter(|&second| query.matches(&line(Kind::Paid, "a", second))).collect();
        assert_eq!(fitting, [10, 19]);
    }

    #[test]
    fn targets_are_names_or_globs_and_daemon_events_fit_none() {
        let query = Query { targets: vec!["ci-*".to_owned(), "prod".to_owned()], ..Query::default() };
        assert!(query.matches(&line(Kind::Rotated, "ci-a", 0)) && query.matches(&line(Kind::Rotated, "prod", 0)));
        assert!(!query.matches(&line(Kind::Rotated, "prod-2", 0)) && !query.matches(&Line::new(Kind::Started, Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn a_token_is_found_by_its_jti() {
        let query = Query { jti: Some("j".to_owned()), ..Query::default() };
        assert!(query.matches(&Line { jti: Some("j".to_owned()), ..line(Kind::Rotated, "a", 0) }));
        assert!(!query.matches(&line(Kind::Rotated, "a", 0)));
    }

    #[test]
    fn globs_fit_as_a_shell_has_them() {
        for (glob, name) in [("", ""), ("*", ""), ("*", "x"), ("a*c", "abbc"), ("a?c", "abc"), ("*b*b", "abbb"), ("a**", "a")] {
            assert!(fits(glob, name), "{glob} {name}");
        }
        for (glob, name) in [("", "a"), ("?", ""), ("a*c", "abcd"), ("a?c", "ac"), ("b", "ab")] {
            assert!(!fits(glob, name), "{glob} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_fits_itself_and_any_glob_made_from_it(name in "[a-z.-]{0,12}", from in 0usize..13, to in 0usize..13) {
            let (from, to) = (from.min(name.len()), to.min(name.len()));
            prop_assert!(fits(&name, &name));
            if from <= to {
                let glob = format!("{}*{}", &name[..from], &name[to..]);
                prop_assert!(fits(&glob, &name));
            }
        }
    }
}
