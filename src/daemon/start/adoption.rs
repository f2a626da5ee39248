//! The record of a token that was found at its places and not in the records.

use jiff::Timestamp;

use super::{Look, holds, recorded_at};
use crate::daemon::binding;
use crate::daemon::errands::announce;
use crate::daemon::rotation::{Held, identify};
use crate::record::fold::TargetState;
use crate::record::{Kind, Line, Outcome, SinkLine};
use crate::schedule::Target;

/// Where it stands already counts as unchanged, every other place as owed.
pub(super) fn line(target: &Target, held: &Held, seen: &[Look], state: Option<&TargetState>, now: Timestamp) -> Line {
    let mut line = Line::new(Kind::Adopted, now);
    identify(&mut line, target);
    line.generation = Some(held.generation);
    line.requested = Some(target.ask.duration);
    line.granted = held.claims.lifetime().and_then(|s| u64::try_from(s).ok());
    line.issued_at = held.claims.iat.and_then(|s| Timestamp::from_second(s).ok());
    line.expires_at = held.claims.exp.and_then(|s| Timestamp::from_second(s).ok());
    line.jti = Some(held.issue());
    line.markers = binding::of_token(target, &held.claims).iter().map(|marker| binding::line(target, marker)).collect();
    announce(&mut line, target);
    let current = held.issue();
    line.sinks = target
        .deliver
        .iter()
        .zip(seen)
        .map(|(place, seen)| {
            let there = if let Look::Seen(seen) = seen { Some(seen).filter(|s| holds(s, Some(&current))) } else { None };
            let before = state.and_then(|s| recorded_at(s, place));
            let outcome = if there.is_some() { Outcome::Unchanged } else { Outcome::Owed };
            SinkLine {
                sha256: there.map(|s| s.sha256.clone()),
                fallback: before.and_then(|p| p.detour.fallback.clone()),
                ..SinkLine::new(place.sink.kind(), place.sink.place(), outcome)
            }
        })
        .collect();
    line
}
