//! T15 and G6: a file system that never answers, hundreds of broken targets, a full disk. The other targets are
//! rotated within a second of their time all along.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::Host;
use crate::support::mute::Mute;
use crate::support::reader::{Volume, temporary_files};
use crate::support::servers::cluster;
use crate::support::{can_mount, until};

const GOOD: usize = 20;
/// Life and share of it after which each good target is due: every three seconds.
const LIFE: f64 = 10.0;
const AT: f64 = 0.3;
/// G6: no other target is later than that, seconds.
const LATE: f64 = 1.0;
const DEVICES: [&str; 1] = ["/dev/fuse"];

pub fn good() -> String {
    (0..GOOD)
        .map(|n| format!("  - {{name: good{n}, serviceAccount: ci/good{n}, duration: {LIFE}s, rotate: {{at: {}%, splay: 0s}}, deliver: [{{file: {{path: HERE/out/good{n}}}}}]}}\n", AT * 100.0))
        .collect()
}

fn schedule(others: &str) -> String {
    format!("clusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 1h}}\ntargets:\n{}{others}", good())
}

/// Knows when the machine itself stood still: what no daemon could have done in time is not its fault.
pub struct Machine {
    stop: Arc<AtomicBool>,
    watch: Option<std::thread::JoinHandle<Vec<(f64, f64)>>>,
}

impl Machine {
    pub fn watch() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = std::thread::spawn(move || {
            let mut stalls = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(Duration::from_millis(20));
                let over = begun.elapsed().as_secs_f64() - 0.02;
                if over > 0.05 {
                    stalls.push((now(), over));
                }
            }
            stalls
        });
        Self { stop, watch: Some(watch) }
    }

    pub fn stalls(mut self) -> Vec<(f64, f64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.watch.take().unwrap().join().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub fn now() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

fn seconds(value: &Value) -> f64 {
    value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_duration().as_secs_f64()
}

/// How late the good targets were at the worst, by their records: each is due that share of its life after the one
/// before was issued. `from` is the moment from which on they count, such as the start of a daemon.
pub fn latest(host: &Host, from: f64, stalls: &[(f64, f64)]) -> (f64, usize) {
    let (mut worst, mut rotations) = (0.0f64, 0);
    let mut due: HashMap<String, f64> = HashMap::new();
    for line in host.records().iter().filter(|l| l["kind"] == "rotated" || l["kind"] == "adopted") {
        let Some(name) = line["target"].as_str().filter(|n| n.starts_with("good")) else { continue };
        let done = seconds(&line["time"]);
        if let Some(due) = due.insert(name.to_owned(), seconds(&line["issuedAt"]) + LIFE * AT)
            && done >= from
        {
            let due = due.max(from);
            let stood: f64 = stalls.iter().filter(|(at, over)| *at > due && at - over < done).map(|(_, over)| over).sum();
            rotations += 1;
            worst = worst.max(done - due - stood);
        }
    }
    // One that is due and has no record yet is late too.
    for due in due.values() {
        worst = worst.max(now() - due.max(from) - stalls.iter().filter(|(at, _)| at > due).map(|(_, over)| over).sum::<f64>());
    }
    (worst, rotations)
}

fn punctual(host: &Host, what: &str, from: f64, machine: Machine) -> f64 {
    let (worst, rotations) = latest(host, from, &machine.stalls());
    assert!(rotations >= GOOD, "{what}: only {rotations} rotations");
    assert!(worst < LATE, "{what}: a good target was {worst:.2} s late");
    worst
}

fn sleep(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// The longest of some rotations of the neighbour, seconds.
fn slowest(host: &Host) -> f64 {
    let mut slowest = 0.0f64;
    for _ in 0..7 {
        let machine = Machine::watch();
        let asked = now();
        // Past the command, which reads the whole schedule first.
        let record = host.rotate("neighbour").expect("the daemon answers");
        assert_eq!(record["kind"], "rotated", "{record}");
        let took = now() - asked;
        let stood: f64 = machine.stalls().iter().map(|(_, over)| over).sum();
        slowest = slowest.max(took - stood);
    }
    slowest
}

fn started(host: &mut Host) -> f64 {
    let begun = now();
    host.start_with(&[]);
    begun
}

#[test]
fn t15_g6_a_file_system_that_never_answers_delays_no_other_target() {
    if !can_mount("t15_g6_a_file_system_that_never_answers_delays_no_other_target", &DEVICES) {
        return;
    }
    let begun = Instant::now();
    // One place in the mounted folder itself, and one in a folder below.
    let hung = "  - {name: hung, serviceAccount: ci/hung, duration: 20s, rotate: {at: 30%, splay: 0s}, deliver: [{file: {path: HERE/far/hung}}]}\n  \
                - {name: below, serviceAccount: ci/below, duration: 20s, rotate: {at: 30%, splay: 0s}, deliver: [{file: {path: HERE/far/deep/below}}]}\n";
    let mut host = Host::new(&schedule(hung));
    std::fs::create_dir_all(host.path("far/deep")).unwrap();
    host.start();
    until("all are served", 30, || {
        host.path("far/hung").exists() && host.path("far/deep/below").exists() && host.path("out/good0").exists()
    });

    let (machine, from) = (Machine::watch(), now());
    let mut mute = Mute::mount(&host.path("far"));
    sleep(15);
    let late = punctual(&host, "while it hangs", from, machine);
    for name in ["hung", "below"] {
        until("its state says so", 30, || {
            let target = host.target(name);
            matches!(target["state"].as_str(), Some("retrying" | "atRisk" | "expired"))
                && target["sinks"][0]["error"].as_str().is_some_and(|e| e.contains("does not answer within") && e.contains("far"))
        });
    }

    // It reloads while it hangs, and what is new is served.
    let (machine, from) = (Machine::watch(), now());
    host.write_schedule(&schedule(&format!(
        "{hung}  - {{name: later, serviceAccount: ci/later, deliver: [{{file: {{path: HERE/out/later}}}}]}}\n"
    )));
    let asked = Instant::now();
    let reload = host.run(&["reload"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    // No bound of its own, but no wait for the hung one either, which is given up only after ten seconds and more.
    assert!(asked.elapsed() < Duration::from_secs(30), "the reload took {:?}", asked.elapsed());
    until("the new target is served", 10, || host.path("out/later").exists());
    sleep(6);
    let reloaded = punctual(&host, "after a reload", from, machine);

    // It stops in good order, and starts again.
    let asked = Instant::now();
    assert_eq!(host.stop(), Some(0));
    let stopping = asked.elapsed();
    assert!(stopping < Duration::from_secs(35), "it took {stopping:?} to stop");
    assert_eq!(host.records().last().unwrap()["kind"], "stopped");
    let machine = Machine::watch();
    let from = started(&mut host);
    // Not `status`: with no daemon yet, it looks at the places itself.
    until("the daemon listens", 10, || std::os::unix::net::UnixStream::connect(host.path("control.sock")).is_ok());
    assert_eq!(host.target("good0")["name"], "good0");
    let answered = now() - from;
    sleep(9);
    let restarted = punctual(&host, "after a start", from + answered, machine);
    assert!(answered < 5.0, "a start took {answered:.1} s");

    mute.abort();
    until("the hung target is served again", 60, || ["hung", "below"].iter().all(|name| host.target(name)["state"] == "fresh"));
    assert!(host.path("far/hung").exists() && host.path("far/deep/below").exists());
    assert_eq!(host.stop(), Some(0));
    assert_eq!(temporary_files(&host.path("far")), Vec::<std::path::PathBuf>::new());
    println!(
        "figures: T15: hung file system: {GOOD} others at most {late:.2} s late, {reloaded:.2} s with a reload, {restarted:.2} s after a start; stopped in {:.1} s; {} s",
        stopping.as_secs_f64(),
        begun.elapsed().as_secs()
    );
}

#[test]
fn t15_g6_five_hundred_broken_targets_delay_no_other_target() {
    let begun = Instant::now();
    let kube = cluster().kube();
    let broken: String = (0..500)
        .map(|n| match n % 5 {
            0 | 1 => format!("  - {{name: unknown{n}, cluster: real, serviceAccount: cicd/nobody{n}, deliver: [{{file: {{path: HERE/out/unknown{n}}}}}]}}\n"),
            2 => format!("  - {{name: missing{n}, serviceAccount: ci/m{n}, deliver: [{{file: {{path: /tokenferry-test-missing/{n}}}}}]}}\n"),
            3 => format!("  - {{name: forbidden{n}, serviceAccount: ci/f{n}, deliver: [{{file: {{path: HERE/open/{n}}}}}]}}\n"),
            _ => format!("  - {{name: nothing{n}, cluster: nowhere, serviceAccount: ci/n{n}, deliver: [{{file: {{path: HERE/out/nothing{n}}}}}]}}\n"),
        })
        .collect();
    let neighbour = "  - {name: neighbour, cluster: real, serviceAccount: cicd/builder, duration: 10m, deliver: [{file: {path: HERE/out/neighbour}}]}\n";
    let text = schedule(&format!("{broken}{neighbour}")).replace(
        "clusters: {",
        &format!("clusters: {{real: {{kubeconfig: {}}}, nowhere: {{kubeconfig: HERE/none.kubeconfig}}, ", kube.minter_kubeconfig.display()),
    );
    let mut host = Host::new(&text);
    std::fs::create_dir(host.path("open")).unwrap();
    std::fs::set_permissions(host.path("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
    // What the API server itself takes, with none of them about.
    host.write_schedule(&text.replace(&broken, ""));
    host.start();
    let alone = slowest(&host);
    let (machine, from) = (Machine::watch(), now());
    sleep(9);
    let (before, _) = latest(&host, from, &machine.stalls());
    assert_eq!(host.stop(), Some(0));
    std::fs::remove_dir_all(host.path("out")).unwrap();
    std::fs::remove_dir_all(host.path("state")).unwrap();
    std::fs::create_dir(host.path("out")).unwrap();
    host.write_schedule(&text);
    let from = started(&mut host);
    until("the good ones are served", 30, || (0..GOOD).all(|n| host.path(&format!("out/good{n}")).exists()));
    let first = now() - from;
    until("the neighbour is served", 30, || host.path("out/neighbour").exists());
    let (machine, from) = (Machine::watch(), now());
    sleep(15);
    let (late, rotations) = latest(&host, from, &machine.stalls());
    assert!(rotations >= GOOD, "only {rotations} rotations");
    assert!(late - before.max(0.0) < LATE, "a good target was {late:.2} s late beside 500 broken ones, {before:.2} s without");
    // One on the same API server as the unknown accounts.
    let beside = slowest(&host);
    assert!(beside - alone < LATE, "a rotation takes {beside:.2} s beside the broken ones, {alone:.2} s without");
    until("all broken targets are shown as such", 60, || {
        let status = host.json(&["status"]);
        // Where a cluster is taken for dead most of its targets wait for the probe; their notes say why.
        let told = |t: &&serde_json::Value| t["lastError"].is_string() || t["notes"].as_array().is_some_and(|notes| !notes.is_empty());
        status["targets"].as_array().unwrap().iter().filter(|t| t["state"] != "fresh").filter(told).count() >= 500
    });
    assert_eq!(host.stop(), Some(0));
    println!(
        "figures: T15: 500 broken targets: {GOOD} others served {first:.2} s after the start, at most {late:.2} s late ({before:.2} s without them); on their API server a rotation takes {beside:.2} s, {alone:.2} s without them; {} s",
        begun.elapsed().as_secs()
    );
}

#[test]
fn t15_g1_g6_a_full_disk_keeps_the_old_token_and_delays_no_other_target() {
    if !can_mount("t15_g1_g6_a_full_disk_keeps_the_old_token_and_delays_no_other_target", &["/dev/loop-control"]) {
        return;
    }
    let begun = Instant::now();
    let mut late = Vec::new();
    for kind in ["tmpfs", "ext4"] {
        let full: String = (0..8)
            .map(|n| format!("  - {{name: full{n}, serviceAccount: ci/full{n}, duration: 20s, rotate: {{at: 30%, splay: 0s}}, deliver: [{{file: {{path: HERE/small/full{n}}}}}]}}\n"))
            .collect();
        let mut host = Host::new(&schedule(&full));
        let volume = Volume::mount(kind, &host.path("small"), 4);
        host.start();
        until("all are served", 30, || (0..8).all(|n| host.path(&format!("small/full{n}")).exists()));
        let (machine, from) = (Machine::watch(), now());
        fill(&host.path("small/filler"));
        sleep(9);
        late.push(punctual(&host, "beside a full disk", from, machine));
        for n in 0..8 {
            let token = host.read(&format!("small/full{n}"));
            assert_eq!(token.split('.').count(), 3, "{kind}: {} bytes", token.len());
        }
        until("it is said", 20, || {
            let target = host.target("full0");
            target["state"] != "fresh" && target["sinks"][0]["error"].as_str().is_some_and(|e| e.contains("is full"))
        });
        std::fs::remove_file(host.path("small/filler")).unwrap();
        until("it is served again", 60, || (0..8).all(|n| host.target(&format!("full{n}"))["state"] == "fresh"));
        assert_eq!(host.stop(), Some(0));
        assert_eq!(temporary_files(&host.path("small")), Vec::<std::path::PathBuf>::new());
        drop(volume);
    }
    println!(
        "figures: T15: full disk: {GOOD} others at most {:.2} s (tmpfs) and {:.2} s (ext4) late; {} s",
        late[0],
        late[1],
        begun.elapsed().as_secs()
    );
}

/// Writes until nothing fits any more, small pieces last.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() && file.sync_all().is_ok() {}
    }
}
