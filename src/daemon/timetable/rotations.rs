//! Rotations: begun, finished, told.

use std::sync::Arc;

use super::{Moment, Order, SETTLED, Timetable, Turn};
use crate::daemon::binding;
use crate::daemon::course::{Course, Told, Waiter};
use crate::daemon::rotation::{Fault, Finished, identify};
use crate::daemon::start::Depth;
use crate::daemon::step;
use crate::record::{Actor, Kind, Line, Reason};
use crate::schedule::{Target, Terms, own};

impl Timetable {
    /// A person asks for rotations now; the answer names what was taken on, each outcome is told.
    pub fn ask(&mut self, meant: &dyn Fn(&Target) -> bool, actor: &Actor, waiter: &Waiter) -> Vec<String> {
        let meant = |course: &Course| {
            let withdrawn = self.state.is_withdrawn(&course.target.name);
            // As with a suspended one, only who names it means it.
            if withdrawn { meant(&suspended(&course.target)) } else { meant(&course.target) }
        };
        let mut names: Vec<Arc<str>> = self.courses.iter().filter(|(_, c)| meant(c)).map(|(n, _)| Arc::clone(n)).collect();
        names.sort_unstable();
        for name in &names {
            let Some(course) = self.courses.get_mut(name) else { continue };
            course.asked.edit().waiters.push(waiter.clone());
            if course.rotating {
                course.asked.edit().wanted = Some(Some(actor.clone()));
            } else {
                self.rotate(name, Reason::Manual, Some(actor.clone()));
            }
        }
        names.iter().map(ToString::to_string).collect()
    }

    pub(super) fn rotate(&mut self, name: &Arc<str>, reason: Reason, actor: Option<Actor>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        if course.rotating {
            return;
        }
        // What is published now would be taken away again.
        if self.leaves.is_working(name) {
            course.asked.edit().wanted = Some(actor);
            return;
        }
        course.rotating = true;
        course.arm(name, &mut self.timers, None);
        course.arm_pay(name, &mut self.timers, None);
        // The new token is brought to every place anyway.
        if std::mem::take(&mut course.paying) {
            self.orders.push(Order::StopPaying(Arc::clone(name)));
        }
        let state = self.state.target(name);
        self.orders.push(Order::Rotate(Box::new(Turn {
            name: Arc::clone(name),
            target: Arc::clone(&course.target),
            reason,
            actor,
            generation: self.state.generation(name) + 1,
            in_use: state.and_then(step::life).map(|l| (l.issued_at, l.expires_at)),
            failures: course.failures,
            ring: binding::known(&course.target, state, course.revoking),
            marker: None,
        })));
    }

    /// A rotation ended before its turn came, for the daemon stops.
    pub fn gave_up(&mut self, name: &str) {
        self.has_left(name);
        if let Some(course) = self.courses.get_mut(name) {
            course.rotating = false;
        }
    }

    /// Takes what came of a rotation.
    pub fn rotated(&mut self, name: &Arc<str>, finished: Finished, moment: &Moment<'_>) {
        let Finished { line, held, fault, unauthorized, .. } = finished;
        let failed = line.kind == Kind::Failed;
        self.state.apply(&line);
        let now = moment.ms();
        let Some(course) = self.courses.get_mut(name) else {
            // It went out of the schedule meanwhile, or to another member.
            if !self.has_left(name) && !self.part_now(name, moment) {
                self.state.targets.remove(&**name);
            }
            return;
        };
        course.rotating = false;
        let disturbed = course.moves.end(&line, now);
        if !failed {
            course.flaws.edit().notes.clear();
            // Each place was read back when it was written.
            course.proven_at = Some(moment.now);
        }
        let minted = line.issued_at.is_some();
        let mut debt = course.debt.edit();
        if minted || held.is_some() {
            debt.held = held;
        }
        debt.tries = 0;
        drop(debt);
        course.failures = if failed { course.failures + 1 } else { 0 };
        let failures = course.failures;
        if course.debt.held.is_some() {
            let at = step::retry(now, 1, fault.unwrap_or(Fault { passing: true, retry_after: None }), None, moment.world.share());
            course.arm_pay(name, &mut self.timers, (!self.manner.once).then_some(at));
        }
        let state = self.state.target(name);
        let life = state.and_then(step::life);
        let again = match fault {
            // A token that some place waits for is delivered again, not minted again. Where minting itself failed, that
            // token's own time has come: the next try waits like any other.
            Some(_) if minted && course.debt.held.is_some() => None,
            Some(fault) => Some((step::retry(now, failures, fault, life, moment.world.share()), line.reason.unwrap_or(Reason::Lifetime))),
            None => None,
        };
        let target = Arc::clone(&course.target);
        let held = course.debt.held.clone();
        let due = again.or_else(|| match &held {
            // Its own life counts, not that of the older token which some place still has.
            Some(held) => self.due_of(&target, held, moment),
            None => self.due(&target, moment).filter(|_| life.is_some()),
        });
        let due = if self.manner.once { None } else { due };
        self.arm_at(name, due);
        if disturbed {
            self.arm_look(name, Depth::Files, SETTLED, moment);
        }
        self.arm_clear(name, moment);
        self.arm_revoke(name, moment);
        self.succeed(name, moment);
        self.tell_successor(name, &line);
        self.told_time(&target.cluster, moment);
        self.part_now(name, moment);
        if unauthorized {
            self.died(&target, moment);
        }
        if !failed {
            self.freed(&target, moment);
        }
        self.report(name, line, moment);
    }

    /// The daemon's own credential for a cluster does not renew itself any more: what is delivered is refused.
    fn died(&mut self, own: &Target, moment: &Moment<'_>) {
        let state = self.state.target(&own.name);
        if own::cluster_of(&own.name).is_none() || state.is_some_and(|s| s.rejected_at.is_some()) {
            return;
        }
        let mut line = Line::new(Kind::Rejected, moment.now);
        identify(&mut line, own);
        line.jti = state.and_then(|s| s.jti.as_ref()).map(ToString::to_string);
        line.error = Some("the daemon's own credential is missing, has ended, or is refused".into());
        self.record(line);
    }

    /// The daemon's own credential for a cluster is good again: what failed without it is tried at once.
    pub(super) fn freed(&mut self, own: &Target, moment: &Moment<'_>) {
        let Some(cluster) = own::cluster_of(&own.name) else { return };
        let waits = |course: &Course| *course.target.cluster == *cluster && course.failures > 0 && !course.rotating;
        let mut waiting: Vec<(Arc<str>, Reason)> =
            self.courses.iter().filter(|(_, c)| waits(c)).filter_map(|(name, c)| Some((Arc::clone(name), c.armed?.1))).collect();
        waiting.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (name, reason) in waiting {
            self.arm_at(&name, Some((moment.ms(), reason)));
        }
    }

    /// Tells who waits, and begins the rotation that was asked for meanwhile.
    fn report(&mut self, name: &Arc<str>, line: Line, moment: &Moment<'_>) {
        let told = Told { line, standing: self.standing(name, moment.now) };
        let Some(course) = self.courses.get_mut(name) else { return };
        let mut asked = course.asked.edit();
        let wanted = asked.wanted.take();
        let waiters = if wanted.is_some() { Vec::new() } else { std::mem::take(&mut asked.waiters) };
        drop(asked);
        if self.manner.once || !waiters.is_empty() {
            self.orders.push(Order::Tell(waiters, Box::new(told)));
        }
        if let Some(actor) = wanted {
            self.rotate(name, Reason::Manual, actor);
        }
    }
}

/// As if it were suspended.
fn suspended(target: &Target) -> Target {
    let terms = Terms { suspend: true, ..(*target.terms).clone() };
    Target { terms: Arc::new(terms), ..target.clone() }
}
