//! What stands at the places? When a plan begins, when a file is touched, and on every beat of the proof, records
//! are held against the places, so that nothing fresh is minted anew: what differs is adopted, copied, or minted.

mod adoption;
mod here;
mod spare;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::proof;
use super::rotation::{Held, ask_hash, issue, sealed_at};
use super::scene::Scene;
use super::timetable::{Looking, Wanted};
use crate::cluster::mint::check;
use crate::cluster::{Proven, Urgency};
use crate::record::fold::{PlaceState, TargetState};
use crate::record::{Line, Outcome, Reason};
use crate::schedule::Target;
use crate::sink::delivery::tries::verdict;
use crate::sink::{self, Failure, FailureKind, Place, SinkSpec, file};
use crate::token::{Claims, Payload, Token, candidates};
pub use here::host_notes;

/// Targets looked at side by side.
const ABREAST: usize = 128;
/// A place that does not show itself within that is judged by its record.
const LOOK: Duration = Duration::from_secs(5);

/// What a target needs when its plan begins.
pub struct Finding {
    /// Whose.
    pub target: Arc<Target>,
    /// A token that was found and not recorded.
    pub adopted: Option<Box<Line>>,
    /// A token to bring to the places of these indices.
    pub copy: Option<(Arc<Held>, Vec<usize>)>,
    /// Why it has to be minted, where nothing at hand will do.
    pub mint: Option<Reason>,
    /// What a person should know of its places.
    pub notes: Vec<String>,
    /// What the API server says of the token in use, where it was asked.
    pub proven: Option<Proven>,
    /// Whether a place did not show what it holds, and none showed a token.
    pub unseen: bool,
}

impl Finding {
    /// Nothing is wrong.
    pub fn new(target: Arc<Target>) -> Self {
        Self { target, adopted: None, copy: None, mint: None, notes: Vec::new(), proven: None, unseen: false }
    }
}

/// How closely places are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// File places only; stores are judged by their records.
    Files,
    /// Stores are read back too, and the token is tried on the API server.
    Everything,
}

/// Looks at the places of these targets. What stands in the way on this host is looked up when a plan begins: later the
/// puts tell of it.
pub async fn look(scene: &Scene, targets: Vec<Wanted>, why: Looking) -> Vec<Finding> {
    let files = here::survey(targets.iter().map(|(target, _)| &**target)).await;
    let mut all: Vec<BoxFuture<'_, Finding>> = Vec::with_capacity(targets.len());
    for ((target, state), files) in targets.into_iter().zip(files) {
        all.push(Box::pin(find(scene, target, state, files, why)));
    }
    futures_util::stream::iter(all).buffer_unordered(ABREAST).collect().await
}

/// What a place shows.
pub enum Look {
    /// It was not asked, or does not answer: its record counts.
    Unknown,
    /// Nothing stands there.
    Nothing,
    /// Something does.
    Seen(Box<Seen>),
}

impl Look {
    /// What stands there.
    pub fn seen(&mut self) -> Option<&mut Seen> {
        if let Self::Seen(seen) = self { Some(seen) } else { None }
    }
}

/// Something that stands at a place.
pub struct Seen {
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Whether owner and mode are right.
    pub right: bool,
    /// What the token in it is called, where it is one of this target.
    pub issue: Option<String>,
    /// That token.
    pub token: Option<(Token, Claims)>,
}

async fn find(scene: &Scene, target: Arc<Target>, state: Option<Arc<TargetState>>, mut files: here::Files, why: Looking) -> Finding {
    let state = state.as_deref();
    let mut finding = Finding::new(Arc::clone(&target));
    let now = Timestamp::now();
    let as_recorded = why.depth() == Depth::Files && state.is_some_and(|state| here::is_as_recorded(&target, state, &files));
    let mut seen: Vec<Look> = Vec::new();
    if !as_recorded {
        seen.reserve_exact(target.deliver.len());
        for (place, file) in target.deliver.iter().zip(here::delivered(&target, &mut files)) {
            seen.push(see(scene, place, &target, file, why, &mut finding.notes).await);
        }
    }
    if !matches!(why, Looking::Beat(_)) {
        finding.notes.extend(here::notes(scene, &target, files, here::BRIEF).await);
    }
    let mut told = std::collections::HashSet::new();
    finding.notes.retain(|note| told.insert(note.clone()));
    if as_recorded {
        // The records say all that its bytes would.
        return finding;
    }
    let mut best = newest(seen.iter_mut().filter_map(Look::seen), now);
    if best.is_none() {
        best = Box::pin(spare::spare(scene, &target, state, now)).await;
    }
    if why == Looking::Takeover {
        let hidden = |(place, look): (&Place, &Look)| place.sink.is_readable() && matches!(look, Look::Unknown);
        finding.unseen = best.is_none() && target.deliver.iter().zip(&seen).any(hidden);
    }
    if matches!(why, Looking::Beat(Depth::Everything))
        && target.prove
        && let Some((token, claims)) = &best
    {
        let recorded = state.filter(|s| s.jti.as_ref().is_some_and(|jti| *jti == *issue(claims, token))).and_then(|s| s.proof);
        finding.proven = Box::pin(proof::of_delivered(scene, &target, token, claims, recorded)).await;
    }
    judge(finding, state, &seen, best, now)
}

/// Holds what was seen against the records: `best` is the newest token in date that stands anywhere. Pure.
pub fn judge(mut finding: Finding, state: Option<&TargetState>, seen: &[Look], best: Option<(Token, Claims)>, now: Timestamp) -> Finding {
    let target = Arc::clone(&finding.target);
    if state.is_some_and(|s| s.ask.as_ref().is_some_and(|ask| *ask != *ask_hash(&target))) {
        finding.mint = Some(Reason::Changed);
        return finding;
    }
    let recorded = state.and_then(|s| s.issued_at).map(Timestamp::as_second);
    let unrecorded =
        best.as_ref().is_some_and(|(token, claims)| claims.iat > recorded || claims.iat == recorded && is_twin(token, claims, state, seen));
    let wrong = wrong_places(&target, state, seen, best.as_ref(), unrecorded);
    let Some((token, claims)) = best else {
        if state.is_some() && !wrong.is_empty() {
            finding.mint = Some(Reason::Repair);
        }
        return finding;
    };
    let generation = state.map_or(0, |s| s.generation) + u64::from(unrecorded);
    let held = Held { token, claims, generation };
    if unrecorded {
        finding.adopted = Some(Box::new(adoption::line(&target, &held, seen, state, now)));
    } else if state.is_some_and(|s| s.jti.as_ref().is_none_or(|jti| *jti != *held.issue())) && !wrong.is_empty() {
        // Only an older token is left: it is no cure for a place that lost the newest.
        finding.mint = Some(Reason::Repair);
        return finding;
    }
    if !wrong.is_empty() {
        finding.copy = Some((Arc::new(held), wrong));
    }
    finding
}

/// Whether this is another token than the recorded one, which stands nowhere any more: in a fleet two members may have
/// minted in the same second, and what stands is the one in use.
fn is_twin(token: &Token, claims: &Claims, state: Option<&TargetState>, seen: &[Look]) -> bool {
    let Some(recorded) = state.and_then(|s| s.jti.as_ref()) else { return false };
    let gone = |look: &Look| match look {
        Look::Seen(seen) => seen.issue.as_deref().is_none_or(|issue| *recorded != *issue),
        Look::Nothing => true,
        Look::Unknown => false,
    };
    *recorded != *issue(claims, token) && seen.iter().all(gone)
}

/// Looks at a place as closely as is asked for.
async fn see(scene: &Scene, place: &Place, target: &Target, file: Option<here::Found>, why: Looking, notes: &mut Vec<String>) -> Look {
    let shown = |payload: &Payload, right: bool| {
        let token = readable(payload, target);
        let issue = token.as_ref().map(|(token, claims)| issue(claims, token));
        Look::Seen(Box::new(Seen { sha256: payload.sha256(), right, issue, token }))
    };
    let here = match &place.sink {
        SinkSpec::File(_) => file,
        SinkSpec::Directory(spec) => Some(file::directory::held(spec, LOOK).await),
        _ => None,
    };
    let found = match here {
        Some(Ok(held)) => Ok(held.map(|held| shown(&held.payload, held.right))),
        // A wrong owner or a link is for the put to refuse, and to tell; a dead file system is none of these.
        Some(Err(failure)) if failure.kind == FailureKind::Local => {
            notes.push(failure.message);
            return Look::Nothing;
        }
        Some(Err(failure)) => Err(failure),
        None if why.depth() == Depth::Files || !place.sink.is_readable() => return Look::Unknown,
        None => held(scene, place, why).await.map(|held| held.map(|payload| shown(&payload, true))),
    };
    match found {
        Ok(found) => found.unwrap_or(Look::Nothing),
        Err(failure) => {
            notes.push(failure.message);
            Look::Unknown
        }
    }
}

/// Whether what a place holds is this target's: a token of its, or something sealed that says so of itself.
pub(super) fn is_ours(payload: &Payload, target: &Target) -> bool {
    readable(payload, target).is_some() || payload.parts().iter().any(|part| sealed_at(part.expose(), target).is_some())
}

/// When what a place holds of this target's was issued, unix seconds: its newest token, or what something sealed says.
pub(super) fn issued_at(payload: &Payload, target: &Target) -> Option<i64> {
    let sealed = || payload.parts().iter().find_map(|part| sealed_at(part.expose(), target));
    readable(payload, target).and_then(|(_, claims)| claims.iat).or_else(sealed)
}

/// What a place holds. Where all of a member's targets are taken over at once, each waits for its turn at the store; who
/// looks at a Secret takes one by itself.
async fn held(scene: &Scene, place: &Place, why: Looking) -> Result<Option<Payload>, Failure> {
    let crowded = why == Looking::Takeover && place.sink.store().is_some();
    let upstream = match place.sink.upstream(&scene.stores).filter(|_| crowded) {
        Some(upstream) => upstream?,
        None => return sink::held(&place.sink, &scene.stores, LOOK).await,
    };
    let urgency = Urgency { deadline: i64::MIN, retry: false };
    let Some(permit) = upstream.turn(urgency, LOOK).await else {
        return Err(Failure::new(FailureKind::Unavailable, format!("{} answered nobody within {} s", upstream.name(), LOOK.as_secs())));
    };
    let found = sink::held(&place.sink, &scene.stores, LOOK).await;
    permit.end(verdict(found.as_ref().err()));
    found
}

/// The newest token of this target in what a place holds: a kubeconfig may hold many.
pub(super) fn readable(payload: &Payload, target: &Target) -> Option<(Token, Claims)> {
    let tokens = payload.parts().iter().flat_map(|part| candidates(part.expose()));
    let ours =
        tokens.filter_map(|token| token.claims().ok().filter(|claims| check(claims, &target.ask).is_ok()).map(|claims| (token, claims)));
    ours.max_by_key(|(_, claims)| claims.iat)
}

/// The newest in-date token among what was seen, taken out of there.
pub fn newest<'a>(seen: impl Iterator<Item = &'a mut Seen>, now: Timestamp) -> Option<(Token, Claims)> {
    let in_date = |claims: &Claims| claims.exp.is_some_and(|exp| exp > now.as_second());
    seen.filter_map(|s| s.token.take()).filter(|(_, claims)| in_date(claims)).max_by_key(|(_, claims)| claims.iat)
}

pub(super) fn recorded_at<'a>(state: &'a TargetState, place: &Place) -> Option<&'a PlaceState> {
    let (sink, at) = (place.sink.kind(), place.sink.place());
    state.place(sink, &at)
}

/// Which places do not have what they should have.
fn wrong_places(
    target: &Target,
    state: Option<&TargetState>,
    seen: &[Look],
    best: Option<&(Token, Claims)>,
    unrecorded: bool,
) -> Vec<usize> {
    let current = best.map(|(token, claims)| issue(claims, token));
    let wrong = |(index, place): (usize, &Place)| {
        let recorded = state.and_then(|s| recorded_at(s, place));
        let settled = |p: &PlaceState| !p.owed() && p.outcome != Outcome::Failed;
        let ok = match (&seen[index], recorded) {
            (Look::Unknown, Some(p)) => !unrecorded && settled(p) && p.jti.as_ref() == state.and_then(|s| s.jti.as_ref()),
            (Look::Unknown | Look::Nothing, _) => false,
            (Look::Seen(seen), Some(p)) if !unrecorded && !place.format.merges() => {
                seen.right && p.sha256.as_ref().is_some_and(|sha256| *sha256 == *seen.sha256) && !p.owed()
            }
            (Look::Seen(seen), _) => seen.right && holds(seen, current.as_deref()),
        };
        (!ok).then_some(index)
    };
    target.deliver.iter().enumerate().filter_map(wrong).collect()
}

/// Whether the file holds the newest token.
fn holds(seen: &Seen, current: Option<&str>) -> bool {
    current.is_some() && seen.issue.as_deref() == current
}

#[cfg(test)]
mod tests;
