//! The fold of the records: what they amount to, per target and place. Pure, except [`read`].

mod blocks;
mod checkpoint;
mod file;
mod hooks;
mod leaver;
mod markers;
mod place;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::chain::GENESIS;
use super::files;
use super::line::{Kind, Line, VERSION};
use super::text::{assign, text};

pub(super) use file::fold_file;
pub use hooks::HookState;
pub use leaver::Leaver;
pub use markers::MarkerState;
pub use place::{Detour, PlaceState};
pub use target::{TargetState, Trouble};

/// What all lines so far amount to.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Every target that was recorded and not retired, by name.
    /// Shared until it changes: whoever writes the records and whoever serves the targets know the same at first, and of most
    /// targets for long.
    pub targets: HashMap<Arc<str>, Arc<TargetState>>,
    /// Those that are gone and not forgotten.
    pub leavers: BTreeMap<String, Leaver>,
    /// Those targets with a hook that has still to be told.
    pub untold: BTreeSet<String>,
    /// SHA-256 of the schedule last in force.
    pub schedule: Option<String>,
    /// `seq` of the last line; 0 when there is none.
    pub seq: u64,
    /// `hash` of the last line; [`chain::GENESIS`] when there is none.
    pub head: String,
    /// Time of the last line.
    pub time: Option<Timestamp>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            targets: HashMap::new(),
            leavers: BTreeMap::new(),
            untold: BTreeSet::new(),
            schedule: None,
            seq: 0,
            head: GENESIS.to_owned(),
            time: None,
        }
    }
}

impl State {
    /// Takes one more line into account. Lines come in the order in which they were written.
    pub fn apply<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.advance(line.seq, line.hash.as_ref(), line.time);
        if matches!(line.kind, Kind::CheckpointEnd | Kind::Started | Kind::Reloaded) && line.schedule.is_some() {
            assign(&mut self.schedule, line.schedule.as_ref());
        }
        if line.kind == Kind::Reloaded {
            self.reloaded(line);
        }
        let Some(name) = text(line.target.as_ref()) else { return };
        if matches!(line.kind, Kind::Rotated | Kind::Failed | Kind::Paid | Kind::Adopted) {
            self.returned(name, line);
        }
        match line.kind {
            Kind::Checkpoint if self.take_leaver(name, line) => {}
            Kind::Checkpoint => {
                self.targets.insert(Arc::from(name), Arc::new(TargetState::from_checkpoint(line)));
            }
            Kind::Rotated => self.change(name).rotated(line),
            Kind::Failed => self.change(name).failed(line),
            Kind::Paid => self.change(name).paid(line),
            Kind::Cleared => self.change(name).cleared(line),
            Kind::Adopted => self.change(name).adopted(line),
            Kind::Rejected => self.change(name).rejected(line),
            Kind::Told => self.change(name).told(line),
            // Nobody else knows the markers of a target that was retired.
            Kind::Revoking | Kind::Revoked => {
                self.targets.get_mut(name).into_iter().for_each(|target| Arc::make_mut(target).take_markers(line));
            }
            Kind::Retired => self.retired(name, line),
            // What a person took for himself, and what became of the daemon, changes no target.
            Kind::CheckpointEnd | Kind::Started | Kind::Stopped | Kind::Reloaded | Kind::ReloadRefused => {}
            // A rehearsal changes nothing: it is evidence.
            Kind::Rehearsed | Kind::Minted | Kind::Executed | Kind::Monitored | Kind::Gap => {}
            // Who serves a target changes nothing of its token.
            Kind::Joined | Kind::Left | Kind::TakenOver | Kind::HandedOver => {}
        }
        if self.targets.get(name).is_some_and(|target| target.is_untold()) {
            self.untold.insert(name.to_owned());
        } else {
            self.untold.remove(name);
        }
    }

    /// Only moves the end of the chain, for lines that say what the state says already.
    pub(super) fn advance(&mut self, seq: u64, head: &str, time: Timestamp) {
        self.seq = seq;
        head.clone_into(&mut self.head);
        self.time = Some(time);
    }

    /// What is known of a target.
    pub fn target(&self, name: &str) -> Option<&TargetState> {
        self.targets.get(name).map(Arc::as_ref)
    }

    fn change(&mut self, name: &str) -> &mut TargetState {
        if !self.targets.contains_key(name) {
            self.targets.insert(Arc::from(name), Arc::default());
        }
        Arc::make_mut(self.targets.get_mut(name).expect("it was put there just now"))
    }
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder or a file in it.
    #[error("cannot read records at {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is none.
    #[error("{}:{line}: not a record; `tokenferry records verify` says more", path.display())]
    NotARecord {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },
    /// Written by a later program.
    #[error(
        "{}:{line}: record of version {version}, and this tokenferry knows version {VERSION} at most: use the newer tokenferry again, or \
         move the folder aside (what stands at file places is adopted then, the history is not)",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// The line's version.
        version: u32,
    },
}

/// Folds a folder's records without taking its lock: for looking on while nobody, or somebody else,
/// writes. An empty folder gives an empty state; damage is passed over (`chain::verify` tells it).
///
/// # Errors
/// [`ReadError`] where the folder cannot be read or a newer program wrote it.
pub fn read(directory: &Path) -> Result<State, ReadError> {
    let unreadable = |source| ReadError::Unreadable { path: directory.to_owned(), source };
    for file in files::list(directory).map_err(unreadable)?.iter().rev() {
        let folded = fold_file(&file.path)?;
        if folded.complete() {
            return Ok(folded.state);
        }
    }
    Ok(State::default())
}

#[cfg(test)]
mod tests;
