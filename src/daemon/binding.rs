//! Which marker is the next token of a revocable target bound to? What records know of its ring, and the way to it.

use super::rotation::Job;
use crate::cluster::marker::{Marker, Purpose, Ring, ring};
use crate::cluster::{Ask, Binding, Cluster, MintFailure};
use crate::record::MarkerLine;
use crate::record::fold::{MarkerState, TargetState};
use crate::schedule::Target;
use crate::token::Claims;
use jiff::Timestamp;

/// The object that a recorded marker is.
pub fn object(state: &MarkerState) -> Marker {
    Marker { namespace: state.namespace.clone(), name: state.name.clone(), uid: state.uid.clone() }
}

/// What a rotation that begins now may take; `revoking`: whether markers are being deleted just now.
pub fn known(target: &Target, state: Option<&TargetState>, revoking: bool) -> Ring {
    let markers = state.map(|s| s.markers.as_slice()).unwrap_or_default();
    let here = || markers.iter().filter(|m| *m.cluster == *target.cluster && m.namespace == target.ask.namespace);
    let free = |m: &&MarkerState| m.asked.is_none() && !revoking;
    Ring {
        taken: here().map(|m| m.name.clone()).collect(),
        unused: here().filter(|m| m.jti.is_none()).find(free).map(object),
        shared: state.and_then(TargetState::newest_marker).filter(|m| m.asked.is_none()).map(object),
        strangers: !revoking,
    }
}

/// Takes a marker for the token to be, where the target is revocable; `None` where the daemon stopped before.
pub(super) async fn bind(job: &mut Job, cluster: &Cluster) -> Option<Result<(), MintFailure>> {
    let turn = &job.turn;
    if !turn.target.revocable {
        return Some(Ok(()));
    }
    let target = &turn.target;
    let owner = job.scene.owner_of(target);
    let purpose = Purpose { namespace: &target.ask.namespace, target: &target.name, owner, generation: turn.generation };
    let marked = tokio::select! {
        marked = cluster.mark(&purpose, &turn.ring, turn.urgency(Timestamp::now())) => marked,
        _ = job.stop.wait_for(|stop| *stop) => return None,
    };
    Some(marked.map(|marker| job.turn.marker = Some(marker)))
}

/// What the TokenRequest asks: the target's own words, and the marker where there is one.
pub(super) fn ask(target: &Target, marker: Option<&Marker>) -> Ask {
    let bound_to = marker.cloned().map(Binding::Marker).map(Box::new).or_else(|| target.ask.bound_to.clone());
    Ask { bound_to, ..target.ask.clone() }
}

/// A marker as a record names it.
pub fn line(target: &Target, marker: &Marker) -> MarkerLine {
    let Marker { namespace, name, uid } = marker.clone();
    MarkerLine { cluster: target.cluster.to_string(), namespace, name, uid, ..MarkerLine::default() }
}

/// The marker that a token of the target says it is bound to.
pub fn of_token(target: &Target, claims: &Claims) -> Option<Marker> {
    let bound = claims.kubernetes.secret.as_ref().filter(|object| ring(&target.name).contains(&object.name))?;
    Some(Marker { namespace: target.ask.namespace.clone(), name: bound.name.clone(), uid: bound.uid.clone() })
}
