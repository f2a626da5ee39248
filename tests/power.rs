//! T4: power loss by write-log replay. The real daemon works on file systems whose disks note every write and every
//! flush; then the disks of chosen moments are built again, with what chance kept of the writes that no flush had
//! confirmed, and everything that had been acknowledged by then has to be there.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::support::daemon::{Host, PROGRAM, rotate};
use crate::support::disks::{Disks, Image, Log, Random, Replay};
use crate::support::reader::{Reader, temporary_files};
use crate::support::{can_mount, count, until};

const TARGETS: usize = 6;
const DEVICES: [&str; 3] = ["/dev/fuse", "/dev/loop-control", "/usr/bin/strace"];

/// How the daemon's files lie on disks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Records, key and places share one disk.
    Shared,
    /// Places have a disk of their own, so that a sync of the records makes none of them durable.
    Apart,
}

/// What was acknowledged, and how far the log was when it was known outside.
struct Acknowledged {
    at: usize,
    target: usize,
    generation: u64,
    jti: String,
}

/// A run of the daemon up to the power cut.
struct Run {
    host: Host,
    disks: Disks,
    layout: Layout,
    kind: &'static str,
    log: Option<Log>,
    /// From here on file systems are mounted.
    begun: usize,
    ended: usize,
    acknowledged: Vec<Acknowledged>,
    /// Which of its target's tokens each `jti` is.
    generations: HashMap<String, u64>,
    jwks: String,
}

/// What the checks of all states found.
#[derive(Default)]
struct Found {
    states: usize,
    /// Acknowledged tokens and records that were gone.
    lost: Vec<String>,
    /// Anything else.
    bad: Vec<String>,
}

fn mounts(host: &Host, layout: Layout) -> Vec<PathBuf> {
    match layout {
        Layout::Shared => vec![host.path("state")],
        Layout::Apart => vec![host.path("state"), host.path("places")],
    }
}

fn place(host: &Host, layout: Layout, target: usize) -> PathBuf {
    match layout {
        Layout::Shared => host.path(&format!("state/out/t{target}")),
        Layout::Apart => host.path(&format!("places/t{target}")),
    }
}

/// Which syncs of the daemon never happen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The sync of the folder that a place stands in.
    TheFolders,
    /// Every one.
    All,
}

/// Starts the daemon. Its own code is what is under test, so a sync is taken away from outside.
fn start(host: &Host, layout: Layout, without: Without) -> Child {
    let daemon = host.command(&["--log", "json", "run"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:retval=0"]);
    match without {
        Without::Nothing => command = Command::new(PROGRAM),
        Without::TheFolders => drop(command.arg("-P").arg(place(host, layout, 0).parent().unwrap()).arg(PROGRAM)),
        Without::All => drop(command.arg("--seccomp-bpf").arg(PROGRAM)),
    }
    let log = std::fs::File::create(host.path("daemon.log")).unwrap();
    command.args(daemon.get_args()).env_remove("TOKENFERRY_SCHEDULE").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn kill(host: &Host, mut child: Child) {
    let status = host.json(&["status"]);
    let pid = i32::try_from(status["daemon"]["pid"].as_i64().expect("the daemon answers")).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
}

impl Run {
    /// Runs the daemon until so many rotations were acknowledged, and cuts the power.
    fn new(kind: &'static str, layout: Layout, without: Without, rotations: usize) -> Self {
        let root = if layout == Layout::Shared { "HERE/state/out" } else { "HERE/places" };
        let targets: String = (0..TARGETS)
            .map(|n| format!("  - {{name: t{n}, serviceAccount: ci/t{n}, deliver: [{{file: {{path: {root}/t{n}, mode: \"0640\"}}}}]}}\n"))
            .collect();
        let host = Host::new(&format!(
            "clusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, duration: 10h}}\ntargets:\n{targets}"
        ));
        // Small files, so that power fails in roll-overs too.
        let text = host.read("schedule.yaml").replace("/state/records}", "/state/records, maxSize: 64KiB}");
        std::fs::write(host.schedule(), text).unwrap();
        let size = if kind == "xfs" { 320 << 20 } else { 24 << 20 };
        let places = mounts(&host, layout);
        let mut disks = Disks::new(&host.path("disks"), &vec![size; places.len()]);
        for (disk, at) in places.iter().enumerate() {
            disks.format(disk, kind);
            std::fs::create_dir(at).unwrap();
        }
        let images = disks.images();
        disks.begin();
        for (disk, at) in places.iter().enumerate() {
            disks.mount(disk, kind, at).unwrap();
        }
        let mut run = Self {
            host,
            disks,
            layout,
            kind,
            log: None,
            begun: 0,
            ended: 0,
            acknowledged: Vec::new(),
            generations: HashMap::new(),
            jwks: String::new(),
        };
        run.begun = run.disks.position();
        run.work(without, rotations);
        run.disks.unmount();
        run.log = Some(run.disks.end(images));
        run
    }

    fn work(&mut self, without: Without, rotations: usize) {
        let mut child = start(&self.host, self.layout, without);
        until("the daemon answers", 60, || {
            assert!(child.try_wait().unwrap().is_none(), "the daemon ended: {}", self.host.log());
            self.host.rotate("t0").is_some()
        });
        let (known, enough) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let clock = Arc::new(self.disks.clock());
        // One alone where a sync is missing: the sync of another rotation could stand in for it.
        let askers: Vec<_> = (0..if without == Without::Nothing { TARGETS } else { 1 })
            .map(|target| {
                let (known, enough, clock) = (Arc::clone(&known), Arc::clone(&enough), Arc::clone(&clock));
                let socket = self.host.path("control.sock");
                std::thread::spawn(move || {
                    while !enough.load(Ordering::Relaxed) {
                        let Some(record) = rotate(&socket, &format!("t{target}")).filter(|record| record["kind"] == "rotated") else {
                            continue;
                        };
                        let jti = record["jti"].as_str().unwrap().to_owned();
                        let generation = record["generation"].as_u64().unwrap();
                        known.lock().unwrap().push(Acknowledged { at: clock(), target, generation, jti });
                    }
                })
            })
            .collect();
        until("enough rotations were acknowledged", 240, || known.lock().unwrap().len() >= rotations);
        enough.store(true, Ordering::Relaxed);
        for asker in askers {
            asker.join().unwrap();
        }
        self.ended = self.disks.position();
        kill(&self.host, child);
        self.acknowledged = std::mem::take(&mut *known.lock().unwrap());
        let generation = |line: &Value| Some((line["jti"].as_str()?.to_owned(), line["generation"].as_u64()?));
        self.generations = self.host.records().iter().filter_map(generation).collect();
        self.jwks = self.host.read("state/embedded/trial/jwks.json");
    }

    /// Moments to cut the power at: anywhere, just after an acknowledgement, and in between where most is unflushed.
    fn moments(&self, count: usize, random: &mut Random) -> Vec<usize> {
        let mut moments: Vec<usize> = (0..count)
            .map(|n| {
                let anywhere = self.begun + random.below(self.ended - self.begun);
                if n % 3 == 0 { self.acknowledged[random.below(self.acknowledged.len())].at.min(self.ended) } else { anywhere }
            })
            .collect();
        moments.sort_unstable();
        moments
    }

    /// Cuts the power that often and looks at what is left.
    fn cut(mut self, states: usize, seed: u64) -> Found {
        let mut random = Random(seed);
        let mut replay = Replay::new(self.log.take().unwrap());
        let mut found = Found::default();
        for (number, at) in self.moments(states, &mut random).into_iter().enumerate() {
            let what = format!("{} state {number}, event {at}, seed {seed}", self.kind);
            let images = replay.cut(at, &mut random);
            self.state(images, at, number, &what, &mut found);
            found.states += 1;
        }
        found
    }

    fn state(&mut self, images: Vec<Image>, at: usize, number: usize, what: &str, found: &mut Found) {
        self.disks.load(images);
        for (disk, folder) in mounts(&self.host, self.layout).iter().enumerate() {
            if let Err(error) = self.disks.mount(disk, self.kind, folder) {
                found.bad.push(format!("{what}: cannot be mounted: {error}"));
                self.disks.unmount();
                return;
            }
        }
        let lost = self.lost(at);
        found.bad.extend(self.broken(&self.jwks).into_iter().map(|bad| format!("{what}: {bad}")));
        // Where tokens are gone the daemon rightly mends it; that is not what is to be seen here.
        if lost.is_empty() {
            found.bad.extend(self.restarted(at, number).into_iter().map(|bad| format!("{what}: {bad}")));
        }
        found.lost.extend(lost.into_iter().map(|lost| format!("{what}: {lost}")));
        self.disks.unmount();
    }

    fn newest_acknowledged(&self, target: usize, at: usize) -> Option<u64> {
        self.acknowledged.iter().filter(|a| a.target == target && a.at <= at).map(|a| a.generation).max()
    }

    /// G3: what was acknowledged and is not there.
    fn lost(&self, at: usize) -> Vec<String> {
        let mut lost = Vec::new();
        for target in 0..TARGETS {
            let Some(promised) = self.newest_acknowledged(target, at) else { continue };
            let mut reader = Reader::new(place(&self.host, self.layout, target), &self.jwks);
            match reader.read() {
                // One without a record was under way in the last moment.
                Ok(good) => match self.generations.get(&good.jti) {
                    Some(held) if *held < promised => lost.push(format!("t{target} holds token {held}, {promised} was acknowledged")),
                    _ => {}
                },
                Err(error) => lost.push(format!("t{target}, of which token {promised} was acknowledged: {error}")),
            }
        }
        let recorded: HashSet<String> =
            self.host.records().iter().filter(|l| l["kind"] == "rotated").filter_map(|l| l["jti"].as_str().map(str::to_owned)).collect();
        let missing = self.acknowledged.iter().filter(|a| a.at <= at && !recorded.contains(&a.jti)).count();
        if missing > 0 {
            lost.push(format!("{missing} acknowledged records"));
        }
        lost
    }

    /// G1, and that the records are sound but for a torn end.
    fn broken(&self, jwks: &str) -> Vec<String> {
        let mut broken = Vec::new();
        for target in 0..TARGETS {
            let path = place(&self.host, self.layout, target);
            if path.symlink_metadata().is_ok()
                && let Err(error) = Reader::new(path, jwks).read()
            {
                broken.push(format!("t{target}: {error}"));
            }
        }
        let records = self.host.path("state/records");
        if records.exists() {
            broken.extend(tokenferry::record::chain::verify(&records, None).err().map(|error| format!("records: {error}")));
            broken.extend(tokenferry::record::read(&records).err().map(|error| format!("records: {error}")));
        }
        broken
    }

    /// G4: the program starts on it, puts all right by itself, and leaves nothing lying about.
    fn restarted(&mut self, at: usize, number: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        // A whole daemon now and then; `once` takes the same way in.
        if number % 20 == 7 {
            self.host.start();
            let host = &self.host;
            until("all targets are fresh", 60, || {
                host.json(&["status"])["targets"].as_array().is_some_and(|t| t.len() == TARGETS && t.iter().all(|t| t["state"] == "fresh"))
            });
            let code = self.host.stop();
            if code != Some(0) {
                wrong.push(format!("the daemon stopped with {code:?}: {}", self.host.log()));
            }
        } else {
            let once = self.host.run(&["once"]);
            if once.code != Some(0) {
                wrong.push(format!("the next run: {once:?}"));
            }
        }
        // Where power failed before the key was there for good, no token was either, and another key is made.
        let known = self.acknowledged.iter().any(|a| a.at <= at);
        let jwks = if known { self.jwks.clone() } else { self.host.read("state/embedded/trial/jwks.json") };
        wrong.extend(self.broken(&jwks));
        let mut reached = HashMap::new();
        let mut booked = HashSet::new();
        for line in self.host.records() {
            let (Some(kind), Some(jti), Some(target)) = (line["kind"].as_str(), line["jti"].as_str(), line["target"].as_str()) else {
                continue;
            };
            if matches!(kind, "rotated" | "adopted") && !booked.insert(jti.to_owned()) {
                wrong.push(format!("booked twice: {line}"));
            }
            reached.insert(target.to_owned(), jti.to_owned());
        }
        for target in 0..TARGETS {
            match Reader::new(place(&self.host, self.layout, target), &jwks).read() {
                Ok(good) if reached.get(&format!("t{target}")) == Some(&good.jti) => {}
                Ok(good) => {
                    wrong.push(format!("t{target} holds {}, its last record says {:?}", good.jti, reached.get(&format!("t{target}"))))
                }
                Err(error) => wrong.push(format!("t{target} after the next run: {error}")),
            }
        }
        let verified = tokenferry::record::chain::verify(&self.host.path("state/records"), None);
        if verified.is_ok_and(|verified| verified.torn.is_some()) {
            wrong.push("the torn end of the records is still there".into());
        }
        let orphans: Vec<_> = mounts(&self.host, self.layout).iter().flat_map(|at| temporary_files(at)).collect();
        if !orphans.is_empty() {
            wrong.push(format!("{orphans:?} left behind"));
        }
        wrong
    }
}

/// Seeds come again where one is given.
fn seed() -> u64 {
    let now = jiff::Timestamp::now().as_nanosecond();
    std::env::var("SEED").ok().map_or_else(|| u64::try_from(now & 0xffff_ffff).unwrap(), |seed| seed.parse().unwrap())
}

/// Both layouts, half of the states each, in runs of their own: no run is too long to be kept in memory.
fn survive(kind: &'static str, states: usize) -> (usize, usize) {
    let (mut done, mut acknowledged) = (0, 0);
    let a_run = 250.min(states.div_ceil(2));
    while done < states {
        for layout in [Layout::Shared, Layout::Apart] {
            let run = Run::new(kind, layout, Without::Nothing, 120);
            acknowledged += run.acknowledged.len();
            let found = run.cut(a_run.min(states - done), seed());
            assert!(found.bad.is_empty() && found.lost.is_empty(), "{:#?}\n{:#?}", found.bad, found.lost);
            done += found.states;
        }
    }
    (done, acknowledged)
}

#[test]
fn t4_g1_g3_g4_whatever_was_acknowledged_is_there_after_a_power_cut_on_ext4() {
    if !can_mount("t4_g1_g3_g4_whatever_was_acknowledged_is_there_after_a_power_cut_on_ext4", &DEVICES) {
        return;
    }
    let begun = Instant::now();
    let (states, acknowledged) = survive("ext4", count("EXT4_STATES", 36, 1000));
    let seconds = begun.elapsed().as_secs();
    println!("figures: T4: {states} ext4 states, {acknowledged} acknowledged rotations, 0 bad, {seconds} s");
}

#[test]
fn t4_g1_g3_g4_whatever_was_acknowledged_is_there_after_a_power_cut_on_xfs() {
    if !can_mount("t4_g1_g3_g4_whatever_was_acknowledged_is_there_after_a_power_cut_on_xfs", &DEVICES) {
        return;
    }
    let begun = Instant::now();
    let (states, acknowledged) = survive("xfs", count("XFS_STATES", 4, 500));
    let seconds = begun.elapsed().as_secs();
    println!("figures: T4: {states} xfs states, {acknowledged} acknowledged rotations, 0 bad, {seconds} s");
}

#[test]
fn t4_without_one_sync_the_power_cut_loses_what_was_acknowledged() {
    if !can_mount("t4_without_one_sync_the_power_cut_loses_what_was_acknowledged", &DEVICES) {
        return;
    }
    let begun = Instant::now();
    let states = count("CONTROL_STATES", 16, 150);
    let kinds: &[&'static str] = if crate::support::long() { &["ext4", "xfs"] } else { &["ext4"] };
    let mut figures = Vec::new();
    for kind in kinds {
        for (without, layout, said) in
            [(Without::TheFolders, Layout::Apart, "without the folder's sync"), (Without::All, Layout::Shared, "without any sync")]
        {
            let found = Run::new(kind, layout, without, 60).cut(states, seed());
            assert!(!found.lost.is_empty(), "{kind} {said}: the check found nothing in {} states", found.states);
            figures.push(format!("{} losses in {} states of {kind} {said}", found.lost.len(), found.states));
        }
    }
    println!("figures: T4: negative control: {}, {} s", figures.join(", "), begun.elapsed().as_secs());
}
