//! The host: its schedule, records, folders, disks, limits, clock and daemon.

use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use rustix::process::{Resource, getrlimit};

use super::{Finding, Findings, Patient, WITHIN, abreast};
use crate::daemon::scene::Scene;
use crate::daemon::walls;
use crate::record::{ReadError, chain};
use crate::schedule::Target;
use crate::sink::{Place, SinkSpec, file};

/// Descriptors that a daemon may need: each file system lane, connection and watch takes some.
const FEWEST_DESCRIPTORS: u64 = 1024;
/// Below that many bytes, or that share of inodes, a place is as good as full.
const LEAST_ROOM: u64 = 1 << 20;

/// What is known of the daemon on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// One answers at the socket; its process id and version, where it says them.
    Running {
        /// Process id.
        pid: u64,
    },
    /// Nobody answers there.
    Quiet {
        /// The socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
}

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    let mut found = Findings::about("host");
    schedule(patient, &mut found);
    match &patient.host {
        Host::Running { pid } => found.good("daemon", format!("it runs, as process {pid}")),
        Host::Quiet { socket, why } if socket.exists() => {
            found.bad(
                "daemon",
                format!("{}: {why}", socket.display()),
                "systemctl status tokenferry; a socket that nobody serves goes with the next start",
            );
        }
        Host::Quiet { socket, .. } => {
            found.warn(
                "daemon",
                format!("none runs: there is no {}", socket.display()),
                "systemctl enable --now tokenferry, or tokenferry run",
            );
        }
    }
    records(patient, &mut found);
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(most) if most < FEWEST_DESCRIPTORS => {
            found.warn("descriptors", format!("at most {most} open files"), "raise LimitNOFILE (the shipped unit has 65536) or `ulimit -n`")
        }
        Some(most) => found.good("descriptors", format!("up to {most} open files")),
        None => found.good("descriptors", "without a limit"),
    }
    walls(patient, &mut found);
    clock(&mut found);
    found.list
}

fn schedule(patient: &Patient, found: &mut Findings) {
    let path = patient.path.display();
    match &patient.schedule {
        Ok(accepted) if accepted.plan.targets.is_empty() => {
            found.warn("schedule", format!("{path} has no targets"), "add one: README.md shows a first schedule")
        }
        Ok(accepted) => {
            found.good("schedule", format!("{path}: {} targets, {} warnings", accepted.plan.targets.len(), accepted.plan.warnings.len()))
        }
        Err(_) if !patient.path.exists() => {
            found.bad("schedule", format!("{path} is not there"), "write it, or name another with --schedule")
        }
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            found.bad("schedule", format!("{} problems, the first: {first}", problems.len()), "tokenferry check tells them all");
        }
    }
}

fn records(patient: &Patient, found: &mut Findings) {
    let folder = &patient.records;
    match &patient.state {
        Ok(_) => match chain::verify(folder, None) {
            Ok(sound) => found.good("records", format!("{}: {} lines, all as they were written", folder.display(), sound.lines)),
            Err(broken) => found.bad(
                "records",
                broken.to_string(),
                "keep the file as evidence; the daemon goes on in a new one. tokenferry records verify",
            ),
        },
        Err(_) if !folder.exists() => {
            let parent = folder.ancestors().skip(1).find(|parent| parent.exists()).unwrap_or(Path::new("/"));
            match rustix::fs::accessat(rustix::fs::CWD, parent, rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS) {
                Ok(()) => found.good("records", format!("{} is made at the first start", folder.display())),
                Err(errno) => found.bad(
                    "records",
                    format!("{} cannot be made in {}: {errno}", folder.display(), parent.display()),
                    "make it, owned by the daemon's user, mode 0700",
                ),
            }
            return;
        }
        Err(ReadError::Unreadable { path, source }) => {
            found.bad(
                "records",
                format!("{}: {source}", path.display()),
                "run this as root or as the daemon's user; else give the folder back to it",
            );
            return;
        }
        Err(error) => {
            found.bad(
                "records",
                error.to_string(),
                "tokenferry records verify names the damage; the daemon puts a damaged file aside and goes on",
            );
            return;
        }
    }
    if let Err(errno) = rustix::fs::accessat(rustix::fs::CWD, folder, rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS) {
        found.bad("recordsWritable", format!("{}: {errno}", folder.display()), "give it to the daemon's user, or mend the mount");
    }
    room("recordsRoom", folder, found);
}

/// Whether the file system of a path has room.
fn room(check: &'static str, path: &Path, found: &mut Findings) {
    let Ok(stat) = rustix::fs::statvfs(path) else { return };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let few = stat.f_files > 0 && stat.f_favail < (stat.f_files / 100).clamp(1, 100);
    let at = path.display();
    if free < LEAST_ROOM {
        found.bad(check, format!("{at}: {} KiB are free", free >> 10), "make room, or choose a folder on another file system");
    } else if few {
        found.bad(
            check,
            format!("{at}: {} inodes are free", stat.f_favail),
            "remove small files, or choose a folder on another file system",
        );
    } else {
        found.good(check, format!("{at}: {} MiB are free", free >> 20));
    }
}

/// What confines the daemon's writing; from elsewhere, whether the kernel could.
fn walls(patient: &Patient, found: &mut Findings) {
    let told = match &patient.walls {
        Some(walls) => walls.seen(),
        None => walls::possible(),
    };
    match told {
        Ok(evidence) => found.good("walls", evidence),
        Err((evidence, remedy)) => found.warn("walls", evidence, &remedy),
    }
}

/// Whether something keeps the clock right: `adjtimex` as the kernel answers it.
fn clock(found: &mut Findings) {
    // systemd-timesyncd, chrony and ntpd all leave their mark in the kernel's state, which timedatectl shows.
    let said = std::process::Command::new("timedatectl").args(["show", "--property=NTPSynchronized", "--value"]).output();
    match said.ok().filter(|said| said.status.success()).map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()) {
        Some(word) if word == "yes" => found.good("clock", "it is synchronized"),
        Some(word) if word == "no" => {
            found.warn("clock", "nothing keeps it right", "enable systemd-timesyncd or chrony: a token is judged by its times")
        }
        _ => found.unknown(
            "clock",
            "timedatectl does not say whether the clock is synchronized",
            "the skew against each API server is shown below",
        ),
    }
}

/// Every file place of the plan, as a delivery would find it.
pub(super) async fn places(scene: &Scene) -> Vec<Finding> {
    let mut looks: Vec<BoxFuture<'_, Vec<Finding>>> = Vec::new();
    for target in &scene.plan.targets {
        for place in target.places() {
            looks.push(Box::pin(look(target, place)));
        }
    }
    abreast(looks).await
}

async fn look(target: &Target, place: &Place) -> Vec<Finding> {
    let (path, problems) = match &place.sink {
        SinkSpec::File(spec) => (&spec.path, file::look(spec, WITHIN).await),
        SinkSpec::Directory(spec) => (&spec.files_as.path, file::directory::look(spec, WITHIN).await),
        _ => return Vec::new(),
    };
    let mut found = Findings::about(format!("target {}", target.name));
    for problem in &problems {
        found.bad("place", problem, "mend it as it says, then tokenferry rotate the target");
    }
    if problems.is_empty() {
        found.good("place", format!("{} can be published", path.display()));
        if let Some(parent) = path.ancestors().skip(1).find(|parent| parent.exists()) {
            room("placeRoom", parent, &mut found);
            if !is_memory(parent) {
                found.warn(
                    "placeOnDisk",
                    format!("{} is on a disk", path.display()),
                    "a folder under /run keeps tokens out of backups and disk images; keep it where the token must outlive a reboot",
                );
            }
        }
    }
    found.list
}

fn is_memory(path: &Path) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    rustix::fs::statfs(path).is_ok_and(|stat| matches!(stat.f_type, TMPFS | RAMFS))
}
