//! Rotations of the loop: begun, finished, told.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Done, Wheel};
use crate::daemon::clock::{now_ms, share};
use crate::daemon::course::{Course, Told};
use crate::daemon::rotation::{self, Fault, Finished, Job};
use crate::daemon::step;
use crate::record::{Actor, Kind, Line, Reason};
use crate::schedule::cron::CronRule;

impl Wheel {
    pub(super) fn rotate(&mut self, name: &Arc<str>, reason: Reason, actor: Option<Actor>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        if course.rotating {
            return;
        }
        course.rotating = true;
        course.arm(name, &mut self.timers, None);
        course.arm_pay(name, &mut self.timers, None);
        // The new token is brought to every place anyway.
        if let Some(paying) = course.paying.take() {
            paying.abort();
        }
        let state = self.state.targets.get(&**name);
        let job = Job {
            target: Arc::clone(&course.target),
            scene: Arc::clone(&self.scene),
            writer: self.writer.clone(),
            reason,
            actor,
            generation: state.map_or(0, |s| s.generation) + 1,
            in_use: state.and_then(step::life).map(|l| (l.issued_at, l.expires_at)),
            failures: course.failures,
            stop: self.stop.subscribe(),
        };
        let name = Arc::clone(name);
        self.tasks.spawn(async move { Done::Rotated(name, rotation::rotate(job).await.map(Box::new)) });
    }

    pub(super) fn rotated(&mut self, name: &Arc<str>, finished: Finished) {
        self.counters.count(&finished);
        let Finished { line, held, fault, .. } = finished;
        let failed = line.kind == Kind::Failed;
        self.state.apply(&line);
        let now = now_ms();
        let Some(course) = self.courses.get_mut(name) else {
            // It went out of the schedule meanwhile.
            self.state.targets.remove(&**name);
            return;
        };
        course.rotating = false;
        if !failed {
            course.notes.clear();
        }
        let minted = line.issued_at.is_some();
        if minted || held.is_some() {
            course.held = held;
        }
        course.tries = 0;
        course.failures = if failed { course.failures + 1 } else { 0 };
        let failures = course.failures;
        if course.held.is_some() {
            let at = step::retry(now, 1, fault.unwrap_or(Fault { passing: true, retry_after: None }), None, share());
            course.arm_pay(name, &mut self.timers, (self.options.once.is_none()).then_some(at));
        }
        let state = self.state.targets.get(&**name);
        let life = state.and_then(step::life);
        let again = match fault {
            // A token that some place waits for is delivered again, not minted again.
            Some(_) if course.held.is_some() => None,
            Some(fault) => Some((step::retry(now, failures, fault, life, share()), line.reason.unwrap_or(Reason::Lifetime))),
            None => None,
        };
        let target = Arc::clone(&course.target);
        self.watched.again(&target);
        let held = course.held.clone();
        let due = again.or_else(|| match &held {
            // Its own life counts, not that of the older token which some place still has.
            Some(held) => self.due_of(&target, held),
            None => self.due(&target).filter(|_| life.is_some()),
        });
        let due = if self.options.once.is_some() { None } else { due };
        self.arm_at(name, due);
        self.report(name, line);
    }

    /// Tells who waits, and begins the rotation that was asked for meanwhile.
    pub(super) fn report(&mut self, name: &Arc<str>, line: Line) {
        let standing = self.standing(name);
        let told = Told { line, standing };
        if self.options.once.is_some() {
            self.outcomes.push(told.clone());
        }
        let Some(course) = self.courses.get_mut(name) else { return };
        if let Some(actor) = course.wanted.take() {
            self.rotate(name, Reason::Manual, actor);
            return;
        }
        for waiter in course.waiters.drain(..) {
            // A caller that went away cancels nothing.
            let _ = waiter.send(told.clone());
        }
    }

    pub(super) fn standing(&self, name: &Arc<str>) -> step::Standing {
        let Some(course) = self.courses.get(name) else { return step::Standing::New };
        let state = self.state.targets.get(&**name);
        step::standing(&course.target, state, course.rotating, course.failures, Timestamp::now(), &self.scene.host)
    }

    /// A cron time has come: its targets are judged anew.
    pub(super) fn tick(&mut self, rule: &CronRule) {
        let theirs = |course: &&Course| course.target.rotate.cron.contains(rule);
        let names: Vec<Arc<str>> = self.courses.values().filter(theirs).map(|c| Arc::from(c.target.name.as_str())).collect();
        for name in names {
            if self.courses.get(&name).is_some_and(|c| !c.rotating && c.failures == 0) {
                self.arm(&name);
            }
        }
    }
}
