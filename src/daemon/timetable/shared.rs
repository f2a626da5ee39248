//! Targets that a fleet shares: ours come, and go to another member. What another one serves has no course here.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Looking, Moment, Order, Timetable};
use crate::daemon::course::{Course, Timer};
use crate::daemon::start::Finding;
use crate::record::{Kind, Line, Reason};
use crate::schedule::Target;

/// A place that does not show what it holds is asked again after that, ms.
const UNSEEN: i64 = 5_000;
/// So often; then a token is minted without: one too many does no harm, a missing one does.
const PATIENCE: u32 = 12;

/// What the timetable knows of a fleet.
#[derive(Default)]
pub(super) struct Shared {
    /// Whether there is one.
    fleet: bool,
    /// Targets of the plan that another member serves, or nobody yet.
    elsewhere: HashSet<Arc<str>>,
    /// Targets that went to another member while they were being rotated.
    leaving: HashSet<Arc<str>>,
}

impl Timetable {
    /// This daemon is one of a fleet: what it shares is nobody's before it is known whose.
    pub fn share(&mut self) {
        self.shared.fleet = true;
        let shared: Vec<Arc<str>> = self.courses.iter().filter(|(_, c)| c.target.is_shared()).map(|(name, _)| Arc::clone(name)).collect();
        for name in shared {
            self.courses.remove(&name);
            self.shared.elsewhere.insert(name);
        }
    }

    /// Whether another member, or nobody yet, serves the target.
    pub fn is_elsewhere(&self, name: &str) -> bool {
        self.shared.elsewhere.contains(name)
    }

    /// Whether a target that another plan brings waits until it is known whose it is.
    pub(super) fn waits_for_owner(&mut self, target: &Target) -> bool {
        if !self.shared.fleet {
            return false;
        }
        let waits = target.is_shared() && !self.courses.contains_key(&*target.name);
        if waits {
            self.shared.elsewhere.insert(Arc::clone(&target.name));
        } else {
            self.shared.elsewhere.remove(&*target.name);
        }
        waits
    }

    /// A target that another member served went out of the schedule.
    pub(super) fn forget_elsewhere(&mut self, name: &Arc<str>, moment: &Moment<'_>) {
        if self.shared.elsewhere.remove(name) && self.state.target(name).is_some() {
            let mut line = Line::new(Kind::Retired, moment.now);
            line.target = Some(name.to_string());
            self.record(line);
        }
    }

    /// These are ours from now on. What stands at their places tells how old their tokens are.
    pub fn take(&mut self, targets: Vec<Arc<Target>>) {
        let mut wanted = Vec::with_capacity(targets.len());
        for target in targets {
            let name: Arc<str> = Arc::clone(&target.name);
            self.shared.elsewhere.remove(&name);
            let mut course = Course::new(Arc::clone(&target));
            course.recall(self.state.target(&name));
            // It went and came back while a rotation was under way: that one is its first.
            course.rotating = self.shared.leaving.remove(&name);
            self.courses.insert(name, course);
            wanted.push(target);
        }
        self.look(wanted, Looking::Takeover);
    }

    /// These are another member's from now on. A rotation that is under way may end.
    pub fn hand_over(&mut self, names: &[Arc<str>]) {
        for name in names {
            let Some(mut course) = self.courses.remove(name) else { continue };
            course.rest(name, &mut self.timers);
            if std::mem::take(&mut course.paying) {
                self.orders.push(Order::StopPaying(Arc::clone(name)));
            }
            if course.rotating {
                self.shared.leaving.insert(Arc::clone(name));
            }
            self.shared.elsewhere.insert(Arc::clone(name));
        }
    }

    /// The rotation of a target that went to another member meanwhile is over. Whether it was one.
    pub(super) fn has_left(&mut self, name: &str) -> bool {
        self.shared.leaving.remove(name);
        self.shared.elsewhere.contains(name)
    }

    /// Takes what a look at a place has shown that does not say whether it holds a token: it is asked again for a
    /// while. Whether it waits for that.
    pub(super) fn waits_to_see(&mut self, name: &Arc<str>, unseen: bool, moment: &Moment<'_>) -> bool {
        let Some(course) = self.courses.get_mut(name) else { return false };
        if !unseen || course.flaws.unseen >= PATIENCE {
            course.flaws.edit().unseen = 0;
            return false;
        }
        course.flaws.edit().unseen += 1;
        course.arm_take(name, &mut self.timers, Some(moment.ms() + UNSEEN));
        true
    }

    /// Places that did not show what they hold are looked at again.
    pub(super) fn look_again(&mut self, name: &Arc<str>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        course.flaws.edit().take_at = None;
        let target = Arc::clone(&course.target);
        self.look(vec![target], Looking::Takeover);
    }

    /// The time of a rotation has come. Of what a fleet shares another member may have minted meanwhile: the place says.
    pub(super) fn begin_rotation(&mut self, name: &Arc<str>, reason: Reason) {
        let asks = matches!(reason, Reason::Lifetime | Reason::Cron | Reason::Missed | Reason::New);
        match self.courses.get(name) {
            Some(course) if asks && self.shared.fleet && !course.rotating && course.target.is_shared() => {
                let target = Arc::clone(&course.target);
                self.look(vec![target], Looking::Mint(reason));
            }
            _ => self.rotate(name, reason, None),
        }
    }

    /// Takes what the places show before a mint: a newer token makes it needless.
    pub fn before_mint(&mut self, finding: Finding, reason: Reason, moment: &Moment<'_>) {
        let name = self.name_of(&finding.target);
        if self.courses.get(&name).is_none_or(|course| course.rotating) {
            return;
        }
        let Some(line) = finding.adopted.filter(|_| !self.is_stale(&name)) else { return self.rotate(&name, reason, None) };
        self.record(*line);
        if let Some((held, places)) = finding.copy {
            if let Some(course) = self.courses.get_mut(&name) {
                course.debt.edit().held = Some(held);
            }
            self.pay(&name, Some(places));
        }
        self.arm(&name, moment);
        self.arm_revoke(&name, moment);
    }
}

impl Course {
    /// Sets the time at which places that did not show what they hold are looked at again.
    pub fn arm_take(&mut self, name: &Arc<str>, timers: &mut crate::daemon::course::Timers, at: Option<i64>) {
        if let Some(at) = self.flaws.take_at {
            timers.remove(&(at, Arc::clone(name), Timer::Take));
        }
        self.flaws.edit().take_at = at;
        if let Some(at) = at {
            timers.insert((at, Arc::clone(name), Timer::Take));
        }
    }
}
