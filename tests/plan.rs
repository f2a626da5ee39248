//! `plan`: what will happen, from the schedule and the records on this host.

use serde_json::Value;

use crate::support::daemon::Host;

const SCHEDULE: &str = "clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, rotate: {splay: 0s}}
targets:
  - {name: short, serviceAccount: ci/short, duration: 1h, deliver: [{file: {path: HERE/out/short}}]}
  - {name: long, serviceAccount: ci/long, duration: 48h, deliver: [{file: {path: HERE/out/long}}]}
";

#[test]
fn the_timetable_goes_on_from_the_tokens_in_use() {
    let host = Host::new(SCHEDULE);
    let fresh = host.json(&["plan", "--horizon", "2h"]);
    let why = |shown: &Value| -> Vec<String> {
        shown["next"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| format!("{} {}", c["target"].as_str().unwrap(), c["why"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(why(&fresh), ["short new", "long new", "short lifetime", "short lifetime"]);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let served = host.json(&["plan", "--horizon", "2h"]);
    assert_eq!(why(&served), ["short lifetime", "short lifetime"]);
    assert_eq!(served["next"][0]["left"], 720);
    let table = host.run(&["plan"]);
    assert!(table.stdout.contains("cluster trial") && table.stderr.contains("no token can expire"), "{table:?}");
}

#[test]
fn a_drill_exits_1_and_names_who_would_lose_a_token() {
    let host = Host::new(SCHEDULE);
    let drilled = host.run(&["plan", "--drill", "6h", "-o", "json"]);
    assert_eq!(drilled.code, Some(1), "{drilled:?}");
    let shown: Value = serde_json::from_str(&drilled.stdout).unwrap();
    assert_eq!((shown["lost"].as_array().unwrap().len(), shown["lost"][0]["target"].as_str()), (1, Some("short")));
    assert_eq!(host.run(&["plan", "--drill", "10m"]).code, Some(0));
}

#[test]
fn a_difference_names_what_a_reload_would_change() {
    let host = Host::new(SCHEDULE);
    let before = host.schedule().with_file_name("before.yaml");
    std::fs::copy(host.schedule(), &before).unwrap();
    host.write_schedule(&SCHEDULE.replace("duration: 48h", "duration: 36h").replace("name: short", "name: brief"));
    let shown = host.json(&["plan", "--diff", before.to_str().unwrap()]);
    assert_eq!((&shown["added"][0], &shown["removed"][0], &shown["changed"][0]), (&"brief".into(), &"short".into(), &"long".into()));
}

#[test]
fn a_refused_schedule_has_no_plan() {
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: [{name: a}]");
    assert_eq!(host.run(&["plan"]).code, Some(2));
}
