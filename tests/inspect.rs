//! `inspect` and `verify`: all about a token but the token.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Done, Host};
use crate::support::servers::cluster;

const SCHEDULE: &str = "clusters: {trial: {embedded: {directory: HERE/embedded}}}
targets:
- name: ci
  cluster: trial
  serviceAccount: cicd/bot
  duration: 1h
  audiences: [https://vault.example.com]
  boundTo: {secret: marker}
  deliver: [{file: {path: HERE/out/token, mode: \"0644\"}}]
";

fn host() -> Host {
    let host = Host::new(SCHEDULE);
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    host
}

/// No part of the token is in what was said (G8).
fn assert_secret(host: &Host, done: &Done) {
    let token = host.read("out/token");
    let said = format!("{}{}", done.stdout, done.stderr);
    assert!(token.split('.').all(|part| !said.contains(part)), "a part of the token was shown: {said}");
}

fn path(host: &Host) -> String {
    host.path("out/token").display().to_string()
}

#[test]
fn inspect_tells_all_about_a_token_and_never_the_token() {
    let host = host();
    let done = host.run(&["inspect", &path(&host)]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for said in [
        "system:serviceaccount:cicd:bot",
        "https://vault.example.com",
        "https://trial.tokenferry.invalid",
        "secret marker",
        "of 1h 0m over",
        "ES256 by",
        "every user of this host can read the file (mode 0644)",
    ] {
        assert!(done.stdout.contains(said), "{said}: {}", done.stdout);
    }
    assert_secret(&host, &done);
    let told = host.json(&["inspect", "--target", "ci"]);
    assert_eq!(
        (told["namespace"].as_str(), told["serviceAccount"].as_str(), told["lifetime"].as_i64()),
        (Some("cicd"), Some("bot"), Some(3600))
    );
    assert_eq!(told["boundTo"][0]["name"], "marker");
    assert_eq!(told["warnings"][0]["code"], "readableByOthers");
    assert_secret(&host, &host.run(&["inspect", "--target", "ci", "-o", "json"]));
}

#[test]
fn standard_input_in_any_format_is_read_too() {
    let host = host();
    let mut child = host.command(&["inspect", "-", "-o", "json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("export T='{}'\n", host.read("out/token")).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), told["subject"].as_str()), (Some(0), Some("system:serviceaccount:cicd:bot")));
    assert_eq!(told["warnings"][0]["code"], "newline");
}

#[test]
fn what_is_no_token_is_named_and_not_quoted() {
    let host = host();
    host.write("junk", "password-of-somebody");
    let file = host.path("junk").display().to_string();
    for command in ["inspect", "verify"] {
        let done = host.run(&[command, &file]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
        assert!(done.stderr.contains("junk: no token in it") && !done.stderr.contains("password"), "{}", done.stderr);
    }
    assert_eq!(host.run(&["inspect"]).code, Some(2));
    assert_eq!(host.run(&["inspect", "/nonexistent"]).code, Some(1));
}

#[test]
fn verify_says_each_verdict_and_fails_where_one_is_bad() {
    let host = host();
    let jwks = host.path("embedded/jwks.json").display().to_string();
    let good = [
        "--jwks",
        &jwks,
        "--subject",
        "cicd/bot",
        "--audience",
        "https://vault.example.com",
        "--min-remaining",
        "50m",
        "--max-age",
        "10m",
        "--max-lifetime",
        "1h",
    ];
    let done = host.run(&[&["verify", "--target", "ci"], &good[..]].concat());
    assert_eq!((done.code, done.stdout.matches("\ngood ").count()), (Some(0), 8), "{done:?}");
    assert_secret(&host, &done);
    for (bad, check) in [
        (["--subject", "cicd/other"], "subject"),
        (["--audience", "https://other"], "audience"),
        (["--min-remaining", "2h"], "minRemaining"),
        (["--max-lifetime", "59m"], "maxLifetime"),
    ] {
        let done = host.run(&["verify", &path(&host), bad[0], bad[1], "-o", "json"]);
        let told: Value = serde_json::from_str(&done.stdout).unwrap();
        let failed: Vec<&str> =
            told["checks"].as_array().unwrap().iter().filter(|c| c["verdict"] == "bad").filter_map(|c| c["check"].as_str()).collect();
        assert_eq!((done.code, told["good"].as_bool(), failed), (Some(1), Some(false), vec![check]));
    }
}

#[test]
fn a_signature_of_another_key_is_bad() {
    let (host, other) = (host(), host());
    let jwks = other.path("embedded/jwks.json").display().to_string();
    let done = host.run(&["verify", &path(&host), "--jwks", &jwks]);
    assert_eq!(done.code, Some(1));
    assert!(done.stdout.contains("the key set has no ES256 key"), "{}", done.stdout);
    host.write("none.json", "{\"keys\":[]}");
    let done = host.run(&["verify", &path(&host), "--jwks", &host.path("none.json").display().to_string()]);
    assert_eq!((done.code, done.stderr.contains("no key for RS256")), (Some(2), true), "{done:?}");
}

#[test]
fn a_real_api_servers_token_has_a_good_signature_by_its_key_set() {
    let servers = cluster();
    let host = Host::new("targets: []");
    let jwks = host.write("jwks.json", &servers.kubectl(&["get", "--raw", "/openid/v1/jwks"]));
    let kubeconfig = servers.kube().minter_kubeconfig.display().to_string();
    let minted = host.run(&["mint", "cicd/builder", "--kubeconfig", &kubeconfig]);
    assert_eq!(minted.code, Some(0), "{}", minted.stderr);
    let token: PathBuf = host.write("out/token", &minted.stdout);
    let (token, jwks) = (token.display().to_string(), jwks.display().to_string());
    let done = host.run(&["verify", &token, "--jwks", &jwks, "--subject", "cicd/builder"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let (head, last) = minted.stdout.split_at(minted.stdout.len() - 6);
    let changed: String = last.chars().map(|c| if c == 'A' { 'B' } else { 'A' }).collect();
    host.write("out/token", &format!("{head}{changed}"));
    let done = host.run(&["verify", &token, "--jwks", &jwks]);
    assert_eq!((done.code, done.stdout.contains("signature")), (Some(1), true), "{done:?}");
}

#[test]
fn a_watched_token_is_shown_again() {
    use std::io::{BufRead, BufReader};
    let host = host();
    let mut child = host.command(&["inspect", "--target", "ci", "--watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (sender, shown) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.filter(|line| line.contains("subject")).take(2).for_each(|line| sender.send(line).unwrap_or(())));
    for _ in 0..2 {
        shown.recv_timeout(Duration::from_secs(30)).expect("it is shown twice");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
