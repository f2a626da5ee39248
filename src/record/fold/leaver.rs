//! Targets that are gone and not forgotten: those that a person withdrew while the schedule has them, and those that
//! left something which is still to be taken back.

use jiff::Timestamp;

use super::State;
use crate::record::leave::LeaveLine;
use crate::record::line::{Kind, Line, Reason};
use crate::record::text::owned;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    /// When it was retired.
    pub since: Timestamp,
    /// Whether a person withdrew it: it is not published again until it is rotated by hand or its schedule changes.
    pub withdrawn: bool,
    /// Tokens minted before.
    pub generation: u64,
    /// `NAMESPACE/NAME`.
    pub service_account: Option<String>,
    /// Places that still hold something of ours.
    pub places: Vec<LeaveLine>,
}

impl State {
    /// Whether a person withdrew the target, and nothing brought it back since.
    pub fn is_withdrawn(&self, target: &str) -> bool {
        self.leavers.get(target).is_some_and(|leaver| leaver.withdrawn)
    }

    /// How many tokens a target has had.
    pub fn generation(&self, target: &str) -> u64 {
        let before = self.leavers.get(target).map_or(0, |leaver| leaver.generation);
        self.targets.get(target).map_or(0, |state| state.generation).max(before)
    }

    /// It goes, or something that it left does. Lines of one going have one reason; one without is of a target whose
    /// places stay.
    pub(super) fn retired<S: AsRef<str>>(&mut self, name: &str, line: &Line<S>) {
        let generation = self.generation(name).max(line.generation.unwrap_or(0));
        self.targets.remove(name);
        let Some(reason) = line.reason else {
            if let Some(leaver) = self.leavers.get_mut(name) {
                leaver.withdrawn = false;
            }
            self.forget(name);
            return;
        };
        let leaver = self.leavers.entry(name.to_owned()).or_insert_with(|| Leaver {
            since: line.time,
            withdrawn: false,
            generation,
            service_account: owned(line.service_account.as_ref()),
            places: Vec::new(),
        });
        leaver.withdrawn = reason == Reason::Withdrawn;
        leaver.places.retain(|place| !line.leaves.iter().any(|new| new.is_that_of(place)));
        leaver.places.extend(line.leaves.iter().filter(|new| new.is_owed()).cloned());
        self.forget(name);
    }

    /// It is rotated: what it published is its own again.
    pub(super) fn returned<S: AsRef<str>>(&mut self, name: &str, line: &Line<S>) {
        if let Some(leaver) = self.leavers.get_mut(name) {
            leaver.withdrawn = false;
            leaver
                .places
                .retain(|left| !line.sinks.iter().any(|sink| sink.sink.as_ref() == left.sink && sink.place.as_ref() == left.place));
            self.forget(name);
        }
    }

    /// Another schedule is in force: a target that it has anew, changed, or has no more is not withdrawn any more.
    pub(super) fn reloaded<S: AsRef<str>>(&mut self, line: &Line<S>) {
        for name in line.added.iter().chain(&line.changed).chain(&line.removed) {
            if let Some(leaver) = self.leavers.get_mut(name) {
                leaver.withdrawn = false;
                self.forget(name);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        if self.leavers.get(name).is_some_and(|leaver| !leaver.withdrawn && leaver.places.is_empty()) {
            self.leavers.remove(name);
        }
    }

    /// Takes a line of a checkpoint that is about such a target; false where it is about one that is served.
    pub(super) fn take_leaver<S: AsRef<str>>(&mut self, name: &str, line: &Line<S>) -> bool {
        if !line.is_of_leaver() {
            return false;
        }
        let leaver = Leaver {
            since: line.standing.as_ref().and_then(|standing| standing.last_rotation).unwrap_or(line.time),
            withdrawn: line.reason == Some(Reason::Withdrawn),
            generation: line.generation.unwrap_or(0),
            service_account: owned(line.service_account.as_ref()),
            places: line.leaves.clone(),
        };
        self.leavers.insert(name.to_owned(), leaver);
        true
    }
}

impl Leaver {
    pub(super) fn to_checkpoint(&self, name: &str, now: Timestamp) -> Line {
        Line {
            target: Some(name.to_owned()),
            reason: Some(if self.withdrawn { Reason::Withdrawn } else { Reason::Removed }),
            generation: Some(self.generation),
            service_account: self.service_account.clone(),
            leaves: self.places.clone(),
            standing: Some(crate::record::Standing { last_rotation: Some(self.since), ..Default::default() }),
            ..Line::new(Kind::Checkpoint, now)
        }
    }
}
