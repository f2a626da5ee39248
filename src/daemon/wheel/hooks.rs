//! Hooks of the loop: whoever has to be told of a token is told, again and again until it was done or a newer token
//! stands there. Records say who waits; a hook that fails never mints.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Done, Wheel};
use crate::after::{self, Heard, HookSpec, News, Said};
use crate::daemon::clock::{now_ms, share};
use crate::daemon::course;
use crate::daemon::errands::{Errand, Want, waiting};
use crate::daemon::rotation::identify;
use crate::daemon::step::Standing;
use crate::record::{HookLine, Kind, Line};

/// Who waits is looked up at most that often, ms.
const LOOK_EVERY: i64 = 50;

/// What came of one run.
pub(super) struct Told {
    errand: Errand,
    news: Vec<News>,
    spec: HookSpec,
    /// `None` where the daemon stopped before it was done.
    outcome: Option<Result<Said, after::Failure>>,
}

impl Wheel {
    /// Begins what may begin now; gives the time, unix ms, of the next look at those who wait.
    pub(super) fn tell_hooks(&mut self) -> Option<i64> {
        let now = now_ms();
        if self.table.state.untold.is_empty() || *self.stop.borrow() {
            return None;
        }
        // `once` tells at its end, once for all that it rotated.
        let once = self.options.once.is_some();
        if self.unsettled > 0 || (once && !self.tasks.is_empty()) {
            return None;
        }
        if (0..LOOK_EVERY).contains(&(now - self.hooks_looked)) {
            return Some(self.hooks_looked + LOOK_EVERY);
        }
        self.hooks_looked = now;
        let (errands, next) = self.errands.begin(self.wants(), now, once);
        for errand in errands {
            self.tell_hook(errand);
        }
        next
    }

    fn wants(&self) -> Vec<Want> {
        let mut wants = Vec::new();
        for name in &self.table.state.untold {
            let Some(course) = self.table.courses.get(&**name).filter(|course| self.meant(&course.target)) else { continue };
            for (index, hook) in course.target.after.iter().enumerate() {
                let Some(state) = waiting(&self.table.state, &course.target, hook) else { continue };
                let key = hook.key();
                // `once` tries each hook once.
                if self.options.once.is_some() && self.errands.tries(&key, hook.is_shared(), name) > 0 {
                    continue;
                }
                wants.push(Want {
                    key,
                    target: Arc::from(name.as_str()),
                    hook: index,
                    shared: hook.is_shared(),
                    gap: i64::try_from(hook.gap().as_millis()).unwrap_or(i64::MAX / 4),
                    fresh: state.outcome == Heard::Pending,
                    told_at: state.told_at.map(Timestamp::as_millisecond),
                });
            }
        }
        wants
    }

    fn tell_hook(&mut self, errand: Errand) {
        let mut news = Vec::new();
        let mut spec: Option<HookSpec> = None;
        for (name, hook) in &errand.of {
            let Some(target) = self.table.courses.get(name).map(|course| &course.target) else { continue };
            let Some(hook) = target.after.get(*hook) else { continue };
            let Some(state) = waiting(&self.table.state, target, hook) else { continue };
            let token = self.table.state.target(name);
            news.push(News {
                target: name.to_string(),
                generation: state.generation,
                round: state.round,
                issue: token.and_then(|token| token.jti.as_ref()).map(ToString::to_string).unwrap_or_default(),
                expires_at: token.and_then(|token| token.expires_at),
                path: target.deliver.iter().find_map(crate::sink::Place::file),
            });
            spec.get_or_insert_with(|| hook.clone());
        }
        let Some(spec) = spec else {
            self.errands.ended(&errand, true, now_ms(), 0.0);
            return;
        };
        let (scene, mut stop) = (Arc::clone(&self.scene), self.stop.subscribe());
        self.tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = after::tell(&spec, &news, &scene.clusters) => Some(outcome),
                // What only waits is left at once; a command gets the time to end.
                _ = stop.wait_for(|stop| *stop), if spec.is_waiting() => None,
            };
            Done::Told(Box::new(Told { errand, news, spec, outcome }))
        });
    }

    /// Takes what came of a run, and records what is new about it.
    pub(super) async fn told(&mut self, told: Told) {
        let Told { errand, news, spec, outcome } = told;
        let Some(outcome) = outcome else {
            self.errands.ended(&errand, true, now_ms(), 0.0);
            return;
        };
        let mut lines = Vec::new();
        for news in &news {
            let attempts = self.errands.tries(&errand.key, errand.shared, &news.target) + 1;
            lines.extend(self.told_line(&spec, news, &outcome, attempts));
        }
        self.errands.ended(&errand, outcome.is_ok(), now_ms(), share());
        for line in lines {
            log(&line);
            self.record(line.clone()).await;
            if let Some(name) = line.target.as_deref() {
                self.event(|table, moment| table.arm_revoke(&Arc::from(name), moment)).await;
            }
            if self.options.once.is_some() {
                let standing = line.target.as_deref().map_or(Standing::New, |name| self.table.standing(name, Timestamp::now()));
                self.ended(course::Told { line, standing });
            }
        }
    }

    /// The record, where the outcome differs from what was recorded.
    fn told_line(&self, spec: &HookSpec, news: &News, outcome: &Result<Said, after::Failure>, attempts: u64) -> Option<Line> {
        let target = &self.table.courses.get(&*news.target)?.target;
        let state = waiting(&self.table.state, target, spec)?;
        let heard = if outcome.is_ok() { Heard::Done } else { Heard::Failed };
        let error = outcome.as_ref().err().map(|failure| failure.0.clone());
        let newest = (state.generation, state.round) == (news.generation, news.round);
        let once = self.options.once.is_some();
        if !newest || (!once && state.outcome == heard && state.error.is_some() && heard == Heard::Failed) {
            return None;
        }
        let mut line = Line::new(Kind::Told, Timestamp::now());
        identify(&mut line, target);
        line.ask = None;
        line.generation = Some(news.generation);
        line.jti = Some(news.issue.clone()).filter(|issue| !issue.is_empty());
        line.error.clone_from(&error);
        let said = outcome.as_ref().ok().cloned().flatten();
        line.hooks =
            vec![HookLine { outcome: heard, round: news.round, attempts, error, said, ..HookLine::pending(spec.kind(), spec.to()) }];
        Some(line)
    }
}

/// The event in the log.
fn log(line: &Line) {
    let target = line.target.as_deref().unwrap_or_default();
    let generation = line.generation.unwrap_or(0);
    for hook in &line.hooks {
        match &hook.error {
            Some(error) => tracing::warn!(target_name = target, generation, hook = hook.hook, "{}: {error}", hook.to),
            None => tracing::info!(target_name = target, generation, hook = hook.hook, "{}: told", hook.to),
        }
    }
}
