//! What the kernel counts of a process: CPU time, memory, threads and descriptors, from `/proc` (proc_pid_stat(5),
//! proc_pid_status(5)).

use std::ops::{Add, Sub};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Clock ticks per second in `/proc`: `USER_HZ`, 100 on every architecture that Linux runs on today.
const TICKS: u64 = 100;

/// CPU time of the servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// kube-apiserver.
    pub api: Duration,
    /// etcd.
    pub etcd: Duration,
}

impl Cpu {
    /// Of both.
    pub fn total(self) -> Duration {
        self.api + self.etcd
    }
}

impl Add for Cpu {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { api: self.api + other.api, etcd: self.etcd + other.etcd }
    }
}

impl Sub for Cpu {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { api: self.api - other.api, etcd: self.etcd - other.etcd }
    }
}

/// `utime` and `stime` of a process, all its threads included, also those that ended.
pub fn cpu(pid: u32) -> Duration {
    ticks(&format!("/proc/{pid}/stat"), 14)
}

/// `cutime` and `cstime`: of our own children that ended and were waited for, and of theirs.
pub fn children() -> Duration {
    ticks("/proc/self/stat", 16)
}

/// Two fields of a `stat` file from the one of that number on, counted from 1 as in the manual.
fn ticks(path: &str, field: usize) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // The second field is the name in brackets, which may hold anything.
    let rest = text.rsplit_once(')').expect("a stat file has a name in brackets").1;
    let ticks: u64 = rest.split_whitespace().skip(field - 3).take(2).map(|n| n.parse::<u64>().expect("times are numbers")).sum();
    Duration::from_millis(ticks * (1000 / TICKS))
}

/// `VmHWM` (peak) or `VmRSS` (now) of a process, bytes; none where it has ended.
pub fn memory(pid: u32, key: &str) -> Option<u64> {
    let line = status(pid, key)?;
    line.trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A line of `/proc/PID/status`.
pub fn status(pid: u32, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|l| Some(l.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
}

/// Lets a process run on one core, or on all again: all its threads, and those that they start.
pub fn pin(pid: u32, core: Option<usize>) {
    let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
    let cores = core.map_or_else(|| format!("0-{last}"), |core| core.to_string());
    let mut taskset = Command::new("taskset");
    let done = taskset.args(["-a", "-c", "-p", &cores, &pid.to_string()]).stdout(Stdio::null()).status();
    assert!(done.as_ref().is_ok_and(std::process::ExitStatus::success), "taskset -a -c -p {cores} {pid}: {done:?}");
}
