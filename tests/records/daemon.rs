//! G10 of the whole daemon: it rotates on while nothing can be recorded, and each rotation is accounted for afterwards.

use std::process::Command;

use serde_json::Value;
use tokenferry::record::chain;

use super::bench::root_or_not_run;
use crate::support::daemon::{Host, tool};
use crate::support::until;

/// So many rotations are more than wait in memory.
const TOO_MANY: u64 = 11_000;
const TARGETS: usize = 300;

fn schedule(port: u16, suspend: bool) -> String {
    let targets: String = (0..TARGETS)
        .map(|n| format!("  - {{name: t{n}, serviceAccount: ci/t{n}, deliver: [{{file: {{path: HERE/out/t{n}}}}}]}}\n"))
        .collect();
    format!(
        "metrics: {{listen: '127.0.0.1:{port}'}}\nclusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 60s, suspend: {suspend}, rotate: {{at: 2%, splay: 0s}}}}\ntargets:\n{targets}"
    )
}

/// The sum of a metric over its labels.
fn metric(port: u16, name: &str) -> u64 {
    let text = tool(Command::new("curl").args(["-sS", "--fail", &format!("http://127.0.0.1:{port}/metrics")]));
    let values = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn g10_every_rotation_of_a_daemon_that_could_not_record_has_one_terminal_record_or_is_counted_in_a_gap() {
    if !root_or_not_run("g10_every_rotation_of_a_daemon_that_could_not_record_has_one_terminal_record_or_is_counted_in_a_gap") {
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut host = Host::new(&schedule(port, false));
    let records = host.path("state/records");
    std::fs::create_dir_all(&records).unwrap();
    let filler = records.join("filler");
    tool(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m,mode=0700", "tokenferry-test"]).arg(&records));
    let unmount = Unmount(&records);
    host.start();
    until("all are delivered", 60, || (0..TARGETS).all(|n| host.path(&format!("out/t{n}")).exists()));
    // The disk is full, to its last byte.
    let full = std::fs::File::create(&filler).and_then(|mut file| std::io::copy(&mut std::io::repeat(0), &mut file));
    assert!(full.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull));
    let before = metric(port, "tokenferry_rotations_total");
    until("it rotates on, more than can wait", 400, || metric(port, "tokenferry_rotations_total") - before > TOO_MANY);
    until("what does not fit is counted", 60, || metric(port, "tokenferry_records_lost_total") > 0);
    let status = host.run(&["status"]);
    assert_eq!(status.code, Some(1), "lost records alarm nobody: {status:?}");
    std::fs::remove_file(&filler).unwrap();
    host.write_schedule(&schedule(port, true));
    until("the schedule that suspends all is taken", 60, || host.run(&["reload"]).code == Some(0));
    let idle = |host: &Host| host.json(&["status"])["targets"].as_array().unwrap().iter().all(|t| t["state"] == "suspended");
    until("nothing is under way", 60, || idle(&host));
    let rotations = metric(port, "tokenferry_rotations_total");
    assert_eq!(host.stop(), Some(0));
    let lines = host.records();
    let terminal = lines.iter().filter(|line| matches!(line["kind"].as_str(), Some("rotated" | "failed"))).count() as u64;
    let gaps: Vec<&Value> = lines.iter().filter(|line| line["kind"] == "gap").collect();
    let lost: u64 = gaps.iter().map(|gap| gap["count"].as_u64().unwrap()).sum();
    assert!(lost > 0, "nothing was lost: this test shows little");
    assert_eq!(terminal + lost, rotations, "{terminal} terminal records and {lost} lines in {} gaps", gaps.len());
    chain::verify(&records, None).unwrap();
    drop(unmount);
    println!("figures: G10: {rotations} rotations: {terminal} terminal records, {lost} in {} gaps", gaps.len());
}

/// Out of the tree again, whatever happens.
struct Unmount<'a>(&'a std::path::Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
