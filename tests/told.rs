//! What people do with tokens of their own is recorded by the daemon, where they may tell it.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Done, Host, finish, tool};
use crate::support::servers::cluster;

const SCHEDULE: &str = "clusters: {trial: {embedded: {}}}
targets:
- {name: ci, labels: {owner: payments}, cluster: trial, serviceAccount: cicd/bot, duration: 1h, deliver: [{file: {path: HERE/out/token}}]}
";

fn host() -> Host {
    let mut host = Host::new(SCHEDULE);
    std::fs::create_dir(host.path("run")).unwrap();
    host.start();
    host
}

fn exec(host: &Host, arguments: &[&str]) -> Done {
    let mut command = host.command(&[&["exec"], arguments].concat());
    command.env("XDG_RUNTIME_DIR", host.path("run"));
    finish(command, Duration::from_secs(60))
}

fn of_kind(host: &Host, kind: &str) -> Vec<Value> {
    host.records().into_iter().filter(|line| line["kind"] == kind).collect()
}

fn inspected(host: &Host, token: &str) -> Value {
    let file = host.write("copy", token);
    host.json(&["inspect", file.to_str().unwrap()])
}

#[test]
fn a_minted_token_is_recorded_with_who_took_it() {
    let (host, kube) = (host(), cluster().kube());
    let kubeconfig = kube.minter_kubeconfig.display().to_string();
    let done = host.run(&["mint", "cicd/builder", "--kubeconfig", &kubeconfig, "--duration", "10m"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let [line] = &of_kind(&host, "minted")[..] else { panic!("{:?}", host.records()) };
    let seen = inspected(&host, &done.stdout);
    assert_eq!((&line["jti"], &line["expiresAt"]), (&seen["jti"], &seen["expiresAt"]));
    assert_eq!((&line["serviceAccount"], &line["cluster"]), (&"cicd/builder".into(), &kube.server.as_str().into()));
    assert_eq!((&line["requested"], &line["granted"]), (&600.into(), &600.into()));
    assert!(line["auditId"].is_string() && line.get("target").is_none(), "{line}");
    assert_eq!(line["actor"]["uid"], rustix::process::geteuid().as_raw());
    assert!(line["actor"]["command"].as_str().unwrap().starts_with("tokenferry --schedule"), "{line}");
    let shown = host.run(&["records", "--kind", "minted"]);
    assert!(shown.stdout.contains("asked by"), "{shown:?}");
    assert_eq!(host.run(&["records", "verify"]).code, Some(0));
}

#[test]
fn a_command_and_each_of_its_tokens_are_recorded_and_its_arguments_are_not() {
    let host = host();
    let script =
        "first=$(cat \"$TOKENFERRY_TOKEN_FILE\"); while [ \"$(cat \"$TOKENFERRY_TOKEN_FILE\")\" = \"$first\" ]; do sleep 0.1; done; exit 3";
    let done = exec(&host, &["--target", "ci", "--duration", "10s", "--", "sh", "-c", script, "a-secret-argument"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    let minted = of_kind(&host, "minted");
    let [executed] = &of_kind(&host, "executed")[..] else { panic!("{:?}", host.records()) };
    assert_eq!(minted.len(), 2, "{minted:?}");
    assert_ne!(minted[0]["jti"], minted[1]["jti"]);
    assert_eq!((&executed["jti"], &executed["error"]), (&minted[1]["jti"], &"exit code 3".into()));
    for line in minted.iter().chain([executed]) {
        assert_eq!((&line["target"], &line["cluster"], &line["labels"]["owner"]), (&"ci".into(), &"trial".into(), &"payments".into()));
        assert!(line["actor"]["command"].as_str().unwrap().ends_with("--duration 10s -- sh …"), "{line}");
        assert!(!line.to_string().contains("a-secret-argument"), "{line}");
    }
    // What a person took changes nothing of the target.
    assert_eq!((host.target("ci")["state"].as_str(), host.target("ci")["generation"].as_u64()), (Some("fresh"), Some(1)));
}

#[test]
fn a_command_that_does_not_start_or_is_killed_is_recorded_too() {
    let host = host();
    let plain = host.write("no-program", "x").display().to_string();
    assert_eq!(exec(&host, &["--target", "ci", "--", &plain]).code, Some(126));
    assert_eq!(exec(&host, &["--target", "ci", "--", "sh", "-c", "kill -9 $$"]).code, Some(137));
    assert_eq!(exec(&host, &["--target", "ci", "--", "true"]).code, Some(0));
    let errors: Vec<Value> = of_kind(&host, "executed").iter().map(|line| line["error"].clone()).collect();
    assert_eq!(errors, [Value::from("exit code 126"), "exit code 137".into(), Value::Null]);
}

#[test]
fn a_daemon_that_hangs_holds_nobody_up_and_leaves_no_record() {
    let host = host();
    host.signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let done = host.run(&["mint", "cicd/bot", "--cluster", "trial", "--duration", "1m"]);
    let took = begun.elapsed();
    host.signal(rustix::process::Signal::CONT);
    assert_eq!((done.code, done.stdout.starts_with("eyJ"), done.stderr.contains("record")), (Some(0), true, false), "{done:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_user_who_may_not_use_the_socket_is_served_all_the_same() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: a_user_who_may_not_use_the_socket_is_served_all_the_same: needs root to act as another user");
        return;
    }
    let (host, kube) = (host(), cluster().kube());
    std::fs::set_permissions(host.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let kubeconfig = host.write("kubeconfig", &std::fs::read_to_string(&kube.minter_kubeconfig).unwrap());
    std::fs::set_permissions(&kubeconfig, std::fs::Permissions::from_mode(0o644)).unwrap();
    let mut command = host.command(&["mint", "cicd/builder", "--kubeconfig", kubeconfig.to_str().unwrap()]);
    command.current_dir("/").uid(65_534).gid(65_534);
    let done = finish(command, Duration::from_secs(60));
    assert_eq!((done.code, done.stdout.starts_with("eyJ"), done.stderr.as_str()), (Some(0), true, ""), "{done:?}");
    assert_eq!(of_kind(&host, "minted").len(), 0);
}

#[test]
fn nobody_tells_what_only_the_daemon_knows() {
    let host = host();
    let post = |body: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--unix-socket"]).arg(host.path("control.sock")).args(["-d", body, "http://tokenferry/report"]);
        tool(&mut curl)
    };
    let before = host.records().len();
    for (body, said) in [
        (r#"{"kind":"rotated","serviceAccount":"a/b","requested":1,"command":""}"#, "only `minted` and `executed`"),
        (r#"{"kind":"minted","serviceAccount":"a/b","requested":1,"command":"","actor":{"uid":0}}"#, "unknown field"),
        ("[", "not what it should be"),
    ] {
        let answer = post(body);
        assert!(answer.contains(said), "{body}: {answer}");
    }
    assert_eq!(host.records().len(), before);
    let forged = "eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJlLW9m";
    let told = post(&format!(r#"{{"kind":"minted","serviceAccount":"a/b","requested":1,"command":"x {forged}"}}"#));
    assert_eq!(told, r#"{"recorded":true}"#);
    let line = of_kind(&host, "minted").pop().unwrap();
    assert_eq!((&line["actor"]["uid"], line.to_string().contains("eyJ")), (&rustix::process::geteuid().as_raw().into(), false), "{line}");
}
