//! `records --audit-log`: our history beside the audit log of the real API server, in both directions.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::support::daemon::{Done, Host};
use crate::support::servers::cluster;
use crate::support::until;

/// A host whose targets were rotated twice, and the log of the API server that they were minted by. Each test has
/// accounts of its own: they share the log.
struct Joined {
    host: Host,
    log: PathBuf,
    namespace: &'static str,
}

impl Joined {
    fn new(namespace: &'static str) -> Self {
        let servers = cluster();
        servers.kubectl(&["create", "namespace", namespace]);
        for account in ["used", "idle", "other"] {
            servers.kubectl(&["create", "serviceaccount", account, "-n", namespace]);
        }
        let host = Host::new(&format!(
            "
clusters: {{prod: {{kubeconfig: {}}}}}
defaults: {{cluster: prod, duration: 1h}}
targets:
  - {{name: used, serviceAccount: {namespace}/used, deliver: [{{file: {{path: HERE/out/used}}}}]}}
  - {{name: idle, serviceAccount: {namespace}/idle, deliver: [{{file: {{path: HERE/out/idle}}}}]}}
  - {{name: other, serviceAccount: {namespace}/other, audiences: [vault], deliver: [{{file: {{path: HERE/out/other}}}}]}}
",
            servers.kube().minter_kubeconfig.display()
        ));
        assert_eq!(host.run(&["once"]).code, Some(0));
        servers.kubectl_with(&host.read("out/used"), &["auth", "whoami"]);
        // Tokens tell their time in whole seconds: each has one of its own.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(host.run(&["once", "--force"]).code, Some(0));
        let joined = Self { host, log: servers.folder.join("audit.log"), namespace };
        // A log covers up to its last event.
        let last = joined.host.records().last().unwrap()["time"].as_str().unwrap().to_owned();
        until("the log goes on", 60, || {
            servers.kubectl(&["get", "namespace", namespace]);
            std::fs::read_to_string(&joined.log).unwrap().lines().last().is_some_and(|line| {
                serde_json::from_str::<Value>(line).is_ok_and(|e| e["stageTimestamp"].as_str().unwrap() > last.as_str())
            })
        });
        joined
    }

    fn run(&self, log: &Path) -> (Done, Value) {
        let done = self.host.run(&["records", "--audit-log", log.to_str().unwrap(), "-o", "json"]);
        let value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        (done, value)
    }

    /// The log with its lines changed.
    fn changed(&self, change: impl Fn(Vec<String>) -> Vec<String>) -> PathBuf {
        let lines = change(std::fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect());
        let path = self.host.path("changed.log");
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
        path
    }
}

fn verdicts(value: &Value, target: &str) -> Vec<String> {
    let rotations = value["rotations"].as_array().unwrap().iter().filter(|r| r["target"] == target);
    rotations.map(|rotation| rotation["verdict"].as_str().unwrap().to_owned()).collect()
}

fn target<'a>(value: &'a Value, name: &str) -> &'a Value {
    value["targets"].as_array().unwrap().iter().find(|target| target["target"] == name).unwrap_or_else(|| panic!("{name}: {value}"))
}

#[test]
fn each_rotation_is_found_in_the_api_servers_log_and_unused_targets_are_named() {
    let joined = Joined::new("audit-both");
    let (done, value) = joined.run(&joined.log);
    for name in ["used", "idle", "other"] {
        assert_eq!(verdicts(&value, name), ["joined", "joined"], "{value:#}");
    }
    for rotation in value["rotations"].as_array().unwrap() {
        assert!(rotation["detail"].as_str().unwrap().starts_with("by Audit-Id and token"), "{rotation}");
        let event = &rotation["event"];
        assert_eq!((&event["auditId"], &event["jti"]), (&rotation["auditId"], &rotation["jti"]));
        assert!(event["user"].as_str().unwrap().starts_with("minter."), "the user of this host: {event}");
        assert!(event["userAgent"].as_str().unwrap().starts_with("tokenferry/"), "{event}");
    }
    assert_eq!(target(&value, "used")["state"], "used");
    assert!(target(&value, "used")["callers"][0].as_str().unwrap().contains("kubectl/"), "{value:#}");
    assert_eq!(target(&value, "idle")["state"], "unused", "our own proof is no use of it: {value:#}");
    assert_eq!(target(&value, "other")["state"], "notVisible");
    assert_eq!((value["mints"].as_array().unwrap().len(), done.code), (0, Some(0)), "{value:#}");
    let table = joined.host.run(&["records", "--audit-log", joined.log.to_str().unwrap()]);
    assert!(table.stdout.contains("IN THE LOG") && table.stdout.contains("unused"), "{table:?}");
    assert!(table.stderr.contains("6 joined, 0 missing") && table.stderr.contains("1 unused targets"), "{table:?}");
}

#[test]
fn a_token_that_somebody_else_minted_for_an_account_of_ours_is_told_and_fails() {
    let joined = Joined::new("audit-others");
    let kubectl = |account: &str| cluster().kubectl(&["create", "token", account, "-n", joined.namespace]);
    kubectl("idle");
    cluster().kubectl(&["create", "serviceaccount", "stranger", "-n", joined.namespace]);
    kubectl("stranger");
    let (done, value) = joined.run(&joined.log);
    let mints = value["mints"].as_array().unwrap();
    assert_eq!((mints.len(), done.code), (1, Some(1)), "{value:#}");
    assert_eq!((&mints[0]["user"], &mints[0]["verdict"]), (&"admin".into(), &"unexplained".into()));
    assert_eq!(mints[0]["serviceAccount"], format!("{}/idle", joined.namespace));
    assert!(mints[0]["sourceIPs"][0].is_string() && mints[0]["userAgent"].as_str().unwrap().starts_with("kubectl/"), "{value:#}");
}

#[test]
fn a_log_that_is_cut_or_lacks_an_event_says_what_is_missing() {
    let joined = Joined::new("audit-cut");
    let first = joined.host.records_of("rotated", "idle")[0]["auditId"].as_str().unwrap().to_owned();
    let taken_out = joined.changed(|lines| lines.into_iter().filter(|line| !line.contains(&first)).collect());
    let (done, value) = joined.run(&taken_out);
    assert_eq!((verdicts(&value, "idle"), done.code), (vec!["missing".to_owned(), "joined".into()], Some(1)), "{value:#}");

    let cut = joined.changed(|lines| lines.into_iter().map(|l| if l.contains(&first) { l[..l.len() / 2].to_owned() } else { l }).collect());
    let (done, value) = joined.run(&cut);
    assert_eq!((verdicts(&value, "idle"), done.code), (vec!["notCovered".to_owned(), "joined".into()], Some(0)), "{value:#}");
    assert!(done.stderr.contains("is cut in the middle"), "{done:?}");

    // Cut at its end: what comes later is not covered. Read from a pipe.
    let whole = std::fs::read(&joined.log).unwrap();
    let at = String::from_utf8_lossy(&whole).find(&first).unwrap();
    let mut child = joined.host.command(&["records", "--audit-log", "-", "-o", "json"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&whole[..at]).unwrap();
    let output = child.wait_with_output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((verdicts(&value, "idle"), output.status.code()), (vec!["notCovered".to_owned(); 2], Some(0)), "{value:#}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input: line"), "{output:?}");

    std::fs::write(joined.host.path("junk.log"), "junk\n").unwrap();
    let done = joined.host.run(&["records", "--audit-log", joined.host.path("junk.log").to_str().unwrap()]);
    assert!(done.code == Some(0) && done.stderr.contains("line 1 is no JSON") && done.stderr.contains("hold no event"), "{done:?}");
    let done = joined.host.run(&["records", "--audit-log", "/nonexistent"]);
    assert!(done.code == Some(1) && done.stderr.contains("/nonexistent"), "{done:?}");
}

#[test]
fn where_records_have_a_hole_a_mint_in_it_is_unknown_and_the_rest_joins() {
    let joined = Joined::new("audit-hole");
    // Of the first round: what is cut off at the end of the records leaves no hole in them.
    let lost = joined.host.records_of("rotated", "idle")[0].clone();
    let folder = joined.host.path("state/records");
    for file in std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let jti = lost["jti"].as_str().unwrap();
        let kept: String = text.lines().filter(|line| !line.contains(jti)).map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, kept).unwrap();
    }
    let (done, value) = joined.run(&joined.log);
    let mints = value["mints"].as_array().unwrap();
    assert_eq!((mints.len(), done.code), (1, Some(0)), "{value:#}");
    assert_eq!((&mints[0]["verdict"], &mints[0]["auditId"]), (&"unknown".into(), &lost["auditId"]));
    assert!(done.stderr.contains("records are missing from") && done.stderr.contains("is followed by"), "{done:?}");
    assert_eq!(verdicts(&value, "used"), ["joined", "joined"]);
}

#[test]
fn the_log_of_another_api_server_joins_nothing_and_calls_nothing_missing_before_it_is_told_whose_it_is() {
    let joined = Joined::new("audit-named");
    let (_, value) = joined.run(&joined.log);
    assert_eq!(value["clusters"], serde_json::json!(["prod"]));
    let done = joined.host.run(&["records", "--cluster", "prod"]);
    assert_eq!(done.code, Some(2), "--cluster says whose the logs are: {done:?}");
    let wrong = joined.host.json(&["records", "--audit-log", joined.log.to_str().unwrap(), "--cluster", "elsewhere"]);
    assert_eq!(wrong["mints"].as_array().unwrap().len(), 0);
}
