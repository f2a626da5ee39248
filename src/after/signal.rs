//! `signal`: to the process of a pid file, which has to be our user's own, or to the main process of a unit, by
//! `systemctl kill`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, kill_process};

use super::{Failure, Said, systemd};

const WITHIN: Duration = Duration::from_secs(30);
/// A process may be that much younger than its pid file: clocks of file systems tick slowly.
const YOUNGER: f64 = 2.0;
/// Ticks of `/proc/PID/stat` in a second (`USER_HZ`, part of the kernel's interface).
const HZ: f64 = 100.0;

/// `signal: {pidFile | unit, signal}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalSpec {
    /// Who gets it.
    pub receiver: Receiver,
    /// Which.
    pub signal: Signal,
}

/// Who gets a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    /// The process whose number stands in this file.
    PidFile(PathBuf),
    /// The main process of this unit.
    Unit(String),
}

/// The signals that programs take for "read your files again", or an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hup,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGTERM.
    Term,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH.
    Winch,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Hup, Self::Int, Self::Quit, Self::Term, Self::Usr1, Self::Usr2, Self::Winch];

    /// Its name, without SIG.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Term => "TERM",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Winch => "WINCH",
        }
    }

    /// By its name, with or without SIG.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("SIG").unwrap_or(name);
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }

    fn raw(self) -> rustix::process::Signal {
        use rustix::process::Signal as S;
        match self {
            Self::Hup => S::HUP,
            Self::Int => S::INT,
            Self::Quit => S::QUIT,
            Self::Term => S::TERM,
            Self::Usr1 => S::USR1,
            Self::Usr2 => S::USR2,
            Self::Winch => S::WINCH,
        }
    }
}

impl SignalSpec {
    pub(super) fn to(&self) -> String {
        match &self.receiver {
            Receiver::PidFile(path) => format!("{} {}", self.signal.name(), path.display()),
            Receiver::Unit(unit) => format!("{} {unit}", self.signal.name()),
        }
    }
}

pub(super) async fn send(spec: &SignalSpec) -> Result<Said, Failure> {
    let signal = spec.signal;
    match &spec.receiver {
        Receiver::Unit(unit) => {
            let name = format!("--signal=SIG{}", signal.name());
            // The older spelling of --kill-whom, which every version knows.
            systemd::systemctl(&["kill", "--kill-who=main", &name, "--", unit], WITHIN).await
        }
        Receiver::PidFile(path) => {
            let path = path.clone();
            let sent = tokio::task::spawn_blocking(move || to_pid_file(&path, signal.raw()));
            let sent = tokio::time::timeout(WITHIN, sent).await.map_err(|_| Failure("the pid file cannot be read in time".into()))?;
            sent.map_err(|_| Failure("sending the signal was cut short".into()))?.map(|()| None)
        }
    }
}

fn to_pid_file(path: &Path, signal: rustix::process::Signal) -> Result<(), Failure> {
    let wrong = |what: String| Failure(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let number = text.split_whitespace().next().and_then(|word| word.parse::<i32>().ok()).filter(|number| *number > 1);
    let Some(pid) = number.and_then(Pid::from_raw) else { return Err(wrong("no process number stands in it".into())) };
    if number == i32::try_from(std::process::id()).ok() {
        return Err(wrong("it names tokenferry itself".into()));
    }
    let raw = pid.as_raw_nonzero();
    if let (Some(begun), Some(written)) = (began(raw.get()), modified(path))
        && begun > written + YOUNGER
    {
        return Err(wrong(format!("process {raw} is younger than the file: it is another one, and the file is stale")));
    }
    kill_process(pid, signal).map_err(|error| match error {
        rustix::io::Errno::SRCH => wrong(format!("there is no process {raw}: the file is stale")),
        rustix::io::Errno::PERM => wrong(format!("process {raw} belongs to another user: run it as ours, or use `signal: {{unit: …}}`")),
        other => wrong(format!("process {raw}: {other}")),
    })
}

fn modified(path: &Path) -> Option<f64> {
    let at = std::fs::metadata(path).ok()?.modified().ok()?;
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64())
}

/// When a process began, unix seconds; `None` where the kernel hides it (proc_pid_stat(5), field 22).
fn began(pid: i32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: f64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_began_a_moment_ago_is_known_to() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let begun = began(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(now - begun < 3600.0 && begun < now + YOUNGER, "{begun} {now}");
    }

    #[test]
    fn a_pid_file_that_names_nobody_we_may_signal_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            to_pid_file(&path, rustix::process::Signal::HUP).unwrap_err().0
        };
        for text in ["", "x", "0", "1", "-5", "99999999999"] {
            assert!(refused(text).contains("no process number"), "{text}");
        }
        assert!(refused(&std::process::id().to_string()).contains("tokenferry itself"));
        assert!(refused("2147483646\n").contains("stale"));
    }
}
