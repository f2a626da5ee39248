//! What is amiss, told by the alerts of the schedule.

use std::sync::Arc;

use jiff::Timestamp;

use super::{LOOK_EVERY, News, host, put};
use crate::after::message::hand;
use crate::daemon::alerts::conditions::{self, Doing};
use crate::daemon::alerts::message::message;
use crate::daemon::alerts::{Condition, Matter, Run};
use crate::daemon::step::{self, Standing};
use crate::daemon::wheel::Wheel;
use crate::schedule::alerts::AlertSpec;
use crate::schedule::{Plan, Target};

/// Lines that were lost are told even where records could be written again at once: for so long, ms, they are amiss.
const LOST_FOR: i64 = 60_000;
/// The memo of what was told, in the records folder.
pub(super) const MEMO: &str = "alerted.json";

impl Wheel {
    pub(super) fn tell_amiss(&mut self, plan: &Plan, now: i64) -> Option<i64> {
        let alerts = &plan.unasked.alerts;
        if alerts.is_empty() && plan.unasked.monitor.is_empty() {
            return None;
        }
        let seq = self.writer.health().seq;
        if self.outward.looks.next(seq, LOOK_EVERY, now) <= now {
            let amiss = self.amiss(plan);
            let rotating = |name: &str| self.table.courses.get(name).is_some_and(|course| course.rotating);
            let troubles = &self.outward.troubles;
            let is_open = |matter: &Matter| conditions::is_open(matter, rotating) || troubles.is_open(matter);
            self.outward.alerts.look(amiss, is_open, now);
            self.outward.looks.took(seq, now);
        }
        let (runs, next) = self.outward.alerts.begin(alerts, now);
        for run in runs {
            let Some(alert) = alerts.iter().find(|alert| alert.key() == run.alert) else { continue };
            self.tell(alert, run);
        }
        next.into_iter().chain([self.outward.looks.next(seq, LOOK_EVERY, now)]).min()
    }

    fn tell(&mut self, alert: &AlertSpec, run: Run) {
        let (to, message) = (alert.to.clone(), message(&run, &host(), Timestamp::now()));
        self.go(async move {
            let outcome = hand(&to, &message).await;
            News::Told(run, outcome.err().map(|failure| failure.0))
        });
    }

    /// All that is amiss now.
    fn amiss(&mut self, plan: &Plan) -> Vec<Condition> {
        let (now, mut amiss) = (Timestamp::now(), Vec::new());
        for target in plan.targets.iter().filter(|target| !self.table.is_elsewhere(&target.name)) {
            conditions::of_target(target, &self.table.state, self.doing(target), plan, now, &mut amiss);
        }
        let health = self.writer.health();
        if health.lost > self.outward.lost.0 {
            self.outward.lost = (health.lost, now.as_millisecond());
        }
        let lately = (0..LOST_FOR).contains(&(now.as_millisecond() - self.outward.lost.1));
        amiss.extend(conditions::of_records(&health, lately, now));
        amiss.extend(self.refused.as_ref().map(conditions::of_schedule));
        amiss.extend(self.monitored(now).iter().filter_map(conditions::of_monitored));
        let fleet = self.scene.fleet.as_ref().filter(|fleet| fleet.is_kept()).map(|fleet| fleet.view());
        amiss.extend(self.outward.troubles.amiss(fleet.as_ref(), now));
        amiss
    }

    fn doing(&self, target: &Target) -> Doing {
        let course = self.table.courses.get(&*target.name);
        course.map_or_else(Doing::default, |course| Doing { rotating: course.rotating, failures: course.failures })
    }

    /// Whether something is left to live for: a switch that nobody hears from is what wakes people when all is lost.
    pub(super) fn is_well(&self, plan: &Plan) -> bool {
        let now = Timestamp::now();
        let ours = |target: &&Arc<Target>| {
            !target.suspend && !self.table.state.is_withdrawn(&target.name) && !self.table.is_elsewhere(&target.name)
        };
        let mut served = plan.targets.iter().filter(ours).peekable();
        let lost = |target: &Arc<Target>| {
            let doing = self.doing(target);
            let danger = step::danger(target, self.table.state.target(&target.name), doing.rotating, doing.failures, now);
            matches!(danger, Some(Standing::Expired | Standing::Rejected))
        };
        served.peek().is_none() || !served.all(lost)
    }

    pub(super) fn told_of(&mut self, run: &Run, error: Option<String>, now: i64) {
        let alert = crate::record::word(run.on);
        match &error {
            Some(error) => tracing::warn!(alert, count = run.about.len(), "an alert told nobody: {error}"),
            None => tracing::info!(alert, count = run.about.len(), recovered = run.recovered, "an alert was told"),
        }
        let failed = error.is_some();
        self.outward.alerts.ended(run, error, now);
        self.outward.alerts.keep_only(&self.scene.plan.unasked.alerts);
        if failed {
            return;
        }
        let (path, kept) = (self.options.records.join(MEMO), serde_json::to_vec(&self.outward.alerts.to_keep()));
        self.go(async move {
            News::Kept(match kept {
                Ok(kept) => put(path, kept, 0o600).await.err(),
                Err(error) => Some(error.to_string()),
            })
        });
    }
}
