//! What a line says of hooks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::after::Heard;

/// One hook. In a line about a delivery (`rotated`, `failed`, `paid`, `adopted`) it is `pending`: the token stands at
/// some place, and the hook has to be told of it; `told` says what came of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookLine {
    /// The hook's key in the schedule.
    pub hook: String,
    /// Who is told: a command, a unit, an address, a workload.
    pub to: String,
    /// What came of it.
    pub outcome: Heard,
    /// How often the same token had arrived somewhere before (`told` and checkpoints only).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub round: u64,
    /// Attempts since the last one that did it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u64,
    /// Why it failed, masked and bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it said, masked and bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Of which generation it was last to be told (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Since when it has this outcome (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it was last told with success (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
}

impl HookLine {
    /// A hook that has to be told.
    pub fn pending(hook: &str, to: String) -> Self {
        Self {
            hook: hook.into(),
            to,
            outcome: Heard::Pending,
            round: 0,
            attempts: 0,
            error: None,
            said: None,
            generation: None,
            since: None,
            told_at: None,
        }
    }
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}
