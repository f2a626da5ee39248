//! What the timetable orders, for others to carry out.

use std::sync::Arc;

use jiff::Timestamp;

use crate::cluster::Urgency;
use crate::cluster::marker::{Marker, Ring};
use crate::daemon::course::{Told, Waiter};
use crate::daemon::rotation::Held;
use crate::daemon::start::Depth;
use crate::daemon::timetable::Removals;
#[cfg(doc)]
use crate::daemon::timetable::Timetable;
use crate::daemon::timetable::revocations::Revocation;
use crate::record::fold::TargetState;
use crate::record::{Actor, Line, Outcome, Reason};
use crate::schedule::Target;

/// What is to be done now. Orders are carried out in their order; those that take long report back.
pub enum Order {
    /// Write a record of what was decided; the state has it already.
    Record(Box<Line>),
    /// Begin a rotation; it ends in [`Timetable::rotated`] or [`Timetable::gave_up`].
    Rotate(Box<Turn>),
    /// Try owed places; it ends in [`Timetable::paid`], if it is not stopped before.
    Pay(Payment),
    /// Stop the payment of a target: a newer token is on its way to every place.
    StopPaying(Arc<str>),
    /// Remove copies in fallbacks; it ends in [`Timetable::cleared`], where some are gone.
    Clear(Box<Clearing>),
    /// Take back what a target left; it ends in [`Timetable::left`].
    Leave(Box<Removals>),
    /// Delete markers; it ends in [`Timetable::revoked`].
    Revoke(Box<Revocation>),
    /// The daemon starts: look at the places of these targets, parted into looks, with temporary files of an earlier run
    /// removed before. It ends in [`Timetable::found`] for each.
    Begin(Vec<Vec<Wanted>>),
    /// Look at the places of targets; it ends in [`Timetable::found`] or [`Timetable::looked`] for each.
    Look(Vec<Wanted>, Looking),
    /// Ask the API server of that cluster for nothing but an answer, until it gives one: its time is not known yet.
    /// It ends in [`Timetable::told_time`].
    AskTime(String),
    /// A rotation of a target is over; these people wait for it.
    Tell(Vec<Waiter>, Box<Told>),
}

/// A target to be looked at, with what is recorded of it.
pub type Wanted = (Arc<Target>, Option<Arc<TargetState>>);

/// Why places are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looking {
    /// The daemon starts.
    Start,
    /// A reload brought or changed their targets.
    Reload,
    /// They are ours from now on, and another member of the fleet served them before.
    Takeover,
    /// A token is about to be minted, for that reason; another member may have done so.
    Mint(Reason),
    /// In between, that closely.
    Beat(Depth),
}

impl Looking {
    /// How closely.
    pub fn depth(self) -> Depth {
        match self {
            Self::Beat(depth) => depth,
            Self::Takeover | Self::Mint(_) => Depth::Everything,
            Self::Start | Self::Reload => Depth::Files,
        }
    }
}

/// A rotation to begin.
pub struct Turn {
    /// Name of the target.
    pub name: Arc<str>,
    /// The target.
    pub target: Arc<Target>,
    /// Why.
    pub reason: Reason,
    /// Who asked, where a person did.
    pub actor: Option<Actor>,
    /// The number of the token to be.
    pub generation: u64,
    /// `iat` and `exp` of the token in use.
    pub in_use: Option<(i64, i64)>,
    /// Rotations of this target that failed since the last success.
    pub failures: u32,
    /// What the records know of the target's markers.
    pub ring: Ring,
    /// The marker that its token is bound to, once it has one.
    pub marker: Option<Marker>,
}

impl Turn {
    /// How urgent its requests are: what ends first is served first. Where nothing is in date any more nothing can be
    /// lost: the first try goes before all others, and one that failed before lets those pass that can still be in time.
    pub fn urgency(&self, now: Timestamp) -> Urgency {
        let retry = self.failures > 0;
        if self.target.first {
            return Urgency { deadline: i64::MIN, retry };
        }
        let deadline = match self.in_use {
            Some((_, exp)) if !retry || exp > now.as_second() => exp,
            None if !retry => i64::MIN + 1,
            _ => i64::MAX,
        };
        Urgency { deadline, retry }
    }

    /// How urgent the proof of its fresh token is: what was begun is ended before more is begun, or a thousand tokens
    /// would be minted before the first is published.
    pub fn urgency_of_proof(attempt: u32) -> Urgency {
        Urgency { deadline: i64::MIN, retry: attempt > 0 }
    }
}

/// Owed places to be tried.
pub struct Payment {
    /// Name of the target.
    pub name: Arc<str>,
    /// The target.
    pub target: Arc<Target>,
    /// The token that they are owed.
    pub held: Arc<Held>,
    /// The places.
    pub places: Vec<Owed>,
}

/// Copies in fallbacks to be removed.
pub struct Clearing {
    /// Name of the target.
    pub name: Arc<str>,
    /// The target.
    pub target: Arc<Target>,
    /// What is recorded of it.
    pub state: TargetState,
    /// Index of the place, and the fallback place whose copy goes.
    pub copies: Vec<(usize, String)>,
}

/// A place that waits for its token.
#[derive(Debug, Clone)]
pub struct Owed {
    /// Its index in the target.
    pub index: usize,
    /// The fallback that holds the token meanwhile, by index and place.
    pub served: Option<(usize, String)>,
    /// What was recorded of it last.
    pub before: Option<Outcome>,
}
