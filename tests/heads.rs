//! Heads of the records, noted elsewhere and signed: lines cut off at the end show, and so does a chain written anew.

use std::process::Command;

use crate::support::daemon::{Host, tool};
use crate::support::until;

const TRIAL: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - {name: one, serviceAccount: ci/one, deliver: [{file: {path: HERE/out/one}}]}
";

fn host() -> Host {
    let host = Host::new(TRIAL);
    let (key, public) = (host.path("key.pem"), host.path("public.pem"));
    tool(Command::new("openssl").args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]).arg(&key));
    tool(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public));
    let text = host.read("schedule.yaml").replace("/records}", &format!("/records, signingKey: {{file: {}}}}}", key.display()));
    assert!(text.contains("signingKey"));
    std::fs::write(host.schedule(), text).unwrap();
    host
}

fn only(host: &Host, end: &str) -> std::path::PathBuf {
    let files = std::fs::read_dir(host.path("state/records")).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = files.filter(|p| p.to_str().unwrap().ends_with(end)).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[test]
fn g10_every_head_is_signed_and_whoever_changes_or_adds_lines_without_the_key_is_found_out() {
    let mut host = host();
    host.start();
    until("it is recorded", 30, || host.records_of("rotated", "one").len() == 1);
    for _ in 0..3 {
        assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    }
    let public = host.path("public.pem").display().to_string();
    let verify = ["records", "verify", "--public-key", &public];
    let done = host.run(&verify);
    assert_eq!(done.code, Some(0), "beside the running daemon: {done:?}");
    assert_eq!(host.stop(), Some(0));
    let done = host.run(&verify);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("signed: "), "{done:?}");

    let (lines, heads) = (only(&host, ".jsonl"), only(&host, ".jsonl.sig"));
    let (good_lines, good_heads) = (std::fs::read_to_string(&lines).unwrap(), std::fs::read_to_string(&heads).unwrap());
    // By hand, as anyone can.
    let last: serde_json::Value = serde_json::from_str(good_heads.lines().last().unwrap()).unwrap();
    host.write("message", &format!("tokenferry head {} {}", last["seq"], last["head"].as_str().unwrap()));
    use base64::Engine;
    let signature = base64::engine::general_purpose::STANDARD.decode(last["signature"].as_str().unwrap()).unwrap();
    std::fs::write(host.path("signature"), signature).unwrap();
    tool(
        Command::new("openssl")
            .args(["dgst", "-sha256", "-verify", &public, "-signature"])
            .arg(host.path("signature"))
            .arg(host.path("message")),
    );

    // A whole new chain in the place of the old one: sound in itself, and signed by nobody.
    let mut other = Host::new(TRIAL);
    other.start();
    until("it is recorded", 30, || other.records_of("rotated", "one").len() == 1);
    assert_eq!(other.stop(), Some(0));
    std::fs::copy(only(&other, ".jsonl"), &lines).unwrap();
    assert_eq!(host.run(&["records", "verify"]).code, Some(0), "the forged chain is sound in itself");
    let done = host.run(&verify);
    assert!(done.code == Some(1) && done.stderr.contains("the signature was made over"), "{done:?}");
    std::fs::remove_file(&heads).unwrap();
    let done = host.run(&verify);
    assert!(done.code == Some(1) && done.stderr.contains("no signature covers seq 1 to"), "{done:?}");

    // Lines cut off, their signatures left.
    let cut = good_lines.trim_end().rfind('\n').unwrap() + 1;
    std::fs::write(&lines, &good_lines[..cut]).unwrap();
    std::fs::write(&heads, &good_heads).unwrap();
    let done = host.run(&verify);
    assert!(done.code == Some(1) && done.stderr.contains("over a line that is gone"), "{done:?}");

    // A signature of another key.
    std::fs::write(&lines, &good_lines).unwrap();
    let first = good_heads.lines().next().unwrap();
    std::fs::write(&heads, good_heads.replacen("\"seq\":", "\"seq\":1", 1)).unwrap();
    assert_ne!(first, "");
    let done = host.run(&verify);
    assert!(done.code == Some(1) && done.stderr.contains(".sig:1: the signature does not fit"), "{done:?}");
    std::fs::write(&heads, &good_heads).unwrap();
    assert_eq!(host.run(&verify).code, Some(0));
    assert!(!host.log().contains("PRIVATE"), "the key stands in the log");
}

#[test]
fn g10_a_key_that_cannot_be_used_stops_no_record_and_is_alarmed_until_it_can() {
    let mut host = host();
    let key = host.read("key.pem");
    host.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    host.start();
    until("it is recorded", 30, || host.records_of("rotated", "one").len() == 1);
    let done = host.run(&["status"]);
    assert!(done.code == Some(1) && done.stderr.contains("not signed") && !done.stderr.contains("AAAA"), "{done:?}");
    host.write("key.pem", &key);
    assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    until("status is content", 10, || host.run(&["status"]).code == Some(0));
    let public = host.path("public.pem").display().to_string();
    assert_eq!(host.run(&["records", "verify", "--public-key", &public]).code, Some(0), "a later signature covers what came before");
}

#[test]
fn g10_the_head_stands_in_status_and_log_and_tells_that_lines_were_cut_off_at_the_end() {
    let mut host = Host::new(TRIAL);
    host.start();
    until("it is recorded", 30, || host.records_of("rotated", "one").len() == 1);
    let head = host.json(&["status"])["daemon"]["records"]["head"].as_str().unwrap().to_owned();
    assert_eq!(host.run(&["records", "verify", "--head", &head]).code, Some(0));
    assert_eq!(host.stop(), Some(0));
    let told: Vec<serde_json::Value> = host
        .log()
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
        .filter(|l| l.to_string().contains("the head of the records"))
        .collect();
    let last = told.last().expect("the log was told").to_string();
    let path = only(&host, ".jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let stopped: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let noted = stopped["hash"].as_str().unwrap();
    assert!(last.contains(noted), "the log's last head is not that of the last line: {last}");
    let cut = text.trim_end().rfind('\n').unwrap() + 1;
    std::fs::write(&path, &text[..cut]).unwrap();
    assert_eq!(host.run(&["records", "verify"]).code, Some(0), "the rest is sound in itself");
    let done = host.run(&["records", "verify", "--head", noted]);
    assert!(done.code == Some(1) && done.stderr.contains("missing at the end"), "{done:?}");
}

#[test]
fn what_is_found_at_many_places_at_once_is_recorded_in_few_commits() {
    let mut host = host();
    let more = |n: usize| format!("  - {{name: t{n}, serviceAccount: ci/t{n}, deliver: [{{file: {{path: HERE/out/t{n}}}}}]}}\n");
    let text = host.read("schedule.yaml") + &(0..100).map(more).collect::<String>().replace("HERE", host.folder.path().to_str().unwrap());
    std::fs::write(host.schedule(), text).unwrap();
    let all = |host: &Host, kind: &str| host.records().iter().filter(|line| line["kind"] == kind).count();
    host.start();
    until("all have a token", 60, || all(&host, "rotated") == 101);
    assert_eq!(host.stop(), Some(0));
    std::fs::remove_dir_all(host.path("state/records")).unwrap();
    host.start();
    until("all tokens are adopted", 60, || all(&host, "adopted") == 101);
    // Each commit signs its head once.
    let commits = std::fs::read_to_string(only(&host, ".jsonl.sig")).unwrap().lines().count();
    assert!(commits < 20, "the loop waited for the disk {commits} times for 101 targets");
}
