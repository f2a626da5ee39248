//! Rows of a status: places, hooks, what is left of targets that are gone.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::fold::TargetState;

/// One place.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// The sink's key in the schedule.
    pub sink: String,
    /// The place.
    pub place: String,
    /// The file that holds the token, where one on this host does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// What became of it last; absent before its first delivery.
    pub outcome: Option<crate::record::Outcome>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The fallback that holds the token meanwhile.
    pub fallback: Option<String>,
    /// Why it is not written.
    pub error: Option<String>,
    /// The places that stand in for it, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<FallbackStatus>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookStatus {
    /// The hook's key in the schedule.
    pub hook: String,
    /// Who is told.
    pub to: String,
    /// Whether it was told of the newest token; absent where it had nothing to be told of yet.
    pub outcome: Option<crate::record::Heard>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The generation that it is, or was, to be told of.
    pub generation: Option<u64>,
    /// When it was last told with success.
    pub told_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// A place that stands in for another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackStatus {
    /// The sink's key in the schedule.
    pub sink: String,
    /// The place.
    pub place: String,
    /// The file that holds the token, where one on this host does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A target that is gone and left something.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeavingStatus {
    /// Its name.
    pub name: String,
    /// Since when.
    pub since: Timestamp,
    /// The places that are still to be cleared.
    pub places: Vec<SinkStatus>,
}

pub(super) fn sink(place: &crate::sink::Place, state: Option<&TargetState>) -> SinkStatus {
    let (sink, at) = (place.sink.kind(), place.sink.place());
    let recorded = state.and_then(|s| s.place(sink, &at));
    SinkStatus {
        sink: sink.into(),
        place: at,
        file: place.file(),
        outcome: recorded.map(|p| p.outcome),
        since: recorded.map(|p| p.since),
        fallback: recorded.and_then(|p| p.detour.fallback.clone()),
        error: recorded.and_then(|p| p.detour.error.clone()),
        fallbacks: place
            .fallback
            .iter()
            .map(|f| FallbackStatus { sink: f.sink.kind().into(), place: f.sink.place(), file: f.file() })
            .collect(),
    }
}

fn left(place: &crate::record::LeaveLine) -> SinkStatus {
    SinkStatus {
        sink: place.sink.clone(),
        place: place.place.clone(),
        file: None,
        outcome: None,
        since: None,
        fallback: None,
        error: place.error.clone(),
        fallbacks: Vec::new(),
    }
}

pub(super) fn heard(hook: &crate::after::HookSpec, state: Option<&TargetState>) -> HookStatus {
    let (kind, to) = (hook.kind(), hook.to());
    let recorded = state.and_then(|s| s.hook(kind, &to));
    HookStatus {
        outcome: recorded.map(|h| h.outcome),
        since: recorded.map(|h| h.since),
        generation: recorded.map(|h| h.generation),
        told_at: recorded.and_then(|h| h.told_at),
        error: recorded.and_then(|h| h.error.clone()),
        hook: kind.into(),
        to,
    }
}

/// Targets that are gone, as far as something of theirs is still to be taken back.
pub(super) fn leaving(state: &crate::record::State) -> Vec<LeavingStatus> {
    let leavers = state.leavers.iter().filter(|(_, leaver)| !leaver.places.is_empty());
    let row = |(name, leaver): (&String, &crate::record::Leaver)| LeavingStatus {
        name: name.clone(),
        since: leaver.since,
        places: leaver.places.iter().map(left).collect(),
    };
    leavers.map(row).collect()
}
