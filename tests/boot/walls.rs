//! Walls around what the service may write, by the kernel, under the real units.

use super::{ONE, started, system};
use crate::support::until;

/// A target whose program and hook write to that folder.
fn writes(name: &str, to: &str) -> String {
    let script = format!("cat >/dev/null; cat /etc/os-release >{to}/{name}");
    format!(
        "  - {{name: {name}, serviceAccount: ci/{name}, deliver: [{{file: {{path: /run/tokenferry/{name}}}}}], after: [{{exec: {{command: [sh, -c, '{script}']}}}}]}}\n"
    )
}

const CONFINED: &str = "below the unit's and the plan's folders alone";

#[test]
fn what_the_service_starts_is_confined_by_the_kernel_even_where_the_unit_is_left_open() {
    let Some(system) = system() else { return };
    // Without ProtectSystem= only the walls stand in the way: the folder's mode lets the daemon's user write.
    system.drop_in("open", "ProtectSystem=no\nReadWritePaths=");
    system.done(&["install", "-d", "-o", "tokenferry", "/srv/open"]);
    system.write(
        "/etc/tokenferry/schedule.yaml",
        &format!("{}{}{}", ONE.replace("/ci/token", "/group"), writes("in", "/var/lib/tokenferry"), writes("out", "/srv/open")),
    );
    system.done(&["systemctl", "start", "tokenferry"]);
    until("the one hook could write", 60, || system.run(&["test", "-s", "/var/lib/tokenferry/in"]).status.success());
    until("the other could not", 60, || {
        let told = system.run(&["tokenferry", "records", "--kind", "told", "--target", "out", "-o", "json"]);
        String::from_utf8_lossy(&told.stdout).contains("cannot create /srv/open/out")
    });
    assert!(!system.run(&["test", "-e", "/srv/open/out"]).status.success());
    assert!(system.journal(&["-I"]).contains(CONFINED), "{}", system.journal(&["-I"]));
}

#[test]
fn the_shipped_unit_lets_the_calls_through_and_folders_of_a_drop_in_are_let_in() {
    let Some(system) = system() else { return };
    system.drop_in("more", "ReadWritePaths=/srv/open");
    system.done(&["install", "-d", "-o", "tokenferry", "/srv/open"]);
    system.write("/etc/tokenferry/schedule.yaml", &format!("{}{}", ONE.replace("/ci/token", "/group"), writes("out", "/srv/open")));
    system.done(&["systemctl", "start", "tokenferry"]);
    until("the hook could write", 60, || system.run(&["test", "-s", "/srv/open/out"]).status.success());
    let walls = || system.done(&["sh", "-c", "tokenferry doctor --all -o json | grep -A6 '\"check\": \"walls\"'"]);
    assert!(walls().contains("Landlock (version") && walls().contains("\"good\""), "{}", walls());
    // Without the calls it says so once, and serves all the same.
    system.drop_in("without", "SystemCallFilter=~landlock_create_ruleset");
    system.done(&["systemctl", "restart", "tokenferry"]);
    assert!(walls().contains("a filter of system calls forbids it") && walls().contains("\"warn\""), "{}", walls());
    assert!(system.journal(&["-I"]).contains("no walls around what this process writes"), "{}", system.journal(&["-I"]));
    until("it serves", 30, || system.status()["targets"][0]["state"] == "fresh");
}

#[test]
fn g5_a_reload_that_needs_another_folder_is_refused_and_after_host_apply_a_restart_takes_it_and_mints_nothing_fresh() {
    let Some(system) = system() else { return };
    started(&system);
    until("both are recorded", 30, || system.records("rotated") == 2);
    let more = "  - name: new\n    serviceAccount: ci/new\n    deliver: [{file: {path: /secure/new/token}}]\n";
    system.write("/etc/tokenferry/schedule.yaml", &format!("{ONE}{more}"));
    let refused = system.run(&["systemctl", "reload", "tokenferry"]);
    assert!(!refused.status.success(), "{refused:?}");
    let said = system.journal(&["-I"]);
    for part in [
        "schedule.yaml:9:29: error: target new: targets[2].deliver[0].file.path: /secure/new is outside",
        "`tokenferry host --apply` names it in /etc/systemd/system/tokenferry.service.d/50-schedule.conf",
        "`systemctl restart tokenferry.service`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(system.status()["targets"].as_array().unwrap().len(), 2);
    system.done(&["tokenferry", "host", "--apply"]);
    system.done(&["test", "-e", "/etc/systemd/system/tokenferry.service.d/50-schedule.conf"]);
    system.done(&["systemctl", "restart", "tokenferry"]);
    until("the new one is served too", 30, || system.records("rotated") == 3);
    system.done(&["test", "-s", "/secure/new/token"]);
}

#[test]
fn instances_and_runs_without_a_daemon_are_confined_too() {
    let Some(system) = system() else { return };
    let text = "version: 1\nclusters: {trial: {embedded: {}}}\ntargets:\n  - {name: edge, cluster: trial, duration: 1h, serviceAccount: ci/edge, deliver: [{file: {path: /run/tokenferry-edge/token}}]}\n";
    system.write("/etc/tokenferry/edge.yaml", text);
    system.done(&["systemctl", "start", "tokenferry-once@edge"]);
    let said = system.journal_of("tokenferry-once@edge", &["-I"]);
    assert!(said.contains(CONFINED), "{said}");
    system.done(&["systemctl", "start", "tokenferry@edge"]);
    system.write("/etc/tokenferry/edge.yaml", &text.replace("/run/tokenferry-edge/", "/secure/"));
    assert!(!system.run(&["systemctl", "reload", "tokenferry@edge"]).status.success());
    let said = system.journal_of("tokenferry@edge", &["-I"]);
    assert!(said.contains(CONFINED), "{said}");
    assert!(said.contains("tokenferry --instance edge host --apply --unit tokenferry@edge.service"), "{said}");
}
