//! The service is stopped in the middle of its work, folders go missing under it, and its event loop hangs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ONE, System, started, system};
use crate::support::servers::cluster;
use crate::support::trace::{here, hold};
use crate::support::until;

const MANY: usize = 120;

/// So many targets, ten a second, each with a file and a slow program that keeps the token in a file of its own.
fn batch() -> String {
    let mut text = "version: 1\nclusters: {prod: {kubeconfig: prod.kubeconfig, limits: {perSecond: 10}}}\ndefaults: {cluster: prod, duration: 1h, serviceAccount: cicd/builder}\ntargets:\n".to_owned();
    for n in 0..MANY {
        text += &format!(
            "  - {{name: t{n}, deliver: [{{file: {{path: /run/tokenferry/t{n}}}}}, {{command: {{command: [sh, -c, 'cat >/var/lib/tokenferry/got/t{n}.new && sleep 1 && mv /var/lib/tokenferry/got/t{n}.new /var/lib/tokenferry/got/t{n}']}}}}]}}\n"
        );
    }
    text
}

/// The lines of that kind, by target.
fn lines(system: &System, kind: &str) -> BTreeMap<String, Vec<Value>> {
    let run = system.run(&["tokenferry", "records", "--kind", kind, "-o", "json"]);
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in String::from_utf8(run.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        found.entry(line["target"].as_str().unwrap_or_default().to_owned()).or_default().push(line);
    }
    found
}

#[test]
fn g10_a_stop_in_mid_batch_ends_in_time_with_every_rotation_whole_or_not_begun_and_the_next_start_does_the_rest() {
    let Some(system) = system() else { return };
    let kube = cluster().kube();
    system.write("/etc/tokenferry/prod.kubeconfig", &std::fs::read_to_string(&kube.minter_kubeconfig).unwrap());
    system.done(&["sh", "-c", "chgrp tokenferry /etc/tokenferry/prod.kubeconfig; chmod 640 /etc/tokenferry/prod.kubeconfig"]);
    system.write("/etc/tokenferry/schedule.yaml", &batch());
    system.done(&["install", "-d", "-o", "tokenferry", "/var/lib/tokenferry/got"]);
    system.done(&["systemctl", "start", "tokenferry"]);
    until("the batch is under way", 60, || {
        let count = system.done(&["sh", "-c", "ls /var/lib/tokenferry/got | grep -c '[.]new$' || true"]);
        count.trim().parse::<usize>().unwrap() > 3
    });
    let begun = Instant::now();
    system.done(&["systemctl", "stop", "tokenferry"]);
    let took = begun.elapsed();
    println!("figures: boot: stopped in mid-batch after {:.1} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(45), "TimeoutStopSec was reached: {took:?}");
    assert_eq!((system.show("Result").as_str(), system.show("ExecMainStatus").as_str()), ("success", "0"));
    system.done(&["tokenferry", "records", "verify"]);
    let before = lines(&system, "rotated");
    assert!(before.len() < MANY, "all {MANY} were rotated: nothing was stopped in mid-batch");
    assert!(lines(&system, "failed").is_empty(), "a stop is no failure: {:?}", lines(&system, "failed"));
    // What is recorded is published, at both places, and what is published is recorded.
    for folder in ["/run/tokenferry", "/var/lib/tokenferry/got"] {
        let there = system.done(&["sh", "-c", &format!("cd {folder}; ls -A | grep '^[.]*t[0-9]' || true")]);
        let mut there: Vec<&str> = there.lines().collect();
        there.sort_unstable();
        let recorded: Vec<&str> = before.keys().map(String::as_str).collect();
        assert_eq!(there, recorded, "{folder}");
    }
    system.done(&["systemctl", "start", "tokenferry"]);
    until("the rest is done", 120, || system.records("rotated") == MANY);
    let after = lines(&system, "rotated");
    assert!(after.values().all(|lines| lines.len() == 1), "a target was rotated twice");
    assert!(before.iter().all(|(name, lines)| lines[0]["jti"] == after[name][0]["jti"]));
}

/// The last word on a target: state and error.
fn word(system: &System, index: usize) -> (String, String) {
    let target = system.status()["targets"][index].clone();
    (target["state"].as_str().unwrap_or_default().to_owned(), target["lastError"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_folder_that_goes_missing_is_named_with_the_way_out_and_is_healed_by_it() {
    let Some(system) = system() else { return };
    let text = format!("{ONE}  - {{name: out, serviceAccount: ci/out, deliver: [{{file: {{path: /secure/app/token}}}}]}}\n");
    system.write("/etc/tokenferry/schedule.yaml", &text.replace("/ci/token", "/group"));
    system.done(&["tokenferry", "host", "--apply"]);
    system.done(&["systemctl", "start", "tokenferry"]);
    until("all are fresh", 30, || system.records("rotated") == 3);
    // Outside of the unit's own folders: its mount goes with it, so that making it again is half of the way.
    system.done(&["rm", "-r", "/secure/app"]);
    assert!(!system.run(&["tokenferry", "rotate", "out"]).status.success());
    let (state, error) = word(&system, 2);
    assert!(error.contains("folder /secure/app does not exist") && error.contains("tokenferry host --apply"), "{state}: {error}");
    system.done(&["systemd-tmpfiles", "--create", "tokenferry-schedule.conf"]);
    assert!(!system.run(&["tokenferry", "rotate", "out"]).status.success());
    let (state, error) = word(&system, 2);
    assert!(error.contains("restart"), "{state}: {error}");
    system.done(&["systemctl", "restart", "tokenferry"]);
    until("it is served again", 30, || word(&system, 2).0 == "fresh");
    system.done(&["test", "-s", "/secure/app/token"]);
    // G5 for the others all along.
    let rotated = lines(&system, "rotated");
    assert_eq!((rotated["own"].len(), rotated["group"].len()), (1, 1));
    // One of the daemon's own folders is simply made again.
    system.done(&["rm", "/run/tokenferry/own"]);
    until("it is put right", 60, || system.run(&["test", "-s", "/run/tokenferry/own"]).status.success());
}

#[test]
fn g6_a_folder_that_is_missing_at_the_start_stops_no_other_target() {
    let Some(system) = system() else { return };
    let text = format!("{ONE}  - {{name: out, serviceAccount: ci/out, deliver: [{{file: {{path: /secure/app/token}}}}]}}\n");
    system.write("/etc/tokenferry/schedule.yaml", &text.replace("/ci/token", "/group"));
    system.done(&["tokenferry", "host", "--apply"]);
    system.done(&["rm", "-r", "/secure"]);
    system.done(&["systemctl", "start", "tokenferry"]);
    until("the others are fresh", 30, || word(&system, 0).0 == "fresh" && word(&system, 1).0 == "fresh");
    until("the one is named", 30, || word(&system, 2).1.contains("folder /secure does not exist"));
    system.done(&["systemd-tmpfiles", "--create", "tokenferry-schedule.conf"]);
    system.done(&["systemctl", "restart", "tokenferry"]);
    until("it is served", 30, || word(&system, 2).0 == "fresh");
}

#[test]
fn an_event_loop_that_hangs_while_its_other_threads_run_is_replaced_by_the_watchdog() {
    let Some(system) = system() else { return };
    if !here("watchdog on a hung loop") {
        return;
    }
    system.drop_in("fast", "WatchdogSec=3\nRestartSec=100ms");
    started(&system);
    let before = system.show("MainPID");
    // The loop runs on the first thread; the kernel holds that one, and the others go on.
    hold(outside(&system, &before));
    let threads = |state: &str| {
        let states = system.done(&["sh", "-c", &format!("cat /proc/{before}/task/*/stat 2>/dev/null | sed 's/.*) //' | cut -c1")]);
        states.lines().filter(|line| *line == state).count()
    };
    assert!(threads("t") == 1 && threads("S") >= 2, "one thread is held, and the others are not");
    until("another one serves", 60, || {
        system.show("ActiveState") == "active" && !["0", &before].contains(&system.show("MainPID").as_str())
    });
    assert!(system.journal(&["-n", "40"]).contains("Watchdog timeout"), "{}", system.journal(&["-n", "40"]));
    assert_eq!(system.show("NRestarts"), "1");
}

#[test]
fn a_schedule_that_was_never_good_fails_the_start_with_its_problems_and_is_not_tried_again() {
    let Some(system) = system() else { return };
    system.drop_in("fast", "RestartSec=100ms");
    system.write("/etc/tokenferry/schedule.yaml", &format!("{ONE}nonsense: 1\n"));
    assert!(!system.run(&["systemctl", "start", "tokenferry"]).status.success());
    // Else it stood at `activating`, until the next try.
    assert_eq!((system.show("ActiveState"), system.show("SubState")), ("failed".into(), "failed".into()));
    assert_eq!((system.show("ExecMainStatus"), system.show("NRestarts")), ("2".into(), "0".into()));
    assert!(system.journal(&["-I"]).contains("schedule.yaml:7:1: error: "), "{}", system.journal(&["-I"]));
    system.write("/etc/tokenferry/schedule.yaml", ONE);
    system.done(&["systemctl", "start", "tokenferry"]);
}

/// The number that this host knows a process of the system by: the last of `NSpid` is the one that it has in there.
fn outside(system: &System, inside: &str) -> i32 {
    let group = format!("/{}/", system.group());
    let ours = |pid: &str| -> Option<bool> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let status = read("status")?;
        let numbers = status.lines().find(|line| line.starts_with("NSpid:"))?;
        Some(numbers.split_whitespace().last() == Some(inside) && read("cgroup")?.contains(&group))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    entries.filter(|name| ours(name) == Some(true)).find_map(|name| name.parse().ok()).expect("the daemon runs on this host")
}
