//! The map in `src/lib.rs` is true: the import rule, and what each folder does without.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A folder imports only from those to its right.
const ORDER: [&str; 10] = ["main", "cli", "audit", "daemon", "record", "schedule", "after", "sink", "cluster", "token"];
/// Lines of a file before its tests, blank ones left out.
const LONGEST: usize = 300;
/// Files that are longer, and how long they may be until they are split.
const LONGER: [(&str, usize); 0] = [];

struct Source {
    /// Below `src`.
    name: String,
    /// As it stands.
    text: String,
    /// Without comments and tests.
    code: String,
}

impl Source {
    fn folder(&self) -> &str {
        self.name.split(['/', '.']).next().expect("a split has a first part")
    }

    fn uses(&self, words: &[&str]) -> Vec<String> {
        let found = words.iter().filter(|word| self.code.contains(**word));
        found.map(|word| format!("src/{} uses `{word}`", self.name)).collect()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    gather(&root, &mut files);
    files.sort();
    assert!(files.len() > 50, "only {} files under src: this test looks at the wrong place", files.len());
    let source = |file: PathBuf| {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let code = if name.ends_with("/tests.rs") { String::new() } else { code(&text) };
        Source { name, text, code }
    };
    files.into_iter().map(source).collect()
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Tests stand at a file's end, so the code is what comes before.
fn before_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| *line != "#[cfg(test)]")
}

fn code(text: &str) -> String {
    let lines = before_tests(text).filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

/// The folders that `crate::…` names, in groups (`crate::{a, b::c}`) too.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.extend(first_word(rest));
            continue;
        };
        let mut depth = 0;
        let mut name = true;
        for (index, sign) in group.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => name = true,
                sign if name && !sign.is_whitespace() => {
                    found.extend(first_word(&group[index..]));
                    name = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn first_word(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    Some(text[..end].to_owned()).filter(|word| !word.is_empty())
}

fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_folder_imports_only_from_folders_to_its_right() {
    let place = |folder: &str| ORDER.iter().position(|f| *f == folder);
    let mut problems = Vec::new();
    let mut seen = 0;
    for source in sources().iter().filter(|s| s.name != "lib.rs") {
        let Some(own) = place(source.folder()) else {
            problems.push(format!("src/{}: `{}` is no folder of the map", source.name, source.folder()));
            continue;
        };
        let tokenferry = source.code.replace("tokenferry::", "crate::");
        for import in imports(if source.folder() == "main" { &tokenferry } else { &source.code }) {
            seen += 1;
            match place(&import) {
                Some(other) if other >= own => {}
                Some(_) => problems.push(format!("src/{} imports from `{import}`, which stands to its left", source.name)),
                None => problems.push(format!("src/{} imports `crate::{import}`, which is no folder of the map", source.name)),
            }
        }
    }
    assert!(seen > 50, "only {seen} imports found: this test reads them wrongly");
    none(problems);
}

#[test]
fn imports_are_read_alone_and_in_groups() {
    let found =
        imports("use crate::record::{Kind, Line};\nuse crate::{sink::{self, Place}, token};\nfn f() { crate::cluster::mint::check() }");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["cluster", "record", "sink", "token"]);
}

#[test]
fn the_schedule_does_no_input_or_output() {
    let words = [
        "std::fs",
        "std::env",
        "std::process",
        "std::io",
        "tokio::",
        "rustix",
        "hyper",
        "reqwest",
        "File::open",
        "TcpStream",
        "UdpSocket",
        "UnixStream",
        "ToSocketAddrs",
        ".exists()",
        ".metadata()",
        ".canonicalize()",
        ".read_dir()",
        ".is_file()",
        ".is_dir()",
    ];
    none(sources().iter().filter(|s| s.folder() == "schedule").flat_map(|s| s.uses(&words)).collect());
}

#[test]
fn one_file_alone_calls_token_request() {
    let words = ["TokenRequest\"", "/serviceaccounts/", "/token?"];
    let sources = sources();
    let (mint, others): (Vec<_>, Vec<_>) = sources.iter().partition(|s| s.name == "cluster/mint.rs");
    assert_eq!(mint[0].uses(&words).len(), words.len(), "the words to look for are not those that mint.rs uses");
    none(others.iter().flat_map(|s| s.uses(&words)).collect());
}

#[test]
fn sinks_know_no_targets_and_no_time_of_day() {
    let words = ["Timestamp::now", "Zoned::now", "SystemTime::now", "Target"];
    none(sources().iter().filter(|s| s.folder() == "sink").flat_map(|s| s.uses(&words)).collect());
}

#[test]
fn tokens_know_no_network_and_no_files() {
    let words = ["std::net", "std::fs", "tokio", "hyper", "reqwest", "kube::", "TcpStream", "UnixStream"];
    none(sources().iter().filter(|s| s.folder() == "token").flat_map(|s| s.uses(&words)).collect());
}

#[test]
fn no_file_but_one_writes_to_standard_output() {
    let words = ["println!", "print!", "stdout()"];
    let sources = sources();
    let print = sources.iter().find(|s| s.name == "cli/print.rs").expect("cli/print.rs");
    assert!(!print.uses(&["stdout()"]).is_empty(), "cli/print.rs writes elsewhere: this test looks for the wrong word");
    none(sources.iter().filter(|s| s.name != "cli/print.rs").flat_map(|s| s.uses(&words)).collect());
}

#[test]
fn nothing_is_unwrapped_without_saying_why_it_holds() {
    none(sources().iter().flat_map(|s| s.uses(&[".unwrap()", ".unwrap_err()", ".expect(\"\")"])).collect());
}

#[test]
fn nothing_knows_that_it_is_tested() {
    let mut problems = Vec::new();
    for source in sources() {
        let mut lines = source.text.lines().peekable();
        while let Some(line) = lines.next() {
            let next = lines.peek().copied().unwrap_or_default();
            if line == "#[cfg(test)]" && !matches!(next, "mod tests {" | "mod tests;") {
                problems.push(format!("src/{}: cfg(test) before `{next}`", source.name));
            }
        }
        problems.extend(source.uses(&["cfg(test)", "cfg!(", "cfg(debug_assertions)", "TOKENFERRY_TEST", "RUST_TEST", "for_test"]));
    }
    none(problems);
}

#[test]
fn every_file_says_first_what_it_is() {
    none(
        sources()
            .iter()
            .filter(|s| !s.text.starts_with("//! ") && !s.name.ends_with("/tests.rs"))
            .map(|s| format!("src/{} does not begin with `//! `", s.name))
            .collect(),
    );
}

#[test]
fn files_stay_short() {
    let length = |source: &Source| before_tests(&source.text).filter(|line| !line.trim().is_empty()).count();
    let sources = sources();
    let most = |name: &str| LONGER.iter().find(|(file, _)| *file == name).map_or(LONGEST, |(_, most)| *most);
    let long = sources.iter().filter(|s| length(s) > most(&s.name));
    let mut problems: Vec<String> = long.map(|s| format!("src/{}: {} lines, {} at most", s.name, length(s), most(&s.name))).collect();
    let mended = LONGER.iter().filter(|(file, _)| sources.iter().find(|s| s.name == *file).is_none_or(|s| length(s) <= LONGEST));
    problems.extend(mended.map(|(file, _)| format!("src/{file} is short now: take it out of LONGER")));
    none(problems);
}
