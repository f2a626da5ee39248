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

#[test]
fn a_token_of_a_megabyte_is_shown_and_one_of_five_is_named_and_neither_is_quoted() {
    use base64::Engine;
    let host = host();
    let part = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let token = |size: usize| {
        let claims = format!("{{\"sub\":\"system:serviceaccount:a:b\",\"exp\":4102444800,\"iat\":1,\"x\":\"{}\"}}", "q".repeat(size));
        format!("{}.{}.c2ln", part("{\"alg\":\"ES256\"}".into()), part(claims))
    };
    let large = host.write("large", &token(1 << 20)).display().to_string();
    let told = host.json(&["inspect", &large]);
    assert!(told["bytes"].as_u64().unwrap() > 1 << 20, "{told}");
    let codes: Vec<&str> = told["warnings"].as_array().unwrap().iter().filter_map(|w| w["code"].as_str()).collect();
    assert_eq!(codes, ["long", "large"]);
    let done = host.run(&["verify", &large]);
    assert!(done.code == Some(0) && done.stdout.len() < 4096 && !done.stdout.contains("qqqq"), "{} {:?}", done.stdout.len(), done.code);
    let huge = host.write("huge", &token(5 << 20)).display().to_string();
    for command in ["inspect", "verify"] {
        let done = host.run(&[command, &huge]);
        assert!(done.code == Some(1) && done.stderr.contains("larger than 4 MiB") && !done.stderr.contains("qqq"), "{done:?}");
    }
}

/// Answers every request with that body, once each, for as long as the test lives.
fn serving(body: String, status: &'static str) -> u16 {
    use std::io::Read;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    port
}

/// The check of that name in what `verify` shows.
fn check_of(done: &Done, name: &str) -> String {
    let told: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    let checks = told["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).map(|c| c["verdict"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[test]
fn keys_come_from_an_address_and_what_cannot_be_read_there_is_no_good_signature() {
    let host = host();
    let port = serving(host.read("embedded/jwks.json"), "200 OK");
    let verify = |url: &str| host.run(&["verify", "--target", "ci", "--jwks", url, "-o", "json"]);
    let done = verify(&format!("http://127.0.0.1:{port}/jwks"));
    assert_eq!((check_of(&done, "signature").as_str(), done.code), ("good", Some(0)), "{done:?}");
    let gone = serving("{}".into(), "404 Not Found");
    let junk = serving("<html>".into(), "200 OK");
    let endless = serving("x".repeat(2 << 20), "200 OK");
    for (port, said) in [(gone, "it answered 404"), (junk, "no JSON Web Key Set"), (endless, "larger than 1 MiB"), (1, "127.0.0.1:1")] {
        let done = verify(&format!("http://127.0.0.1:{port}/jwks"));
        assert_eq!((check_of(&done, "signature").as_str(), done.code), ("unknown", Some(1)), "{done:?}");
        assert!(done.stdout.contains(said), "{said}: {done:?}");
    }
    assert_eq!(host.run(&["verify", "--target", "ci", "--ca", "/nonexistent"]).code, Some(2), "--ca is for --jwks");
    assert_eq!(host.run(&["verify", "--target", "ci", "--kubeconfig", "/nonexistent"]).code, Some(2), "nobody is to be asked");
}

#[test]
fn keys_are_read_over_tls_from_the_api_server_itself_with_its_ca_alone() {
    let servers = cluster();
    let kube = servers.kube();
    let role = "--clusterrole=system:service-account-issuer-discovery";
    servers.kubectl(&["create", "clusterrolebinding", "inspect-jwks", role, "--group=system:unauthenticated"]);
    let host = Host::new("targets: []");
    let token = host.write("token", servers.kubectl(&["create", "token", "builder", "-n", "cicd"]).trim()).display().to_string();
    let url = format!("{}/openid/v1/jwks", kube.server);
    let ca = kube.ca.display().to_string();
    let done = host.run(&["verify", &token, "--jwks", &url, "--ca", &ca, "-o", "json"]);
    assert_eq!((check_of(&done, "signature").as_str(), done.code), ("good", Some(0)), "{done:?}");
    let done = host.run(&["verify", &token, "--jwks", &url, "-o", "json"]);
    assert_eq!((check_of(&done, "signature").as_str(), done.code), ("unknown", Some(1)), "its CA is not this host's: {done:?}");
    // An account that may mint and nothing else: it may read neither keys nor reviews, and that is said.
    let minter = kube.minter_kubeconfig.display().to_string();
    let done = host.run(&["verify", &token, "--kubeconfig", &minter, "--cluster-keys", "--token-review", "--review", "-o", "json"]);
    let verdicts = ["signature", "tokenReview", "review"].map(|name| check_of(&done, name));
    assert_eq!((verdicts, done.code), (["unknown".into(), "unknown".into(), "good".into()], Some(1)), "{done:?}");
    // A token for others is no token for the API server, and TokenReview says for whom it is good.
    let other = host.write("other", servers.kubectl(&["create", "token", "builder", "-n", "cicd", "--audience", "vault"]).trim());
    let admin = kube.admin_kubeconfig.display().to_string();
    let ask = ["verify", other.to_str().unwrap(), "--kubeconfig", &admin, "--token-review", "--review", "-o", "json"];
    let done = host.run(&[&ask[..], &["--audience", "vault"]].concat());
    assert_eq!(["tokenReview", "review"].map(|name| check_of(&done, name)), ["good", "bad"], "{done:?}");
    let done = host.run(&ask);
    assert_eq!(check_of(&done, "tokenReview"), "bad", "asked for the API server's own audience: {done:?}");
}
