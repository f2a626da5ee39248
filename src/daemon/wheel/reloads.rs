//! What others ask of the loop, reloads above all: a schedule is taken whole or not at all.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::prepare::{Prepared, keep, prepare};
use super::{Done, Wheel};
use crate::daemon::aside::aside;
use crate::daemon::ask::{Ask, Explicit, Verdict};
use crate::daemon::files;
use crate::daemon::scene::Scene;
use crate::daemon::status::{Refused, View};
use crate::daemon::systemd;
use crate::record::{Actor, Kind, Line};
use crate::schedule::change::{self, Change};
use crate::schedule::{Problem, Sources};
use crate::token::wipe;

impl Wheel {
    pub(super) async fn answer(&mut self, ask: Ask) {
        match ask {
            // A caller that went away needs no answer.
            Ask::Status(selector, reply) => drop(reply.send(self.status(&selector))),
            Ask::Metrics(reply) => match self.counters.text(&self.status(&|_| true), &self.scene) {
                Ok(text) => drop(reply.send(text)),
                Err(error) => tracing::error!(%error, "metrics cannot be put together"),
            },
            Ask::Rotate(selector, actor, waiter, reply) => {
                // A caller that went away cancels nothing.
                let _ = reply.send(self.event(|table, _| table.ask(&selector, &actor, &waiter)).await);
            }
            Ask::Withdraw(selector, actor, waiter, reply) => {
                let _ = reply.send(self.event(|table, moment| table.withdraw(&selector, &actor, &waiter, moment)).await);
            }
            // A caller that went away cancels nothing.
            Ask::Rehearse(selector, actor, waiter, reply) => drop(reply.send(self.rehearse(&selector, &actor, &waiter))),
            Ask::Elsewhere(selector, reply) => drop(reply.send(self.elsewhere(&selector))),
            Ask::Revoke(demand, actor, reply) => self.revoke_asked(demand, actor, reply),
            Ask::Reload(actor, reply) => self.reload(actor, Some(reply)),
            Ask::Places(name, reply) => drop(reply.send(self.scene.plan.target(&name).map(|target| files::of(target)))),
            Ask::Report(mut line, reply) => {
                if let Some(target) = line.target.as_ref().and_then(|name| self.scene.plan.target(name)) {
                    line.labels.clone_from(&target.labels);
                }
                let actor = line.actor.as_ref().map(Actor::who).unwrap_or_default();
                tracing::info!(kind = ?line.kind, account = line.service_account, jti = line.jti, actor, "a person took a token");
                self.record(*line).await;
                // A caller that went away needs no answer.
                let _ = reply.send(());
            }
            Ask::Turn(reply) => drop(reply.send(())),
            Ask::Stop => {}
        }
    }

    pub(super) fn view(&self) -> View<'_> {
        View {
            scene: &self.scene,
            state: &self.table.state,
            courses: Some(&self.table.courses),
            health: Some(self.writer.health()),
            since: Some(self.since),
            refused: self.refused.as_ref(),
        }
    }

    /// Leaves beside the records what others read while this plan is in force, as a reload does; nobody is told that all is
    /// ready before. No reload begins meanwhile: what it leaves there has to come after this.
    pub fn leave_beside(&mut self, sources: Sources) {
        let (plan, records) = (Arc::clone(&self.scene.plan), self.options.records.clone());
        self.reloading = true;
        self.unsettled += 1;
        self.tasks.spawn(async move {
            // The runtime is shutting down where it does not end.
            let _ = tokio::task::spawn_blocking(move || keep(&records, &sources, &plan)).await;
            Done::Kept
        });
    }

    /// What is left beside the records stands there: the next reload may begin.
    pub(super) fn kept(&mut self) {
        self.reloading = false;
        self.next_reload();
    }

    /// One after the other: each is held against the plan that the one before it left in force.
    pub(super) fn reload(&mut self, asked: Option<Explicit>, reply: Option<oneshot::Sender<Verdict>>) {
        self.reloads.push_back((asked, reply));
        self.next_reload();
    }

    fn next_reload(&mut self) {
        if self.reloading {
            return;
        }
        let Some((asked, reply)) = self.reloads.pop_front() else { return };
        self.reloading = true;
        let (path, records, walls) = (self.options.schedule.clone(), self.options.records.clone(), Arc::clone(&self.options.walls));
        let before = Arc::clone(&self.scene.plan);
        systemd::reloading();
        self.tasks.spawn(async move {
            let explicit = asked.clone();
            let prepared = aside(move || prepare(&path, &records, &walls, &before, explicit.as_ref())).await;
            Done::Planned(Box::new(prepared.unwrap_or_else(|| Err(Vec::new()))), asked, reply)
        });
    }

    pub(super) async fn planned(
        &mut self,
        result: Result<Prepared, Vec<Problem>>,
        asked: Option<Explicit>,
        reply: Option<oneshot::Sender<Verdict>>,
    ) {
        let actor = asked.map(|asked| asked.actor);
        let verdict = match result {
            Err(problems) => self.refuse(problems, actor).await,
            Ok(prepared) => self.swap(prepared, actor).await,
        };
        systemd::ready(&self.summary());
        if let Some(reply) = reply {
            // A caller that went away cancels nothing.
            let _ = reply.send(verdict);
        }
        self.kept();
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

    async fn swap(&mut self, prepared: Prepared, actor: Option<Actor>) -> Verdict {
        let Prepared { plan, change, watched, rules } = prepared;
        let mut line = Line::new(Kind::Reloaded, Timestamp::now());
        line.actor = actor;
        line.schedule = Some(plan.sha256.clone());
        line.added.clone_from(&change.added);
        line.removed.clone_from(&change.removed);
        line.changed.clone_from(&change.changed);
        self.record(line).await;
        self.refused = None;
        let scene = Arc::new(Scene::new(Arc::clone(&plan), &self.options.records, Some(&self.scene)));
        let before = std::mem::replace(&mut self.scene, scene);
        self.event(|table, moment| table.swap(&plan, &change, moment)).await;
        self.announce().await;
        self.start_ticker(rules).await;
        let unwatched = std::mem::replace(&mut self.watched, watched);
        self.turn_outward();
        // A hundred thousand targets are not dropped in a moment.
        drop(tokio::spawn(aside(move || {
            drop((before, unwatched));
            wipe::give_back();
        })));
        for setting in change.settings.iter().filter(|setting| change::AT_START.contains(setting)) {
            tracing::warn!(setting, "this setting is another one now; it is taken up at the next start");
        }
        let problems = plan.warnings.clone();
        tracing::info!(
            added = change.added.len(),
            removed = change.removed.len(),
            changed = change.changed.len(),
            "the schedule is in force"
        );
        Verdict { accepted: true, problems, change }
    }
}
