//! T2 and T3, short form: a kill at every system call of a rotation, and every file system call failing, by strace's
//! injection. Whatever happens the old token or the new one stands there whole, and the next run puts all right.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::{Done, Host, PROGRAM, finish};

const SCHEDULE: &str = "
clusters: {trial: {embedded: {}}}
targets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one, mode: \"0640\"}}, {file: {path: HERE/out/two}}]}]
";

/// Runs `once --force` with that fault injected into the calls of the program.
fn with_fault(host: &Host, fault: &str) -> Done {
    assert!(Path::new("/usr/bin/strace").exists(), "strace is missing: apt-get install strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(host.path("trace")).arg("-e").arg(format!("inject={fault}"));
    command.arg(PROGRAM).arg("--schedule").arg(host.schedule()).args(["once", "--force"]);
    finish(command, Duration::from_secs(60))
}

/// Whole tokens, no panic, no orphan after the next run, every record in its chain.
fn check(host: &Host, what: &str, done: &Done, before: &[String; 2]) {
    assert!(!matches!(done.code, Some(101 | 134)) && !done.stderr.contains("panicked"), "{what}: {done:?}");
    for (index, name) in ["out/one", "out/two"].into_iter().enumerate() {
        let now = host.read(name);
        assert!(
            now == before[index] || (now.split('.').count() == 3 && now.len() == before[index].len()),
            "{what}: {name} holds {} bytes",
            now.len()
        );
    }
}

fn both(host: &Host) -> [String; 2] {
    [host.read("out/one"), host.read("out/two")]
}

fn recovered(host: &Host, what: &str) {
    let next = host.run(&["once"]);
    assert_eq!(next.code, Some(0), "{what}: the next run: {next:?}");
    let [one, two] = both(host);
    assert_eq!(one, two, "{what}: the places differ");
    let orphans: Vec<_> =
        std::fs::read_dir(host.path("out")).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().ends_with(".tmp")).collect();
    assert!(orphans.is_empty(), "{what}: {orphans:?}");
    let mut seen = std::collections::HashSet::new();
    for line in host.records().iter().filter(|l| matches!(l["kind"].as_str(), Some("rotated" | "adopted"))) {
        assert!(seen.insert(line["jti"].to_string()), "{what}: booked twice: {line}");
    }
    let verified = tokenferry::record::chain::verify(&host.path("state/records"), None);
    assert!(verified.is_ok(), "{what}: {verified:?}");
}

#[test]
fn g4_a_kill_at_any_call_of_a_rotation_is_put_right_by_the_next_run() {
    let host = Host::new(SCHEDULE);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let mut kills = 0;
    for call in ["openat", "write", "fsync", "fdatasync", "fchmod", "renameat", "unlinkat", "flock", "ftruncate"] {
        for nth in 1..400 {
            // The first calls of a process are its loader's; only every third of the many is a point of its own.
            if matches!(call, "openat" | "write") && nth % 5 != 1 {
                continue;
            }
            let before = both(&host);
            let what = format!("SIGKILL at {call} number {nth}");
            let done = with_fault(&host, &format!("{call}:signal=KILL:when={nth}"));
            if done.code == Some(0) {
                break;
            }
            kills += 1;
            check(&host, &what, &done, &before);
            recovered(&host, &what);
        }
    }
    assert!(kills >= 15, "only {kills} points were reached");
    println!("T2: {kills} kills, 0 bad");
}

#[test]
fn g1_g3_a_failing_file_system_call_keeps_the_old_token_and_never_panics() {
    let host = Host::new(SCHEDULE);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let mut faults = 0;
    // `write` is not among them: the runtime wakes itself by it. Full disks have tests of their own.
    for call in ["openat", "fsync", "fdatasync", "fchmod", "renameat"] {
        for error in ["ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES", "EINTR", "EMFILE", "ENOENT"] {
            // A loader that finds no library makes no program.
            for when in ["40+", "1+", "60"] {
                if call == "openat" && when == "1+" {
                    continue;
                }
                let before = both(&host);
                let what = format!("{call} {error} when={when}");
                let done = with_fault(&host, &format!("{call}:error={error}:when={when}"));
                faults += 1;
                assert!(done.code.is_some(), "{what}: {done:?}");
                check(&host, &what, &done, &before);
            }
        }
        recovered(&host, call);
    }
    println!("T3: {faults} faults, 0 bad");
}
