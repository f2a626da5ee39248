//! Tokens that others mint are watched: what is wrong with each is told by status, metrics, alerts, records and report,
//! as soon as it happens, and nothing is ever written to them.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use serde_json::{Value, json};

use crate::support::daemon::{Host, tool};
use crate::support::until;

/// A token of somebody else, issued and ending so many seconds from now.
pub fn token(issued: i64, ends: Option<i64>) -> String {
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({"iss": "https://x", "aud": ["x"], "sub": "system:serviceaccount:apps/other", "iat": now + issued, "jti": format!("j{issued}{ends:?}")});
    if let Some(ends) = ends {
        claims["exp"] = (now + ends).into();
    }
    format!("{}.{}.{}", part(&json!({"alg": "ES256"})), part(&claims), part(&Value::from("none")))
}

fn place(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

const SCHEDULE: &str = "
alerts: [{exec: {command: [sh, -c, 'cat >> HERE/told']}}]
monitor: [{path: HERE/others/token, maxAge: 1h}, {path: HERE/mounted/token}]
clusters: {trial: {embedded: {}}}
targets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]
";

fn seen(host: &Host, index: usize) -> Value {
    host.json(&["status"])["monitored"][index].clone()
}

fn until_state(host: &Host, state: &str) -> Value {
    // Far sooner than the look that comes once a minute.
    until(&format!("the file is {state}"), 30, || seen(host, 0)["state"] == state);
    seen(host, 0)
}

#[test]
fn each_state_of_a_file_of_others_is_seen_when_it_changes_and_told_everywhere() {
    let mut host = Host::new(SCHEDULE);
    std::fs::create_dir(host.path("others")).unwrap();
    // As a kubelet mounts it.
    std::fs::create_dir_all(host.path("mounted/..1")).unwrap();
    std::fs::write(host.path("mounted/..1/token"), token(0, Some(3600))).unwrap();
    std::os::unix::fs::symlink("..1", host.path("mounted/..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", host.path("mounted/token")).unwrap();
    let file = host.path("others/token");

    // Without a daemon the files are looked at all the same.
    assert_eq!((&seen(&host, 0)["state"], &seen(&host, 1)["state"]), (&json!("missing"), &json!("fresh")));
    host.start();
    assert_eq!(until_state(&host, "missing")["reason"], "does not exist");
    assert_eq!(host.run(&["status"]).code, Some(1), "a monitored token that is not well needs a person");
    // The file is there before its first line is.
    until("that is told", 60, || host.path("told").exists() && host.read("told").contains('\n'));
    let told: Value = serde_json::from_str(host.read("told").lines().next().unwrap()).unwrap();
    assert_eq!(
        (&told["alert"], &told["about"][0]["file"], &told["about"][0]["state"]),
        (&json!("failed"), &json!(file), &json!("missing")),
        "{told}"
    );

    let good = token(0, Some(3600));
    place(&file, &format!("{good}\n"));
    let fresh = until_state(&host, "fresh");
    assert_eq!(fresh["subject"], "system:serviceaccount:apps/other");
    assert!(fresh["expiresAt"].is_string() && fresh["reason"].is_null(), "{fresh}");
    assert_eq!(host.run(&["status"]).code, Some(0));
    for (text, state, reason) in [
        ("nonsense".to_owned(), "noToken", "no token in it"),
        (format!(r#"{{"token":"{}"}}"#, token(-7200, Some(3600))), "tooOld", "ago, and may be 1h old"),
        (token(-7200, Some(-60)), "expired", "expired since 20"),
        (token(0, None), "endless", "says no end"),
        (token(0, Some(7200)), "fresh", ""),
    ] {
        place(&file, &text);
        let now = until_state(&host, state);
        assert!(now["reason"].as_str().unwrap_or_default().contains(reason), "{now}");
    }
    // The mounted one changes by its `..data` alone.
    let before = seen(&host, 1)["jti"].clone();
    std::fs::create_dir(host.path("mounted/..2")).unwrap();
    std::fs::write(host.path("mounted/..2/token"), token(-1, Some(3600))).unwrap();
    std::os::unix::fs::symlink("..2", host.path("mounted/..new")).unwrap();
    std::fs::rename(host.path("mounted/..new"), host.path("mounted/..data")).unwrap();
    until("the mounted one is read anew", 30, || seen(&host, 1)["jti"] != before);
    told_everywhere(&host, &file, &good);
}

fn told_everywhere(host: &Host, file: &Path, good: &str) {
    place(file, &token(-7200, Some(3600)));
    until_state(host, "tooOld");
    let metrics =
        tool(Command::new("curl").args(["-sS", "--fail", "--unix-socket"]).arg(host.path("control.sock")).arg("http://tokenferry/metrics"));
    let path = file.display();
    for line in [
        "tokenferry_monitored_tokens{state=\"tooOld\"} 1".to_owned(),
        "tokenferry_monitored_tokens{state=\"fresh\"} 1".to_owned(),
        format!("tokenferry_monitored_trouble{{path=\"{path}\",state=\"tooOld\"}} 1"),
        format!("tokenferry_monitored_max_age_seconds{{path=\"{path}\"}} 3600"),
        format!("tokenferry_monitored_issued_timestamp_seconds{{path=\"{path}\"}} "),
        format!("tokenferry_monitored_expiry_timestamp_seconds{{path=\"{path}\"}} "),
    ] {
        assert!(metrics.contains(&line), "no `{line}` in:\n{metrics}");
    }
    let shown = host.run(&["status"]);
    assert!(
        shown.stdout.contains("MONITORED") && shown.stdout.contains("tooOld") && shown.stdout.contains("whoever replaces it has stopped"),
        "{shown:?}"
    );
    let recorded = || -> Vec<String> {
        let lines = host.records().into_iter().filter(|line| line["kind"] == "monitored" && line["monitored"]["path"] == json!(file));
        lines.map(|line| line["monitored"]["state"].as_str().unwrap().to_owned()).collect()
    };
    until("the last state is recorded", 30, || recorded().last().is_some_and(|last| last == "tooOld"));
    let states = recorded();
    for state in ["missing", "fresh", "noToken", "tooOld", "expired", "endless"] {
        assert!(states.iter().any(|seen| seen == state), "no record of {state}: {states:?}");
    }
    let listed = host.run(&["records", "--kind", "monitored"]);
    assert!(listed.stdout.contains("others/token=expired"), "{listed:?}");
    let report = host.json(&["report", "--offline", "--since", "1h"]);
    let watched = report["monitored"].as_array().unwrap().iter().find(|watched| watched["path"] == json!(file)).unwrap();
    assert!(watched["tokens"].as_u64() >= Some(4) && watched["longestAge"].as_u64() >= Some(7200), "{watched}");
    assert!(watched["unwell"].as_u64() >= Some(1) && watched["state"] == "tooOld", "{watched}");
    assert!(host.run(&["report", "--offline", "--since", "1h"]).stdout.contains("MONITORED"));
    assert!(host.run(&["report", "--offline", "--since", "1h", "-o", "html"]).stdout.contains("Tokens that others mint"));
    until("the state is told, too", 60, || host.read("told").contains("\"tooOld\""));
    for text in [host.log(), host.records().iter().map(Value::to_string).collect(), host.read("told"), metrics] {
        assert!(!text.contains(good) && !text.contains("eyJ"), "a monitored token was shown");
    }
}

#[test]
fn a_reload_takes_other_files_and_forgets_those_that_went() {
    let mut host = Host::new(SCHEDULE);
    std::fs::create_dir(host.path("others")).unwrap();
    place(&host.path("others/token"), &token(0, Some(3600)));
    host.start();
    until_state(&host, "fresh");
    host.write_schedule(
        &SCHEDULE.replace("[{path: HERE/others/token, maxAge: 1h}, {path: HERE/mounted/token}]", "[{path: HERE/elsewhere/token}]"),
    );
    let verdict = host.json(&["reload"]);
    assert_eq!(verdict["settings"], json!(["monitor"]), "{verdict}");
    until("the new one is looked at", 30, || seen(&host, 0)["path"] == json!(host.path("elsewhere/token")));
    assert_eq!(host.json(&["status"])["monitored"].as_array().unwrap().len(), 1);
    // A folder that was not there is watched from the next look on.
    assert_eq!(seen(&host, 0)["state"], "missing");
    std::fs::create_dir(host.path("elsewhere")).unwrap();
    place(&host.path("elsewhere/token"), &token(0, Some(3600)));
    until("it is found", 90, || seen(&host, 0)["state"] == "fresh");
}
