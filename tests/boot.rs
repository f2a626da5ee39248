//! The service under a real systemd: the shipped unit, users and folders, installed in a Debian tree that is booted in
//! namespaces of its own. One system serves all tests of this file, one after the other.

mod plugin;
mod stops;
mod told;
mod walls;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use serde_json::Value;

use crate::shipped::root;
use crate::support::daemon::tool;
use crate::support::servers::cluster;
use crate::support::system::System;
use crate::support::until;

/// The one system, ours alone until dropped; `None` where none can be booted, which was said.
fn system() -> Option<MutexGuard<'static, System>> {
    static SYSTEM: OnceLock<Option<Mutex<System>>> = OnceLock::new();
    let boot = || System::boot("boot").inspect(System::install).map(Mutex::new);
    let system = SYSTEM.get_or_init(boot).as_ref();
    if system.is_none() {
        println!("NOT RUN: this test needs the booted system");
    }
    let system = system?.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    system.clean();
    Some(system)
}

const ONE: &str = "version: 1
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - {name: own, serviceAccount: ci/own, deliver: [{file: {path: /run/tokenferry/own}}]}
  - {name: group, serviceAccount: ci/group, deliver: [{file: {path: /run/tokenferry/ci/token, mode: \"0640\"}}]}
";

/// The first schedule, with the folder that gives tokens to a group.
fn started(system: &System) {
    system.write("/etc/tokenferry/schedule.yaml", ONE);
    system.write("/etc/tmpfiles.d/tokenferry-ci.conf", "d /run/tokenferry/ci 2750 tokenferry ci -\n");
    system.done(&["systemd-tmpfiles", "--create", "tokenferry-ci.conf"]);
    system.done(&["systemctl", "start", "tokenferry"]);
}

#[test]
fn without_a_schedule_the_service_is_skipped_and_not_failed() {
    let Some(system) = system() else { return };
    system.done(&["systemctl", "start", "tokenferry"]);
    assert_eq!(system.show("ActiveState"), "inactive");
    assert_eq!(system.show("ConditionResult"), "no");
    let check = system.run(&["tokenferry", "check"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(check.status.code() == Some(2) && said.contains("tokenferry bootstrap CLUSTER"), "{check:?}");
}

#[test]
fn it_is_ready_once_its_plan_is_in_force_and_its_tokens_are_for_their_group_and_nobody_else() {
    let Some(system) = system() else { return };
    started(&system);
    // `systemctl start` ended: the plan is in force.
    assert_eq!(system.show("StatusText"), "serving 2 targets");
    until("both stand there", 30, || {
        system.run(&["test", "-s", "/run/tokenferry/ci/token", "-a", "-s", "/run/tokenferry/own"]).status.success()
    });
    let stat = |path: &str| system.done(&["stat", "-c", "%a %U %G", path]).trim().to_owned();
    assert_eq!(stat("/run/tokenferry/own"), "600 tokenferry tokenferry");
    assert_eq!(stat("/run/tokenferry/ci/token"), "640 tokenferry ci");
    assert_eq!(stat("/run/tokenferry/control.sock"), "660 tokenferry tokenferry-admin");
    assert_eq!(stat("/var/lib/tokenferry/records"), "700 tokenferry tokenferry");
    let reads =
        |user: &str, path: &str| system.run(&["setpriv", &format!("--reuid={user}"), "--init-groups", "cat", path]).status.success();
    assert!(reads("reader", "/run/tokenferry/ci/token"));
    assert!(!reads("stranger", "/run/tokenferry/ci/token") && !reads("reader", "/run/tokenferry/own"));
    let asks =
        |user: &str| system.run(&["setpriv", &format!("--reuid={user}"), "--init-groups", "tokenferry", "rotate", "own"]).status.code();
    assert_eq!((asks("admin"), asks("stranger")), (Some(0), Some(4)));
    assert_eq!(
        system.done(&["sh", "-c", "grep CapEff /proc/$(systemctl show --value -p MainPID tokenferry)/status"]).trim(),
        "CapEff:\t0000000000000000"
    );
}

#[test]
fn a_rotation_is_found_in_the_journal_by_its_target_and_its_token_by_its_id() {
    let Some(system) = system() else { return };
    started(&system);
    until("it is recorded", 30, || system.records("rotated") == 2);
    let found = system.done(&["journalctl", "--no-pager", "-o", "json", "TARGET=group"]);
    let entry: Value = serde_json::from_str(found.lines().last().unwrap()).unwrap();
    let jti = entry["JTI"].as_str().unwrap();
    assert_eq!((entry["MESSAGE"].as_str(), entry["_SYSTEMD_UNIT"].as_str()), (Some("rotated"), Some("tokenferry.service")));
    assert_eq!(system.done(&["journalctl", "--no-pager", "-o", "cat", &format!("JTI={jti}")]).trim(), "rotated");
    assert!(!system.journal(&["-o", "json"]).contains("eyJ"), "a token is in the journal");
}

#[test]
fn the_exit_code_of_a_reload_is_the_verdict_and_a_refused_schedule_changes_nothing() {
    let Some(system) = system() else { return };
    started(&system);
    let more = "  - {name: new, serviceAccount: ci/new, deliver: [{file: {path: /run/tokenferry/new}}]}\n";
    system.write("/etc/tokenferry/schedule.yaml", &format!("{ONE}{more}"));
    system.done(&["systemctl", "reload", "tokenferry"]);
    assert_eq!(system.status()["targets"].as_array().unwrap().len(), 3);
    system.write("/etc/tokenferry/schedule.yaml", &format!("{ONE}{more}    nonsense: 1\n"));
    assert!(!system.run(&["systemctl", "reload", "tokenferry"]).status.success());
    assert_eq!((system.show("ActiveState").as_str(), system.status()["targets"].as_array().unwrap().len()), ("active", 3));
    assert!(system.journal(&[]).contains("schedule.yaml:8:"), "{}", system.journal(&["-n", "20"]));
    // A restart serves the last accepted one, and mints nothing that is fresh (G5).
    until("all are served", 30, || system.records("rotated") == 3);
    system.done(&["systemctl", "restart", "tokenferry"]);
    assert_eq!((system.records("rotated"), system.status()["targets"].as_array().unwrap().len()), (3, 3));
}

#[test]
fn g5_a_hundred_kills_meet_no_start_limit_and_mint_nothing_that_is_fresh() {
    let Some(system) = system() else { return };
    started(&system);
    until("both are recorded", 30, || system.records("rotated") == 2);
    system.write("/etc/systemd/system/tokenferry.service.d/fast.conf", "[Service]\nRestartSec=20ms\n");
    system.done(&["systemctl", "daemon-reload"]);
    // Bounded by the pid that systemd knows: 0 would be the shell's own group.
    let kills = "for n in $(seq 100); do
        p=0; for try in $(seq 600); do
            p=$(systemctl show --value -p MainPID tokenferry)
            if [ \"$p\" -gt 1 ] && [ \"$p\" != \"$last\" ]; then break; fi; sleep 0.05
        done
        [ \"$p\" -gt 1 ] || exit 1
        last=$p; kill -KILL \"$p\"
    done";
    system.done(&["sh", "-c", kills]);
    until("it is back", 60, || system.show("ActiveState") == "active");
    assert!(system.show("NRestarts").parse::<u32>().unwrap() >= 99, "{}", system.show("NRestarts"));
    assert_eq!(system.records("rotated"), 2);
}

#[test]
fn a_process_that_stands_still_is_replaced_by_the_watchdog() {
    let Some(system) = system() else { return };
    system.write("/etc/systemd/system/tokenferry.service.d/fast.conf", "[Service]\nWatchdogSec=2\nRestartSec=100ms\n");
    system.done(&["systemctl", "daemon-reload"]);
    started(&system);
    let before = system.show("MainPID");
    system.done(&["sh", "-c", &format!("kill -STOP {before}")]);
    until("another one serves", 60, || {
        system.show("ActiveState") == "active" && !["0", &before].contains(&system.show("MainPID").as_str())
    });
    assert!(system.journal(&[]).contains("atchdog"), "{}", system.journal(&["-n", "20"]));
}

#[test]
fn owners_readers_and_folders_outside_work_after_host_apply_and_its_error_names_that_before() {
    let Some(system) = system() else { return };
    let places = "{path: /secure/app/token, mode: \"0640\", group: ci}}, {file: {path: /secure/acl/token, readers: [\"user:stranger\"]}";
    system.write(
        "/etc/tokenferry/schedule.yaml",
        &format!(
            "version: 1\nclusters: {{trial: {{embedded: {{}}}}}}\ntargets: [{{name: a, cluster: trial, serviceAccount: ci/a, duration: 1h, deliver: [{{file: {places}}}]}}]\n"
        ),
    );
    system.done(&["systemctl", "start", "tokenferry"]);
    until("it says what is missing", 30, || system.status()["targets"][0]["lastError"].is_string());
    let error = system.status()["targets"][0]["lastError"].to_string();
    assert!(error.contains("host --apply"), "{error}");
    system.done(&["tokenferry", "host", "--apply"]);
    system.done(&[
        "sh",
        "-c",
        "systemd-tmpfiles --create tokenferry-schedule.conf && systemctl daemon-reload && systemctl restart tokenferry",
    ]);
    until("both are written", 30, || system.status()["targets"][0]["state"] == "fresh");
    assert_eq!(system.done(&["stat", "-c", "%a %U %G", "/secure/app/token"]).trim(), "640 tokenferry ci");
    system.done(&["setpriv", "--reuid=stranger", "--init-groups", "cat", "/secure/acl/token"]);
    assert!(!system.run(&["setpriv", "--reuid=reader", "--init-groups", "cat", "/secure/acl/token"]).status.success());
}

#[test]
fn a_hook_reloads_another_unit_by_the_polkit_rule_of_host_and_without_it_says_so() {
    let Some(system) = system() else { return };
    system.write(
        "/etc/systemd/system/reader.service",
        "[Service]\nType=exec\nExecStart=/usr/bin/sleep infinity\nExecReload=/bin/sh -c 'echo again >>/run/reloaded'\n",
    );
    system.done(&["sh", "-c", "systemctl daemon-reload; rm -f /run/reloaded; systemctl restart reader"]);
    system.write(
        "/etc/tokenferry/schedule.yaml",
        "version: 1\nclusters: {trial: {embedded: {}}}\ntargets: [{name: a, cluster: trial, serviceAccount: ci/a, duration: 1h, deliver: [{file: {path: /run/tokenferry/a}}], after: [{systemd: {reloadUnit: reader.service}}]}]\n",
    );
    system.done(&["systemctl", "start", "tokenferry"]);
    until("the refusal is recorded", 60, || {
        let told = system.run(&["tokenferry", "records", "--kind", "told", "-o", "json"]);
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        told.contains("host --apply") || told.contains("polkit")
    });
    assert!(!system.run(&["test", "-e", "/run/reloaded"]).status.success());
    system.done(&["tokenferry", "host", "--apply"]);
    system.done(&["tokenferry", "rotate", "a"]);
    until("the unit is reloaded", 60, || system.run(&["test", "-s", "/run/reloaded"]).status.success());
}

#[test]
fn credentials_of_the_unit_sign_the_records() {
    let Some(system) = system() else { return };
    system.write("/etc/tokenferry/secrets/approle-secret-id", "none\n");
    let key = tool(Command::new("openssl").args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]));
    system.write("/etc/tokenferry/secrets/records-key", &key);
    system.done(&["chmod", "-R", "go=", "/etc/tokenferry/secrets"]);
    let drop_in = std::fs::read_to_string(root().join("systemd/drop-ins/credentials.conf")).unwrap();
    system.write("/etc/systemd/system/tokenferry.service.d/credentials.conf", &drop_in);
    system.done(&["systemctl", "daemon-reload"]);
    system.write(
        "/etc/tokenferry/schedule.yaml",
        &format!("{ONE}records: {{signingKey: {{file: '${{CREDENTIALS_DIRECTORY}}/records-key'}}}}\n"),
    );
    system.done(&["systemctl", "start", "tokenferry"]);
    until("a head is signed", 30, || system.run(&["sh", "-c", "test -s /var/lib/tokenferry/records/*.sig"]).status.success());
}

#[test]
fn an_instance_and_the_timer_without_a_daemon_serve_a_schedule_of_their_own() {
    let Some(system) = system() else { return };
    let text =
        ONE.lines().take(4).chain(["  - {name: edge, serviceAccount: ci/edge, deliver: [{file: {path: /run/tokenferry-edge/token}}]}"]);
    system.write("/etc/tokenferry/edge.yaml", &(text.collect::<Vec<_>>().join("\n") + "\n"));
    system.done(&["systemctl", "start", "tokenferry-once@edge"]);
    let first = system.done(&["cat", "/run/tokenferry-edge/token"]);
    system.done(&["systemctl", "start", "tokenferry-once@edge.timer"]);
    system.done(&["systemctl", "start", "tokenferry@edge"]);
    assert_eq!(system.done(&["cat", "/run/tokenferry-edge/token"]), first, "what is fresh is not minted again");
    let status = system.done(&["tokenferry", "--instance", "edge", "status", "-o", "json"]);
    assert!(status.contains("\"edge\"") && status.contains("\"pid\""), "{status}");
}

#[test]
fn tokens_of_a_real_api_server_are_minted_inside_the_sandbox() {
    let Some(system) = system() else { return };
    let kube = cluster().kube();
    system.write("/etc/tokenferry/prod.kubeconfig", &std::fs::read_to_string(&kube.minter_kubeconfig).unwrap());
    system.done(&["chgrp", "tokenferry", "/etc/tokenferry/prod.kubeconfig"]);
    system.done(&["chmod", "640", "/etc/tokenferry/prod.kubeconfig"]);
    system.write(
        "/etc/tokenferry/schedule.yaml",
        "version: 1\nclusters: {prod: {kubeconfig: prod.kubeconfig}}\ntargets: [{name: a, cluster: prod, serviceAccount: cicd/builder, duration: 10m, deliver: [{file: {path: /run/tokenferry/a}}]}]\n",
    );
    system.done(&["systemctl", "start", "tokenferry"]);
    until("it is fresh", 60, || system.status()["targets"][0]["state"] == "fresh");
}
