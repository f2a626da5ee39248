//! T1: kill -9 of the real daemon at random while readers check every read (G1, G2, G4). The long form does it on
//! tmpfs, ext4 and xfs, one daemon on each, side by side. `KILLS` and `READS` set other numbers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::daemon::Host;
use crate::support::disks::Random;
use crate::support::reader::{Reader, Volume, temporary_files};
use crate::support::{can_mount, count, long, until};

const TARGETS: usize = 8;

/// What one host went through.
struct Survived {
    kills: usize,
    reads: u64,
    rotations: usize,
}

fn schedule() -> String {
    let targets: String = (0..TARGETS)
        .map(|n| format!("  - {{name: t{n}, serviceAccount: ci/t{n}, deliver: [{{file: {{path: HERE/out/t{n}, mode: \"0640\"}}}}]}}\n"))
        .collect();
    // Long enough to be killed in between, short enough that each life of the daemon rotates.
    format!(
        "clusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 60s, rotate: {{at: 5%, splay: 1s}}}}\ntargets:\n{targets}"
    )
}

/// Reads its share of the places again and again; what was wrong with a read, five times at most.
fn read_until(stop: &AtomicBool, reads: &AtomicU64, readers: &mut [(PathBuf, Reader)]) -> Vec<String> {
    let mut bad = Vec::new();
    while !stop.load(Ordering::Relaxed) && bad.len() < 5 {
        let now = jiff::Timestamp::now().as_second();
        for (path, reader) in &mut *readers {
            let fault = match reader.read() {
                Ok(good) => (good.expires_at <= now).then(|| format!("ended {} s ago", now - good.expires_at)),
                Err(fault) => Some(fault),
            };
            bad.extend(fault.map(|fault| format!("{}: {fault}", path.display())));
        }
        reads.fetch_add(readers.len() as u64, Ordering::Relaxed);
    }
    bad
}

fn survive(mut host: Host, kills: usize, least_reads: u64, abreast: usize) -> Survived {
    // Small files, so that kills hit roll-overs too, and a long run is no long history.
    let text = host.read("schedule.yaml").replace("/state/records}", "/state/records, maxSize: 256KiB}");
    std::fs::write(host.schedule(), text).unwrap();
    host.start();
    let paths: Vec<PathBuf> = (0..TARGETS).map(|n| host.path(&format!("out/t{n}"))).collect();
    until("all are delivered", 60, || paths.iter().all(|path| path.exists()));
    let jwks = host.read("state/embedded/trial/jwks.json");
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let threads: Vec<_> = (0..abreast)
        .map(|number| {
            let mine = paths.iter().skip(number).step_by(abreast);
            let mut readers: Vec<_> = mine.map(|path| (path.clone(), Reader::new(path.clone(), &jwks))).collect();
            let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
            std::thread::spawn(move || read_until(&stop, &reads, &mut readers))
        })
        .collect();
    let mut random = Random(kills as u64);
    for _ in 0..kills {
        // From the middle of the start to the middle of a batch of rotations.
        std::thread::sleep(Duration::from_millis(random.below(400) as u64));
        host.kill();
        host.start_with(&[]);
        assert!(!threads.iter().any(std::thread::JoinHandle::is_finished), "a reader ended: it has seen enough");
    }
    until("the daemon answers", 60, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
    until("enough was read", 900, || reads.load(Ordering::Relaxed) >= least_reads);
    stop.store(true, Ordering::Relaxed);
    let bad: Vec<String> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    until("every target is fresh", 60, || host.json(&["status"])["targets"].as_array().unwrap().iter().all(|t| t["state"] != "retrying"));
    assert_eq!(host.stop(), Some(0));
    assert_eq!(temporary_files(host.folder.path()), Vec::<PathBuf>::new(), "left behind");
    let mut booked = HashSet::new();
    for line in host.records().iter().filter(|l| matches!(l["kind"].as_str(), Some("rotated" | "adopted"))) {
        assert!(booked.insert(line["jti"].to_string()), "booked twice: {line}");
    }
    tokenferry::record::chain::verify(&host.path("state/records"), None).unwrap();
    Survived { kills, reads: reads.load(Ordering::Relaxed), rotations: booked.len() }
}

#[test]
fn t1_g1_g2_g4_no_reader_sees_a_bad_token_whenever_the_daemon_is_killed() {
    let begun = Instant::now();
    let (kills, reads) = (count("KILLS", 60, 10_000), count("READS", 0, 10_000_000) as u64);
    let all = if long() && can_mount("t1_g1_g2_g4 on ext4 and xfs", &["/dev/loop-control"]) {
        let around = tempfile::Builder::new().prefix("tokenferry-test-").tempdir_in("/dev/shm").unwrap();
        std::thread::scope(|scope| {
            let one = |kind: &'static str| {
                let at = around.path().join(kind);
                move || {
                    let volume = Volume::mount(kind, &at, 512);
                    let survived = survive(Host::below(&at, &schedule()), kills.div_ceil(3), reads.div_ceil(3), 1);
                    drop(volume);
                    survived
                }
            };
            let threads: Vec<_> = ["tmpfs", "ext4", "xfs"].map(|kind| (kind, scope.spawn(one(kind)))).into();
            threads.into_iter().map(|(kind, thread)| (kind, thread.join().unwrap())).collect::<Vec<_>>()
        })
    } else {
        vec![("tmpfs", survive(Host::new(&schedule()), kills, reads, 2))]
    };
    let sum = |of: fn(&Survived) -> u64| all.iter().map(|(_, s)| of(s)).sum::<u64>();
    let (kills, reads, rotations) = (sum(|s| s.kills as u64), sum(|s| s.reads), sum(|s| s.rotations as u64));
    let kinds: Vec<&str> = all.iter().map(|(kind, _)| *kind).collect();
    let seconds = begun.elapsed().as_secs();
    println!(
        "figures: T1: {kills} kills, {reads} reads, {rotations} rotations in the records, on {}, 0 bad, {seconds} s",
        kinds.join(", ")
    );
}
