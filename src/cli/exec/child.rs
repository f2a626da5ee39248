//! The command itself: started as if the caller had started it, its signals and its end passed on.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::room::field;
use crate::cli::Exit;
use crate::token::wipe::umask_before;

/// Signals that are passed on. Stopping and going on is the shell's affair: it tells the whole process group.
const PASSED: [Signal; 6] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

/// Starts the command with these variables beside ours, the `hidden` ones taken away.
///
/// # Errors
/// Exit code 127 where there is no such command, 126 where it is no program, 125 where none can be started.
pub fn spawn(command: &[OsString], variables: &[(String, OsString)], hidden: &[String]) -> Result<Child, Exit> {
    let (program, arguments) = command.split_first().ok_or_else(|| Exit::usage("name a command after --"))?;
    let mut built = Command::new(program);
    built.args(arguments);
    for name in hidden {
        built.env_remove(name);
    }
    built.envs(variables.iter().map(|(name, value)| (name, value)));
    // The command's files are the caller's, not ours to make private.
    let own = rustix::process::umask(umask_before());
    let spawned = built.spawn();
    rustix::process::umask(own);
    spawned.map_err(|error| Exit { code: code_of(&error), message: Some(format!("{}: {error}", program.display())) })
}

/// Says before a token is minted that there is no such command, as execvp(3) would find out: a name with a slash
/// is a file, another one is looked for in PATH.
///
/// # Errors
/// Exit code 127.
pub fn find(command: &[OsString]) -> Result<(), Exit> {
    let program = command.first().ok_or_else(|| Exit::usage("name a command after --"))?;
    let is_path = program.as_bytes().contains(&b'/');
    // Without PATH the system's own default counts, which is left to it.
    let Some(folders) = std::env::var_os("PATH").filter(|_| !is_path).or_else(|| is_path.then(OsString::new)) else { return Ok(()) };
    let found = if is_path { Path::new(program).symlink_metadata().is_ok() } else { is_in(&folders, program) };
    if found { Ok(()) } else { Err(Exit { code: 127, message: Some(format!("{}: there is no such command", program.display())) }) }
}

fn is_in(folders: &OsStr, program: &OsStr) -> bool {
    !program.is_empty() && std::env::split_paths(folders).any(|folder| folder.join(program).exists())
}

fn code_of(error: &io::Error) -> u8 {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
    match error.kind() {
        NotFound => 127,
        PermissionDenied | IsADirectory | NotADirectory => 126,
        _ if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => 126,
        _ => 125,
    }
}

/// Signals that came.
pub type Caught = mpsc::UnboundedReceiver<Signal>;

/// Catches the signals that are passed on; from then on none ends us. One that the caller ignores (nohup) stays
/// ignored, for the command too.
///
/// # Errors
/// What the kernel says.
pub fn catch() -> io::Result<Caught> {
    let (sender, caught) = mpsc::unbounded_channel();
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    for kind in PASSED.into_iter().filter(|kind| ignored & (1 << (kind.as_raw() - 1)) == 0) {
        let (mut stream, sender) = (signal(SignalKind::from_raw(kind.as_raw()))?, sender.clone());
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(kind).is_ok() {} });
    }
    Ok(caught)
}

/// `SigIgn` of proc_pid_status(5): bit n − 1 for signal n.
fn ignored(status: &str) -> u64 {
    status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok()).unwrap_or(0)
}

/// Passes a signal on. A key of the terminal has told the command already: it is in the same process group.
pub fn pass(child: &Child, kind: Signal) {
    if [Signal::INT, Signal::QUIT].contains(&kind) && in_foreground(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default()) {
        return;
    }
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, kind)
    {
        tracing::debug!(%error, "the command was gone before the signal came");
    }
}

/// Whether our process group has the terminal (proc_pid_stat(5): pgrp is field 5, tpgid field 8).
fn in_foreground(stat: &str) -> bool {
    field(stat, 5).is_some_and(|group| field(stat, 8) == Some(group))
}

/// The exit code of a command, as a shell gives it: 128 + n by signal n.
pub fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(125);
    u8::try_from(code).unwrap_or(125)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }

    #[test]
    fn a_terminal_key_is_told_from_a_sent_signal_by_the_foreground_group() {
        assert!(in_foreground("9 (x y) S 1 77 1 34816 77 0"));
        assert!(!in_foreground("9 (x) S 1 77 1 34816 12 0"));
        assert!(!in_foreground("9 (x) S 1 77 1 0 -1 0"));
    }

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\n") & 1, 1);
        assert_eq!(ignored("no mask"), 0);
    }
}
