//! The two places that a schedule names for all who talk about it, records folder and control socket, found
//! without planning it: of 100,000 targets not one is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::read;
use crate::schedule::yaml::{self, Value};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// No schedule is larger.
const LARGEST: u64 = 256 << 20;
/// Sections of a schedule and the key in each that is a place of ours.
const WANTED: [(&str, &str); 2] = [("control", "socket"), ("records", "directory")];

/// What a schedule names; nothing where it leaves the default or cannot be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// `control.socket`.
    pub socket: Option<PathBuf>,
    /// `records.directory`.
    pub records: Option<PathBuf>,
}

impl Named {
    /// As the schedule file says, whether or not the rest of it is in order.
    pub fn by(schedule: &Path) -> Self {
        let Ok(sections) = File::open(schedule).and_then(|file| Sections::read(BufReader::with_capacity(CHUNK, file.take(LARGEST)))) else {
            return Self::default();
        };
        if sections.odd && sections.found.iter().any(Option::is_none) {
            // Written in a way that shows its keys to a whole reading only.
            return Self::planned(schedule);
        }
        let [socket, records] = [0, 1].map(|index| {
            let (section, key) = WANTED[index];
            let text = sections.found[index].as_ref()?;
            let path = value(text, section, key).or_else(|| read::path_in_text(text, section, key))?;
            Some(schedule.parent().unwrap_or(Path::new("/")).join(path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(&path)))
        });
        Self { socket, records }
    }

    fn planned(schedule: &Path) -> Self {
        match read::read(schedule) {
            Ok(accepted) => Self { socket: accepted.plan.socket, records: accepted.plan.records.directory },
            Err(_) => Self::default(),
        }
    }
}

/// One section of a schedule, read as the YAML that it is.
fn value(text: &str, section: &str, key: &str) -> Option<String> {
    let (root, _) = yaml::head(text).ok()?;
    match &root.get(section)?.get(key)?.value {
        Value::Scalar { text, .. } => Some(text.to_string()),
        _ => None,
    }
}

/// The wanted sections, each from its key to the next key at the margin.
#[derive(Default)]
struct Sections {
    found: [Option<String>; 2],
    /// Some key at the margin is not plain text, so that a section may hide behind it.
    odd: bool,
}

impl Sections {
    fn read(mut lines: impl BufRead) -> io::Result<Self> {
        let mut sections = Self::default();
        let mut open: Option<usize> = None;
        let mut line = Vec::new();
        loop {
            let Some(first) = lines.fill_buf()?.first().copied() else { return Ok(sections) };
            let inside = matches!(first, b' ' | b'\t' | b'#' | b'\n' | b'\r' | b'-' | b'}' | b']' | b'.');
            if inside && open.is_none() {
                lines.skip_until(b'\n')?;
                continue;
            }
            line.clear();
            lines.read_until(b'\n', &mut line)?;
            let text = String::from_utf8_lossy(&line);
            if !inside {
                if open.is_some() && sections.found.iter().all(Option::is_some) {
                    return Ok(sections);
                }
                let key = text.trim_start_matches('\u{feff}');
                open =
                    WANTED.iter().position(|(section, _)| key.strip_prefix(section).is_some_and(|rest| rest.trim_start().starts_with(':')));
                // A second one is an error of the schedule; the first counts.
                open = open.filter(|index| sections.found[*index].is_none());
                sections.odd |= !key.starts_with(|c: char| c.is_ascii_alphabetic()) && !key.starts_with('%');
            }
            if let Some(index) = open {
                sections.found[index].get_or_insert_default().push_str(text.trim_start_matches('\u{feff}'));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> (Option<String>, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let schedule = folder.path().join("s.yaml");
        std::fs::write(&schedule, text).unwrap();
        let Named { socket, records } = Named::by(&schedule);
        let shown = |path: Option<PathBuf>| path.map(|p| p.strip_prefix(folder.path()).unwrap_or(&p).display().to_string());
        (shown(socket), shown(records))
    }

    fn pair(socket: &str, records: &str) -> (Option<String>, Option<String>) {
        let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
        (some(socket), some(records))
    }

    #[test]
    fn both_places_are_found_however_they_are_written() {
        for (text, expected) in [
            ("version: 1\nrecords: {directory: /a/b, keep: 1d}\ncontrol: {socket: /c}\ntargets:\n- x\n", pair("/c", "/a/b")),
            (
                "control:\n  # here\n  socket: \"/a c, d\" # there\ntargets: []\nrecords:\n  keep: 1d\n  directory: 'r/'\n",
                pair("/a c, d", "r"),
            ),
            ("\u{feff}control :\n  socket: >-\n    /folded\n", pair("/folded", "")),
            ("version: 1\ntargets:\n- {name: a}\nother:\n  socket: /no\n", pair("", "")),
            ("a: |\n  control: {socket: /no}\nrecords: {directory: /r}\n", pair("", "/r")),
            ("version: 1\nrecords: {directory: /r, \ncontrol:\n  socket: /s\n  more: [\n", pair("/s", "/r")),
            ("", pair("", "")),
        ] {
            assert_eq!(named(text), expected, "{text}");
        }
    }

    #[test]
    fn a_schedule_in_an_odd_style_is_read_whole() {
        assert_eq!(named("{version: 1, control: {socket: /c}, targets: []}\n"), pair("/c", ""));
        assert_eq!(named("version: 1\n\"control\": {socket: /c}\ntargets: []\n"), pair("/c", ""));
    }

    #[test]
    fn what_cannot_be_read_names_nothing() {
        assert_eq!(Named::by(Path::new("/nonexistent/s.yaml")), Named::default());
        assert_eq!(Named::by(Path::new("/")), Named::default());
    }

    proptest::proptest! {
        #[test]
        fn targets_around_them_change_nothing(before in "(- [a-z{}:, ]{0,12}\n|  [a-z:]{0,8}\n|#[^\n]{0,8}\n|\n){0,8}", after in "(- [a-z]{0,8}\n|  [a-z: ]{0,8}\n){0,8}") {
            let text = format!("version: 1\ntargets:\n{before}control: {{socket: /c}}\nlast:\n{after}records: {{directory: /r}}\n");
            proptest::prop_assert_eq!(named(&text), pair("/c", "/r"));
        }
    }
}
