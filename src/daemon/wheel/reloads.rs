//! What others ask of the loop, reloads above all: a schedule is taken whole or not at all.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Done, Looking, Wheel};
use crate::daemon::ask::{Ask, Verdict};
use crate::daemon::course::Course;
use crate::daemon::files;
use crate::daemon::read::{self, Accepted};
use crate::daemon::rotation::identify;
use crate::daemon::scene::Scene;
use crate::daemon::status::{Refused, View};
use crate::daemon::systemd;
use crate::record::{Actor, Kind, Line, Reason};
use crate::schedule::Problem;
use crate::schedule::change::Change;

impl Wheel {
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask {
            // A caller that went away needs no answer.
            Ask::Status(selector, reply) => drop(reply.send(self.view().status(&selector))),
            Ask::Metrics(reply) => match self.counters.text(&self.view().status(&|_| true)) {
                Ok(text) => drop(reply.send(text)),
                Err(error) => tracing::error!(%error, "metrics cannot be put together"),
            },
            Ask::Rotate(selector, actor, waiter, reply) => {
                let names: Vec<Arc<str>> = self.courses.iter().filter(|(_, c)| selector(&c.target)).map(|(n, _)| Arc::clone(n)).collect();
                let _ = reply.send(names.iter().map(ToString::to_string).collect());
                for name in names {
                    let Some(course) = self.courses.get_mut(&name) else { continue };
                    course.waiters.push(waiter.clone());
                    if course.rotating {
                        course.wanted = Some(Some(actor.clone()));
                    } else {
                        self.rotate(&name, Reason::Manual, Some(actor.clone()));
                    }
                }
            }
            Ask::Reload(actor, reply) => self.reload(actor, Some(reply)),
            Ask::Stop => {}
        }
    }

    fn view(&self) -> View<'_> {
        View {
            scene: &self.scene,
            state: &self.state,
            courses: Some(&self.courses),
            health: Some(self.writer.health()),
            since: Some(self.since),
            refused: self.refused.as_ref(),
        }
    }

    pub(super) fn reload(&mut self, actor: Option<Actor>, reply: Option<oneshot::Sender<Verdict>>) {
        let path = self.options.schedule.clone();
        systemd::reloading();
        self.tasks.spawn(async move {
            let planned = tokio::task::spawn_blocking(move || read::read(&path)).await;
            Done::Planned(Box::new(planned.unwrap_or_else(|_| Err(Vec::new()))), actor, reply)
        });
    }

    pub(super) async fn planned(
        &mut self,
        result: Result<Accepted, Vec<Problem>>,
        actor: Option<Actor>,
        reply: Option<oneshot::Sender<Verdict>>,
    ) {
        let verdict = match result {
            Err(problems) => self.refuse(problems, actor).await,
            Ok(accepted) => self.swap(accepted, actor).await,
        };
        systemd::ready(&self.summary());
        if let Some(reply) = reply {
            // A caller that went away cancels nothing.
            let _ = reply.send(verdict);
        }
    }

    pub(super) async fn refuse(&mut self, problems: Vec<Problem>, actor: Option<Actor>) -> Verdict {
        for problem in &problems {
            tracing::error!("{problem}");
        }
        tracing::error!("the schedule is refused; the one in force goes on");
        let mut line = Line::new(Kind::ReloadRefused, Timestamp::now());
        line.actor = actor;
        line.error = Some(problems.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("; "));
        self.record(line).await;
        self.refused = Some(Refused { since: Timestamp::now(), problems: problems.clone() });
        Verdict { accepted: false, problems, change: Change::default() }
    }

    pub(super) async fn swap(&mut self, accepted: Accepted, actor: Option<Actor>) -> Verdict {
        let plan = Arc::new(accepted.plan);
        let change = Change::between(&self.scene.plan, &plan);
        let mut line = Line::new(Kind::Reloaded, Timestamp::now());
        line.actor = actor;
        line.schedule = Some(plan.sha256.clone());
        line.added.clone_from(&change.added);
        line.removed.clone_from(&change.removed);
        line.changed.clone_from(&change.changed);
        self.record(line).await;
        self.refused = None;
        if let Err(error) = read::keep(&self.options.records, &accepted.sources) {
            tracing::warn!(%error, "the accepted schedule cannot be kept beside the records");
        }
        files::keep(&self.options.records, &plan);
        self.scene = Arc::new(Scene::new(Arc::clone(&plan), &self.options.records, Some(&self.scene)));
        for name in &change.removed {
            self.retire(name).await;
        }
        let mut looked = Vec::new();
        for target in &plan.targets {
            let name: Arc<str> = Arc::from(target.name.as_str());
            let is_new = !self.courses.contains_key(&name);
            let course = self.courses.entry(Arc::clone(&name)).or_insert_with(|| Course::new(Arc::clone(target)));
            course.target = Arc::clone(target);
            if is_new || change.changed.contains(&target.name) {
                looked.push(Arc::clone(target));
            }
        }
        self.start_ticker().await;
        self.watch_places();
        self.look(looked, Looking::Reload);
        let problems = plan.warnings.clone();
        tracing::info!(
            added = change.added.len(),
            removed = change.removed.len(),
            changed = change.changed.len(),
            "the schedule is in force"
        );
        Verdict { accepted: true, problems, change }
    }

    /// A target that went out of the schedule: its places stay, its course ends.
    pub(super) async fn retire(&mut self, name: &str) {
        let name: Arc<str> = Arc::from(name);
        let Some(mut course) = self.courses.remove(&name) else { return };
        course.arm(&name, &mut self.timers, None);
        course.arm_pay(&name, &mut self.timers, None);
        course.arm_clear(&name, &mut self.timers, None);
        if let Some(paying) = course.paying.take() {
            paying.abort();
        }
        let mut line = Line::new(Kind::Retired, Timestamp::now());
        identify(&mut line, &course.target);
        self.record(line).await;
    }
}
