//! File places of many targets, looked at together.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::daemon::rotation::ask_hash;
use crate::daemon::scene::Scene;
use crate::record::fold::TargetState;
use crate::schedule::Target;
use crate::sink::file::{self, FileSpec, Held, Surveyed};
use crate::sink::{Failure, Place, SinkSpec};

use super::{LOOK, recorded_at};

/// For who waits for the answer: longer than a login may take.
const PATIENT: Duration = Duration::from_secs(60);
/// While other targets wait.
pub(super) const BRIEF: Duration = Duration::from_millis(500);

/// What was seen of a target's file places: one entry for each of its places, in their order.
pub(super) type Files = Vec<Option<Surveyed>>;
/// What a file place holds.
pub(super) type Found = Result<Option<Held>, Failure>;

/// Looks at the file places of these targets.
pub(super) async fn survey<'a>(targets: impl Iterator<Item = &'a Target>) -> Vec<Files> {
    let mut specs: Vec<&FileSpec> = Vec::new();
    let mut order: Vec<Vec<bool>> = Vec::new();
    for target in targets {
        let is_file = |place: &'a Place| match &place.sink {
            SinkSpec::File(spec) => {
                specs.push(spec);
                true
            }
            _ => false,
        };
        order.push(target.places().map(is_file).collect());
    }
    let mut seen = file::survey(&specs, LOOK).await.into_iter();
    order.into_iter().map(|places| places.into_iter().map(|is_file| if is_file { seen.next() } else { None }).collect()).collect()
}

/// What stands at the places that a target delivers to, taken out; the problems stay, and so do the fallbacks'.
pub(super) fn delivered(target: &Target, files: &mut Files) -> Vec<Option<Found>> {
    let mut at = 0;
    let mut one = |place: &Place| {
        let seen = files.get_mut(at).and_then(Option::as_mut);
        at += 1 + place.fallback.len();
        seen.map(|seen| std::mem::replace(&mut seen.held, Ok(None)))
    };
    target.deliver.iter().map(&mut one).collect()
}

/// Whether all that a target delivers to are files on this host that hold, byte for byte and as they should, what is
/// recorded as its newest token.
pub(super) fn is_as_recorded(target: &Target, state: &TargetState, files: &Files) -> bool {
    let holds = |place: &Place, seen: Option<&Surveyed>| {
        let Some(Surveyed { held: Ok(Some(held)), digest: Some(digest), .. }) = seen else { return false };
        let recorded = recorded_at(state, place).filter(|p| !p.owed() && p.jti == state.jti && !place.format.merges());
        held.right && recorded.is_some_and(|p| p.sha256.as_ref().is_some_and(|sha256| *sha256 == *digest))
    };
    let mut at = 0;
    let mut is_there = |place: &Place| {
        let seen = files.get(at).and_then(Option::as_ref);
        at += 1 + place.fallback.len();
        holds(place, seen)
    };
    state.jti.is_some()
        && state.issued_at.is_some()
        && target.deliver.iter().all(&mut is_there)
        && state.ask.as_ref().is_none_or(|ask| *ask == *ask_hash(target))
}

/// What has to be mended on this host before the target can be served: folders, owners, kubeconfig.
pub async fn host_notes(scene: &Scene, target: &Target) -> Vec<String> {
    let files = survey(std::iter::once(target)).await.pop().unwrap_or_default();
    notes(scene, target, files, PATIENT).await
}

/// The same, of a target whose files were looked at; a cluster may take that long to log in to.
pub(super) async fn notes(scene: &Scene, target: &Target, files: Files, patience: Duration) -> Vec<String> {
    let mut notes = Vec::new();
    for (place, seen) in target.places().zip(files) {
        notes.extend(seen.into_iter().flat_map(|seen| seen.problems));
        if let SinkSpec::Directory(spec) = &place.sink {
            notes.extend(file::directory::look(spec, LOOK).await);
        }
    }
    if let Some(cluster) = scene.cluster(&target.cluster).filter(|cluster| !cluster.is_slow_to_log_in(patience)) {
        // A credential plugin takes its time, and no other target's look waits for it. What was begun goes on for the mint.
        let asked = Arc::clone(cluster);
        let mut asked: BoxFuture<'static, _> = Box::pin(async move { asked.address().await.map(|_| ()) });
        // Most know at once, and a hundred thousand looks that wait for one another would all stand in memory.
        let known = match poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await {
            Poll::Ready(known) => Some(known),
            Poll::Pending => tokio::time::timeout(patience, tokio::spawn(asked)).await.ok().and_then(Result::ok),
        };
        if let Some(Err(error)) = known {
            notes.push(format!("cluster {}: {error}", target.cluster));
        }
    }
    notes
}
