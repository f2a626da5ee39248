//! Every schedule under `schedules/bad` is refused or warned of with exactly the problems that its first lines
//! name, `# LINE:COLUMN error|warning KEY: MESSAGE` (parts of key and message; `-` for no key); every schedule
//! under `schedules/good` is planned without an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenferry::schedule::{Plan, Problem, Severity, Sources, include_patterns, plan};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schedules").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no schedule: this test would test nothing", folder.display());
    files
}

/// The schedule with the files that its patterns (`FOLDER/*.yaml`) name.
fn sources(path: &Path) -> Sources {
    let text = std::fs::read_to_string(path).unwrap();
    let folders =
        include_patterns(&text).into_iter().filter_map(|pattern| pattern.strip_suffix("/*.yaml").map(|f| path.parent().unwrap().join(f)));
    let includes = folders.flat_map(|folder| files(&folder)).map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    Sources { path: path.into(), text, includes }
}

fn planned(sources: &Sources) -> Result<Plan, Vec<Problem>> {
    plan(sources, &BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), "/run/credentials/tokenferry.service".to_owned())]))
}

struct Expected {
    file: PathBuf,
    line: usize,
    column: usize,
    severity: Severity,
    key: String,
    message: String,
}

fn expected(file: &Path, text: &str) -> Vec<Expected> {
    let lines = text.lines().map_while(|line| line.strip_prefix("# ")).filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    lines
        .map(|line| {
            let whole = || -> Option<Expected> {
                let (place, rest) = line.split_once(' ')?;
                let (severity, rest) = rest.split_once(' ')?;
                let (key, message) = rest.split_once(": ")?;
                let (at, column) = place.split_once(':')?;
                let severity = if severity == "error" { Severity::Error } else { Severity::Warning };
                let key = if key == "-" { String::new() } else { key.to_owned() };
                Some(Expected {
                    file: file.into(),
                    line: at.parse().ok()?,
                    column: column.parse().ok()?,
                    severity,
                    key,
                    message: message.into(),
                })
            };
            whole().unwrap_or_else(|| panic!("{}: cannot read `{line}`", file.display()))
        })
        .collect()
}

impl Expected {
    fn is(&self, problem: &Problem) -> bool {
        let key = if self.key.is_empty() { problem.key.is_empty() } else { problem.key.contains(&self.key) };
        key && problem.file == self.file
            && (problem.line, problem.column, problem.severity) == (self.line, self.column, self.severity)
            && problem.message.contains(&self.message)
    }
}

#[test]
fn every_bad_schedule_gets_exactly_the_problems_that_it_has() {
    let mut wrong = Vec::new();
    for path in files(&folder("bad")) {
        let sources = sources(&path);
        let texts = std::iter::once((&sources.path, &sources.text)).chain(sources.includes.iter().map(|(path, text)| (path, text)));
        let mut missing: Vec<Expected> = texts.flat_map(|(path, text)| expected(path, text)).collect();
        let errors = missing.iter().any(|expected| expected.severity == Severity::Error);
        let result = planned(&sources);
        if missing.is_empty() || result.is_err() != errors {
            wrong.push(format!("{}: names {} problems, planned: {}", path.display(), missing.len(), result.is_ok()));
        }
        for problem in result.map_or_else(|problems| problems, |plan| plan.warnings) {
            match missing.iter().position(|expected| expected.is(&problem)) {
                Some(index) => _ = missing.swap_remove(index),
                None => wrong.push(format!("not named: {problem}")),
            }
        }
        wrong.extend(missing.iter().map(|e| format!("not found: {}:{}:{}: {}: {}", e.file.display(), e.line, e.column, e.key, e.message)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_good_schedule_is_planned_without_an_error() {
    for path in files(&folder("good")) {
        let sources = sources(&path);
        if let Err(problems) = planned(&sources) {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", all.join("\n"));
        }
    }
}

#[test]
fn a_schedule_with_every_key_means_what_it_says() {
    let path = folder("good").join("every-key.yaml");
    let plan = planned(&sources(&path)).unwrap();
    let here = path.parent().unwrap();
    assert_eq!(
        plan.targets.iter().map(|t| &*t.name).collect::<Vec<_>>(),
        ["everything.1", "two", "three", "six", "four", "mounted", "five"]
    );
    let first = plan.target("everything.1").unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let line = 1 + text.lines().position(|line| line.contains("name: everything.1")).unwrap();
    assert_eq!((first.ask.duration, first.prove, first.prove_every, first.suspend, first.line), (36 * 3600, true, 7200, true, line));
    assert_eq!((first.ask.namespace.as_str(), first.ask.service_account.as_str()), ("cicd", "cicd-deployer"));
    assert_eq!((first.rotate.at, first.rotate.splay, first.rotate.cron.len()), (0.8, Some(600), 2));
    let window = first.rotate.window.as_ref().unwrap();
    assert_eq!((window.from, window.to, window.days), (1320, 360, [true, true, true, true, true, false, true]));
    assert_eq!(first.deliver[0].sink.place(), here.join("out/token").display().to_string());
    assert!(!first.deliver[0].required && first.deliver[1].required && !first.deliver[3].fallback[0].required);
    let hooks: Vec<String> = first.after.iter().map(tokenferry::after::HookSpec::key).collect();
    assert_eq!((hooks.len(), &*hooks[0], &*hooks[3]), (11, "exec /usr/local/bin/reload now", "signal USR2 haproxy.service"));
    assert_eq!((&*hooks[7], &*hooks[8]), ("rolloutRestart pod/apps/deployment/web", "rolloutRestart prod/data/statefulSet/db"));
    assert_eq!((first.after[7].gap().as_secs(), first.after[9].gap().as_secs()), (7200, 300));
    let places: Vec<String> = first.deliver.iter().filter(|p| p.sink.kind() == "kubernetesSecret").map(|p| p.sink.place()).collect();
    assert_eq!(places, ["pod/apps/ci-token", "prod/apps/ci-token"]);
    assert_eq!((first.compliance.max_age, first.compliance.max_lifetime), (Some(26 * 3600), Some(48 * 3600)));
    let (two, five) = (plan.target("two").unwrap(), plan.target("five").unwrap());
    assert_eq!((&*two.cluster, two.ask.duration, two.rotate.at, two.prove), ("prod", 3600, 0.667, false));
    assert_eq!(two.labels["owner"], "payments");
    let six = plan.target("six").unwrap();
    assert_eq!((six.revocable, six.overlap, two.revocable, two.overlap), (true, 300, false, 600));
    assert_eq!(five.deliver[0].sink.place(), here.join("every-key.d/five").display().to_string());
    assert_eq!(plan.clusters["prod"].kubeconfig.as_deref(), Some(&*here.join("prod.kubeconfig")));
    assert_eq!((plan.records.keep, plan.records.max_size, plan.reload_on_change), (400 * 86_400, 64 << 20, true));
    let unasked = &plan.unasked;
    let keys: Vec<(&str, usize, u64)> = unasked.alerts.iter().map(|a| (a.to.kind(), a.on.len(), a.repeat.as_secs())).collect();
    assert_eq!(keys, [("exec", 10, 1800), ("http", 10, 3600)]);
    assert_eq!(unasked.alerts[1].to.to(), "PUT https://hooks.example.com", "of an address the server alone is shown");
    let heartbeat = unasked.heartbeat.as_ref().unwrap();
    assert_eq!((heartbeat.every.as_secs(), heartbeat.http.timeout.as_secs(), &*heartbeat.http.method), (60, 10, "GET"));
    let mounted = Path::new("/run/credentials/tokenferry.service/mounted");
    assert_eq!((&*unasked.monitor[0].path, unasked.monitor[0].max_age), (mounted, Some(7200)));
    assert_eq!((&unasked.monitor[1].path, unasked.monitor[1].max_age), (&here.join("others/token"), None));
    assert_eq!(unasked.textfile, Some(here.join("node/tokenferry.prom")));
    assert_eq!(plan.sha256.len(), 64);
}

#[test]
fn a_rotate_key_of_a_target_replaces_only_that_key_of_the_defaults() {
    let plan = planned(&sources(&folder("good").join("every-key.yaml"))).unwrap();
    let four = &plan.target("four").unwrap().rotate;
    assert_eq!((four.at, four.cron.len(), four.cron[0].text.as_str()), (0.9, 1, "*/10 * * * *"));
}

#[test]
fn the_variable_is_filled_in_where_files_are_named() {
    let plan = planned(&sources(&folder("good").join("first.yaml"))).unwrap();
    let vault = plan.stores["vault"].vault.as_ref().unwrap();
    let tokenferry::sink::vault::VaultAuth::AppRole(auth) = &vault.auth else { panic!("an AppRole was written") };
    assert_eq!(auth.secret_id_file, Path::new("/run/credentials/tokenferry.service/secret-id"));
}

#[test]
fn problems_come_in_the_order_of_the_file() {
    for path in files(&folder("bad")) {
        if let Err(problems) = planned(&sources(&path)) {
            let in_file: Vec<_> = problems.iter().filter(|p| p.file == path).map(|p| (p.line, p.column)).collect();
            assert!(in_file.is_sorted(), "{}", path.display());
        }
    }
}

/// A few bytes of a whole schedule replaced, doubled or taken out.
fn spoiled() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let text = std::fs::read_to_string(folder("good").join("every-key.yaml")).unwrap();
    let length = text.len();
    proptest::collection::vec((0..length, 0..12_usize, "[-:{}\\[\\]&*#|>'\"a0 \n]{0,4}"), 1..5).prop_map(move |edits| {
        let mut text = text.clone();
        for (at, length, with) in edits {
            let floor = |mut at: usize| {
                at = at.min(text.len());
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                at
            };
            let (from, to) = (floor(at), floor(at + length));
            text.replace_range(from..to, &with);
        }
        text
    })
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn no_spoiled_schedule_breaks_the_planner_and_every_problem_has_a_place(text in spoiled()) {
        let lines = text.lines().count() + 1;
        let problems = match planned(&Sources { path: "/etc/tokenferry/schedule.yaml".into(), text, includes: Vec::new() }) {
            Ok(plan) => plan.warnings,
            Err(problems) => {
                proptest::prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
                problems
            }
        };
        for problem in problems {
            proptest::prop_assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem}");
        }
    }
}
