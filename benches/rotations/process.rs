//! What the kernel counts of a process: CPU time and memory, from `/proc` (proc_pid_stat(5), proc_pid_status(5)).

use std::ops::{Add, Sub};
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
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}
