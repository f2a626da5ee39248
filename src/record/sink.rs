//! What a line says of the places of a target.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::moment;
use crate::sink::delivery::Outcome;

/// What became of one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Default + Deserialize<'de>"))]
pub struct SinkLine<S = String> {
    /// The sink's key in the schedule.
    pub sink: S,
    /// The place as people name it.
    pub place: S,
    /// What became of it.
    pub outcome: Outcome,
    /// SHA-256 of the payload's bytes at that place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<S>,
    /// Attempts made.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// The failure's machine word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<S>,
    /// The failure in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<S>,
    /// For `fellBack`: the place that was written instead. For `cleared`: the one whose copy is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<S>,
    /// `jti` of the token that the place holds (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<S>,
    /// Since when the place has this outcome (checkpoints only).
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Since when the place has its tokens again, where a copy in a fallback waits to be removed (checkpoints only).
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub returned_at: Option<Timestamp>,
    /// Fallbacks in which a copy stands (checkpoints only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<S>,
    /// How it was tried (`rehearsed`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<S>,
}

impl SinkLine {
    /// What became of a place, and nothing else yet.
    pub fn new(sink: impl Into<String>, place: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            sink: sink.into(),
            place: place.into(),
            outcome,
            sha256: None,
            attempts: 0,
            kind: None,
            error: None,
            fallback: None,
            jti: None,
            since: None,
            returned_at: None,
            copies: Vec::new(),
            tried: None,
        }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
