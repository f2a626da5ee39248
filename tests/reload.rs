//! Reloads: taken whole or not at all, across restarts too.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::Host;
use crate::support::until;

const ONE: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - name: one
    serviceAccount: ci/one
    deliver: [{file: {path: HERE/out/one}}]
";
const MORE: &str = "
  - name: two
    serviceAccount: ci/two
    deliver: [{file: {path: HERE/out/two}}]
";

#[test]
fn g9_a_bad_reload_changes_nothing_and_says_where_and_why() {
    let mut host = Host::new(ONE);
    host.start();
    until("it is delivered", 20, || host.records_of("rotated", "one").len() == 1);
    let before = (host.read("out/one"), host.records_of("rotated", "one").len());
    host.write_schedule(&format!("{ONE}{}", MORE.replace("serviceAccount", "serviceAcount")));
    let reload = host.run(&["reload"]);
    assert_eq!(reload.code, Some(2), "{reload:?}");
    assert!(reload.stderr.contains("schedule.yaml:13:5: error: ") && reload.stderr.contains("serviceAcount"), "{reload:?}");
    assert_eq!((host.read("out/one"), host.records_of("rotated", "one").len()), before);
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
    let status = host.run(&["status"]);
    assert_eq!(status.code, Some(1), "a refused schedule waits to be mended: {status:?}");
    assert_eq!(host.records().last().unwrap()["kind"], "reloadRefused");
    // It is no other at the next start.
    host.kill();
    host.start();
    assert_eq!(host.read("out/one"), before.0);
    let status = host.run(&["status"]);
    assert_eq!(status.code, Some(1), "{status:?}");
    assert!(status.stdout.contains("serviceAcount"), "{status:?}");
    // Mended, it is taken.
    host.write_schedule(&format!("{ONE}{MORE}"));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    until("the new target is delivered", 20, || host.path("out/two").exists());
    assert_eq!(host.run(&["status"]).code, Some(0));
    assert_eq!(host.records_of("rotated", "one").len(), 1);
}

#[test]
fn g9_a_refused_first_schedule_stops_the_start_with_every_problem() {
    let host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets:\n  - name: A b\n    cluster: trial\n    serviceAccount: x\n    duration: 1h\n    deliver: []\n",
    );
    for command in ["run", "once"] {
        let done = host.run(&[command]);
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.lines().filter(|l| l.contains(": error: ")).count() >= 3, "{done:?}");
    }
    assert!(!host.path("state/records").exists(), "a refused schedule left something behind");
}

#[test]
fn a_good_reload_adds_removes_and_changes_without_touching_the_rest() {
    let mut host = Host::new(&format!("{ONE}{MORE}"));
    host.start();
    until("both are there", 20, || host.path("out/two").exists() && host.path("out/one").exists());
    let two = host.read("out/two");
    let three = MORE.replace("two", "three");
    host.write_schedule(&format!("{}{three}", ONE.replace("ci/one", "ci/other")));
    let verdict = host.json(&["reload"]);
    assert_eq!(verdict["added"], serde_json::json!(["three"]));
    assert_eq!(verdict["removed"], serde_json::json!(["two"]));
    assert_eq!(verdict["changed"], serde_json::json!(["one"]));
    until("three is delivered", 20, || host.path("out/three").exists());
    until("one is minted for its new account", 20, || host.records_of("rotated", "one").len() == 2);
    assert_eq!(host.records_of("rotated", "one")[1]["reason"], "changed");
    assert_eq!(host.read("out/two"), two, "what went out of the schedule stays as it is");
    assert_eq!(host.records_of("retired", "two").len(), 1);
    let status = host.json(&["status"]);
    let names: Vec<&str> = status["targets"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "three"]);
}

#[test]
fn sighup_and_a_changed_file_reload_too() {
    let mut host = Host::new(&format!("reloadOnChange: true{ONE}"));
    host.start();
    host.write_schedule(&format!("reloadOnChange: true{ONE}{MORE}"));
    until("the changed file is in force", 20, || host.path("out/two").exists());
    host.write_schedule(&format!("{ONE}{}", MORE.replace("two", "three")));
    host.signal(Signal::HUP);
    until("the hangup is heeded", 20, || host.path("out/three").exists());
}

#[test]
fn five_hundred_targets_of_which_one_is_wrong_are_refused_whole() {
    let target = |n: usize| format!("  - name: t{n}\n    serviceAccount: ci/t{n}\n    deliver: [{{file: {{path: HERE/out/t{n}}}}}]\n");
    let head = "clusters: {trial: {embedded: {}}}\ndefaults: {cluster: trial, duration: 1h}\ntargets:\n";
    let all: String = (0..500).map(target).collect();
    let mut host = Host::new(&format!("{head}{}", target(0)));
    host.start();
    host.write_schedule(&format!("{head}{}", all.replace("ci/t377\n", "ci-t377\n")));
    let reload = host.run(&["reload"]);
    assert_eq!(reload.code, Some(2));
    assert!(reload.stderr.contains("t377"), "{reload:?}");
    assert_eq!(host.json(&["status"])["targets"].as_array().unwrap().len(), 1);
    host.write_schedule(&format!("{head}{all}"));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    until("all are delivered", 60, || host.records().iter().filter(|l| l["kind"] == "rotated").count() == 500);
}

#[test]
fn reloads_at_once_are_taken_one_after_the_other_and_each_is_answered() {
    let mut host = Host::new(ONE);
    host.start();
    until("it is delivered", 20, || host.records_of("rotated", "one").len() == 1);
    host.write_schedule(&format!("{ONE}{MORE}"));
    let asked: Vec<_> =
        (0..8).map(|_| host.command(&["reload", "-o", "json"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let said: Vec<Value> =
        asked.into_iter().map(|reload| serde_json::from_slice(&reload.wait_with_output().unwrap().stdout).unwrap()).collect();
    assert!(said.iter().all(|verdict| verdict["accepted"] == true), "{said:?}");
    // The plan of the first is what the others are held against.
    let adding = said.iter().filter(|verdict| verdict["added"] == serde_json::json!(["two"])).count();
    assert_eq!(adding, 1, "{said:?}");
    assert_eq!(host.records().iter().filter(|line| line["kind"] == "reloaded").count(), 8);
    until("the new target is delivered", 20, || host.path("out/two").exists());
    assert_eq!(host.records_of("rotated", "one").len(), 1);
}
