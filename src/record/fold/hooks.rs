//! What became of a target's hooks: which still have to be told of its newest token.

use jiff::Timestamp;

use super::TargetState;
use crate::record::hook::{Heard, HookLine};
use crate::record::line::Line;

/// What the records say of one hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookState {
    /// The hook's key in the schedule.
    pub hook: String,
    /// Who is told.
    pub to: String,
    /// The generation that it is, or was, to be told of.
    pub generation: u64,
    /// Counts up each time that this generation arrives at one more place.
    pub round: u64,
    /// Whether it was told of these.
    pub outcome: Heard,
    /// Since when.
    pub since: Timestamp,
    /// When it was last told with success.
    pub told_at: Option<Timestamp>,
    /// Why the last attempt failed, until one succeeds.
    pub error: Option<String>,
}

impl HookState {
    fn is_that_of(&self, line: &HookLine) -> bool {
        self.hook == line.hook && self.to == line.to
    }

    pub(super) fn to_line(&self) -> HookLine {
        HookLine {
            outcome: self.outcome,
            round: self.round,
            error: self.error.clone(),
            generation: Some(self.generation),
            since: Some(self.since),
            told_at: self.told_at,
            ..HookLine::pending(&self.hook, self.to.clone())
        }
    }

    pub(super) fn from_line(line: &HookLine, time: Timestamp) -> Self {
        Self {
            hook: line.hook.clone(),
            to: line.to.clone(),
            generation: line.generation.unwrap_or(0),
            round: line.round,
            outcome: line.outcome,
            since: line.since.unwrap_or(time),
            told_at: line.told_at,
            error: line.error.clone(),
        }
    }
}

impl TargetState {
    /// What the records say of a hook.
    pub fn hook(&self, hook: &str, to: &str) -> Option<&HookState> {
        self.hooks.iter().find(|state| state.hook == hook && state.to == to)
    }

    /// Whether some hook has still to be told of a token.
    pub fn is_untold(&self) -> bool {
        self.hooks.iter().any(|hook| hook.outcome != Heard::Done)
    }

    /// A token arrived: these hooks have to be told of it. `whole` lines list all that the target has.
    pub(super) fn hooks_due<S: AsRef<str>>(&mut self, line: &Line<S>, whole: bool) {
        let mut hooks = self.hooks.edit();
        if whole {
            hooks.retain(|hook| line.hooks.iter().any(|due| hook.is_that_of(due)));
        }
        let generation = line.generation.unwrap_or(self.generation);
        for due in &line.hooks {
            match hooks.iter_mut().find(|hook| hook.is_that_of(due)) {
                None => hooks.push(HookState { generation, ..HookState::from_line(due, line.time) }),
                Some(hook) => {
                    hook.round = if hook.generation == generation { hook.round + 1 } else { 0 };
                    hook.generation = generation;
                    hook.outcome = Heard::Pending;
                    hook.since = line.time;
                }
            }
        }
    }

    /// Hooks were told. What is said of a token that is not the newest any more changes nothing.
    pub(super) fn told<S: AsRef<str>>(&mut self, line: &Line<S>) {
        let mut hooks = self.hooks.edit();
        for told in &line.hooks {
            let newest =
                |hook: &&mut HookState| hook.is_that_of(told) && Some(hook.generation) == line.generation && hook.round == told.round;
            let Some(hook) = hooks.iter_mut().find(newest) else { continue };
            if hook.outcome != told.outcome {
                hook.since = line.time;
            }
            hook.outcome = told.outcome;
            hook.error.clone_from(&told.error);
            if told.outcome == Heard::Done {
                hook.told_at = Some(line.time);
            }
        }
    }
}
