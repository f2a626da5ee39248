//! The real daemon on a host of its own: a generated schedule, its records, what it took.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use http::Method;
use jiff::Timestamp;
use tokenferry::daemon::control::{self, Choice};

use super::guard::{self, Bound, Folder};
use super::process;
use super::schedule::Wanted;
use super::tail::Tail;

/// The program that is measured.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tokenferry");
/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(600);
/// How long its start may go on before it counts as at rest.
const SETTLE: Duration = Duration::from_secs(2);

/// Schedule, records, socket and log of a daemon.
pub struct Host {
    folder: Folder,
    /// Where `out` is with the published files, if not in the folder.
    disk: Option<PathBuf>,
    records: Tail,
    /// Set in the daemon's environment.
    environment: Vec<(&'static str, String)>,
}

impl Host {
    /// In memory, with a schedule made for its folder.
    pub fn new(wanted: impl FnOnce(&Path) -> Wanted) -> Self {
        Self::with(None, wanted)
    }

    /// The same with everything on another file system, in that folder.
    pub fn on(disk: &Path, wanted: impl FnOnce(&Path) -> Wanted) -> Self {
        Self::with(Some(disk.to_owned()), wanted)
    }

    fn with(disk: Option<PathBuf>, wanted: impl FnOnce(&Path) -> Wanted) -> Self {
        let folder = Folder::in_memory();
        let root = disk.clone().unwrap_or_else(|| folder.path().to_owned());
        std::fs::create_dir_all(root.join("out")).expect("room is left");
        wanted(&root).write(&root, 0);
        let records = Tail::new(&root.join("records"));
        Self { folder, disk, records, environment: Vec::new() }
    }

    /// With a variable more for the daemon.
    pub fn variable(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// The folder with schedule, records and published files.
    pub fn root(&self) -> &Path {
        self.disk.as_deref().unwrap_or_else(|| self.folder.path())
    }

    /// The schedule file.
    pub fn schedule(&self) -> PathBuf {
        self.root().join("schedule.yaml")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.root().join("control.sock")
    }

    /// A command of tokenferry about this host.
    pub fn command(&self, core: Option<usize>, words: &[&str]) -> Command {
        let mut program = guard::bound_on(core, Path::new(PROGRAM));
        program.arg("--schedule").arg(self.schedule()).args(words).env_remove("TOKENFERRY_SCHEDULE").stdin(Stdio::null());
        program
    }

    /// Starts the daemon as systemd does, its log in a file; on one core, where one is named.
    pub fn start(&self, core: Option<usize>) -> Daemon {
        let path = self.folder.path().join("notify.sock");
        let manager = Manager::listen(&path);
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.log_file()).expect("room is left");
        let mut command = self.command(core, &["run"]);
        command.env("NOTIFY_SOCKET", &path).envs(self.environment.iter().map(|(name, value)| (name, value)));
        let begun = (Instant::now(), Timestamp::now());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program starts");
        Daemon { process: Bound(child), manager, begun }
    }

    /// Has the daemon rotate every target; gives the time from the order to the last record.
    pub fn rotate_all(&mut self, targets: usize) -> Duration {
        let before = self.rotated();
        let begun = Timestamp::now();
        self.order(&Choice { all: true, ..Choice::default() });
        since(begun, self.delivered(before + targets))
    }

    /// Has the daemon rotate targets and waits for it, as `tokenferry rotate` does, without the start of a process.
    pub fn order(&self, choice: &Choice) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answer = runtime.block_on(control::call(&self.socket(), Method::POST, "/rotate", choice, LIMIT));
        let answer = answer.unwrap_or_else(|e| panic!("rotate: {e}; the log says\n{}", self.log()));
        let outcomes = answer["outcomes"].as_array().map_or(&[][..], Vec::as_slice);
        let failed = outcomes.iter().find(|o| o["record"]["kind"] != "rotated");
        assert!(failed.is_none() && !outcomes.is_empty(), "rotate: {failed:?}; the log says\n{}", self.log());
    }

    /// Waits until that many rotations are recorded, none of which may fail; gives the time of the last.
    pub fn delivered(&mut self, count: usize) -> Timestamp {
        let last = self.tried(count);
        let (failed, failure) = self.failed();
        assert!(failed == 0, "{failed} rotations failed, the first one for: {failure}; the log says\n{}", self.log());
        last
    }

    /// The same where some may fail.
    pub fn tried(&mut self, count: usize) -> Timestamp {
        let begun = Instant::now();
        loop {
            let rotated = self.rotated();
            if rotated >= count {
                return self.records.last.expect("more than none");
            }
            assert!(begun.elapsed() < LIMIT, "{rotated} of {count} rotations within {LIMIT:?}; the log says\n{}", self.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How many rotations are recorded.
    pub fn rotated(&mut self) -> usize {
        self.records.look();
        self.records.rotated
    }

    /// How many failed, or left a place owed, and what the first of them says.
    pub fn failed(&self) -> (usize, &str) {
        (self.records.failed, self.records.failure.as_deref().unwrap_or_default())
    }

    /// Every published file with its inode, which a publication changes.
    fn published(&self) -> BTreeMap<String, u64> {
        let entries = std::fs::read_dir(self.root().join("out")).expect("it is there").flatten();
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.metadata().map_or(0, |m| m.ino()))).collect()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// What was measured of a start that finds every token fresh.
pub struct Again {
    /// From the start of the process until it said that it is ready.
    pub ready: Duration,
    /// Tokens that it minted.
    pub minted: usize,
    /// Files that it wrote.
    pub written: usize,
}

/// Starts the daemon where all is fresh, and gives it until it is at rest.
pub fn start_again(host: &mut Host) -> (Daemon, Again) {
    let (records, files) = (host.rotated(), host.published());
    let daemon = host.start(None);
    let ready = daemon.ready();
    // Whatever it means to do at its start it does now.
    std::thread::sleep(SETTLE);
    let written = host.published().iter().filter(|(name, inode)| files.get(*name) != Some(inode)).count();
    let minted = host.rotated() - records;
    (daemon, Again { ready, minted, written })
}

/// Wall-clock time from one record or start to another.
pub fn since(begun: Timestamp, ended: Timestamp) -> Duration {
    Duration::try_from(ended.duration_since(begun)).expect("time goes on")
}

/// A running daemon.
pub struct Daemon {
    process: Bound,
    manager: Manager,
    begun: (Instant, Timestamp),
}

impl Daemon {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// When it was started.
    pub fn begun(&self) -> Timestamp {
        self.begun.1
    }

    /// Waits for `READY=1`; gives the time from its start.
    pub fn ready(&self) -> Duration {
        self.manager.ready.recv_timeout(LIMIT).expect("the daemon is ready in time").duration_since(self.begun.0)
    }

    /// Its CPU time so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid())
    }

    /// `VmRSS` or `VmHWM`, bytes.
    pub fn memory(&self, key: &str) -> u64 {
        process::memory(self.pid(), key).expect("the daemon runs")
    }

    /// Ends it in good order.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the daemon runs");
        let status = self.process.0.wait().expect("the daemon ends");
        assert!(status.success(), "the daemon ended with {status}");
    }
}

/// In systemd's place: reads all that the daemon says, which would wait for us otherwise.
struct Manager {
    ready: Receiver<Instant>,
    ended: Arc<AtomicBool>,
}

impl Manager {
    fn listen(path: &Path) -> Self {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).expect("a socket in the folder");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit above zero");
        let (said, ready) = std::sync::mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                let Ok(read) = socket.recv(&mut buffer) else { continue };
                if buffer[..read].split(|b| *b == b'\n').any(|l| l == b"READY=1") {
                    // Nobody may want to know.
                    let _ = said.send(Instant::now());
                }
            }
        });
        Self { ready, ended }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
