//! Told, not asked: each state is told to whom the schedule names, again while it lasts, and once when it is over. Whoever
//! is told and hangs, fails or floods harms no rotation.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::hung::{Machine, good, latest, now};
use crate::support::daemon::{Host, finish};
use crate::support::servers::{cluster, kubeconfig};
use crate::support::{can_mount, faketime, until};

/// An alert that appends what it is told to a file, one message a line.
const TELL: &str = "exec: {command: [sh, -c, 'cat >> HERE/told']}";

fn one(name: &str, more: &str) -> String {
    format!("  - {{name: {name}, serviceAccount: ci/{name}, {more}}}\n")
}

fn schedule(alerts: &str, targets: &str) -> String {
    format!("alerts:\n{alerts}\nclusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 1h}}\ntargets:\n{targets}")
}

/// What was told so far.
fn told(host: &Host) -> Vec<Value> {
    let text = std::fs::read_to_string(host.path("told")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The messages of one word about one subject.
fn about(host: &Host, alert: &str, recovered: bool, subject: &Value) -> Vec<Value> {
    let is_meant = |told: &Value| {
        let named = told["about"].as_array().unwrap().iter().any(|one| match subject {
            Value::Null => one.get("target").is_none(),
            subject => subject.as_object().unwrap().iter().all(|(key, value)| one[key] == *value),
        });
        told["alert"] == alert && told["recovered"] == recovered && named
    };
    told(host).into_iter().filter(is_meant).collect()
}

fn until_told(host: &Host, alert: &str, recovered: bool, subject: &Value) -> Value {
    until(&format!("{alert} is told of {subject}, recovered: {recovered}"), 90, || !about(host, alert, recovered, subject).is_empty());
    about(host, alert, recovered, subject).remove(0)
}

#[test]
fn a_failing_target_and_an_owed_place_are_told_again_while_it_lasts_and_once_when_it_is_over() {
    let targets = one("broken", "deliver: [{file: {path: HERE/blocked/token}}]")
        + &one(
            "owed",
            "deliver: [{file: {path: HERE/out/owed}}, {command: {command: [sh, -c, 'cat > HERE/seen.new && test -e HERE/open'], timeout: 5s}, required: false}]",
        )
        + &one("fine", "deliver: [{file: {path: HERE/out/fine}}]");
    let alerts = format!(
        "  - {{on: [failed, owed, recovered], {TELL}, repeat: 10s}}\n  - {{on: [rejected], exec: {{command: [sh, -c, 'touch HERE/wrong']}}}}"
    );
    let mut host = Host::new(&schedule(&alerts, &targets));
    host.write("blocked", "a file where a folder has to be");
    host.start();
    let first = until_told(&host, "failed", false, &json!({"target": "broken"}));
    assert_eq!(
        (&first["repeated"], &first["count"], &first["about"][0]["state"]),
        (&json!(false), &json!(1), &json!("retrying")),
        "{first}"
    );
    assert!(first["about"][0]["error"].as_str().unwrap().contains("blocked") && first["host"].is_string(), "{first}");
    until_told(&host, "owed", false, &json!({"target": "owed"}));
    until("it is told again", 60, || about(&host, "failed", false, &json!({"target": "broken"})).len() >= 3);
    let times: Vec<f64> = about(&host, "failed", false, &json!({"target": "broken"}))
        .iter()
        .map(|told| told["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_duration().as_secs_f64())
        .collect();
    assert!(times.windows(2).all(|two| two[1] - two[0] >= 9.9), "told too often: {times:?}");
    assert_eq!(about(&host, "failed", false, &json!({"target": "broken"}))[1]["repeated"], true);

    std::fs::remove_file(host.path("blocked")).unwrap();
    host.write("open", "");
    assert_eq!(host.run(&["rotate", "broken"]).code, Some(0));
    until_told(&host, "failed", true, &json!({"target": "broken"}));
    until_told(&host, "owed", true, &json!({"target": "owed"}));
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(about(&host, "failed", true, &json!({"target": "broken"})).len(), 1, "a recovery is told once");
    assert_eq!(told(&host).iter().filter(|told| told["about"][0]["target"] == "fine").count(), 0);
    assert!(!host.path("wrong").exists(), "a word that an alert does not name is not told to it");
    let shown = host.json(&["status"])["daemon"]["alerts"][0].clone();
    assert_eq!((&shown["alert"], &shown["failed"], &shown["error"]), (&json!("exec"), &json!(0), &Value::Null), "{shown}");
    assert!(shown["told"].as_u64() >= Some(5) && shown["toldAt"].is_string(), "{shown}");
    assert!(!host.read("told").contains("eyJ"), "an alert holds no token");
}

#[test]
fn after_a_restart_what_was_told_waits_for_its_repeat_and_a_reload_changes_whom_it_tells() {
    let targets = one("broken", "deliver: [{file: {path: HERE/blocked/token}}]");
    let alerts = format!("  - {{on: [failed, recovered], {TELL}, repeat: 1h}}");
    let mut host = Host::new(&schedule(&alerts, &targets));
    host.write("blocked", "");
    host.start();
    let broken = json!({"target": "broken"});
    until_told(&host, "failed", false, &broken);
    until("that is remembered", 20, || host.path("state/records/alerted.json").exists());
    host.kill();
    host.start();
    std::thread::sleep(Duration::from_secs(15));
    assert_eq!(about(&host, "failed", false, &broken).len(), 1, "a restart tells nobody anew");
    // Another recipient knows nothing yet, and the old one is gone.
    host.write_schedule(&schedule("  - {on: [failed], exec: {command: [sh, -c, 'cat >> HERE/elsewhere']}}", &targets));
    let verdict = host.json(&["reload"]);
    assert_eq!((&verdict["accepted"], &verdict["settings"]), (&json!(true), &json!(["alerts"])), "{verdict}");
    until("the new recipient is told", 60, || host.path("elsewhere").exists());
    assert_eq!(about(&host, "failed", true, &broken).len(), 0);
    let listening = host.read("schedule.yaml") + "metrics: {listen: '127.0.0.1:1'}\n";
    std::fs::write(host.schedule(), listening).unwrap();
    let told = host.run(&["reload"]);
    assert!(told.stderr.contains("taken up at the next start: metrics.listen"), "{told:?}");
    let diff = host.run(&[
        "plan",
        "--diff",
        host.write("other.yaml", &host.read("schedule.yaml").replace("[failed]", "[owed]")).to_str().unwrap(),
    ]);
    assert!(diff.stdout.contains("setting") && diff.stdout.contains("alerts"), "{diff:?}");
}

#[test]
fn a_recipient_learns_all_in_its_environment_too_and_one_that_was_down_is_told_later() {
    let targets = one("broken", "deliver: [{file: {path: HERE/blocked/token}}]");
    let script = "test -e HERE/up || { echo no eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl >&2; exit 7; }; env > HERE/seen.new; mv HERE/seen.new HERE/seen";
    let mut host = Host::new(&schedule(&format!("  - {{exec: {{command: [sh, -c, '{script}']}}, on: [failed], repeat: 10s}}"), &targets));
    host.write("blocked", "");
    host.start_with(&[("MY_SECRET", "hidden")]);
    let alert = |host: &Host| host.json(&["status"])["daemon"]["alerts"][0].clone();
    until("it fails", 60, || alert(&host)["failed"].as_u64() >= Some(1));
    let failed = alert(&host);
    assert!(failed["error"].as_str().unwrap().contains("ended with code 7: no [token removed]"), "{failed}");
    let shown = host.run(&["status"]);
    assert!(shown.stdout.contains("alert exec sh -c") && shown.stdout.contains(" times, last: sh ended with code 7"), "{shown:?}");
    host.write("up", "");
    until("it is told later", 60, || host.path("seen").exists());
    let seen = host.read("seen");
    for line in [
        "TOKENFERRY_ALERT=failed\n",
        "TOKENFERRY_RECOVERED=false\n",
        "TOKENFERRY_COUNT=1\n",
        "TOKENFERRY_TARGET=broken\n",
        "TOKENFERRY_STATE=retrying\n",
    ] {
        assert!(seen.contains(line), "no {line} in {seen}");
    }
    assert!(seen.contains("TOKENFERRY_SINCE=20") && !seen.contains("hidden") && !seen.contains("eyJ"), "{seen}");
    until("the failure is forgotten", 20, || alert(&host)["error"].is_null());
    assert!(!host.log().contains("c2lnbmF0dXJl"));
}

/// A server that keeps what it is sent; while `mute` is set it never answers.
pub struct Listener {
    pub port: u16,
    got: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Listener {
    pub fn start(mute: bool) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let got: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let kept = Arc::clone(&got);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if mute {
                    kept.lock().unwrap().push((Instant::now(), String::new()));
                    held.push(stream);
                    continue;
                }
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                while !text.contains("\r\n\r\n") || !text.ends_with('}') {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                    }
                }
                kept.lock().unwrap().push((Instant::now(), text));
                let _ = write!(stream, "HTTP/1.1 204 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        });
        Self { port, got }
    }

    pub fn got(&self) -> Vec<(Instant, String)> {
        self.got.lock().unwrap().clone()
    }
}

fn body(text: &str) -> Value {
    serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

#[test]
fn a_refused_schedule_and_records_that_cannot_be_written_are_told_by_http_and_so_is_their_end() {
    if !can_mount("a_refused_schedule_and_records_that_cannot_be_written_are_told_by_http_and_so_is_their_end", &[]) {
        return;
    }
    let listener = Listener::start(false);
    let alerts = format!(
        "  - {{on: [scheduleRefused, recordsLost, recovered], http: {{url: 'http://127.0.0.1:{}/hook?key=hidden'}}}}",
        listener.port
    );
    let text = schedule(&alerts, &one("fine", "deliver: [{file: {path: HERE/out/fine}}]"));
    let mut host = Host::new(&text);
    std::fs::create_dir(host.path("state")).unwrap();
    let _mounted = Mounted::new(&host.path("state"));
    host.start();
    until("it is delivered", 60, || host.target("fine")["state"] == "fresh");
    let got = |alert: &str, recovered: bool| {
        let bodies = listener.got().into_iter().map(|(_, text)| text);
        bodies.filter(|text| body(text)["alert"] == alert && body(text)["recovered"] == recovered).count()
    };
    host.write_schedule(&text.replace("serviceAccount", "serviceAcount"));
    assert_eq!(host.run(&["reload"]).code, Some(2));
    until("the refusal is told", 60, || got("scheduleRefused", false) == 1);
    let first = listener.got()[0].1.clone();
    assert!(first.starts_with("POST /hook?key=hidden HTTP/1.1") && first.contains("application/json"), "{first}");
    let first = body(&first);
    assert!(first["about"][0]["error"].as_str().unwrap().contains("schedule.yaml:"), "{first}");
    host.write_schedule(&text);
    assert_eq!(host.run(&["reload"]).code, Some(0));
    until("its end is told", 60, || got("scheduleRefused", true) == 1);

    let filler = host.path("state/filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    until("records cannot be written", 120, || {
        host.run(&["rotate", "fine"]);
        !host.json(&["status"])["daemon"]["records"]["error"].is_null()
    });
    until("that is told", 60, || got("recordsLost", false) >= 1);
    std::fs::remove_file(&filler).unwrap();
    until("its end is told", 60, || got("recordsLost", true) == 1);
    assert!(!host.log().contains("hidden"), "the query of the address is nobody's to read");
}

/// A small file system.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(path: &std::path::Path) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tokenferry-test"]).arg(path);
        assert_eq!(finish(mount, Duration::from_secs(20)).code, Some(0));
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.0);
        finish(umount, Duration::from_secs(20));
    }
}

#[test]
fn a_rejected_token_and_an_own_credential_that_died_are_told_with_their_names() {
    let servers = cluster();
    servers.kubectl(&["-n", "apps", "create", "serviceaccount", "told"]);
    let mut host = Host::new(&format!(
        "
alerts: [{{on: [rejected, ownCredential, recovered], {TELL}}}]
clusters:
  real: {{kubeconfig: {}}}
  prod: {{kubeconfig: HERE/prod.kubeconfig, own: {{serviceAccount: ferry-told/ferry, duration: 10m}}}}
targets:
  - {{name: one, cluster: real, serviceAccount: apps/told, duration: 1h, prove: {{every: 2s}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        servers.kube().minter_kubeconfig.display()
    ));
    let admin = servers.kube().admin_kubeconfig.display().to_string();
    let bootstrap = |host: &Host| assert_eq!(host.run(&["bootstrap", "prod", "--kubeconfig", &admin]).code, Some(0));
    bootstrap(&host);
    host.start();
    until("all is well", 60, || host.target("one")["state"] == "fresh" && host.target("own/prod")["state"] == "fresh");
    servers.kubectl(&["-n", "apps", "delete", "serviceaccount", "told"]);
    servers.kubectl(&["delete", "serviceaccount", "ferry", "-n", "ferry-told"]);
    // The API server believes a token for 10 s that it has seen before.
    until("the renewal is refused", 60, || {
        host.rotate("own/prod").is_some_and(|line| line["error"].as_str().is_some_and(|error| error.contains("tokenferry bootstrap prod")))
    });
    let rejected = until_told(&host, "rejected", false, &json!({"target": "one"}));
    assert_eq!(rejected["about"][0]["state"], "rejected", "{rejected}");
    assert!(rejected["about"][0]["expiresAt"].is_string(), "{rejected}");
    let own = until_told(&host, "ownCredential", false, &json!({"cluster": "prod"}));
    assert!(own["about"][0]["error"].as_str().unwrap().contains("tokenferry bootstrap prod"), "{own}");
    assert!(about(&host, "rejected", false, &json!({"target": "own/prod"})).is_empty(), "it has a word of its own");
    bootstrap(&host);
    servers.kubectl(&["-n", "apps", "create", "serviceaccount", "told"]);
    until_told(&host, "ownCredential", true, &json!({"cluster": "prod"}));
    until("a new token is minted", 60, || host.rotate("one").is_some_and(|line| line["kind"] == "rotated"));
    until_told(&host, "rejected", true, &json!({"target": "one"}));
}

#[test]
fn a_token_at_risk_and_one_that_ended_are_told_each_and_then_no_heart_beats() {
    let (kube, listener) = (cluster().kube(), Listener::start(false));
    let mut host = Host::new(&format!(
        "
alerts: [{{on: [atRisk, expired, recovered], {TELL}}}]
heartbeat: {{http: {{url: 'http://127.0.0.1:{}/beat'}}, every: 10s}}
clusters: {{prod: {{kubeconfig: HERE/kubeconfig}}}}
targets: [{{name: one, cluster: prod, serviceAccount: cicd/cicd-deployer, duration: 10m, deliver: [{{file: {{path: HERE/out/one}}}}]}}]
",
        listener.port
    ));
    host.write("kubeconfig", &std::fs::read_to_string(&kube.minter_kubeconfig).unwrap());
    host.start();
    until("it is delivered", 60, || host.target("one")["state"] == "fresh");
    host.stop();
    // From now on nobody mints, and time flies.
    host.write("kubeconfig", &kubeconfig("https://127.0.0.1:1", &kube.ca, json!({"token": "x"})));
    let library = faketime().display().to_string();
    let later = |host: &mut Host, seconds: u64| {
        let fake = format!("+{seconds}s");
        host.start_with(&[("LD_PRELOAD", library.as_str()), ("FAKETIME", fake.as_str()), ("DONT_FAKE_MONOTONIC", "1")]);
    };
    let one = json!({"target": "one"});
    later(&mut host, 545);
    let told = until_told(&host, "atRisk", false, &one);
    assert_eq!(told["about"][0]["state"], "atRisk", "{told}");
    until("the heart beats", 30, || listener.got().iter().any(|(_, text)| body(text)["heartbeat"] == "tokenferry"));
    host.kill();
    let beats = listener.got().len();
    later(&mut host, 700);
    let told = until_told(&host, "expired", false, &one);
    assert_eq!(told["about"][0]["since"], told["about"][0]["expiresAt"], "{told}");
    until_told(&host, "atRisk", true, &one);
    assert_eq!(listener.got().len(), beats, "the heart beats although all is lost");
    assert!(host.log().contains("no heartbeat"));
}

#[test]
fn a_heart_that_stops_is_not_heard_and_a_slow_switch_makes_no_beat_late() {
    let (listener, mute) = (Listener::start(false), Listener::start(true));
    let text = |port: u16| {
        format!(
            "heartbeat: {{http: {{url: 'http://127.0.0.1:{port}/'}}, every: 10s}}\nclusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 1h}}\ntargets:\n{}",
            one("fine", "deliver: [{file: {path: HERE/out/fine}}]")
        )
    };
    let (mut host, mut slow) = (Host::new(&text(listener.port)), Host::new(&text(mute.port)));
    host.start();
    slow.start();
    until("it beats", 60, || listener.got().len() >= 3);
    let beat = body(&listener.got()[0].1);
    assert_eq!((&beat["heartbeat"], &beat["every"], &beat["targets"]), (&json!("tokenferry"), &json!(10), &json!(1)), "{beat}");
    host.signal(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_secs(2));
    let stopped = listener.got().len();
    std::thread::sleep(Duration::from_secs(23));
    let silent = listener.got().len();
    host.signal(rustix::process::Signal::CONT);
    assert_eq!(silent, stopped, "a daemon that stands still was heard");
    until("it beats again", 30, || listener.got().len() > silent);
    // Nobody answered the other one all the while.
    until("it was tried often", 60, || mute.got().len() >= 5);
    let gaps: Vec<f64> = mute.got().windows(2).map(|two| (two[1].0 - two[0].0).as_secs_f64()).collect();
    assert!(gaps.iter().all(|gap| *gap < 20.0), "a beat is late by more than its period: {gaps:?}");
    let shown = slow.json(&["status"])["daemon"]["heartbeat"].clone();
    assert!(shown["failed"].as_u64() >= Some(2) && shown["done"] == 0, "{shown}");
    assert!(shown["error"].as_str().unwrap().contains("no answer within 10 s"), "{shown}");
    assert_eq!(slow.target("fine")["state"], "fresh");
}

#[test]
fn g6_an_alert_that_hangs_delays_no_rotation_and_no_other_alert_and_ends_with_the_daemon() {
    let hang = "exec: {command: [sh, -c, 'echo $$ >> HERE/hung; sleep 1000'], timeout: 5m}, repeat: 10m";
    let alerts: String =
        (0..6).map(|n| format!("  - {{on: [failed], {}}}\n", hang.replace("sleep 1000", &format!("sleep 100{n}")))).collect();
    let alerts = format!("{alerts}  - {{on: [failed], {TELL}, repeat: 10s}}");
    let text = format!(
        "alerts:\n{alerts}\nclusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 1h}}\ntargets:\n{}{}",
        good(),
        one("broken", "deliver: [{file: {path: HERE/blocked/token}}]")
    );
    let mut host = Host::new(&text);
    host.write("blocked", "");
    let machine = Machine::watch();
    let from = now();
    host.start();
    until("all of them hang", 60, || std::fs::read_to_string(host.path("hung")).unwrap_or_default().lines().count() == 6);
    until_told(&host, "failed", false, &json!({"target": "broken"}));
    std::thread::sleep(Duration::from_secs(15));
    let (worst, rotations) = latest(&host, from, &machine.stalls());
    assert!(rotations > 20, "only {rotations} rotations");
    assert!(worst < 1.0, "a rotation was {worst} s late beside alerts that hang");
    let hung: Vec<String> = host.read("hung").lines().map(str::to_owned).collect();
    assert_eq!(hung.len(), 6, "one that hangs is not begun again");
    assert_eq!(host.stop(), Some(0));
    until("they end with the daemon", 20, || {
        hung.iter().all(|pid| !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")))
    });
}
