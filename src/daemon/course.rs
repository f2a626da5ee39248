//! One target on its way: what the loop knows of it beside its records.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::rotation::Held;
use super::step::Standing;
use crate::record::{Actor, Line, Reason};
use crate::schedule::Target;

/// The ordered set of all times: what is due first stands first.
pub type Timers = BTreeSet<(i64, Arc<str>, Timer)>;

/// What a time is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A rotation.
    Rotate,
    /// Another attempt at places that are owed.
    Pay,
}

/// One target on its way.
pub struct Course {
    /// What the plan in force says of it.
    pub target: Arc<Target>,
    /// When it is rotated next, unix ms, and why.
    pub armed: Option<(i64, Reason)>,
    /// When its owed places are tried next, unix ms.
    pub pay_at: Option<i64>,
    /// Whether a rotation is under way.
    pub rotating: bool,
    /// Rotations that failed since the last success.
    pub failures: u32,
    /// Attempts at owed places since the last success.
    pub tries: u32,
    /// Its token, while some place is owed it.
    pub held: Option<Arc<Held>>,
    /// The attempt at owed places that is under way.
    pub paying: Option<AbortHandle>,
    /// A rotation that was asked for while another was under way.
    pub wanted: Option<Option<Actor>>,
    /// Whether the rotation under way began after all waiters asked.
    pub waiters: Vec<mpsc::UnboundedSender<Told>>,
    /// Host problems of its places, for `status`.
    pub notes: Vec<String>,
}

/// What a waiting person is told.
#[derive(Debug, Clone)]
pub struct Told {
    /// The terminal record.
    pub line: Line,
    /// How the target stands now.
    pub standing: Standing,
}

impl Course {
    /// A target at rest.
    pub fn new(target: Arc<Target>) -> Self {
        Self {
            target,
            armed: None,
            pay_at: None,
            rotating: false,
            failures: 0,
            tries: 0,
            held: None,
            paying: None,
            wanted: None,
            waiters: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Sets the time of its next rotation, the one before it forgotten.
    pub fn arm(&mut self, name: &Arc<str>, timers: &mut Timers, due: Option<(i64, Reason)>) {
        if let Some((at, _)) = self.armed {
            timers.remove(&(at, Arc::clone(name), Timer::Rotate));
        }
        self.armed = due;
        if let Some((at, _)) = due {
            timers.insert((at, Arc::clone(name), Timer::Rotate));
        }
    }

    /// Sets the time of the next attempt at owed places.
    pub fn arm_pay(&mut self, name: &Arc<str>, timers: &mut Timers, at: Option<i64>) {
        if let Some(at) = self.pay_at {
            timers.remove(&(at, Arc::clone(name), Timer::Pay));
        }
        self.pay_at = at;
        if let Some(at) = at {
            timers.insert((at, Arc::clone(name), Timer::Pay));
        }
    }
}
