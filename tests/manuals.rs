//! What a person reads and an editor knows: manual pages, the JSON Schema of the schedule, completions in a real bash.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shipped::root;
use crate::support::daemon::{Host, PROGRAM, tool};
use crate::support::servers::python;

const TWO: &str = "clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, serviceAccount: ci/bot, duration: 1h}
targets:
  - {name: web-front, deliver: [{file: {path: HERE/out/a}}]}
  - {name: web-back, deliver: [{file: {path: HERE/out/b}}]}
";

fn pages() -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    tool(Command::new(PROGRAM).args(["man", "--directory"]).arg(folder.path()));
    let mut pages: Vec<PathBuf> = ["man1", "man5", "man8"]
        .iter()
        .flat_map(|section| std::fs::read_dir(folder.path().join(section)).unwrap().map(|entry| entry.unwrap().path()))
        .collect();
    pages.sort();
    (folder, pages)
}

#[test]
fn each_command_has_a_page_and_every_page_is_clean() {
    let (_folder, pages) = pages();
    let help = tool(Command::new(PROGRAM).arg("--help"));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty()) {
        assert!(pages.iter().any(|page| page.ends_with(format!("man1/tokenferry-{command}.1"))), "no page for {command}: {pages:?}");
    }
    for page in &pages {
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(page).output().unwrap();
        assert!(lint.status.success(), "{}: {}", page.display(), String::from_utf8_lossy(&lint.stdout));
        let shown = tool(Command::new("mandoc").args(["-T", "utf8"]).arg(page));
        assert!(shown.lines().count() > 10, "{}", page.display());
    }
}

#[test]
fn the_page_of_the_schedule_has_every_key_that_the_schema_has() {
    let page = tool(Command::new(PROGRAM).args(["man", "tokenferry-schedule"])).replace("\\-", "-");
    let schema: serde_json::Value = serde_json::from_str(&tool(Command::new(PROGRAM).arg("schema"))).unwrap();
    let tables = schema["definitions"].as_object().unwrap().values().chain([&schema]);
    let keys: Vec<&String> = tables.filter_map(|table| table["properties"].as_object()).flat_map(|table| table.keys()).collect();
    assert!(keys.len() > 90, "{}", keys.len());
    for key in keys {
        assert!(page.contains(&format!("\\fB{key}\\fR: ")), "{key} is not in the page");
    }
}

#[test]
fn a_page_is_asked_for_by_name_and_an_unknown_one_is_bad_usage() {
    let list = tool(Command::new(PROGRAM).arg("man"));
    assert!(list.lines().any(|line| line == "tokenferry-schedule.5") && list.lines().any(|line| line == "tokenferry.8"), "{list}");
    let unknown = Command::new(PROGRAM).args(["man", "tokenferry-none"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

/// Validates each file as an editor does; gives the verdicts.
const VALIDATE: &str = r#"
import json, sys, yaml, jsonschema
class Loader(yaml.SafeLoader): pass
# YAML 1.2, as editors and tokenferry read it: only true and false are booleans, and there are no dates.
Loader.yaml_implicit_resolvers = {k: [(t, r) for t, r in v if t not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")] for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
import re
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))
schemas = {name: json.load(open(name)) for name in sys.argv[1:3]}
for schema in schemas.values(): jsonschema.Draft7Validator.check_schema(schema)
verdicts = {}
for path in sys.argv[3:]:
    try: document = yaml.load(open(path), Loader)
    except Exception as error: verdicts[path] = "no YAML"; continue
    schema = schemas[sys.argv[2 if ".d/" in path or isinstance(document, list) else 1]]
    error = jsonschema.exceptions.best_match(jsonschema.Draft7Validator(schema).iter_errors(document))
    verdicts[path] = None if error is None else f"{list(error.absolute_path)}: {error.message}"[:300]
print(json.dumps(verdicts))
"#;

fn verdicts(files: &[PathBuf]) -> Vec<Option<String>> {
    let folder = tempfile::tempdir().unwrap();
    let (whole, include) = (folder.path().join("schedule.json"), folder.path().join("include.json"));
    std::fs::write(&whole, tool(Command::new(PROGRAM).arg("schema"))).unwrap();
    std::fs::write(&include, tool(Command::new(PROGRAM).args(["schema", "--include"]))).unwrap();
    let said = tool(Command::new(python()).args(["-c", VALIDATE]).arg(whole).arg(include).args(files));
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    files.iter().map(|file| said[file.to_str().unwrap()].as_str().map(str::to_owned)).collect()
}

fn yaml_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(yaml_below(&path));
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every schedule among examples and good fixtures, and the lists of targets that they include.
pub fn schedules_that_are_good() -> Vec<PathBuf> {
    let is_schedule = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.contains("targets:") && text.lines().any(|line| line.starts_with("version: 1")) || path.to_str().unwrap().contains(".d/")
    };
    let mut files = yaml_below(&root().join("tests/schedules/good"));
    files.extend(yaml_below(&root().join("examples")));
    files.retain(is_schedule);
    assert!(files.len() > 20, "{files:?}");
    files
}

#[test]
fn the_schema_takes_every_schedule_that_is_good() {
    let files = schedules_that_are_good();
    for (file, verdict) in files.iter().zip(verdicts(&files)) {
        assert_eq!(verdict, None, "{}", file.display());
    }
}

/// The bad fixtures whose problem a schema can see.
pub fn marked_by_the_schema() -> Vec<PathBuf> {
    let marked =
        |text: &str| ["is unknown", "is expected here", "is no duration", "is no file mode"].iter().any(|words| text.contains(words));
    let first_lines = |text: &str| text.lines().take_while(|line| line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let files: Vec<PathBuf> = yaml_below(&root().join("tests/schedules/bad"))
        .into_iter()
        .filter(|path| marked(&first_lines(&String::from_utf8_lossy(&std::fs::read(path).unwrap()))))
        .collect();
    assert!(files.len() > 10, "{files:?}");
    files
}

#[test]
fn the_schema_marks_unknown_keys_and_wrong_kinds_of_values() {
    let files = marked_by_the_schema();
    for (file, verdict) in files.iter().zip(verdicts(&files)) {
        assert!(verdict.is_some(), "{} is accepted", file.display());
    }
}

#[test]
fn a_real_bash_completes_commands_and_the_targets_of_the_schedule() {
    let host = Host::new(TWO);
    let script = format!(
        r#"PATH={bin}:$PATH; source <(tokenferry completions bash)
        complete_line() {{
          COMP_WORDS=($1); [[ $1 == *' ' ]] && COMP_WORDS+=(""); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE=$1; COMP_POINT=${{#1}}; COMPREPLY=()
          local spec=$(complete -p tokenferry); local name=${{spec##*-F }}; ${{name%% *}} tokenferry "${{COMP_WORDS[COMP_CWORD]}}" "" ; echo "$1=> ${{COMPREPLY[*]}}"
        }}
        complete_line "tokenferry rot"; complete_line "tokenferry --schedule {schedule} rotate "; complete_line "tokenferry --schedule {schedule} get web-f"
        TOKENFERRY_SCHEDULE={schedule} complete_line "tokenferry status web-b""#,
        bin = Path::new(PROGRAM).parent().unwrap().display(),
        schedule = host.schedule().display(),
    );
    let mut bash = Command::new("bash");
    let said = tool(bash.args(["--norc", "-c", &script]).stdin(Stdio::null()));
    let lines: Vec<&str> = said.lines().map(|line| line.split("=> ").nth(1).unwrap().trim()).collect();
    assert_eq!(lines[0], "rotate", "{said}");
    assert!(lines[1].contains("web-front") && lines[1].contains("web-back"), "{said}");
    assert_eq!((lines[2], lines[3]), ("web-front", "web-back"), "{said}");
}
