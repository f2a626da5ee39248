//! Bad input and bad days: each with a clear message, exit code or state; nothing published lost, other targets
//! untouched.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::{Host, tool};
use crate::support::servers::{Servers, cluster};
use crate::support::until;

const TRIAL: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - name: one
    serviceAccount: ci/one
    deliver: [{file: {path: HERE/out/one}}]
  - name: two
    serviceAccount: ci/two
    deliver: [{file: {path: HERE/far/two}}]
";

fn problem(host: &Host, line: &str) {
    for command in ["check", "once", "run"] {
        let done = host.run(&[command]);
        assert_eq!(done.code, Some(2), "{command}: {done:?}");
        let said = done.stdout + &done.stderr;
        assert!(said.contains(line), "{command} does not say `{line}`: {said}");
    }
}

#[test]
fn an_unreadable_an_empty_a_binary_and_a_cyclic_schedule_are_refused_with_their_place() {
    let host = Host::new(TRIAL);
    let file = host.schedule();
    let at = |rest: &str| format!("{}:{rest}", file.display());
    std::fs::remove_file(&file).unwrap();
    problem(&host, &at("1:1: error: cannot be read: No such file"));
    std::fs::create_dir(&file).unwrap();
    problem(&host, &at("1:1: error: is a folder"));
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, "").unwrap();
    problem(&host, &at("1:1: error: "));
    std::fs::write(&file, b"version: 1\n\xff\xfe\x00").unwrap();
    problem(&host, &at("2:1: error: is not UTF-8"));
    std::fs::write(&file, "version: 1\ntargets: &a [*a]\n").unwrap();
    problem(&host, ": error: ");
    let bomb: String = (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","))).collect();
    std::fs::write(&file, format!("version: 1\na0: &a0 x\n{bomb}targets: []\n")).unwrap();
    problem(&host, ": error: ");
}

#[test]
fn a_huge_schedule_is_refused_without_much_memory() {
    let host = Host::new(TRIAL);
    let file = std::fs::File::create(host.schedule()).unwrap();
    file.set_len(300 << 20).unwrap();
    problem(&host, ":1:1: error: is larger than");
}

#[test]
fn a_missing_a_malformed_and_an_expired_kubeconfig_stop_their_own_targets_only() {
    let servers = cluster();
    let mut host = Host::new(&format!(
        "
clusters:
  good: {{kubeconfig: {good}}}
  missing: {{kubeconfig: HERE/none.kubeconfig}}
  malformed: {{kubeconfig: HERE/malformed.kubeconfig}}
  expired: {{kubeconfig: HERE/expired.kubeconfig}}
defaults: {{duration: 10m, serviceAccount: cicd/builder}}
targets:
  - {{name: good, cluster: good, deliver: [{{file: {{path: HERE/out/good}}}}]}}
  - {{name: missing, cluster: missing, deliver: [{{file: {{path: HERE/out/missing}}}}]}}
  - {{name: malformed, cluster: malformed, deliver: [{{file: {{path: HERE/out/malformed}}}}]}}
  - {{name: expired, cluster: expired, deliver: [{{file: {{path: HERE/out/expired}}}}]}}
",
        good = servers.kube().minter_kubeconfig.display()
    ));
    host.write("malformed.kubeconfig", "clusters: [");
    let kube = servers.kube();
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{tokenFile: own-token}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
        kube.server,
        kube.ca.display()
    );
    host.write("expired.kubeconfig", &config);
    host.write("own-token", "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.c2ln");
    host.start();
    until("the good one is served", 30, || host.target("good")["state"] == "fresh");
    let error = |name: &str| {
        until(&format!("{name} has failed"), 30, || host.target(name)["lastError"].is_string());
        host.target(name)["lastError"].as_str().unwrap().to_owned()
    };
    assert!(error("missing").contains("none.kubeconfig: No such file"), "{}", error("missing"));
    assert!(error("malformed").contains("malformed.kubeconfig: it is no kubeconfig"), "{}", error("malformed"));
    assert!(error("expired").contains("401"), "{}", error("expired"));
    assert!(host.target("missing")["notes"][0].as_str().unwrap().contains("none.kubeconfig"));
    // They are mended without a restart: a kubeconfig appears, a token file gets a good token (with a newline).
    std::fs::copy(&kube.minter_kubeconfig, host.path("none.kubeconfig")).unwrap();
    servers.kubectl(&["-n", "cicd", "create", "role", "may-mint", "--verb=create", "--resource=serviceaccounts/token"]);
    servers.kubectl(&["-n", "cicd", "create", "rolebinding", "may-mint", "--role=may-mint", "--serviceaccount=cicd:cicd-deployer"]);
    let token = servers.kubectl(&["-n", "cicd", "create", "token", "cicd-deployer"]);
    host.write("own-token", &format!("{}\n", token.trim()));
    until("the missing one is mended", 60, || host.path("out/missing").exists());
    until("the expired one is mended", 60, || host.path("out/expired").exists());
    until("good is fresh", 20, || host.target("good")["state"] == "fresh");
}

#[test]
fn client_certificates_token_files_and_exec_plugins_all_log_in() {
    let servers = cluster();
    let kube = servers.kube();
    servers.kubectl(&["-n", "apps", "create", "role", "may-mint", "--verb=create", "--resource=serviceaccounts/token"]);
    servers.kubectl(&["-n", "apps", "create", "rolebinding", "may-mint", "--role=may-mint", "--serviceaccount=apps:reader"]);
    let token = servers.kubectl(&["-n", "apps", "create", "token", "reader"]);
    let mut host = Host::new(&format!(
        "
clusters:
  certificate: {{kubeconfig: {certificate}}}
  file: {{kubeconfig: HERE/file.kubeconfig}}
  plugin: {{kubeconfig: HERE/plugin.kubeconfig}}
defaults: {{duration: 10m, serviceAccount: apps/reader}}
targets:
  - {{name: certificate, cluster: certificate, deliver: [{{file: {{path: HERE/out/certificate}}}}]}}
  - {{name: file, cluster: file, deliver: [{{file: {{path: HERE/out/file}}}}]}}
  - {{name: plugin, cluster: plugin, deliver: [{{file: {{path: HERE/out/plugin}}}}]}}
",
        certificate = kube.minter_kubeconfig.display()
    ));
    let head = |user: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority: {}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {user}}}]\n",
            kube.server,
            kube.ca.display()
        )
    };
    host.write("own-token", token.trim());
    host.write("file.kubeconfig", &head("{tokenFile: own-token}"));
    let plugin = host.write(
        "plugin",
        "#!/bin/sh\nprintf '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"expirationTimestamp\":\"2099-01-01T00:00:00Z\",\"token\":\"%s\"}}' \"$(cat \"$(dirname \"$0\")/own-token\")\"\n",
    );
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).unwrap();
    let exec = format!("{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {}, interactiveMode: Never}}}}", plugin.display());
    host.write("plugin.kubeconfig", &head(&exec));
    host.start();
    until("all three are served", 30, || ["certificate", "file", "plugin"].iter().all(|n| host.path(&format!("out/{n}")).exists()));
}

#[test]
fn an_api_server_that_is_down_at_the_start_is_waited_for() {
    let servers = Servers::start("late", &["etcd", "kube"]);
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}, trial: {{embedded: {{}}}}}}
defaults: {{duration: 10m}}
targets:
  - {{name: kept, cluster: prod, serviceAccount: cicd/builder, deliver: [{{file: {{path: HERE/out/kept}}}}]}}
  - {{name: late, cluster: prod, serviceAccount: cicd/cicd-deployer, deliver: [{{file: {{path: HERE/out/late}}}}]}}
  - {{name: other, cluster: trial, serviceAccount: ci/other, deliver: [{{file: {{path: HERE/out/other}}}}]}}
",
        servers.kube().minter_kubeconfig.display()
    ));
    assert_eq!(host.run(&["once", "--target", "kept"]).code, Some(0));
    let kept = host.read("out/kept");
    servers.kill("kube");
    host.start();
    until("the other cluster's target is served", 20, || host.path("out/other").exists());
    until("it says what it waits for", 20, || host.target("late")["lastError"].as_str().is_some_and(|e| e.contains("connection refused")));
    assert_eq!(host.read("out/kept"), kept);
    until("kept is fresh", 20, || host.target("kept")["state"] == "fresh");
    servers.restart("kube");
    until("the late one is served", 90, || host.path("out/late").exists());
    assert_eq!(host.records_of("rotated", "kept").len(), 1, "a fresh token was minted anew");
}

#[test]
fn a_full_disk_keeps_the_old_token_and_is_told_for_its_target_alone() {
    if !rustix::process::geteuid().is_root() {
        println!("NOT RUN: a small file system needs root");
        return;
    }
    let mut host = Host::new(&TRIAL.replace("duration: 1h", "duration: 30m"));
    let far = host.path("far");
    std::fs::create_dir(&far).unwrap();
    tool(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"]).arg(&far));
    let unmount = Unmount(&far);
    host.start();
    until("both are served", 20, || host.path("far/two").exists() && host.path("out/one").exists());
    let old = host.read("far/two");
    let _ = std::fs::write(far.join("filler"), vec![0; 128 << 10]);
    let answer = host.run(&["rotate", "--all", "-o", "json"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert_eq!(host.read("far/two"), old, "the old token is gone");
    let two = host.target("two");
    assert_eq!(two["state"], "retrying", "{two}");
    assert!(two["sinks"][0]["error"].as_str().unwrap().contains("is full"), "{two}");
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
    std::fs::remove_file(far.join("filler")).unwrap();
    until("the same token is delivered once there is room", 60, || host.target("two")["state"] == "fresh");
    let failed = host.records_of("failed", "two").pop().unwrap();
    assert_eq!(host.records_of("paid", "two").pop().unwrap()["jti"], failed["jti"], "another token was minted");
    host.stop();
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_vanished_folder_is_told_and_the_others_go_on() {
    let mut host = Host::new(TRIAL);
    std::fs::create_dir(host.path("far")).unwrap();
    host.start();
    until("both are served", 20, || host.path("far/two").exists() && host.path("out/one").exists());
    std::fs::remove_dir_all(host.path("far")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", host.path("far")).unwrap();
    assert_eq!(host.run(&["rotate", "--all"]).code, Some(1));
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
    let two = host.target("two");
    assert!(two["sinks"][0]["error"].as_str().is_some_and(|e| e.contains("far")), "{two}");
    std::fs::remove_file(host.path("far")).unwrap();
    std::fs::create_dir(host.path("far")).unwrap();
    until("it is served again", 60, || host.target("two")["state"] == "fresh" && host.path("far/two").exists());
}

#[test]
fn a_place_that_cannot_be_written_when_its_token_is_due_never_becomes_a_mint_loop() {
    let mut host = Host::new(&TRIAL.replace("duration: 1h", "duration: 20s, rotate: {at: 30%, splay: 0s}"));
    std::fs::create_dir(host.path("far")).unwrap();
    host.start();
    until("both are served", 20, || host.path("far/two").exists() && host.path("out/one").exists());
    std::fs::set_permissions(host.path("far"), std::fs::Permissions::from_mode(0o777)).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(25));
    let minted =
        |name: &str| host.records().iter().filter(|l| l["target"] == name && l["issuedAt"].is_string() && l["kind"] != "paid").count();
    assert!(minted("two") <= 6, "{} tokens minted for one place in 25 s", minted("two"));
    assert!(minted("one") >= 4, "the other target was held up");
    std::fs::set_permissions(host.path("far"), std::fs::Permissions::from_mode(0o755)).unwrap();
    until("it is served again", 30, || host.target("two")["state"] == "fresh");
}

#[test]
fn host_problems_are_said_by_once_and_status_for_their_target_alone() {
    let host = Host::new(TRIAL);
    std::fs::create_dir(host.path("far")).unwrap();
    std::fs::set_permissions(host.path("far"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let once = host.run(&["once"]);
    assert_eq!(once.code, Some(1), "{once:?}");
    assert!(once.stderr.contains("far") && host.path("out/one").exists(), "{once:?}");
    let status = host.json(&["status"]);
    assert_eq!(status["targets"][0].get("notes"), None, "{status:#}");
    assert!(status["targets"][1]["notes"][0].as_str().unwrap().contains("far"), "{status:#}");
}

#[test]
fn a_clock_that_is_set_back_and_forth_loses_nothing_and_mints_once_at_most() {
    let library = crate::support::faketime().display().to_string();
    let servers = cluster();
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
targets:
  - {{name: one, cluster: prod, serviceAccount: cicd/builder, duration: 1h, rotate: {{splay: 0s}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        servers.kube().minter_kubeconfig.display()
    ));
    let clock = host.write("clock", "+0");
    let clock = clock.to_str().unwrap().to_owned();
    host.start_with(&[
        ("LD_PRELOAD", &library),
        ("FAKETIME_TIMESTAMP_FILE", &clock),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    until("it is served", 30, || host.path("out/one").exists());
    until("the record is there", 10, || host.records_of("rotated", "one").len() == 1);
    for (index, step) in ["-2h", "+30m", "+0"].into_iter().enumerate() {
        host.write("clock", step);
        // The kernel tells of real steps only; this one is noticed when somebody asks.
        until("the step is noticed", 60, || {
            host.target("one");
            host.log().matches("the clock stepped").count() > index
        });
        let token = host.read("out/one");
        assert_eq!(token.split('.').count(), 3);
    }
    let minted = host.records_of("rotated", "one").len();
    assert!(minted <= 2, "{minted} mints for one token by clock errors alone");
    host.write("clock", "+0");
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
}
