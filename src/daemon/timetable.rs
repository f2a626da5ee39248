//! What happens next to which target? Pure: every event comes with its moment, and leaves [`Order`]s behind that
//! somebody else carries out. Mutable state of the daemon's targets is here and nowhere else.

mod clearings;
mod leaves;
mod looks;
pub mod order;
pub mod payments;
pub mod revocations;
mod rotations;
mod shared;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::course::{Course, Timer, Timers};
use super::rotation::Held;
use super::step;
use crate::record::fold::{State, TargetState};
use crate::record::{Kind, Line, Reason};
use crate::schedule::change::{self, Change};
use crate::schedule::cron::CronRule;
use crate::schedule::{Plan, Target};
pub use leaves::{Removals, Removed};
pub use order::{Clearing, Looking, Order, Owed, Payment, Turn, Wanted};

/// A place that was touched is looked at after that long, ms: our own writes touch places too.
pub const SETTLED: i64 = 1_000;

/// A skew that differs by that many seconds from the one known before has its targets judged anew.
const OTHER_TIME: f64 = 5.0;

/// What decisions depend on beside targets, records and the time.
pub trait World {
    /// Server time less local time of a cluster, seconds, where its answers have shown it.
    fn skew(&self, cluster: &str) -> Option<f64>;
    /// Chance: a share in [0, 1).
    fn share(&self) -> f64;
}

/// The world at one moment.
pub struct Moment<'a> {
    /// This host's wall clock.
    pub now: Timestamp,
    /// All else.
    pub world: &'a dyn World,
}

impl Moment<'_> {
    fn ms(&self) -> i64 {
        self.now.as_millisecond()
    }
}

/// How a daemon and `once` differ.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// Rotate what is due, then end: nothing is tried again.
    pub once: bool,
    /// Rotate what is not due, too.
    pub force: bool,
}

/// The targets on their way.
pub struct Timetable {
    plan: Arc<Plan>,
    host: String,
    manner: Manner,
    /// The fold of the records.
    pub state: State,
    /// Every target of the plan.
    pub courses: HashMap<Arc<str>, Course>,
    timers: Timers,
    orders: Vec<Order>,
    leaves: leaves::Leaves,
    /// Who serves what, in a fleet.
    shared: shared::Shared,
    /// The skew of each cluster, seconds, by which its targets were judged.
    skews: BTreeMap<String, f64>,
}

impl Timetable {
    /// Targets at rest; `host` is the stable name for the offsets of `splay`.
    pub fn new(plan: Arc<Plan>, host: String, manner: Manner, state: State) -> Self {
        let course = |target: &Arc<Target>| {
            let mut course = Course::new(Arc::clone(target));
            course.recall(state.target(&target.name));
            let recorded = state.targets.get_key_value(&*target.name);
            (recorded.map_or_else(|| Arc::clone(&target.name), |(name, _)| Arc::clone(name)), course)
        };
        let courses = plan.targets.iter().map(course).collect();
        let (timers, leaves, shared) = (Timers::new(), leaves::Leaves::default(), shared::Shared::default());
        Self { plan, host, manner, state, courses, timers, orders: Vec::new(), leaves, shared, skews: BTreeMap::new() }
    }

    /// The name of a target, the one that its course goes by where it has one.
    fn name_of(&self, target: &Target) -> Arc<str> {
        let known = self.courses.get_key_value(&*target.name);
        known.map_or_else(|| Arc::clone(&target.name), |(name, _)| Arc::clone(name))
    }

    /// What is to be done since this was last asked.
    pub fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// When something is due next, unix ms of the local clock.
    pub fn next(&self) -> Option<i64> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// The daemon starts: the places of these targets are looked at before anything is minted. The clock may be
    /// wrong, and all tokens look fresh by it: each API server is asked for the time.
    pub fn begin(&mut self, meant: Vec<Arc<Target>>) {
        self.look(meant, Looking::Start);
        self.arm_leaves();
        self.ask_time(self.plan.clusters.keys().cloned().collect());
    }

    fn ask_time(&mut self, clusters: Vec<String>) {
        if !self.manner.once {
            self.orders.extend(clusters.into_iter().map(Order::AskTime));
        }
    }

    /// An API server has answered: its targets are judged anew where its clock is not what it was taken for.
    pub fn told_time(&mut self, cluster: &str, moment: &Moment<'_>) {
        let Some(skew) = moment.world.skew(cluster) else { return };
        let known = self.skews.get(cluster);
        if known.is_some_and(|known| (known - skew).abs() < OTHER_TIME) {
            return;
        }
        self.skews.insert(cluster.to_owned(), skew);
        let theirs = self.courses.iter().filter(|(_, course)| *course.target.cluster == *cluster);
        let names = theirs.map(|(name, _)| Arc::clone(name)).collect();
        self.rejudge(names, moment);
    }

    /// Another plan is in force: targets that went are retired, those that came or changed looked at.
    pub fn swap(&mut self, plan: &Arc<Plan>, change: &Change, moment: &Moment<'_>) {
        let before = std::mem::replace(&mut self.plan, Arc::clone(plan));
        let deleting: HashSet<&String> = change.deleting.iter().collect();
        for name in &change.removed {
            self.retire(name, deleting.contains(name), moment);
        }
        let changed: HashSet<&str> = change.changed.iter().map(String::as_str).collect();
        let mut looked = Vec::new();
        for target in change::renewed(&before, plan) {
            if self.waits_for_owner(target) {
                continue;
            }
            match self.courses.get_mut(&*target.name) {
                Some(course) => {
                    course.target = Arc::clone(target);
                    if !changed.contains(&*target.name) {
                        continue;
                    }
                    course.found = false;
                }
                None => drop(self.courses.insert(Arc::clone(&target.name), Course::new(Arc::clone(target)))),
            }
            looked.push(Arc::clone(target));
        }
        self.look(looked, Looking::Reload);
        self.skews.retain(|cluster, _| !change.clusters.contains(cluster));
        self.ask_time(change.clusters.iter().filter(|c| plan.clusters.contains_key(*c)).cloned().collect());
    }

    /// A target that went out of the schedule: its course ends; its places stay, or are deleted.
    fn retire(&mut self, name: &str, delete: bool, moment: &Moment<'_>) {
        let name: Arc<str> = Arc::from(name);
        self.abandon(&name, delete);
        self.forget_elsewhere(&name, moment);
        let Some(mut course) = self.courses.remove(&name) else { return };
        course.rest(&name, &mut self.timers);
        if std::mem::take(&mut course.paying) {
            self.orders.push(Order::StopPaying(Arc::clone(&name)));
        }
        if delete {
            return self.delete(&name, &course, moment);
        }
        let mut line = Line::new(Kind::Retired, moment.now);
        super::rotation::identify(&mut line, &course.target);
        self.record(line);
    }

    /// Everything whose time has come begins.
    pub fn run_due(&mut self, moment: &Moment<'_>) {
        while let Some((at, name, timer)) = self.timers.first().cloned() {
            if at > moment.ms() {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Rotate => {
                    let reason = self.courses.get_mut(&name).and_then(|c| c.armed.take()).map_or(Reason::Lifetime, |(_, reason)| reason);
                    self.begin_rotation(&name, reason);
                }
                Timer::Take => self.look_again(&name),
                Timer::Prove => self.beat(&name, moment),
                Timer::Pay => {
                    if let Some(course) = self.courses.get_mut(&name) {
                        course.debt.edit().pay_at = None;
                    }
                    self.pay(&name, None);
                }
                Timer::Clear => self.clear(&name, moment),
                Timer::Leave => self.leave(&name, moment),
                Timer::Revoke => self.revoke_due(&name, moment),
            }
        }
    }

    /// The wall clock was set by that many ms, or the host slept (0): everything is judged anew. Times that were
    /// counted from a moment on this clock move with it.
    pub fn stepped(&mut self, set: i64, moment: &Moment<'_>) {
        for (name, course) in &mut self.courses {
            course.shift(name, &mut self.timers, set);
        }
        self.shift_leaves(set);
        for (cluster, skew) in &mut self.skews {
            *skew = moment.world.skew(cluster).unwrap_or(*skew);
        }
        let names: Vec<Arc<str>> = self.courses.keys().cloned().collect();
        self.rejudge(names, moment);
    }

    /// A cron time has come: its targets are judged anew.
    pub fn tick(&mut self, rule: &CronRule, moment: &Moment<'_>) {
        let theirs = |course: &&Course| course.target.rotate.cron.contains(rule);
        let names = self.courses.values().filter(theirs).map(|c| Arc::clone(&c.target.name)).collect();
        self.rejudge(names, moment);
    }

    fn rejudge(&mut self, mut names: Vec<Arc<str>>, moment: &Moment<'_>) {
        // `once` has chosen its targets, and what they need.
        if self.manner.once {
            return;
        }
        names.sort_unstable();
        for name in names {
            // A retry and a mint that mends have times of their own.
            let mends =
                |c: &Course| c.armed.is_some_and(|(_, reason)| matches!(reason, Reason::Repair | Reason::Rejected | Reason::Changed));
            if self.courses.get(&name).is_some_and(|c| c.found && !c.rotating && c.failures == 0 && !mends(c)) {
                self.arm(&name, moment);
            }
        }
    }

    /// How a target stands.
    pub fn standing(&self, name: &str, now: Timestamp) -> step::Standing {
        let Some(course) = self.courses.get(name) else { return step::Standing::New };
        if self.state.is_withdrawn(name) {
            return step::Standing::Withdrawn;
        }
        let state = self.state.target(name);
        step::standing(&course.target, state, course.rotating, course.failures, now, &self.host)
    }

    /// Arms a target by its records and its plan.
    fn arm(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        let Some(course) = self.courses.get(name) else { return };
        let due = self.due(&course.target, moment);
        self.arm_at(name, due);
    }

    fn arm_at(&mut self, name: &Arc<str>, due: Option<(i64, Reason)>) {
        if let Some(course) = self.courses.get_mut(name) {
            course.arm(name, &mut self.timers, due);
        }
    }

    /// When the target is due, on the local clock; judged by its API server's time.
    fn due(&self, target: &Target, moment: &Moment<'_>) -> Option<(i64, Reason)> {
        self.judge(target, self.state.target(&target.name), moment)
    }

    /// When a token that some place is owed is too old to be worth delivering, and another is minted.
    fn due_of(&self, target: &Target, held: &Held, moment: &Moment<'_>) -> Option<(i64, Reason)> {
        let time = |claim: Option<i64>| claim.and_then(|s| Timestamp::from_second(s).ok());
        let state = TargetState { issued_at: time(held.claims.iat), expires_at: time(held.claims.exp), ..TargetState::default() };
        self.judge(target, Some(&state), moment)
    }

    fn judge(&self, target: &Target, state: Option<&TargetState>, moment: &Moment<'_>) -> Option<(i64, Reason)> {
        if self.state.is_withdrawn(&target.name) {
            return None;
        }
        let skew = moment.world.skew(&target.cluster);
        let now = step::server_time(moment.now, skew);
        let due = step::due(target, state, now, skew.is_some(), &self.host);
        due.map(|(at, reason)| (at - (now.as_millisecond() - moment.ms()), reason))
    }

    fn record(&mut self, line: Line) {
        self.state.apply(&line);
        self.orders.push(Order::Record(Box::new(line)));
    }
}
