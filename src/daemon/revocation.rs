//! Which markers may go? Pure. A generation goes once nobody needs it any more: a newer token stands at every place,
//! every hook is told of it, and `overlap` has passed; sooner only where a person asked for it.

use jiff::Timestamp;

use super::errands::all_told;
use crate::after::Heard;
use crate::record::Asked;
use crate::record::fold::{MarkerState, TargetState};
use crate::schedule::Target;

/// Since when the newest token stands everywhere and everybody is told of it, unix seconds; `None` while some place
/// or hook is behind, or the token itself is not known to be good.
pub fn settled_since(target: &Target, state: &TargetState, now: i64) -> Option<i64> {
    let jti = state.jti.as_ref()?;
    let good = state.rejected_at.is_none() && state.expires_at.is_some_and(|end| end.as_second() > now);
    if !good || !all_told(target, state) {
        return None;
    }
    let mut since = i64::MIN;
    for place in &target.deliver {
        let (sink, at) = (place.sink.kind(), place.sink.place());
        let found = state.place(sink, &at)?;
        if found.jti.as_ref() != Some(jti) || !found.holds_the_newest() {
            return None;
        }
        since = since.max(found.since.as_second());
    }
    let told = target.after.iter().filter_map(|hook| state.hook(hook.kind(), &hook.to()));
    let told = told.filter(|hook| hook.outcome == Heard::Done).filter_map(|hook| hook.told_at).map(Timestamp::as_second);
    Some(told.fold(since, i64::max))
}

/// The markers that may go now, and when to look again (unix seconds). `rotating`: a rotation is under way, and may
/// take a marker that nobody uses.
pub fn revocable(target: &Target, state: &TargetState, rotating: bool, now: i64) -> (Vec<MarkerState>, Option<i64>) {
    let settled = settled_since(target, state, now);
    let newest = state.newest_marker().map(|marker| marker.uid.as_str());
    let overlap = i64::try_from(target.overlap).unwrap_or(i64::MAX);
    let (mut go, mut again) = (Vec::new(), None::<i64>);
    for marker in state.markers.iter() {
        let is_newest = newest == Some(marker.uid.as_str());
        let at = match (marker.asked, settled) {
            (Some(Asked::Now), _) => now,
            _ if is_newest || (marker.jti.is_none() && rotating) => continue,
            (_, None) => continue,
            (Some(Asked::Delivered), Some(_)) => now,
            (None, Some(since)) => since.saturating_add(overlap),
        };
        if at <= now {
            go.push(marker.clone());
        } else {
            again = Some(again.map_or(at, |again| again.min(at)));
        }
    }
    (go, again)
}

/// What a person should know of revocations that are owed, for `status`.
pub fn notes(state: &TargetState) -> Vec<String> {
    let owed = state.markers.iter().filter(|m| m.asked.is_some() || m.error.is_some());
    owed.map(|marker| {
        let why = match (&marker.error, marker.asked) {
            (Some(error), _) => error.clone(),
            (None, Some(Asked::Now)) => "it is under way".into(),
            (None, _) => "a newer token has to stand at every place first, and every hook to be told".into(),
        };
        format!("the revocation of generation {} (Secret {}/{}) is owed: {why}", marker.generation, marker.namespace, marker.name)
    })
    .collect()
}

#[cfg(test)]
mod tests;
