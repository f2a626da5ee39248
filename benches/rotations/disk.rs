//! Publication that survives a power cut, on ext4 of a loop image: many at once, beside one after another.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use tokenferry::daemon::control::Choice;

use super::daemon::Host;
use super::guard::Folder;
use super::options::Options;
use super::report::{Report, Row};
use super::schedule::Wanted;
use super::wrk::Ran;

/// Targets that are rotated at once.
const TARGETS: usize = 5_000;
/// Bytes of a token.
const SIZE: usize = 1_200;
/// All of its tables written before anything is measured.
const MAKE: &str = "truncate -s 2G \"$1/image\" && mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 \"$1/image\" && \
    mkdir \"$1/mount\" && mount -o loop,noatime \"$1/image\" \"$1/mount\"";
/// Lazily: whoever still has a file open there is about to end.
const UNDO: &str = "! mountpoint -q \"$1/mount\" || umount -l \"$1/mount\"";

/// Measures all ways.
pub fn run(report: &mut Report, options: &Options) {
    report.part("durable publication on ext4 (loop image in the temporary folder; records there too)");
    if !rustix::process::geteuid().is_root() {
        return report.add(Row::new("NOT RUN: needs root, for a loop device", ""));
    }
    let image = match Folder::with(&std::env::temp_dir(), MAKE, UNDO) {
        Ok(image) => image,
        Err(error) => return report.add(Row::new(format!("NOT RUN: no loop image can be mounted here: {error}"), "")),
    };
    let disk = image.path().join("mount/daemon");
    std::fs::create_dir(&disk).expect("an empty file system");
    let targets = TARGETS.min(options.fleet / 10);
    let mut host = Host::on(&disk, |folder| Wanted::embedded(folder, targets));
    let daemon = host.start(None);
    host.delivered(targets);
    let (mut together, mut bare, mut alone) = (Ran::default(), Ran::default(), Ran::default());
    for _ in 0..options.rounds {
        bare = bare.and(one_by_one(&image.path().join("mount"), options.turn));
        together = together.and(Ran { requests: targets, took: host.rotate_all(targets) });
        alone = alone.and(one_target_at_a_time(&host, options.turn, targets));
    }
    daemon.stop();
    let (ours, ratio) = (together.per_second(), together.per_second() / bare.per_second());
    let row = Row::new(format!("`rotate --all` of {targets}"), format!("{ours:.0}/s"));
    report.add(row.reach("≥ 5,000/s", ours >= 5_000.0));
    let row = Row::new("… beside write, fsync, rename, fsync of the folder, one by one", format!("{ours:.0}/s"));
    let row = row.beside(format!("{:.0}/s", bare.per_second())).ratio(format!("{ratio:.1} times"));
    report.add(row.reach("≥ 8 times", ratio >= 8.0));
    let ratio = ours / alone.per_second();
    let row = Row::new("… beside our own daemon, one target after another", format!("{ours:.0}/s"));
    report.add(row.beside(format!("{:.0}/s", alone.per_second())).ratio(format!("{ratio:.1} times")));
}

/// What a careful script does, without starting a process for each step.
fn one_by_one(mount: &Path, turn: Duration) -> Ran {
    let folder = mount.join("one-by-one");
    std::fs::create_dir_all(&folder).expect("room is left");
    let handle = File::open(&folder).expect("a folder");
    let begun = Instant::now();
    let mut requests = 0;
    while begun.elapsed() < turn {
        let (place, temporary) = (folder.join(format!("t{}", requests % TARGETS)), folder.join(format!(".t{requests}.tmp")));
        let mut file = File::create(&temporary).expect("room is left");
        file.write_all(&[b'x'; SIZE]).and_then(|()| file.sync_all()).expect("room is left");
        std::fs::rename(&temporary, &place).expect("the same folder");
        handle.sync_all().expect("a disk that works");
        requests += 1;
    }
    Ran { requests, took: begun.elapsed() }
}

/// The whole rotation of one target, then the next: nothing can be committed together.
fn one_target_at_a_time(host: &Host, turn: Duration, targets: usize) -> Ran {
    let begun = Instant::now();
    let mut requests = 0;
    while begun.elapsed() < turn {
        let choice = Choice { targets: vec![format!("t{}", requests % targets)], ..Choice::default() };
        host.order(&choice);
        requests += 1;
    }
    Ran { requests, took: begun.elapsed() }
}
