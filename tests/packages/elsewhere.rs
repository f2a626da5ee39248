//! The package where it is not the newest systemd on a machine of its own: under the oldest one that it is for, and in a
//! container of systemd-nspawn, whose filter of system calls knows no Landlock.

use super::{System, TRIAL, gone, install, root, served, versions};
use crate::support::until;

#[test]
fn under_the_oldest_systemd_that_it_is_for_the_package_lives_its_whole_life_inside_its_walls() {
    let Some(system) = System::of_suite("bookworm", "oldest") else { return };
    assert!(system.done(&["systemctl", "--version"]).starts_with("systemd 252"));
    live(&system, |walls, said| {
        // The calls of Landlock are in no group of this systemd's: the unit names them itself.
        assert!(walls.contains("Landlock (version") && walls.contains("\"good\""), "{walls}");
        assert!(said.contains("below the unit's and the plan's folders alone"), "{said}");
    });
    system.end();
}

#[test]
fn in_a_container_that_knows_no_landlock_the_package_lives_its_whole_life_and_says_what_is_missing() {
    let Some(system) = System::nspawn("container") else { return };
    assert_eq!(system.done(&["systemd-detect-virt", "--container"]).trim(), "systemd-nspawn");
    live(&system, |walls, said| {
        let missing = "the kernel has no Landlock, or a filter of system calls forbids it";
        assert!(walls.contains(&format!("none: {missing}")) && walls.contains("\"warn\""), "{walls}");
        assert!(said.contains(&format!("no walls around what this process writes: {missing}")), "{said}");
    });
    system.end();
}

/// From the installation to the purge; how the walls stand by `doctor` and by the journal is looked at.
fn live(system: &System, look: impl Fn(&str, &str)) {
    let failed = || system.done(&["systemctl", "list-units", "--failed", "--no-legend", "--plain"]);
    let before = failed();
    install(system, &versions()[0]);
    assert_eq!(system.done(&["systemctl", "is-enabled", "tokenferry"]).trim(), "enabled");
    assert_eq!((system.show("ActiveState").as_str(), system.show("ConditionResult").as_str()), ("inactive", "no"));
    shut(system);

    served(system);
    assert_eq!(system.show("StatusText"), "serving 2 targets");
    let tokens = || system.done(&["sh", "-c", "cat /run/tokenferry/one /run/tokenferry/two"]);
    let first = tokens();
    let walls = system.done(&["sh", "-c", "tokenferry doctor --all -o json | grep -A6 '\"check\": \"walls\"'"]);
    look(&walls, &system.journal(&[]));

    let more = "  - {name: new, serviceAccount: ci/new, deliver: [{file: {path: /run/tokenferry/new}}]}\n";
    system.write("/etc/tokenferry/schedule.yaml", &format!("{TRIAL}{more}"));
    system.done(&["systemctl", "reload", "tokenferry"]);
    until("the new one is served too", 30, || system.records("rotated") == 3);
    system.write("/etc/tokenferry/schedule.yaml", &format!("{TRIAL}{more}    nonsense: 1\n"));
    assert!(!system.run(&["systemctl", "reload", "tokenferry"]).status.success());
    assert_eq!((system.show("ActiveState").as_str(), system.status()["targets"].as_array().unwrap().len()), ("active", 3));
    system.write("/etc/tokenferry/schedule.yaml", &format!("{TRIAL}{more}"));
    system.done(&["systemctl", "restart", "tokenferry"]);
    assert_eq!((system.records("rotated"), tokens()), (3, first), "a restart minted");

    system.done(&["systemctl", "stop", "tokenferry"]);
    assert_eq!((system.show("Result").as_str(), failed()), ("success", before.clone()));
    system.done(&["dpkg", "--purge", "tokenferry"]);
    gone(system);
    assert_eq!(failed(), before);
}

/// How open that systemd finds the unit, as it is shipped and with the drop-ins: 0 is all shut, 10 is open.
fn shut(system: &System) {
    let score = |what: &str, most: f64| {
        let analyze = ["systemd-analyze", "security", "--no-pager", "--offline=yes", "/usr/lib/systemd/system/tokenferry.service"];
        let report = system.done(&analyze);
        let verdict = report.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
        println!("{} {what}: {verdict}", system.done(&["systemctl", "--version"]).lines().next().unwrap());
        let score: f64 = verdict.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(score <= most, "{what}: {score} is more than {most}");
    };
    score("as shipped", 1.1);
    let addresses = std::fs::read_to_string(root().join("systemd/drop-ins/addresses.conf")).unwrap();
    system.write("/etc/systemd/system/tokenferry.service.d/addresses.conf", &addresses);
    score("with the addresses named", 1.0);
    system.done(&["rm", "-r", "/etc/systemd/system/tokenferry.service.d"]);
    let reader = TRIAL.replace("/run/tokenferry/one}", "/secure/one, readers: [\"user:nobody\"]}");
    system.write("/etc/tokenferry/schedule.yaml", &reader);
    system.done(&["tokenferry", "host", "--apply"]);
    assert!(system.done(&["systemctl", "cat", "tokenferry"]).contains("PrivateUsers=no"));
    score("with what `host --apply` writes for readers", 1.3);
    system.done(&["rm", "/etc/tokenferry/schedule.yaml"]);
    let written = "/etc/systemd/system/tokenferry.service.d /etc/tmpfiles.d/tokenferry-schedule.conf /secure";
    system.done(&["sh", "-c", &format!("rm -rf {written}; systemctl daemon-reload")]);
}
