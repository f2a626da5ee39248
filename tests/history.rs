//! `records`: the history, filtered, followed and proven whole.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::Host;

const SCHEDULE: &str = "clusters: {trial: {embedded: {}}}
targets:
- {name: ci-a, cluster: trial, serviceAccount: cicd/a, duration: 1h, deliver: [{file: {path: HERE/out/a}}]}
- {name: ci-b, cluster: trial, serviceAccount: cicd/b, duration: 1h, deliver: [{file: {path: HERE/out/b}}]}
";

/// Both targets rotated twice.
fn host() -> Host {
    let host = Host::new(SCHEDULE);
    for arguments in [&["once"][..], &["once", "--force"]] {
        assert_eq!(host.run(arguments).code, Some(0));
    }
    host
}

fn lines(host: &Host, arguments: &[&str]) -> Vec<Value> {
    let done = host.run(&[&["records", "-o", "json"], arguments].concat());
    assert_eq!(done.code, Some(0), "{done:?}");
    done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn newest_file(host: &Host) -> PathBuf {
    let files = std::fs::read_dir(host.path("state/records")).unwrap().map(|e| e.unwrap().path());
    files.filter(|f| f.extension().is_some_and(|e| e == "jsonl")).max().unwrap()
}

#[test]
fn lines_come_as_they_were_written_and_filters_hold_together() {
    let host = host();
    let rotated = lines(&host, &["--kind", "rotated"]);
    assert_eq!(rotated.len(), 4);
    assert_eq!(rotated, host.records().into_iter().filter(|l| l["kind"] == "rotated").collect::<Vec<_>>());
    assert_eq!(lines(&host, &["--kind", "rotated", "--target", "*-a"]).len(), 2);
    let jti = rotated[3]["jti"].as_str().unwrap();
    assert_eq!(lines(&host, &["--kind", "rotated", "--jti", jti]), [rotated[3].clone()]);
    let since = rotated[2]["time"].as_str().unwrap();
    assert_eq!(lines(&host, &["--kind", "rotated", "--since", since]).len(), 2);
    assert_eq!(lines(&host, &["--kind", "rotated", "--until", since]).len(), 2);
    assert_eq!(lines(&host, &["--since", "1h"]).len(), lines(&host, &[]).len());
    assert_eq!(lines(&host, &["--until", "1h"]).len(), 0);
}

#[test]
fn the_table_has_a_line_for_each_event() {
    let host = host();
    let done = host.run(&["records", "--target", "ci-a"]);
    assert_eq!((done.code, done.stdout.lines().count()), (Some(0), 3), "{done:?}");
    let rows: Vec<&str> = done.stdout.lines().collect();
    assert!(rows[0].starts_with("TIME") && rows[1].contains("rotated") && rows[1].contains("ci-a") && rows[1].contains("new"), "{rows:?}");
    assert!(rows[2].contains("manual") && rows[2].contains("out/a=written"), "{rows:?}");
}

#[test]
fn followed_records_show_what_is_recorded_later() {
    let host = host();
    let mut child =
        host.command(&["records", "-f", "-o", "json", "--kind", "rotated", "--target", "ci-b"]).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (sender, shown) = std::sync::mpsc::channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| sender.send(line).unwrap_or(())));
    let next = || serde_json::from_str::<Value>(&shown.recv_timeout(Duration::from_secs(30)).expect("a line in time")).unwrap();
    let generations = [next(), next()].map(|line| line["generation"].as_u64());
    assert_eq!(generations, [Some(1), Some(2)]);
    assert_eq!(host.run(&["once", "--force", "--target", "ci-b"]).code, Some(0));
    assert_eq!(next()["generation"], 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_sound_history_verifies_and_a_changed_one_names_file_and_line() {
    let host = host();
    let sound = host.run(&["records", "verify"]);
    assert_eq!(sound.code, Some(0), "{sound:?}");
    let head = host.run(&["records", "head"]).stdout;
    assert!(sound.stdout.starts_with("sound: ") && sound.stdout.contains(&format!("head: {head}")), "{sound:?}");
    assert_eq!(host.json(&["records", "verify"])["sound"], true);
    let file = newest_file(&host);
    let text = std::fs::read_to_string(&file).unwrap();
    let number = text.lines().position(|l| l.contains("\"rotated\"")).unwrap() + 1;
    std::fs::write(&file, text.replacen("\"rotated\"", "\"adopted\"", 1)).unwrap();
    let damaged = host.run(&["records", "verify"]);
    assert_eq!((damaged.code, damaged.stdout.as_str()), (Some(1), ""));
    let place = format!("{}:{number}: changed after it was written", file.display());
    assert!(damaged.stderr.contains(&place), "{place}: {}", damaged.stderr);
    let told = host.json(&["records", "verify"]);
    assert_eq!((told["sound"].as_bool(), told["line"].as_u64()), (Some(false), Some(number as u64)));
}

#[test]
fn lines_cut_off_at_the_end_show_by_a_head_noted_elsewhere() {
    let host = host();
    let head = host.run(&["records", "head"]).stdout.trim().to_owned();
    assert_eq!(host.run(&["records", "verify", "--head", &head]).code, Some(0));
    let file = newest_file(&host);
    let text = std::fs::read_to_string(&file).unwrap();
    let kept = text.trim_end().rsplit_once('\n').unwrap().0;
    std::fs::write(&file, format!("{kept}\n")).unwrap();
    assert_eq!(host.run(&["records", "verify"]).code, Some(0), "the chain alone cannot know");
    let missed = host.run(&["records", "verify", "--head", &head]);
    assert_eq!((missed.code, missed.stderr.contains("lines are missing at the end")), (Some(1), true), "{missed:?}");
}

#[test]
fn a_broken_schedule_hides_no_history_and_a_missing_folder_is_named() {
    let host = host();
    let text = host.read("schedule.yaml");
    std::fs::write(host.schedule(), format!("{text}  broken: [\n")).unwrap();
    assert_eq!(lines(&host, &["--kind", "rotated"]).len(), 4);
    let copy = host.path("copy");
    std::fs::rename(host.path("state/records"), &copy).unwrap();
    let missing = host.run(&["records"]);
    assert_eq!((missing.code, missing.stderr.contains("state/records")), (Some(1), true), "{missing:?}");
    assert_eq!(lines(&host, &["--kind", "rotated", "--records", copy.to_str().unwrap()]).len(), 4);
    assert_eq!(host.run(&["records", "verify", "--records", copy.to_str().unwrap()]).code, Some(0));
}

#[test]
fn a_reader_that_has_enough_ends_the_following() {
    let host = host();
    let mut child = host.command(&["records", "-f", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait().unwrap().code()));
    assert_eq!(ended.recv_timeout(Duration::from_secs(30)).expect("it ends"), Some(0));
}

#[test]
fn bad_filters_say_what_to_write() {
    let host = Host::new(SCHEDULE);
    for (arguments, said) in [
        (["--since", "yesterday"], "a distance such as 24h"),
        (["--kind", "Rotated"], "kinds are rotated"),
        (["--until", "5"], "a time such as"),
    ] {
        let done = host.run(&["records", arguments[0], arguments[1]]);
        assert_eq!((done.code, done.stderr.contains(said)), (Some(2), true), "{done:?}");
    }
    assert_eq!(host.run(&["records", "verify", "--head", "abc"]).code, Some(2));
}
