//! Opens what planning needs: the schedule file, its includes, and the text that was last accepted. Planning
//! itself opens nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::schedule::check::{self, Sources};
use crate::schedule::{Plan, Problem, Severity, pattern};

/// Largest file that is taken for a schedule.
const LARGEST: u64 = 256 << 20;

/// A schedule that was read and accepted.
pub struct Accepted {
    /// What it means.
    pub plan: Plan,
    /// Its text, to be kept.
    pub sources: Sources,
}

/// Reads and plans a schedule.
///
/// # Errors
/// Every problem found, warnings among them; an unreadable file is a problem at its first line.
pub fn read(path: &Path) -> Result<Accepted, Vec<Problem>> {
    again(path, None)
}

/// The same, after the plan in force: what stands as it stood is not planned again.
///
/// # Errors
/// As [`read`].
pub fn again(path: &Path, before: Option<&Plan>) -> Result<Accepted, Vec<Problem>> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = open(&path).map_err(|problem| vec![problem])?;
    let mut includes = Vec::new();
    let mut problems = Vec::new();
    for wanted in check::include_patterns(&text) {
        match expand(&path, &wanted) {
            Ok(files) => {
                for file in files {
                    match open(&file) {
                        Ok(text) => includes.push((file, text)),
                        Err(problem) => problems.push(problem),
                    }
                }
            }
            Err(message) => problems.push(unreadable(&path, format!("include {wanted}: {message}"))),
        }
    }
    let sources = Sources { path, text, includes };
    match check::plan_after(&sources, &variables(), before.map(|plan| &plan.memo)) {
        Ok(plan) if problems.is_empty() => Ok(Accepted { plan, sources }),
        Ok(_) => Err(problems),
        Err(found) => {
            problems.extend(found);
            Err(problems)
        }
    }
}

/// The variables that file references may use.
pub fn variables() -> BTreeMap<String, String> {
    // Outside the unit the variable stands for the unit's own folder, so that `check` reads as the unit does.
    let folder = std::env::var("CREDENTIALS_DIRECTORY").unwrap_or_else(|_| "/run/credentials/tokenferry.service".into());
    BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), folder)])
}

fn open(path: &Path) -> Result<String, Problem> {
    use std::io::Read;
    let fail = |e: std::io::Error| unreadable(path, format!("cannot be read: {e}"));
    let file = std::fs::OpenOptions::new().read(true).open(path).map_err(fail)?;
    let meta = file.metadata().map_err(fail)?;
    if meta.is_dir() {
        return Err(unreadable(path, "is a folder; name the schedule file in it".into()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(LARGEST)).unwrap_or(0) + 1);
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > LARGEST {
        return Err(unreadable(path, format!("is larger than {} MiB; split it with `include`", LARGEST >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|b| **b != b'\n').count() + 1;
        Problem { line, column, ..unreadable(path, "is not UTF-8 text here, so it is no YAML".into()) }
    })
}

fn unreadable(path: &Path, message: String) -> Problem {
    Problem { file: path.to_owned(), line: 1, column: 1, severity: Severity::Error, target: None, key: String::new(), message }
}

/// Files of an include: `*` and `?` in the last part of the path only; none is fine, as long as the folder is there.
fn expand(schedule: &Path, wanted: &str) -> Result<Vec<PathBuf>, String> {
    let whole = schedule.parent().unwrap_or(Path::new("/")).join(wanted);
    let (Some(folder), Some(name)) = (whole.parent(), whole.file_name().and_then(|n| n.to_str())) else {
        return Err("it names no file".into());
    };
    if !name.contains(['*', '?']) {
        return Ok(vec![whole]);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| format!("{}: {e}", folder.display()))?;
        // Hidden files are editors' own.
        if entry.file_name().to_str().is_some_and(|n| !n.starts_with('.') && pattern::matches(name, n)) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    path: Cow<'a, Path>,
    text: Cow<'a, str>,
    includes: Cow<'a, [(PathBuf, String)]>,
}

/// Keeps the accepted text beside the records, so that a refused file does not stop the next start.
///
/// # Errors
/// Why it cannot be written; the daemon says so and goes on.
pub fn keep(records: &Path, sources: &Sources) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let Sources { path, text, includes } = sources;
    let kept = Kept { path: path.into(), text: text.into(), includes: includes.into() };
    let text = serde_json::to_vec(&kept)?;
    let place = records.join("accepted.json");
    if std::fs::read(&place).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let temporary = records.join("accepted.json.tmp");
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&temporary, &place)?;
    std::fs::File::open(records)?.sync_all()
}

/// The text that was last accepted for that schedule file, planned anew.
pub fn kept(records: &Path, schedule: &Path) -> Option<Accepted> {
    let schedule = std::path::absolute(schedule).unwrap_or_else(|_| schedule.to_owned());
    let kept: Kept<'_> = serde_json::from_slice(&std::fs::read(records.join("accepted.json")).ok()?).ok()?;
    if kept.path != schedule {
        return None;
    }
    let sources = Sources { path: kept.path.into_owned(), text: kept.text.into_owned(), includes: kept.includes.into_owned() };
    let plan = check::plan(&sources, &variables()).ok()?;
    Some(Accepted { plan, sources })
}

/// A path that a schedule names (`records.directory`, `control.socket`), as far as a schedule that is refused can
/// be read at all: the text that was accepted before lies there, and the daemon that serves it listens there.
pub fn path_in_broken(schedule: &Path, section: &str, key: &str) -> Option<PathBuf> {
    let path = path_in_text(&open(schedule).ok()?, section, key)?;
    Some(schedule.parent().unwrap_or(Path::new("/")).join(path))
}

/// As [`path_in_broken`], of a text at hand; a path as it is written.
pub(super) fn path_in_text(text: &str, section: &str, key: &str) -> Option<String> {
    let head = format!("{section}:");
    let from = text.find(&format!("\n{head}")).map(|at| at + 1).or_else(|| text.starts_with(&head).then_some(0))?;
    let body = &text[from + head.len()..];
    let ends = |at: &usize| !body[*at..].starts_with([' ', '\t', '#', '\n', '}']);
    let end = body.match_indices('\n').map(|(at, _)| at + 1).find(ends).unwrap_or(body.len());
    let value = body[..end].split_once(&format!("{key}:"))?.1.trim_start().trim_start_matches(['"', '\'']);
    let path = value.split(['"', '\'', ',', '}', '\n', '#']).next()?.trim();
    (!path.is_empty()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_folder_of_a_broken_schedule_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let schedule = folder.path().join("s.yaml");
        for (text, expected) in [
            ("version: 1\nrecords: {directory: /a/b, keep: 1d}\ntargets: [", Some("/a/b")),
            ("records:\n  keep: 1d\n  directory: \"/a c\"\nx: {", Some("/a c")),
            ("records:\n  keep: 1d\nother:\n  directory: /no\n", None),
            ("version: 1\n", None),
        ] {
            std::fs::write(&schedule, text).unwrap();
            assert_eq!(path_in_broken(&schedule, "records", "directory"), expected.map(PathBuf::from), "{text}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let schedule = folder.path().join("s.yaml");
        std::fs::write(&schedule, b"version: 1\nx: \xff\n").unwrap();
        let Err(problems) = read(&schedule) else { panic!("accepted") };
        assert_eq!((problems[0].line, problems[0].column), (2, 4), "{}", problems[0]);
    }
}
