//! Targets that go: withdrawn by a person, or out of the schedule with `whenRemoved: delete`. What they left is taken
//! back, place by place, again and again until it is done; the records say what is owed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Moment, Order, Timetable};
use crate::daemon::course::{Course, Told, Waiter};
use crate::daemon::rotation::{Fault, ask_hash, identify};
use crate::daemon::step;
use crate::record::{Actor, Kind, LeaveLine, Line, MarkerState, Parting, Reason};
use crate::schedule::Target;
use crate::sink::Leftover;
use crate::token::sealed::Seals;

#[cfg(doc)]
use crate::record::Leaver;

/// A target that goes; while a rotation of it is under way, once that is over.
pub struct Farewell {
    target: Arc<Target>,
    reason: Reason,
    actor: Option<Actor>,
    waiters: Vec<Waiter>,
}

/// What is under way for a [`Leaver`].
#[derive(Default)]
pub struct Leaving {
    /// When it is tried next, unix ms.
    at: Option<i64>,
    tries: u32,
    /// Whether its places are being cleared.
    working: bool,
    waiters: Vec<Waiter>,
}

/// Places to be cleared.
pub struct Removals {
    /// Name of the target.
    pub name: Arc<str>,
    /// The record to be, with the places as they are now.
    pub line: Line,
}

/// What came of that.
pub struct Removed {
    /// What became of each place.
    pub line: Line,
    /// Whether that is a record: nothing new is none.
    pub news: bool,
    /// Why something is owed still.
    pub fault: Option<Fault>,
}

/// All that is under way.
#[derive(Default)]
pub struct Leaves {
    farewells: HashMap<Arc<str>, Farewell>,
    leaving: HashMap<Arc<str>, Leaving>,
}

impl Leaves {
    /// Whether places of that target are being cleared: nothing may be published there meanwhile.
    pub fn is_working(&self, name: &str) -> bool {
        self.leaving.get(name).is_some_and(|leaving| leaving.working)
    }
}

impl Timetable {
    /// A person withdraws targets: they are not published again before he rotates them or their schedule changes. The
    /// answer names what was taken on, each outcome is told.
    pub fn withdraw(&mut self, meant: &dyn Fn(&Target) -> bool, actor: &Actor, waiter: &Waiter, moment: &Moment<'_>) -> Vec<String> {
        let mut names: Vec<Arc<str>> = self.courses.iter().filter(|(_, c)| meant(&c.target)).map(|(n, _)| Arc::clone(n)).collect();
        names.sort_unstable();
        for name in &names {
            let Some(course) = self.courses.get_mut(name) else { continue };
            let (target, rotating) = (Arc::clone(&course.target), course.rotating);
            course.asked.edit().wanted = None;
            let farewell = Farewell { target, reason: Reason::Withdrawn, actor: Some(actor.clone()), waiters: vec![waiter.clone()] };
            self.part(name, farewell, rotating, moment);
        }
        names.iter().map(ToString::to_string).collect()
    }

    /// A target went out of the schedule, and what it left is to be deleted. `course` is what it was.
    pub(super) fn delete(&mut self, name: &Arc<str>, course: &Course, moment: &Moment<'_>) {
        let farewell = Farewell { target: Arc::clone(&course.target), reason: Reason::Removed, actor: None, waiters: Vec::new() };
        self.part(name, farewell, course.rotating, moment);
    }

    fn part(&mut self, name: &Arc<str>, mut farewell: Farewell, rotating: bool, moment: &Moment<'_>) {
        self.rest(name);
        if rotating {
            if let Some(before) = self.leaves.farewells.remove(name) {
                farewell.waiters.extend(before.waiters);
            }
            self.leaves.farewells.insert(Arc::clone(name), farewell);
            return;
        }
        let Farewell { target, reason, actor, waiters } = farewell;
        let mut line = Line::new(Kind::Retired, moment.now);
        identify(&mut line, &target);
        line.reason = Some(reason);
        line.actor = actor;
        line.generation = Some(self.state.generation(name));
        line.leaves = self.left_by(&target);
        let leaving = self.leaves.leaving.entry(Arc::clone(name)).or_default();
        leaving.waiters.extend(waiters);
        leaving.tries = 0;
        let owed = line.leaves.iter().any(LeaveLine::is_owed);
        // With this line the records forget its token and its markers: what is owed of them stands in it.
        self.record(line.clone());
        if owed {
            self.leave(name, moment);
        } else {
            self.left(name, Removed { line, news: false, fault: None }, moment);
        }
    }

    /// A rotation is over: whoever waited for it goes now. Whether somebody did.
    pub(super) fn part_now(&mut self, name: &Arc<str>, moment: &Moment<'_>) -> bool {
        let Some(farewell) = self.leaves.farewells.remove(name) else { return false };
        // A target that went out of the schedule and is in it again stays.
        if farewell.reason == Reason::Removed && self.courses.contains_key(name) {
            return false;
        }
        self.part(name, farewell, false, moment);
        true
    }

    /// Nothing is delivered any more; the beat of looks goes on.
    fn rest(&mut self, name: &Arc<str>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        course.arm(name, &mut self.timers, None);
        course.arm_pay(name, &mut self.timers, None);
        course.arm_clear(name, &mut self.timers, None);
        course.debt.edit().held = None;
        course.failures = 0;
        if std::mem::take(&mut course.paying) {
            self.orders.push(Order::StopPaying(Arc::clone(name)));
        }
    }

    /// Every place of a target, fallbacks too: what stands there is taken back where it can be.
    fn left_by(&self, target: &Target) -> Vec<LeaveLine> {
        let state = self.state.target(&target.name);
        let mut seen = HashSet::new();
        let mut leaves = Vec::new();
        for place in target.places() {
            let (sink, at) = (place.sink.kind(), place.sink.place());
            if !seen.insert((sink, at.clone())) {
                continue;
            }
            let recorded = state.and_then(|s| s.place(sink, &at));
            let leftover = Leftover::of(place);
            let sealed = leftover.is_some() && !place.encrypt_to.is_empty();
            leaves.push(LeaveLine {
                sink: sink.to_owned(),
                outcome: if leftover.is_some() { Parting::Owed } else { Parting::Beyond },
                sha256: recorded.and_then(|place| place.sha256.as_ref().map(ToString::to_string)),
                place: at,
                error: None,
                leftover,
                seals: if sealed { Seals::new(&place.encrypt_to, &ask_hash(target)) } else { Seals::default() },
            });
        }
        // Last: a token is taken back before it dies.
        leaves.extend(state.into_iter().flat_map(|state| state.markers.iter()).map(marker));
        leaves
    }

    /// At the start what is owed is tried at once.
    pub(super) fn arm_leaves(&mut self) {
        let owed = self.state.leavers.iter().filter(|(_, leaver)| !leaver.places.is_empty());
        let names: Vec<Arc<str>> = owed.map(|(name, _)| Arc::from(name.as_str())).collect();
        for name in names {
            self.arm_leave(&name, Some(0));
        }
    }

    fn arm_leave(&mut self, name: &Arc<str>, at: Option<i64>) {
        let leaving = self.leaves.leaving.entry(Arc::clone(name)).or_default();
        if let Some(before) = std::mem::replace(&mut leaving.at, at) {
            self.timers.remove(&(before, Arc::clone(name), super::Timer::Leave));
        }
        if let Some(at) = at {
            self.timers.insert((at, Arc::clone(name), super::Timer::Leave));
        }
    }

    /// Times that were counted on a clock that was set move with it.
    pub(super) fn shift_leaves(&mut self, by: i64) {
        let armed = self.leaves.leaving.iter().filter_map(|(name, leaving)| Some((Arc::clone(name), leaving.at?)));
        for (name, at) in armed.collect::<Vec<_>>() {
            self.arm_leave(&name, Some(at.saturating_add(by)));
        }
    }

    /// Has what is owed taken back now.
    pub(super) fn leave(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        self.arm_leave(name, None);
        let Some(leaver) = self.state.leavers.get(&**name).filter(|leaver| !leaver.places.is_empty()) else { return };
        // What is published just now is judged when that is done.
        if self.leaves.is_working(name) || self.courses.get(name).is_some_and(|course| course.rotating) {
            return self.arm_leave(name, Some(moment.ms() + 1000));
        }
        let mut line = Line::new(Kind::Retired, moment.now);
        line.target = Some(name.to_string());
        line.service_account.clone_from(&leaver.service_account);
        line.generation = Some(leaver.generation);
        line.reason = Some(if leaver.withdrawn { Reason::Withdrawn } else { Reason::Removed });
        line.leaves.clone_from(&leaver.places);
        for place in &mut line.leaves {
            if self.is_taken(place) {
                place.outcome = Parting::Taken;
            }
        }
        if let Some(leaving) = self.leaves.leaving.get_mut(name) {
            leaving.working = true;
        }
        self.orders.push(Order::Leave(Box::new(Removals { name: Arc::clone(name), line })));
    }

    /// Whether a target that is served has the place now.
    fn is_taken(&self, left: &LeaveLine) -> bool {
        let serves = |target: &&Arc<Target>| !self.state.is_withdrawn(&target.name);
        let mut places = self.plan.targets.iter().filter(serves).flat_map(|target| target.places());
        places.any(|place| place.sink.kind() == left.sink && place.sink.place() == left.place)
    }

    /// Takes what came of it.
    pub fn left(&mut self, name: &Arc<str>, removed: Removed, moment: &Moment<'_>) {
        let Removed { line, news, fault } = removed;
        if news {
            self.state.apply(&line);
        }
        let Some(leaving) = self.leaves.leaving.get_mut(name) else { return };
        leaving.working = false;
        let waiters = std::mem::take(&mut leaving.waiters);
        if let Some(fault) = fault.filter(|_| !self.manner.once && line.leaves.iter().any(LeaveLine::is_owed)) {
            leaving.tries += 1;
            let at = step::retry(moment.ms(), leaving.tries, fault, None, moment.world.share());
            self.arm_leave(name, Some(at));
        } else {
            self.leaves.leaving.remove(name);
        }
        let told = Told { line, standing: self.standing(name, moment.now) };
        if self.manner.once || !waiters.is_empty() {
            self.orders.push(Order::Tell(waiters, Box::new(told)));
        }
        if let Some(actor) = self.courses.get_mut(name).and_then(|course| course.asked.edit().wanted.take()) {
            self.rotate(name, if actor.is_some() { Reason::Manual } else { Reason::New }, actor);
        }
    }
}

/// A marker as something that is left: its tokens die with it.
fn marker(marker: &MarkerState) -> LeaveLine {
    let MarkerState { cluster, namespace, name, uid, .. } = marker.clone();
    LeaveLine {
        sink: "marker".into(),
        place: format!("{cluster}/{namespace}/{name}"),
        outcome: Parting::Owed,
        sha256: None,
        error: None,
        leftover: Some(Leftover::Marker { cluster, namespace, name, uid }),
        seals: Seals::default(),
    }
}
