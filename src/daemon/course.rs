//! One target on its way: what the loop knows of it beside its records.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::ask::Asker;
use super::moves::Moves;
use super::rotation::Held;
use super::start::Depth;
use super::step::Standing;
use crate::record::fold::TargetState;
use crate::record::{Actor, Blank, Line, Mended, Rare, Reason};
use crate::schedule::Target;

/// Shortest time between two mints that mend something, ms; it doubles.
const MEND_FLOOR: i64 = 15_000;
/// What lasted that long was mended, ms.
const MENDED_FOR_GOOD: i64 = Mended::FOR_GOOD * 1000;

/// The ordered set of all times: what is due first stands first.
pub type Timers = BTreeSet<(i64, Arc<str>, Timer)>;

/// What a time is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A rotation.
    Rotate,
    /// Another attempt at places that are owed.
    Pay,
    /// A look at its places, and a try of its token.
    Prove,
    /// The removal of copies in fallbacks.
    Clear,
    /// The removal of what it left.
    Leave,
    /// The removal of markers.
    Revoke,
    /// Another look at places that did not show what they hold.
    Take,
}

/// One target on its way.
pub struct Course {
    /// What the plan in force says of it.
    pub target: Arc<Target>,
    /// When it is rotated next, unix ms, and why.
    pub armed: Option<(i64, Reason)>,
    /// When its places are looked at next, unix ms, and how closely.
    pub prove_at: Option<(i64, Depth)>,
    /// When its token was last accepted by the API server, or its places found in order.
    pub proven_at: Option<Timestamp>,
    /// How many tokens it had had when its places were last looked at: what was seen is nothing once there is another.
    pub seen_from: u64,
    /// Which moves onto its files are its rotations' own.
    pub moves: Moves,
    /// Rotations that failed since the last success.
    pub failures: u32,
    /// Whether its places are being looked at.
    pub looking: bool,
    /// Whether its places were looked at since its plan began; nothing is judged by records alone before.
    pub found: bool,
    /// Whether a rotation is under way.
    pub rotating: bool,
    /// Whether an attempt at owed places is under way.
    pub paying: bool,
    /// Whether markers are being removed.
    pub revoking: bool,
    /// What its places are owed.
    pub debt: Rare<Debt>,
    /// What becomes of its markers.
    pub revocation: Rare<Revocation>,
    /// Who asked for what.
    pub asked: Rare<Asked>,
    /// What was wrong with its places.
    pub flaws: Rare<Flaws>,
}

/// What the places of a target are owed, and its fallbacks have for them.
#[derive(Default)]
pub struct Debt {
    /// Its token, while some place is owed it.
    pub held: Option<Arc<Held>>,
    /// When its owed places are tried next, unix ms.
    pub pay_at: Option<i64>,
    /// Attempts at owed places since the last success.
    pub tries: u32,
    /// When copies in its fallbacks are removed next, unix ms.
    pub clear_at: Option<i64>,
}

/// What becomes of a target's markers.
#[derive(Default)]
pub struct Revocation {
    /// When they are removed next, unix ms.
    pub revoke_at: Option<i64>,
    /// Removals that failed since the last success, and when the next may begin, unix ms.
    pub unrevoked: (u32, i64),
    /// Tokens that are to be tried once their marker is gone.
    pub evidence: Vec<Arc<Held>>,
    /// Who waits for the end of a revocation.
    pub askers: Vec<Asker>,
}

/// Who asked for rotations of a target.
#[derive(Default)]
pub struct Asked {
    /// A rotation that was asked for while another was under way.
    pub wanted: Option<Option<Actor>>,
    /// Who waits for the end of its rotation.
    pub waiters: Vec<Waiter>,
}

/// What was wrong with the places of a target.
#[derive(Default)]
pub struct Flaws {
    /// When it was last minted to mend something, unix ms, and how often in a row: mending never becomes a mint loop.
    pub mended: Option<(i64, u32)>,
    /// When its places are looked at again, unix ms: they did not show what they hold; and how often they did not.
    pub take_at: Option<i64>,
    /// See `take_at`.
    pub unseen: u32,
    /// Host problems of its places, for `status`.
    pub notes: Vec<String>,
}

impl Blank for Debt {
    const BLANK: &'static Self = &Self { held: None, pay_at: None, tries: 0, clear_at: None };

    fn is_blank(&self) -> bool {
        matches!(self, Self { held: None, pay_at: None, tries: 0, clear_at: None })
    }
}

impl Blank for Revocation {
    const BLANK: &'static Self = &Self { revoke_at: None, unrevoked: (0, 0), evidence: Vec::new(), askers: Vec::new() };

    fn is_blank(&self) -> bool {
        self.revoke_at.is_none() && self.unrevoked == (0, 0) && self.evidence.is_empty() && self.askers.is_empty()
    }
}

impl Blank for Asked {
    const BLANK: &'static Self = &Self { wanted: None, waiters: Vec::new() };

    fn is_blank(&self) -> bool {
        self.wanted.is_none() && self.waiters.is_empty()
    }
}

impl Blank for Flaws {
    const BLANK: &'static Self = &Self { mended: None, take_at: None, unseen: 0, notes: Vec::new() };

    fn is_blank(&self) -> bool {
        self.mended.is_none() && self.take_at.is_none() && self.unseen == 0 && self.notes.is_empty()
    }
}

/// Where somebody waits for the end of a rotation.
pub type Waiter = mpsc::UnboundedSender<Told>;

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
            prove_at: None,
            proven_at: None,
            seen_from: 0,
            moves: Moves::default(),
            failures: 0,
            looking: false,
            found: false,
            rotating: false,
            paying: false,
            revoking: false,
            debt: Rare::default(),
            revocation: Rare::default(),
            asked: Rare::default(),
            flaws: Rare::default(),
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

    /// Takes what the records know of mends before this start.
    pub fn recall(&mut self, state: Option<&TargetState>) {
        self.flaws.edit().mended = state.and_then(|state| state.mended.as_deref()).map(|last| (last.at.as_millisecond(), last.times));
    }

    /// Sets the time of the next look at its places.
    pub fn arm_look(&mut self, name: &Arc<str>, timers: &mut Timers, next: Option<(i64, Depth)>) {
        if let Some((at, _)) = self.prove_at {
            timers.remove(&(at, Arc::clone(name), Timer::Prove));
        }
        self.prove_at = next;
        if let Some((at, _)) = next {
            timers.insert((at, Arc::clone(name), Timer::Prove));
        }
    }

    /// When a mint that mends something may begin: at once the first time, ever later when it does not last. One that
    /// waits for its time already is not put off by whatever else is noticed meanwhile.
    pub fn mend_at(&mut self, now: i64) -> i64 {
        if let Some((waiting, _)) = self.flaws.mended.filter(|(at, _)| *at > now) {
            return waiting;
        }
        let (last, times) = self.flaws.mended.filter(|(last, _)| now - last < MENDED_FOR_GOOD).unwrap_or((i64::MIN / 2, 0));
        let at = now.max(last + if times == 0 { 0 } else { (MEND_FLOOR << times.min(10)).min(MENDED_FOR_GOOD / 2) });
        self.flaws.edit().mended = Some((at, times + 1));
        at
    }

    /// Sets the time at which copies in fallbacks are removed.
    pub fn arm_clear(&mut self, name: &Arc<str>, timers: &mut Timers, at: Option<i64>) {
        if let Some(at) = self.debt.clear_at {
            timers.remove(&(at, Arc::clone(name), Timer::Clear));
        }
        self.debt.edit().clear_at = at;
        if let Some(at) = at {
            timers.insert((at, Arc::clone(name), Timer::Clear));
        }
    }

    /// Sets the time at which markers are removed.
    pub fn arm_revoke(&mut self, name: &Arc<str>, timers: &mut Timers, at: Option<i64>) {
        if let Some(at) = self.revocation.revoke_at {
            timers.remove(&(at, Arc::clone(name), Timer::Revoke));
        }
        self.revocation.edit().revoke_at = at;
        if let Some(at) = at {
            timers.insert((at, Arc::clone(name), Timer::Revoke));
        }
    }

    /// Sets the time of the next attempt at owed places.
    pub fn arm_pay(&mut self, name: &Arc<str>, timers: &mut Timers, at: Option<i64>) {
        if let Some(at) = self.debt.pay_at {
            timers.remove(&(at, Arc::clone(name), Timer::Pay));
        }
        self.debt.edit().pay_at = at;
        if let Some(at) = at {
            timers.insert((at, Arc::clone(name), Timer::Pay));
        }
    }

    /// Moves all its times by that many ms: the clock that they were counted on was set.
    pub fn shift(&mut self, name: &Arc<str>, timers: &mut Timers, by: i64) {
        let later = |at: i64| at.saturating_add(by);
        self.arm(name, timers, self.armed.map(|(at, reason)| (later(at), reason)));
        self.arm_pay(name, timers, self.debt.pay_at.map(later));
        self.arm_clear(name, timers, self.debt.clear_at.map(later));
        self.arm_revoke(name, timers, self.revocation.revoke_at.map(later));
        self.arm_take(name, timers, self.flaws.take_at.map(later));
        if self.revocation.unrevoked != (0, 0) {
            self.revocation.edit().unrevoked.1 = later(self.revocation.unrevoked.1);
        }
        self.arm_look(name, timers, self.prove_at.map(|(at, depth)| (later(at), depth)));
        self.flaws.edit().mended = self.flaws.mended.map(|(at, times)| (later(at), times));
    }

    /// Forgets all its times: its course ends.
    pub fn rest(&mut self, name: &Arc<str>, timers: &mut Timers) {
        self.arm(name, timers, None);
        self.arm_pay(name, timers, None);
        self.arm_look(name, timers, None);
        self.arm_clear(name, timers, None);
        self.arm_revoke(name, timers, None);
        self.arm_take(name, timers, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::check::{self, Sources};

    fn course() -> Course {
        let text = "version: 1\nclusters: {c: {embedded: {}}}\n\
            targets: [{name: t, cluster: c, serviceAccount: a/b, duration: 1h, deliver: [{file: {path: /run/t}}]}]\n";
        let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
        let plan = check::plan(&sources, &std::collections::BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]));
        Course::new(Arc::clone(&plan.targets[0]))
    }

    #[test]
    fn a_mend_that_waits_is_not_put_off_by_what_is_noticed_meanwhile() {
        let mut course = course();
        assert_eq!(course.mend_at(1_000), 1_000);
        let second = course.mend_at(2_000);
        assert_eq!(second, 1_000 + 2 * MEND_FLOOR);
        for now in (3_000..second).step_by(500) {
            assert_eq!(course.mend_at(now), second);
        }
        assert!(course.mend_at(second + 1) > second + 1, "each one that does not last makes the next one wait for longer");
    }
}
