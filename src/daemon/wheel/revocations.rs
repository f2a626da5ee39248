//! Markers are deleted when the timetable says so, and where a person asked, the dead token is tried.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Done, Wheel};
use crate::cluster::marker::Purpose;
use crate::cluster::{Cluster, Proven, Trouble, Urgency};
use crate::daemon::ask::{Asker, Demand, Revoked};
use crate::daemon::binding;
use crate::daemon::proof::is_for_api_server;
use crate::daemon::rotation::{Fault, Held, tell};
use crate::daemon::scene::Scene;
use crate::daemon::start::readable;
use crate::daemon::timetable::revocations::{Outcome, Revocation, line_of};
use crate::record::fold::MarkerState;
use crate::record::{Actor, Kind, Verified};
use crate::schedule::Target;
use crate::sink;

/// A place that does not show its token within that is not waited for.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// A person is told after that time at the latest that a marker stands yet; one that goes by itself has more time.
const GONE_WITHIN: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(60)];
/// A token has to be refused that long after its marker is gone: the API server caches it for 10 s, and an object that
/// a finalizer holds counts as gone after 60 s.
const DEAD_WITHIN: Duration = Duration::from_secs(75);
/// Between two tries of a token.
const TRY_EVERY: Duration = Duration::from_millis(500);
/// A person waits for it.
const URGENT: Urgency = Urgency { deadline: i64::MIN + 1, retry: false };

/// A demand with the tokens that were found.
pub(super) struct Found {
    demand: Demand,
    actor: Actor,
    asker: Asker,
    evidence: Vec<Arc<Held>>,
}

impl Wheel {
    /// Begins a revocation that a person asks for: tokens that stand at the places are read first, so that they can be
    /// tried when they should be dead.
    pub(super) fn revoke_asked(&mut self, demand: Demand, actor: Actor, reply: oneshot::Sender<Option<Revoked>>) {
        let Some(course) = self.table.courses.get(demand.target.as_str()) else {
            // A caller that went away needs no answer.
            let _ = reply.send(None);
            return;
        };
        let (target, scene) = (Arc::clone(&course.target), Arc::clone(&self.scene));
        let held = course.debt.held.clone();
        let marked = self.table.state.target(&target.name).is_some_and(|state| !state.markers.is_empty());
        self.tasks.spawn(async move {
            let mut evidence: Vec<Arc<Held>> = held.into_iter().collect();
            if marked {
                evidence.extend(standing(&scene, &target).await);
            }
            Done::Found(Box::new(Found { demand, actor, asker: Asker::new(reply), evidence }))
        });
    }

    pub(super) async fn found(&mut self, found: Found) {
        let Found { demand, actor, asker, evidence } = found;
        self.event(|table, moment| table.revoke(&demand, evidence, &actor, asker, moment)).await;
    }

    /// Deletes markers, and records which are gone.
    pub(super) fn revoke(&mut self, revocation: Revocation) {
        let (scene, writer) = (Arc::clone(&self.scene), self.writer.clone());
        let mut stop = self.stop.subscribe();
        self.tasks.spawn(async move {
            let Revocation { name, target, markers, evidence, strays } = revocation;
            let work = async {
                let one = |marker| revoke(&scene, &target, marker, &evidence);
                let mut outcomes = futures_util::future::join_all(markers.iter().map(one)).await;
                if let (Some(strays), Some(cluster)) = (&strays, scene.cluster(&target.cluster)) {
                    let purpose = Purpose {
                        namespace: &target.ask.namespace,
                        target: &target.name,
                        owner: scene.owner_of(&target),
                        generation: strays.generation,
                    };
                    match cluster.strays(&purpose, &strays.known, strays.issued_at).await {
                        Ok(found) => {
                            let found: Vec<MarkerState> =
                                found.into_iter().map(|marker| stray(&target, marker, strays.generation)).collect();
                            outcomes.extend(futures_util::future::join_all(found.iter().map(one)).await);
                        }
                        Err(refusal) => {
                            tracing::warn!(target_name = &*target.name, "markers without a record were not looked for: {refusal}")
                        }
                    }
                }
                outcomes
            };
            // What is not done by then is done by the next start: the records say what is owed.
            let outcomes = tokio::select! {
                outcomes = work => outcomes,
                _ = stop.wait_for(|stop| *stop) => Vec::new(),
            };
            let lines: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok()).cloned().collect();
            if !lines.is_empty() {
                lines.iter().for_each(tell);
                writer.append(lines).await;
            }
            Done::Revoked(name, outcomes)
        });
    }
}

/// A marker that no record knows, as one that a record would.
fn stray(target: &Target, marker: crate::cluster::marker::Marker, generation: u64) -> MarkerState {
    MarkerState {
        cluster: target.cluster.to_string(),
        namespace: marker.namespace,
        name: marker.name,
        uid: marker.uid,
        first: generation,
        generation,
        jti: None,
        expires_at: None,
        asked: None,
        error: None,
    }
}

/// The tokens that stand at a target's places now.
async fn standing(scene: &Scene, target: &Target) -> Vec<Arc<Held>> {
    let places = target.places();
    let readings = places.filter(|place| place.sink.is_readable()).map(|place| async {
        let read = tokio::time::timeout(READ_WITHIN, sink::held(&place.sink, &scene.stores, READ_WITHIN)).await;
        let (token, claims) = read.ok()?.ok()?.and_then(|payload| readable(&payload, target))?;
        Some(Arc::new(Held { token, claims, generation: 0 }))
    });
    let mut known = std::collections::HashSet::new();
    let found = futures_util::future::join_all(readings).await.into_iter().flatten();
    found.filter(|held| known.insert(held.issue())).collect()
}

async fn revoke(scene: &Scene, target: &Target, marker: &MarkerState, evidence: &[Arc<Held>]) -> Outcome {
    let result = match scene.cluster(&marker.cluster) {
        None => Err((format!("the schedule has no cluster `{}` any more", marker.cluster), Fault { passing: false, retry_after: None })),
        Some(cluster) => dead(cluster, target, marker, evidence).await,
    };
    let result = result.map(|verified| {
        let mut line = line_of(Kind::Revoked, target, marker, Timestamp::now());
        line.markers.iter_mut().for_each(|marker| marker.verified = Some(verified));
        line
    });
    Outcome { uid: marker.uid.clone(), result }
}

/// Deletes a marker, and says what shows that its tokens are dead.
async fn dead(cluster: &Cluster, target: &Target, marker: &MarkerState, evidence: &[Arc<Held>]) -> Result<Verified, (String, Fault)> {
    let is_bound = |held: &&Arc<Held>| held.claims.kubernetes.secret.as_ref().is_some_and(|secret| secret.uid == marker.uid);
    let mut tried = None;
    if let Some(held) = evidence.iter().find(is_bound).filter(|held| is_for_api_server(target, &held.claims)) {
        // A token that was refused before shows nothing.
        let proven = tokio::time::timeout(READ_WITHIN, cluster.prove(&held.token, &held.claims.sub, URGENT)).await;
        tried = (proven == Ok(Proven::Online)).then_some(held);
    }
    let urgency = if marker.asked.is_some() { URGENT } else { Urgency { deadline: i64::MAX, retry: marker.error.is_some() } };
    let within = GONE_WITHIN[usize::from(marker.asked.is_none())];
    let stands = |why: &str| format!("Secret {}/{} could not be deleted: {why}", marker.namespace, marker.name);
    let object = binding::object(marker);
    let Ok(deleted) = tokio::time::timeout(within, cluster.unmark(&object, urgency)).await else {
        let message = stands(&format!("the API server took no request within {} s", within.as_secs()));
        return Err((message, Fault { passing: true, retry_after: None }));
    };
    if let Err(refusal) = deleted {
        let passing = matches!(refusal.trouble, Trouble::Unavailable | Trouble::Throttled | Trouble::BadAnswer);
        return Err((stands(&refusal.message), Fault { passing, retry_after: refusal.retry_after }));
    }
    let Some(held) = tried else { return Ok(Verified::Gone) };
    let end = tokio::time::Instant::now() + DEAD_WITHIN;
    loop {
        match cluster.prove(&held.token, &held.claims.sub, URGENT).await {
            Proven::Refused(_) => return Ok(Verified::Refused),
            Proven::NotOffered(_) | Proven::Signed | Proven::Unserved(_) => return Ok(Verified::Gone),
            Proven::Online | Proven::Unknown(_) if tokio::time::Instant::now() < end => tokio::time::sleep(TRY_EVERY).await,
            Proven::Unknown(why) => {
                return Err((
                    format!("its marker is deleted, but the token could not be tried: {why}"),
                    Fault { passing: true, retry_after: None },
                ));
            }
            Proven::Online => {
                let message = format!("its marker is deleted, yet the API server accepts the token {} s later", DEAD_WITHIN.as_secs());
                return Err((message, Fault { passing: true, retry_after: None }));
            }
        }
    }
}
