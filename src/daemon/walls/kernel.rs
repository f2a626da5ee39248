//! The kernel's side: folders are opened, then the calling thread is confined to them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use landlock::{
    ABI, AccessFs, LandlockStatus, PathBeneath, PathFd, RestrictSelf, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
};

/// A file system that does not answer within that is left out: one that hangs must not keep the daemon from its start.
const WITHIN: Duration = Duration::from_secs(2);
/// Which rights are taken away elsewhere: all that write, as far as version 3 knows them (Linux 6.2). An older kernel
/// takes what it knows.
const VERSION: ABI = ABI::V3;
/// Devices may be written to wherever their own modes allow it, and none made.
const DEVICES: &str = "/dev";

/// What a folder is let in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Whatever the unit or a person puts there.
    Given,
    /// What the plan writes; it is made where its sink would make it.
    Planned,
    /// The control socket, which is made at the start and removed at the end; nothing else.
    Socket,
}

/// A file or folder that may be written to.
pub(super) struct Opened {
    /// As it was named.
    pub path: PathBuf,
    /// Where that leads.
    pub real: PathBuf,
    /// For what.
    pub purpose: Purpose,
    fd: PathFd,
    is_folder: bool,
}

/// Opens these folders; what cannot be opened, and why.
pub(super) fn opened(paths: impl Iterator<Item = (PathBuf, Purpose)>) -> (Vec<Opened>, Vec<(PathBuf, String)>) {
    let (mut open, mut left_out, mut dead) = (Vec::new(), Vec::new(), HashSet::new());
    for (path, purpose) in paths {
        let system = crate::sink::file::file_system(&path);
        let asked = (path.clone(), purpose);
        let answer = if dead.contains(&system) { None } else { patiently(move || open_one(asked.0, asked.1)) };
        match answer {
            Some(Ok(opened)) => open.push(opened),
            Some(Err(why)) => left_out.push((path, why)),
            None => {
                dead.insert(system);
                left_out.push((path, format!("its file system did not answer within {} s", WITHIN.as_secs())));
            }
        }
    }
    (open, left_out)
}

fn open_one(path: PathBuf, purpose: Purpose) -> Result<Opened, String> {
    if purpose == Purpose::Planned && !path.exists() {
        super::make(&path)?;
    }
    let fd = PathFd::new(&path).map_err(|error| error.to_string())?;
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    let is_folder = real.is_dir();
    Ok(Opened { path, real, purpose, fd, is_folder })
}

/// Where a path leads, as far as it exists; `None` where that is not known in time.
pub(super) fn real(path: &Path) -> Option<PathBuf> {
    let path = path.to_owned();
    patiently(move || {
        let there = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
        there.and_then(|(above, real)| Some(real.join(path.strip_prefix(above).ok()?)))
    })?
}

/// Work that may hang with a file system, on a thread of its own.
fn patiently<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    let thread = std::thread::Builder::new().name("walls".into()).spawn(move || {
        // Nobody waits any more where it came too late.
        let _ = answer.send(work());
    });
    thread.ok()?;
    answered.recv_timeout(WITHIN).ok()
}

/// Confines this thread, and all that it starts, to writing below these. Gives the version of the kernel's interface.
///
/// # Errors
/// Why it cannot be done, in words.
pub(super) fn restrict(open: &[Opened]) -> Result<String, String> {
    let (status, kernel) = confine(open).map_err(|error| error.to_string())?;
    match (status, version(kernel)) {
        (RulesetStatus::NotEnforced, Err(why)) => Err(why),
        (RulesetStatus::NotEnforced, Ok(_)) => Err("the kernel took no rule of it".into()),
        (_, version) => version,
    }
}

fn confine(open: &[Opened]) -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    let writes = AccessFs::from_write(VERSION);
    let to_files = writes & AccessFs::from_file(VERSION);
    let mut ruleset = Ruleset::default().handle_access(writes)?.create()?;
    if let Ok(devices) = PathFd::new(DEVICES) {
        ruleset = ruleset.add_rule(PathBeneath::new(devices, to_files))?;
    }
    for one in open {
        let rights = match (one.purpose, one.is_folder) {
            (Purpose::Socket, _) => AccessFs::MakeSock | AccessFs::RemoveFile,
            (_, true) => writes,
            (_, false) => to_files,
        };
        ruleset = ruleset.add_rule(PathBeneath::new(&one.fd, rights))?;
    }
    let done = ruleset.restrict_self()?;
    Ok((done.ruleset, done.landlock))
}

/// The version of the kernel's interface; why there is none.
pub(super) fn supported() -> Result<String, String> {
    // Without a flag this asks the kernel and changes nothing.
    let asked = RestrictSelf::default().no_new_privs(false).apply().map_err(|error| error.to_string())?;
    version(asked.landlock)
}

fn version(status: LandlockStatus) -> Result<String, String> {
    match status {
        LandlockStatus::Available { effective_abi, .. } => Ok(effective_abi.to_string()),
        LandlockStatus::NotEnabled => Err("the kernel has Landlock, but did not start with it".into()),
        LandlockStatus::NotImplemented => Err("the kernel has no Landlock, or a filter of system calls forbids it".into()),
    }
}
