//! The `command` sink: a program takes the payload on its standard input. Small stand-in programs check the calling
//! conventions of the GitLab and GitHub command-line tools.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tokenferry::sink::command::CommandSpec;
use tokenferry::sink::{Context, Failure, FailureKind, Put, SinkSpec, Stores, put};
use tokenferry::token::Payload;

use crate::support::daemon::Host;
use crate::support::until;

const SECRET: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ";

fn attempt(script: &str, seconds: u64) -> Result<Put, Failure> {
    let command = ["/bin/sh", "-c", script].map(String::from).to_vec();
    attempt_of(command, seconds)
}

fn attempt_of(command: Vec<String>, seconds: u64) -> Result<Put, Failure> {
    let spec = SinkSpec::Command(Box::new(CommandSpec { command, timeout: Duration::from_secs(seconds) }));
    let context = Context {
        target: "ci",
        issue: "i",
        issued_at: 0,
        generation: 1,
        expires_at: 0,
        timeout: Duration::from_secs(5),
        manners: tokenferry::sink::Manners::default(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let result = runtime.block_on(put(&spec, &Payload::new(SECRET.into()), context, &Stores::default()));
    if let Err(failure) = &result {
        for part in SECRET.split('.') {
            assert!(!failure.message.contains(part), "a part of the token is told: {failure}");
        }
    }
    result
}

#[test]
fn a_program_gets_the_payload_whole_and_nothing_of_it_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (took, saw) = (folder.path().join("took"), folder.path().join("saw"));
    let script = format!("cat > {}; {{ env; tr '\\0' ' ' < /proc/$$/cmdline; }} > {}", took.display(), saw.display());
    assert_eq!(attempt(&script, 20), Ok(Put::Written));
    assert_eq!(std::fs::read_to_string(took).unwrap(), SECRET);
    let saw = std::fs::read_to_string(saw).unwrap();
    assert!(saw.contains("TOKENFERRY_TARGET=ci\n") && !saw.contains("eyJ") && !saw.contains("CARGO"), "{saw}");
}

#[test]
fn how_it_ends_decides_what_is_done_next() {
    for (script, kind, said) in [
        ("cat >/dev/null; echo no such project >&2; exit 1", FailureKind::Unavailable, "failed with exit code 1; it said: no such project"),
        ("cat >/dev/null; exit 77", FailureKind::Refused, "exit code 77"),
        ("cat >/dev/null; exit 127", FailureKind::Local, "exit code 127"),
        ("kill -9 $$", FailureKind::Unavailable, "ended by signal 9"),
        ("cat; cat >&2; exit 3", FailureKind::Unavailable, "[token removed]"),
    ] {
        let failure = attempt(script, 20).unwrap_err();
        assert_eq!(failure.kind, kind, "{script}: {failure}");
        assert!(failure.message.contains(said), "{script}: {failure}");
    }
    let missing = attempt_of(vec!["/nonexistent/program".into()], 5).unwrap_err();
    assert_eq!(
        (missing.kind, missing.message.contains("there is no program `/nonexistent/program`")),
        (FailureKind::Local, true),
        "{missing}"
    );
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    for (mode, said) in [(0o644, "is no program that this user may run"), (0o755, "a script begins with a line such as")] {
        std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(mode)).unwrap();
        let failure = attempt_of(vec![plain.display().to_string()], 5).unwrap_err();
        assert_eq!((failure.kind, failure.message.contains(said)), (FailureKind::Local, true), "{failure}");
    }
}

#[test]
fn one_that_hangs_is_killed_with_everything_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let begun = Instant::now();
    let failure = attempt(&format!("sleep 300 & echo $! > {}; sleep 300", pid.display()), 1).unwrap_err();
    assert_eq!(
        (failure.kind, failure.message.contains("did not end within 1 s and was killed")),
        (FailureKind::Unavailable, true),
        "{failure}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let pid: u32 = std::fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let gone = || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    until("what it started is gone", 20, gone);
}

#[test]
fn one_that_leaves_a_child_with_its_pipes_holds_nobody_up() {
    let begun = Instant::now();
    assert_eq!(attempt("cat >/dev/null; setsid sleep 60 &", 30), Ok(Put::Written));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn one_that_floods_its_output_blocks_nobody_and_its_end_is_kept() {
    let failure = attempt("cat >/dev/null; yes floodfloodflood | head -c 20000000; echo the end; exit 1", 60).unwrap_err();
    assert!(failure.message.ends_with("flood the end") && failure.message.len() < 1000, "{failure}");
}

#[test]
fn one_that_never_reads_a_large_payload_and_ends_well_has_not_taken_it() {
    let spec = SinkSpec::Command(Box::new(CommandSpec { command: vec!["/bin/true".into()], timeout: Duration::from_secs(20) }));
    let context = Context {
        target: "ci",
        issue: "i",
        issued_at: 0,
        generation: 1,
        expires_at: 0,
        timeout: Duration::from_secs(5),
        manners: tokenferry::sink::Manners::default(),
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failure = runtime.block_on(put(&spec, &Payload::new(vec![b'x'; 1 << 20]), context, &Stores::default())).unwrap_err();
    assert_eq!((failure.kind, failure.message.contains("did not read the token")), (FailureKind::Refused, true), "{failure}");
}

/// `gh secret set NAME` (also `--repo O/R`, `--org O`) and `glab variable update KEY` (also `--masked`) take the
/// value from standard input, up to its end: cli/cli `pkg/cmd/secret/set`, gitlab-org/cli `variable update`.
const GH: &str = r#"#!/bin/sh
[ "$1 $2" = "secret set" ] || { echo "unknown command" >&2; exit 1; }
[ -n "$3" ] || { echo "must pass name" >&2; exit 1; }
for word in "$@"; do case $word in --body*|-b*) echo "the value stands in an argument" >&2; exit 1;; esac; done
[ -t 0 ] && { echo "would ask a person" >&2; exit 1; }
cat > "$HOME/$3"
"#;
const GLAB: &str = r#"#!/bin/sh
[ "$1 $2" = "variable update" ] || { echo "unknown command" >&2; exit 1; }
[ -n "$3" ] || { echo "accepts 1 arg" >&2; exit 1; }
for word in "$@"; do case $word in --value*|-v*) echo "the value stands in an argument" >&2; exit 1;; esac; done
cat > "$HOME/$3"
"#;

#[test]
fn the_tools_of_gitlab_and_github_take_a_token_by_their_own_conventions() {
    let mut host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets:\n- name: ci\n  cluster: trial\n  serviceAccount: cicd/bot\n  duration: 1h\n  deliver:\n  \
         - command: {command: [gh, secret, set, KUBE_TOKEN, --repo, acme/web]}\n  \
         - command: {command: [glab, variable, update, KUBE_JSON, --masked], timeout: 1m, format: json}\n  \
         - file: {path: HERE/out/token}\n",
    );
    std::fs::create_dir(host.path("bin")).unwrap();
    for (name, text) in [("gh", GH), ("glab", GLAB)] {
        let path = host.write(&format!("bin/{name}"), text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    let home = host.folder.path().display().to_string();
    host.start_with(&[("PATH", &path), ("HOME", &home)]);
    until("it is delivered", 60, || host.records_of("rotated", "ci").len() == 1);
    let token = host.read("out/token");
    assert_eq!(host.read("KUBE_TOKEN"), token);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&host.read("KUBE_JSON")).unwrap()["token"], token.as_str());
    let rotated = &host.records_of("rotated", "ci")[0];
    assert_eq!(
        (rotated["sinks"][0]["sink"].as_str(), rotated["sinks"][0]["place"].as_str()),
        (Some("command"), Some("gh secret set KUBE_TOKEN --repo acme/web"))
    );
    // A restart with a fresh token runs no program (G5); a new token runs each again.
    assert_eq!(host.stop(), Some(0));
    std::fs::remove_file(host.path("KUBE_TOKEN")).unwrap();
    host.start_with(&[("PATH", &path), ("HOME", &home)]);
    until("the daemon answers", 60, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    assert_eq!(host.read("KUBE_TOKEN"), host.read("out/token"));
    assert_eq!(host.records_of("rotated", "ci").len(), 2);
    assert!(host.records().iter().all(|line| line["kind"] != "paid"), "the restart itself ran nothing");
    for part in token.split('.') {
        assert!(!host.log().contains(part) && !std::fs::read_to_string(host.schedule()).unwrap().contains(part));
    }
}
