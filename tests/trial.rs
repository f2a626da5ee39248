//! The embedded cluster through the whole program: first delivery, rotation, restarts, lost records.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::daemon::{Host, tool};
use crate::support::until;

const SHORT: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 10s, rotate: {at: 60%, splay: 0s}}
targets:
  - name: one
    serviceAccount: ci/one
    deliver:
      - file: {path: HERE/out/one}
      - file: {path: HERE/out/copy, mode: \"0640\"}
";

const LONG: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - name: one
    serviceAccount: ci/one
    deliver:
      - file: {path: HERE/out/one}
      - file: {path: HERE/out/copy, mode: \"0640\"}
  - name: two
    serviceAccount: ci/two
    deliver: [{file: {path: HERE/out/two}}]
";

fn claims(token: &str) -> Value {
    use base64::Engine;
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn mode(host: &Host, name: &str) -> u32 {
    std::fs::metadata(host.path(name)).unwrap().permissions().mode() & 0o7777
}

/// Checks the signature with openssl and the public key of the JWKS.
fn verify(host: &Host, token: &str) {
    use base64::Engine;
    let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    let jwks: Value = serde_json::from_str(&host.read("state/embedded/trial/jwks.json")).unwrap();
    let key = &jwks["keys"][0];
    // SubjectPublicKeyInfo of a P-256 point (RFC 5480).
    let mut der = decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE");
    der.extend(decode(key["x"].as_str().unwrap()));
    der.extend(decode(key["y"].as_str().unwrap()));
    let signature = decode(token.rsplit('.').next().unwrap());
    let integer = |bytes: &[u8]| {
        let mut bytes: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
        if bytes[0] >= 0x80 {
            bytes.insert(0, 0);
        }
        [vec![2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    let sequence = [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat();
    std::fs::write(host.path("key.der"), der).unwrap();
    std::fs::write(host.path("sig.der"), sequence).unwrap();
    std::fs::write(host.path("signed"), &token[..token.rfind('.').unwrap()]).unwrap();
    let said = tool(Command::new("openssl").current_dir(host.folder.path()).args([
        "dgst",
        "-sha256",
        "-verify",
        "key.der",
        "-keyform",
        "DER",
        "-signature",
        "sig.der",
        "signed",
    ]));
    assert!(said.contains("Verified OK"), "{said}");
}

#[test]
fn tokens_verify_against_the_jwks_and_a_second_run_mints_nothing() {
    let host = Host::new(LONG);
    let first = host.run(&["once"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    let token = host.read("out/one");
    assert!(!token.ends_with('\n'));
    assert_eq!(claims(&token)["sub"], "system:serviceaccount:ci:one");
    verify(&host, &token);
    assert_eq!((mode(&host, "out/one"), mode(&host, "out/copy")), (0o600, 0o640));
    let before = std::fs::metadata(host.path("out/one")).unwrap().ino();
    let second = host.run(&["once"]);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(second.stderr.contains("every token is fresh"), "{second:?}");
    assert_eq!(std::fs::metadata(host.path("out/one")).unwrap().ino(), before, "a fresh file was written again");
    assert_eq!(host.records_of("rotated", "one").len(), 1);
}

#[test]
fn a_target_is_rotated_at_its_share_of_life_and_is_never_expired() {
    let mut host = Host::new(SHORT);
    host.start();
    let begun = std::time::Instant::now();
    while begun.elapsed().as_secs() < 20 {
        let exp = claims(&host.read("out/one"))["exp"].as_i64().unwrap();
        assert!(exp > jiff::Timestamp::now().as_second(), "an expired token is served");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let rotations = host.records_of("rotated", "one");
    assert!((3..=5).contains(&rotations.len()), "{} rotations in 20 s", rotations.len());
    assert_eq!(rotations[1]["reason"], "lifetime");
    assert_eq!(host.stop(), Some(0));
    assert_eq!(host.records().last().unwrap()["kind"], "stopped");
}

#[test]
fn g5_a_restart_with_fresh_tokens_mints_nothing_and_writes_nothing() {
    let mut host = Host::new(LONG);
    host.start();
    until("both are delivered", 20, || host.records_of("rotated", "two").len() == 1 && host.records_of("rotated", "one").len() == 1);
    let inodes = |host: &Host| ["out/one", "out/copy", "out/two"].map(|f| std::fs::metadata(host.path(f)).unwrap().ino());
    let before = inodes(&host);
    assert_eq!(host.stop(), Some(0));
    host.start();
    host.kill();
    host.start();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(inodes(&host), before);
    assert_eq!(host.records().iter().filter(|l| l["kind"] == "rotated").count(), 2);
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
}

#[test]
fn g4_a_token_that_was_published_but_not_recorded_is_adopted() {
    let mut host = Host::new(LONG);
    assert_eq!(host.run(&["once"]).code, Some(0));
    // The state of a daemon that was killed between publication and record: a newer token in the file, from the
    // same cluster, and an orphan of the next write.
    let newer =
        Host::new(&LONG.replace("embedded: {}", &format!("embedded: {{directory: {}}}", host.path("state/embedded/trial").display())));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let made = newer.run(&["once", "--target", "one"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let token = newer.read("out/one");
    let issuer = claims(&token)["iss"].clone();
    assert_eq!(issuer, claims(&host.read("out/one"))["iss"]);
    host.write("out/one", &token);
    host.write("out/.one.0123456789abcdef.tmp", "half a tok");
    host.start();
    until("it is adopted and copied", 20, || host.read("out/copy") == token);
    let adopted = host.records_of("adopted", "one");
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0]["jti"], claims(&token)["jti"]);
    assert_eq!(host.records_of("rotated", "one").len(), 1, "it was minted anew");
    assert!(!host.path("out/.one.0123456789abcdef.tmp").exists(), "the orphan is still there");
    until("nothing is owed", 20, || host.target("one")["sinks"][1]["outcome"] == "written");
    assert_eq!(host.target("one")["jti"], claims(&token)["jti"]);
}

#[test]
fn g4_lost_records_cost_no_mint() {
    let mut host = Host::new(LONG);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let tokens = [host.read("out/one"), host.read("out/two")];
    std::fs::remove_dir_all(host.path("state/records")).unwrap();
    host.start();
    until("both are adopted", 20, || host.records().iter().filter(|l| l["kind"] == "adopted").count() == 2);
    assert_eq!([host.read("out/one"), host.read("out/two")], tokens);
    assert!(host.records().iter().all(|l| l["kind"] != "rotated"));
    until("two is fresh", 20, || host.target("two")["state"] == "fresh");
}

#[test]
fn a_removed_a_spoiled_and_a_wrongly_moded_file_are_put_right_from_the_copy() {
    let mut host = Host::new(LONG);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let token = host.read("out/copy");
    std::fs::remove_file(host.path("out/one")).unwrap();
    std::fs::set_permissions(host.path("out/two"), std::fs::Permissions::from_mode(0o644)).unwrap();
    host.start();
    until("the copy is back", 20, || host.path("out/one").exists());
    until("the mode is right", 20, || mode(&host, "out/two") == 0o600);
    assert_eq!(host.read("out/one"), token);
    host.kill();
    host.write("out/one", "nonsense");
    host.start();
    until("the spoiled file is mended", 20, || host.read("out/one") == token);
    assert_eq!(host.records().iter().filter(|l| l["kind"] == "rotated").count(), 2, "something was minted anew");
}

#[test]
fn a_target_whose_only_file_is_gone_is_minted_anew_as_a_repair() {
    let mut host = Host::new(LONG);
    assert_eq!(host.run(&["once"]).code, Some(0));
    std::fs::remove_file(host.path("out/two")).unwrap();
    host.start();
    until("it is minted anew", 20, || host.records_of("rotated", "two").len() == 2);
    assert_eq!(host.records_of("rotated", "two")[1]["reason"], "repair");
    assert_eq!(host.records_of("rotated", "one").len(), 1);
}

#[test]
fn rotate_names_its_outcome_and_the_person_who_asked() {
    let mut host = Host::new(LONG);
    host.start();
    let answer = host.json(&["rotate", "o*"]);
    assert_eq!(answer["outcomes"][0]["record"]["kind"], "rotated");
    let line = host.records_of("rotated", "one").pop().unwrap();
    assert_eq!(line["reason"], "manual");
    assert!(line["actor"]["command"].as_str().unwrap().contains("rotate"), "{line}");
    assert_eq!(line["actor"]["uid"], rustix::process::getuid().as_raw());
    assert_eq!(host.run(&["rotate", "none-such"]).code, Some(2));
    assert_eq!(host.run(&["rotate"]).code, Some(2));
    assert_eq!(host.json(&["rotate", "--all", "--dry-run"])["wouldRotate"], serde_json::json!(["one", "two"]));
}

#[test]
fn commands_without_a_daemon_say_so_by_their_exit_codes() {
    let host = Host::new(LONG);
    assert_eq!(host.run(&["rotate", "one"]).code, Some(3));
    assert_eq!(host.run(&["reload"]).code, Some(3));
    let status = host.run(&["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.stderr.contains("no daemon runs"), "{status:?}");
    assert!(status.stdout.contains("new"), "{status:?}");
}

#[test]
fn a_second_daemon_is_refused_and_told_who_holds_the_records() {
    let mut host = Host::new(LONG);
    host.start();
    let second = host.run(&["run"]);
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains(&host.pid().to_string()), "{second:?}");
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
    let once = host.run(&["once"]);
    assert_eq!(once.code, Some(0), "{once:?}");
    assert!(once.stderr.contains("a daemon runs"), "{once:?}");
}

#[test]
fn a_schedule_without_targets_is_valid_and_says_so() {
    let mut host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []\n");
    let checked = host.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("no targets") || checked.stderr.contains("0 targets"), "{checked:?}");
    assert_eq!(host.run(&["once"]).code, Some(0));
    host.start();
    assert_eq!(host.stop(), Some(0));
}

#[test]
fn a_cron_time_rotates_and_is_recorded_as_such() {
    let every = LONG.replace("duration: 1h}", "duration: 1h, rotate: {cron: \"* * * * *\", timeZone: Europe/Berlin, splay: 0s}}");
    let mut host = Host::new(&every);
    host.start();
    until("the minute turns", 90, || host.records_of("rotated", "one").iter().any(|l| l["reason"] == "cron"));
    let reasons: Vec<String> = host.records_of("rotated", "one").iter().map(|l| l["reason"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reasons, ["new", "cron"]);
}

#[test]
fn sigterm_lets_what_is_in_flight_finish() {
    let many: String = (0..200)
        .map(|n| format!("  - name: t{n}\n    serviceAccount: ci/t{n}\n    deliver: [{{file: {{path: HERE/out/t{n}}}}}]\n"))
        .collect();
    let mut host =
        Host::new(&format!("clusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 1h}}\ntargets:\n{many}"));
    host.start_with(&[]);
    until("some are delivered", 30, || host.records().iter().any(|l| l["kind"] == "rotated"));
    host.signal(Signal::TERM);
    assert_eq!(host.stop(), Some(0));
    let recorded: std::collections::BTreeSet<String> =
        host.records().iter().filter(|l| l["kind"] == "rotated").map(|l| l["target"].as_str().unwrap().to_owned()).collect();
    let published = std::fs::read_dir(host.path("out")).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    for name in published {
        assert!(recorded.contains(&name), "{name} was published and not recorded");
    }
    assert_eq!(host.records().last().unwrap()["kind"], "stopped");
}
