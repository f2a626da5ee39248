//! What a line says of places that a target leaves.

use serde::{Deserialize, Serialize};

use super::line::{Kind, Line, Reason};
use crate::sink::Leftover;
use crate::token::sealed::Seals;

/// One place of a target that goes (`retired`): what became of what stood there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaveLine {
    /// The sink's key in the schedule.
    pub sink: String,
    /// The place as people name it.
    pub place: String,
    /// What became of it.
    pub outcome: Parting,
    /// SHA-256 of the bytes that were delivered there last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why it could not be taken back yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it takes to find it again, while it is owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftover: Option<Leftover>,
    /// What it takes to know it again where it is encrypted, while it is owed.
    #[serde(default, skip_serializing_if = "Seals::is_empty")]
    pub seals: Seals,
}

/// What became of what stood at a place that a target leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Parting {
    /// It is still to be taken back.
    Owed,
    /// It stands there no more.
    Gone,
    /// Nothing stood there.
    Nothing,
    /// Something that is not ours stands there: it was left.
    Left,
    /// Another target has the place now: it was left.
    Taken,
    /// Nobody can take it back: a program has it, or a kubeconfig that others share.
    Beyond,
}

impl<S> Line<S> {
    /// Whether it is a checkpoint's word about a target that is gone.
    pub fn is_of_leaver(&self) -> bool {
        self.kind == Kind::Checkpoint && matches!(self.reason, Some(Reason::Withdrawn | Reason::Removed))
    }
}

impl LeaveLine {
    /// Whether both are about one place.
    pub fn is_that_of(&self, other: &Self) -> bool {
        self.sink == other.sink && self.place == other.place
    }

    /// Whether it is still to be taken back.
    pub fn is_owed(&self) -> bool {
        self.outcome == Parting::Owed
    }
}
