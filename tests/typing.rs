//! What helps while somebody types: the YAML language server with our schema, completions in a real zsh and fish.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::manuals::{marked_by_the_schema, schedules_that_are_good};
use crate::shipped::root;
use crate::support::daemon::{Host, PROGRAM, tool};
use crate::support::servers::python;
use crate::support::tools;

/// What the language server marks in each file, with its line.
fn diagnostics(files: &[PathBuf]) -> BTreeMap<PathBuf, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let (whole, include) = (folder.path().join("schedule.json"), folder.path().join("include.json"));
    std::fs::write(&whole, tool(Command::new(PROGRAM).arg("schema"))).unwrap();
    std::fs::write(&include, tool(Command::new(PROGRAM).args(["schema", "--include"]))).unwrap();
    let mut node = Command::new("node");
    node.arg(root().join("tests/tools/editor/diagnose.mjs")).arg(tools::editor()).stdin(Stdio::null());
    for file in files {
        let part = file.to_str().unwrap().contains(".d/");
        node.arg(if part { &include } else { &whole }).arg(file);
    }
    serde_json::from_str(&tool(&mut node)).unwrap()
}

#[test]
fn the_yaml_language_server_marks_nothing_in_examples_and_good_schedules() {
    let files = schedules_that_are_good();
    let found = diagnostics(&files);
    assert_eq!(found.len(), files.len());
    let marked: Vec<_> = found.iter().filter(|(_, marks)| !marks.is_empty()).collect();
    assert!(marked.is_empty(), "{marked:#?}");
}

#[test]
fn the_yaml_language_server_marks_unknown_keys_and_wrong_kinds_of_values() {
    let files = marked_by_the_schema();
    let found = diagnostics(&files);
    let unmarked: Vec<_> = found.iter().filter(|(_, marks)| marks.is_empty()).collect();
    assert!(unmarked.is_empty(), "{unmarked:#?}");
    let unknown = &found[&root().join("tests/schedules/bad/unknown-key.yaml")];
    assert!(unknown.iter().any(|mark| mark.contains("not allowed")), "{unknown:?}");
}

const TWO: &str = "clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, serviceAccount: ci/bot, duration: 1h}
targets:
  - {name: web-front, deliver: [{file: {path: HERE/out/a}}]}
  - {name: web-back, deliver: [{file: {path: HERE/out/b}}]}
";

fn completions(shell: &str, file: &Path) {
    std::fs::write(file, tool(Command::new(PROGRAM).args(["completions", shell]))).unwrap();
}

fn search_path() -> String {
    format!("{}:{}", Path::new(PROGRAM).parent().unwrap().display(), std::env::var("PATH").unwrap())
}

/// Types lines with a tab at their end at a zsh on a terminal of its own, and prints what stands on each line then.
const TYPE: &str = r#"
import os, pty, select, sys, time
folder, lines = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm", ZDOTDIR=folder, COLUMNS="500")
    os.execvp("zsh", ["zsh", "-d", "-f", "-i"])
seen = b""
def wait(word):
    global seen
    end = time.time() + 60
    while word not in seen:
        if time.time() > end: sys.exit(f"no {word!r} in {seen!r}")
        if select.select([terminal], [], [], 1)[0]: seen += os.read(terminal, 65536)
    seen = seen[seen.index(word) + len(word):]
def type(text): os.write(terminal, text.encode())
type(f"stty -echo cols 500; unsetopt prompt_sp; PROMPT= fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -d {folder}/dump; print rea''dy\n")
wait(b"ready")
for line in lines:
    # Whatever was completed, the line is then printed instead of run.
    type(line + "\t" + "\x01print -r -- '<<'\x05 '>>'\n")
    wait(b"\n<<")
    start = seen
    wait(b">>")
    print(start.split(b" >>")[0].decode().strip())
"#;

#[test]
fn a_real_zsh_completes_commands_and_the_targets_of_the_schedule() {
    let host = Host::new(TWO);
    let folder = tempfile::tempdir().unwrap();
    completions("zsh", &folder.path().join("_tokenferry"));
    let schedule = host.schedule().display().to_string();
    let lines = [
        "tokenferry rot".to_owned(),
        format!("tokenferry --schedule {schedule} rotate web-f"),
        format!("tokenferry --schedule {schedule} get web-b"),
    ];
    let mut typed = Command::new(python());
    typed.args(["-c", TYPE]).arg(folder.path()).args(&lines).env("PATH", search_path()).stdin(Stdio::null());
    let said = tool(&mut typed);
    let completed: Vec<&str> = said.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(completed, ["rotate", "web-front", "web-back"], "{said}");
}

#[test]
fn a_real_fish_completes_commands_and_the_targets_of_the_schedule() {
    let host = Host::new(TWO);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokenferry.fish");
    completions("fish", &file);
    let complete = |line: &str| {
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", "source $argv[1]; complete --do-complete $argv[2]"]).arg(&file).arg(line);
        let said = tool(fish.env("PATH", search_path()).env("HOME", folder.path()).stdin(Stdio::null()));
        said.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let schedule = host.schedule().display().to_string();
    assert_eq!(complete("tokenferry rot"), ["rotate"]);
    let mut targets = complete(&format!("tokenferry --schedule {schedule} rotate web"));
    targets.sort();
    assert_eq!(targets, ["web-back", "web-front"]);
    assert_eq!(complete(&format!("tokenferry --schedule {schedule} get web-b")), ["web-back"]);
}
