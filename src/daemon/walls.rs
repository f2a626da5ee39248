//! Walls around what the daemon may write, by the kernel's Landlock (landlock(7)): whatever runs in this process, and
//! whatever it starts (hooks, programs of sinks, credential plugins), may read and run what its user may, but make,
//! change and remove files only below the folders that the unit and the plan in force at the start name.
//!
//! They stand where the service manager started this process itself and gave it a folder (`SYSTEMD_EXEC_PID` and
//! `STATE_DIRECTORY` or one of its kind, systemd.exec(5)); `run` and `once` in a shell stay as they are. The folders are
//! those of the unit ([`unit`]), those of the plan ([`needs`]), and the temporary ones. A domain of Landlock can be
//! made narrower and never wider, so a reload whose plan needs a folder outside is refused as a whole, with the way
//! out; a restart mints nothing that is fresh. A kernel without Landlock is told of once, and by `doctor`.
//!
//! Walls belong to threads, and new threads inherit them: they are raised while this process has one thread. One that
//! was lost in a dead file system before, while a folder was opened, stays outside and does nothing else.

mod kernel;
mod needs;
mod unit;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::places::Places;
use super::read::Accepted;
use super::{control, own};
use crate::record::append;
use crate::schedule::check::{self, Written};
use crate::schedule::{Plan, Problem, Severity};
use crate::sink::file;
use kernel::{Opened, Purpose, opened};
use needs::Need;
use unit::Unit;

const REMEDY: &str = "boot a kernel of 5.13 or later with landlock in its list of lsm=; the unit's own sandbox holds all the same";

/// What confines this process.
pub enum Walls {
    /// No service manager started it with folders of its own: nothing is confined.
    Unasked,
    /// They should stand and cannot; why.
    Missing(String),
    /// They stand.
    Standing(Standing),
}

/// Walls that stand.
pub struct Standing {
    unit: String,
    /// Version of the kernel's interface.
    abi: String,
    /// What may be written to, each by every name that it is known by.
    within: Vec<PathBuf>,
    /// How many folders that is.
    count: usize,
    /// Folders of the plan that could not be let in; why.
    left_out: Vec<(PathBuf, String)>,
}

impl Walls {
    /// Raises them for this plan, where they are wanted. To be called while this process has one thread.
    pub fn raise(plan: &Plan, places: &Places) -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let proc = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        match Unit::around(std::process::id(), variable, &proc("mountinfo"), &proc("cgroup")) {
            Some(unit) => Self::around(unit, plan, places),
            None => Self::Unasked,
        }
    }

    fn around(unit: Unit, plan: &Plan, places: &Places) -> Self {
        let Places { records, socket, .. } = places.by(plan);
        let plan = own::join(plan.clone(), &records);
        let is_inside = |folder: &Path| unit.folders.iter().any(|ours| folder.starts_with(ours));
        let mut wanted: Vec<PathBuf> = needs::of(&plan, &records).into_iter().map(|need| need.folder).collect();
        wanted.extend([records.clone(), own::state(&records).join("own")]);
        // Beside the records stand the index of places and more, where that folder is the daemon's own.
        wanted.extend(Some(own::state(&records).to_owned()).filter(|state| is_ours(state)));
        wanted.retain(|folder| !is_inside(folder));
        wanted.sort();
        // What lies below another one is let in with it.
        wanted.dedup_by(|folder, before| folder.starts_with(before));
        make_own(&wanted, &plan, &records, &socket);
        let given = unit.folders.iter().map(|folder| (folder.clone(), Purpose::Given));
        let planned = wanted.iter().map(|folder| (folder.clone(), Purpose::Planned));
        let around = socket.parent().filter(|folder| !is_inside(folder)).map(|folder| (folder.to_owned(), Purpose::Socket));
        let (open, mut left_out) = opened(given.chain(planned).chain(around));
        // Of the unit's folders some need not be there.
        left_out.retain(|(folder, _)| wanted.contains(folder) && *folder != own::state(&records).join("own"));
        match kernel::restrict(&open) {
            Err(why) => Self::Missing(why),
            Ok(abi) => {
                let open: Vec<Opened> = open.into_iter().filter(|open| open.purpose != Purpose::Socket).collect();
                let count = open.len();
                let names = |open: Opened| [open.path, open.real];
                let mut within: Vec<PathBuf> = open.into_iter().flat_map(names).collect();
                within.sort();
                within.dedup();
                Self::Standing(Standing { unit: unit.name, abi, within, count, left_out })
            }
        }
    }

    /// Says once how they stand.
    pub fn tell(&self) {
        match self {
            Self::Unasked => {}
            Self::Missing(why) => tracing::warn!("no walls around what this process writes: {why}; what the unit allows is all that holds"),
            Self::Standing(standing) => {
                tracing::info!(
                    folders = standing.count,
                    "this process and what it starts can write below the unit's and the plan's folders alone"
                );
                for (folder, why) in &standing.left_out {
                    tracing::warn!(folder = %folder.display(), why, "nothing can be written there before the next start: it could not be let in");
                }
            }
        }
    }

    /// Every place of a schedule that they shut out, as its problem: the daemon would fail there. May wait for a disk.
    pub fn outside(&self, accepted: &Accepted, records: &Path) -> Vec<Problem> {
        let Self::Standing(standing) = self else { return Vec::new() };
        let plan = own::join(accepted.plan.clone(), records);
        let mut known = HashMap::new();
        let mut outside = needs::of(&plan, records);
        outside.retain(|need| !*known.entry(need.folder.clone()).or_insert_with(|| standing.hold(&need.folder)));
        let wanted: Vec<_> = outside.iter().map(|need| (need.target.clone(), need.path.clone())).collect();
        let written = check::locate(&accepted.sources, &wanted);
        outside.into_iter().zip(written).map(|(need, at)| standing.problem(need, at)).collect()
    }

    /// What `doctor` says of them.
    ///
    /// # Errors
    /// What is not well with them, and what to do.
    pub fn seen(&self) -> Result<String, (String, String)> {
        match self {
            Self::Unasked => Ok("none: no service manager started this process with folders of its own".into()),
            Self::Missing(why) => Err((format!("none: {why}"), REMEDY.into())),
            Self::Standing(Standing { left_out, abi, count, unit, .. }) => match left_out.first() {
                None => Ok(format!("Landlock (version {abi}) lets the daemon write below {count} folders and nowhere else")),
                Some((folder, why)) => Err((
                    format!("{} is not let in: {why}", folder.display()),
                    format!("{}, then systemctl restart {unit}, which mints nothing that is fresh", unit::host_command(unit)),
                )),
            },
        }
    }
}

/// Whether the kernel could confine a daemon, for `doctor` where none is asked.
///
/// # Errors
/// Why it cannot, and what to do.
pub fn possible() -> Result<String, (String, String)> {
    match kernel::supported() {
        Ok(version) => Ok(format!("the kernel has Landlock (version {version}): a daemon that systemd starts is confined by it")),
        Err(why) => Err((format!("a daemon is not confined: {why}"), REMEDY.into())),
    }
}

impl Standing {
    /// What could not be let in at the start was told then, and is no news of a reload.
    fn hold(&self, folder: &Path) -> bool {
        let below = |folder: &Path| self.within.iter().any(|ours| folder.starts_with(ours));
        let is_known = self.left_out.iter().any(|(known, _)| folder.starts_with(known));
        below(folder) || is_known || kernel::real(folder).is_some_and(|real| below(&real))
    }

    fn problem(&self, need: Need, written: Written) -> Problem {
        let (folder, unit) = (need.folder.display(), &self.unit);
        Problem {
            file: written.file,
            line: written.at.line,
            column: written.at.column,
            severity: Severity::Error,
            target: need.target,
            key: written.key,
            message: format!(
                "{folder} is outside of the folders that the daemon has been confined to since its start: `{}` names it in {}, then `systemctl \
                 restart {unit}` takes this schedule and mints nothing that is fresh",
                unit::host_command(unit),
                unit::drop_in(unit)
            ),
        }
    }
}

/// Makes the daemon's own folders that stand outside of the unit's and are missing, as whoever needs them would later: what
/// is not there cannot be let in. What goes wrong here goes wrong there again, and is told there.
fn make_own(wanted: &[PathBuf], plan: &Plan, records: &Path, socket: &Path) {
    let is_missing = |folder: &Path| wanted.iter().any(|wanted| folder.starts_with(wanted)) && !folder.exists();
    if is_missing(records) {
        let _ = append::make_folder(records);
    }
    own::prepare(plan, records);
    let _ = control::make_folder(socket);
    for cluster in needs::embedded(plan, records).filter(|need| is_missing(&need.folder)) {
        let _ = std::fs::create_dir_all(&cluster.folder);
    }
}

fn is_ours(folder: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    folder.parent().is_some() && folder.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == ours)
}

/// A folder for tokens, made where its sink would make it.
fn make(folder: &Path) -> Result<(), String> {
    file::make_folder(folder).map_err(|failure| failure.message)
}
