//! Formats have versions: a program reads what older ones wrote, and refuses what newer ones wrote, clearly and without
//! changing it.

use std::path::{Path, PathBuf};

use crate::support::daemon::Host;
use crate::support::until;

const SCHEDULE: &str = "clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets: [{name: ci, serviceAccount: ci/ci, deliver: [{file: {path: HERE/out/ci}}]}]
";

fn newest(host: &Host) -> PathBuf {
    let files = std::fs::read_dir(host.path("state/records")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).max().unwrap()
}

/// Every file of the records with its text, but for the lock, which holds the number of who tried last.
fn all(host: &Host) -> Vec<(PathBuf, String)> {
    let paths = std::fs::read_dir(host.path("state/records")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.filter(|path| !path.ends_with("lock")).map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn g9_records_of_a_newer_program_are_refused_with_file_version_and_way_out_and_stay_as_they_are() {
    // A line that this program could read but for its version, and one of which it knows nothing else.
    for newer in ["same", "other"] {
        let host = Host::new(SCHEDULE);
        assert_eq!(host.run(&["once"]).code, Some(0));
        let file = newest(&host);
        let mut text = std::fs::read_to_string(&file).unwrap();
        match newer {
            "same" => text = text.replace("\"version\":1,", "\"version\":2,"),
            _ => text += "{\"version\":2,\"at\":12,\"lines\":[]}\n",
        }
        std::fs::write(&file, &text).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let before = all(&host);
        for command in [&["run"][..], &["once", "--force"]] {
            let done = host.run(command);
            // 2: the unit does not start again what starting again does not mend.
            assert_eq!(done.code, Some(2), "{newer} {command:?}: {done:?}");
            for part in [name, "record of version 2", "knows version 1 at most", "use the newer tokenferry again", "move the folder aside"]
            {
                assert!(done.stderr.contains(part), "{newer} {command:?}: no `{part}` in {done:?}");
            }
        }
        assert!(all(&host) == before, "{newer}: something was written");
        for command in [&["records"][..], &["status"]] {
            let done = host.run(command);
            assert!(done.code != Some(0) && done.stderr.contains("record of version 2"), "{newer} {command:?}: {done:?}");
        }
        // The way out: what stands at the file is adopted, and not minted anew.
        let token = host.read("out/ci");
        std::fs::rename(host.path("state/records"), host.path("state/records.newer")).unwrap();
        let done = host.run(&["once"]);
        assert_eq!((done.code, host.read("out/ci")), (Some(0), token), "{newer}: {done:?}");
        assert_eq!(host.records_of("adopted", "ci").len(), 1, "{newer}");
    }
}

/// As the first release left them: targets with their standing, then events. What it wrote is read for ever, so this file
/// is never made anew.
const FIRST: &str = "tests/records/version-1.jsonl";

#[test]
fn g4_records_of_the_first_version_are_read_whole_and_gone_on_with() {
    let mut host = Host::new(SCHEDULE);
    std::fs::create_dir_all(host.path("state/records")).unwrap();
    let first = Path::new(env!("CARGO_MANIFEST_DIR")).join(FIRST);
    std::fs::copy(first, host.path("state/records/records-000000000103.jsonl")).unwrap();
    let verified = host.run(&["records", "verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let kinds: Vec<String> = host.records().iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect();
    let all = ["reloaded", "retired", "retired", "rehearsed", "reloadRefused", "reloaded", "minted", "stopped"];
    assert_eq!(kinds, all);
    let shown = host.run(&["records", "-o", "json"]);
    assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), all.len()), "{shown:?}");
    let before = host.target("ci");
    assert_eq!((&before["generation"], &before["jti"]), (&49.into(), &"cf0e2eba-8408-4291-9b0f-ed06e78cb3bf".into()), "{before}");
    host.start();
    until("the daemon goes on in it", 60, || !host.records_of("rotated", "ci").is_empty());
    let line = host.records_of("rotated", "ci").pop().unwrap();
    assert_eq!((&line["generation"], line["version"].as_u64()), (&50.into(), Some(1)), "{line}");
    assert_eq!(host.stop(), Some(0));
    assert_eq!(host.run(&["records", "verify"]).code, Some(0));
}

#[test]
fn g9_a_schedule_of_a_newer_version_is_refused_at_its_place_and_the_one_in_force_goes_on() {
    let mut host = Host::new(SCHEDULE);
    host.start();
    until("it is served", 60, || host.path("out/ci").exists());
    let text = host.read("schedule.yaml").replace("version: 1\n", "version: 2\nnewKey: {of: version, two: [1]}\n");
    std::fs::write(host.schedule(), text).unwrap();
    for command in [&["check"][..], &["reload"]] {
        let done = host.run(command);
        assert_eq!(done.code, Some(2), "{command:?}: {done:?}");
        let said = done.stdout + &done.stderr;
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(": error: ")).collect();
        assert_eq!(lines.len(), 1, "nothing else is said of what means other things there: {said}");
        assert!(
            lines[0].contains(
                "schedule.yaml:1:10: error: version: version 2 is newer than this tokenferry, which knows version 1: update tokenferry"
            ),
            "{said}"
        );
    }
    assert_eq!(host.stop(), Some(0));
    host.start();
    assert_eq!(host.target("ci")["state"], "fresh", "the one that was accepted last is served");
}
