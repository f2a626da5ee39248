//! The schedule through an outage: which tokens would end before anything can be minted again.
//!
//! The outage begins when it hurts a target most: at the rotation of its timetable that leaves the least life.

use jiff::Timestamp;
use serde::Serialize;

use super::{granted, timetable};
use crate::record::State;
use crate::schedule::measure::{Seconds, Share};
use crate::schedule::plan::{Plan, Target};
use crate::schedule::timing;

/// A target that would lose its token.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Which.
    pub target: String,
    /// When the outage would have to begin.
    pub outage_from: Timestamp,
    /// When its token would end.
    pub expires_at: Timestamp,
    /// Seconds without a valid token.
    pub without: i64,
    /// The latest `at` that would have saved it with this duration, where there is one.
    pub saving_at: Option<String>,
    /// The shortest duration that would have saved it with this `at`.
    pub saving_duration: String,
}

/// Rotations of each target that are looked at: cron gaps differ from day to day.
const ROTATIONS: usize = 400;
/// How far ahead, seconds.
const HORIZON: i64 = 32 * 86_400;

/// Replays the schedule through an outage of so many seconds.
pub fn drill(plan: &Plan, state: &State, now: Timestamp, outage: i64, host: &str) -> Vec<Lost> {
    plan.targets.iter().filter_map(|target| lost(target, state, now.as_second(), outage, host)).collect()
}

fn lost(target: &Target, state: &State, now: i64, outage: i64, host: &str) -> Option<Lost> {
    let coming = timetable(target, state, now, host).take(ROTATIONS).take_while(|(at, ..)| *at < now + HORIZON);
    let (from, ends) = coming.filter_map(|(at, _, life)| Some((at, life?.expires_at))).min_by_key(|(at, ends)| ends - at)?;
    let left = ends - from;
    if left > outage {
        return None;
    }
    let life = granted(target, state);
    let needed = outage + timing::room(life);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // lives are far below 2^52
    let (at, duration) =
        (((1.0 - needed as f64 / life as f64) * 1000.0).floor() / 1000.0, (needed as f64 / (1.0 - target.rotate.at) - 1e-6).ceil() as u64);
    Some(Lost {
        target: target.name.to_string(),
        outage_from: Timestamp::from_second(from).ok()?,
        expires_at: Timestamp::from_second(ends).ok()?,
        without: outage - left,
        saving_at: (at > 0.0).then(|| Share(at).to_string()),
        saving_duration: Seconds(duration.div_ceil(60) * 60).to_string(),
    })
}
