//! The real daemon on a host of its own in memory: a generated schedule, its records, what it took.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tempfile::TempDir;
use tokenferry::record::query::{self, Query};
use tokenferry::record::{Kind, Outcome};

use super::cluster::{self, Cluster, NAMESPACE};
use super::{Span, process};

/// The program that is measured.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tokenferry");
/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the daemon is watched at rest.
const REST: Duration = Duration::from_secs(10);
/// How long its start may go on before it counts as at rest.
const SETTLE: Duration = Duration::from_secs(2);

/// What was measured of the daemon.
pub struct Measured {
    /// From its start until every target was delivered for the first time.
    pub first: Span,
    /// Rounds of `rotate --all`, from the command's start to the last record.
    pub steady: Span,
    /// CPU that the `rotate` commands took themselves.
    pub commands: Duration,
    /// `VmHWM` after all of that, bytes.
    pub peak: u64,
    /// The restart with all of it fresh.
    pub again: Again,
}

/// A start that finds every token fresh.
pub struct Again {
    /// From the start of the process until it said that it is ready.
    pub ready: Duration,
    /// Tokens that it minted.
    pub minted: usize,
    /// Files that it wrote.
    pub written: usize,
    /// `VmRSS` at rest, bytes.
    pub resting: u64,
    /// CPU at rest, as a share of one core.
    pub idle: f64,
}

/// Runs through the daemon's day.
pub fn measure(cluster: &Cluster, host: &Host, targets: usize, rounds: usize) -> Measured {
    let servers = cluster.cpu();
    let begun = Timestamp::now();
    let daemon = host.start();
    let ended = host.delivered(targets);
    let first = Span { rotations: targets, took: since(begun, ended), cpu: process::cpu(daemon.pid()), servers: cluster.cpu() - servers };

    let (servers, cpu, children) = (cluster.cpu(), process::cpu(daemon.pid()), process::children());
    let mut took = Duration::ZERO;
    for round in 1..=rounds {
        let begun = Timestamp::now();
        host.rotate_all();
        took += since(begun, host.delivered(targets * (round + 1)));
    }
    let commands = process::children() - children;
    let steady = Span { rotations: targets * rounds, took, cpu: process::cpu(daemon.pid()) - cpu, servers: cluster.cpu() - servers };
    let peak = process::memory(daemon.pid(), "VmHWM").expect("the daemon runs");
    daemon.stop();
    Measured { first, steady, commands, peak, again: start_again(host) }
}

/// Starts the daemon where all is fresh, and watches it at rest.
pub fn start_again(host: &Host) -> Again {
    let (records, files) = (host.rotations().len(), host.published());
    let begun = Instant::now();
    let daemon = host.start();
    let ready = daemon.ready(begun);
    // Whatever it means to do at its start it does now.
    std::thread::sleep(SETTLE);
    let cpu = process::cpu(daemon.pid());
    std::thread::sleep(REST);
    let idle = (process::cpu(daemon.pid()) - cpu).as_secs_f64() / REST.as_secs_f64();
    let resting = process::memory(daemon.pid(), "VmRSS").expect("the daemon runs");
    daemon.stop();
    let written = host.published().iter().filter(|(name, inode)| files.get(*name) != Some(inode)).count();
    Again { ready, minted: host.rotations().len() - records, written, resting, idle }
}

/// Wall-clock time from one record or start to another.
pub fn since(begun: Timestamp, ended: Timestamp) -> Duration {
    Duration::try_from(ended.duration_since(begun)).expect("time goes on")
}

/// A folder in memory with schedule, records, socket and published files.
pub struct Host {
    folder: TempDir,
}

impl Host {
    /// With a schedule of that many targets of the API server, one account and one file each.
    pub fn new(cluster: &Cluster, targets: usize) -> Self {
        Self::with(&format!("kubeconfig: {}", cluster.kubeconfig()), "1h", targets)
    }

    /// The same, of a cluster that signs with a key of its own, for a day: nothing falls due meanwhile.
    pub fn embedded(targets: usize) -> Self {
        Self::with("embedded: {}", "24h", targets)
    }

    fn with(cluster: &str, duration: &str, targets: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("tokenferry-bench-").tempdir_in(cluster::memory()).expect("a folder in memory");
        let host = Self { folder };
        std::fs::create_dir(host.path("out")).expect("the folder is empty");
        let here = host.folder.path().display();
        let mut text = format!("version: 1\nclusters: {{bench: {{{cluster}}}}}\n");
        let _ = writeln!(text, "records: {{directory: {here}/records}}\ncontrol: {{socket: {here}/control.sock}}");
        let _ = writeln!(text, "defaults: {{cluster: bench, duration: {duration}, prove: false}}\ntargets:");
        for i in 0..targets {
            let _ = writeln!(
                text,
                "  - {{name: t{i}, serviceAccount: {NAMESPACE}/account-{i}, deliver: [{{file: {{path: {here}/out/t{i}}}}}]}}"
            );
        }
        std::fs::write(host.schedule(), text).expect("memory is left");
        host
    }

    /// The schedule file.
    pub fn schedule(&self) -> PathBuf {
        self.path("schedule.yaml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, command: &str) -> Command {
        let mut program = Command::new(PROGRAM);
        program.arg("--schedule").arg(self.schedule()).arg(command).env_remove("TOKENFERRY_SCHEDULE").stdin(Stdio::null());
        program
    }

    /// Starts the daemon as systemd does, its log in a file.
    pub fn start(&self) -> Daemon {
        let path = self.path("notify.sock");
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path).expect("a socket in the folder");
        notify.set_read_timeout(Some(LIMIT)).expect("a limit above zero");
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.path("log")).expect("memory is left");
        let child = self.command("run").env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        Daemon { child, notify }
    }

    /// Has the daemon rotate every target, and waits for it.
    fn rotate_all(&self) {
        let run = self.command("rotate").arg("--all").stdout(Stdio::null()).status().expect("the program starts");
        assert!(run.success(), "rotate --all: {run}; the log says\n{}", self.log());
    }

    /// Waits until that many rotations are recorded; gives the time of the last.
    pub fn delivered(&self, count: usize) -> Timestamp {
        let begun = Instant::now();
        loop {
            let rotations = self.rotations();
            if rotations.len() >= count {
                return rotations.into_iter().max().expect("more than none");
            }
            assert!(begun.elapsed() < LIMIT, "{} of {count} rotations within {LIMIT:?}; the log says\n{}", rotations.len(), self.log());
            // Rarely: reading the records takes CPU from those who are measured.
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Times of all rotations that are recorded, every one of them written.
    fn rotations(&self) -> Vec<Timestamp> {
        let wanted = Query { kinds: vec![Kind::Rotated], ..Query::default() };
        let lines = query::lines(&self.path("records"), wanted);
        let lines = lines.into_iter().flatten().filter_map(Result::ok);
        lines.filter(|l| l.sinks.iter().all(|s| s.outcome == Outcome::Written)).map(|l| l.time).collect()
    }

    /// Every published file with its inode, which a publication changes.
    fn published(&self) -> BTreeMap<String, u64> {
        let entries = std::fs::read_dir(self.path("out")).expect("it is there").flatten();
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().map_or(0, |m| m.ino()))).collect()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    notify: UnixDatagram,
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for `READY=1`.
    fn ready(&self, begun: Instant) -> Duration {
        let mut buffer = [0; 4096];
        loop {
            let read = self.notify.recv(&mut buffer).expect("the daemon is ready in time");
            if buffer[..read].split(|b| *b == b'\n').any(|l| l == b"READY=1") {
                return begun.elapsed();
            }
        }
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the daemon runs");
        let status = self.child.wait().expect("the daemon ends");
        assert!(status.success(), "the daemon ended with {status}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already, unless something else went wrong first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
