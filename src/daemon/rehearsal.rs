//! A rehearsal: the real way of a rotation, and nothing published. A token is minted, proven and forgotten; every place
//! and every fallback is tried as far as that goes without writing a token. It changes nothing that is known of a
//! target: its record is evidence alone.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::ask::Selector;
use super::places::Places;
use super::rotation::{Held, ask_hash, identify, load, payload, tell};
use super::scene::Scene;
use super::start::is_ours;
use super::{RunError, binding, proof, read};
use crate::cluster::{MintFailure, MintFailureKind, Minted, Urgency};
use crate::record::append::Health;
use crate::record::{Actor, Kind, Line, Outcome, Proof, Reason, SinkLine, word};
use crate::schedule::Target;
use crate::sink::delivery::Load;
use crate::sink::delivery::probe::probe;
use crate::sink::{Ours, Place};
use crate::token::{Format, Payload};

/// Whoever waits for a real token goes first.
const LATER: Urgency = Urgency { deadline: i64::MAX, retry: false };
/// Rehearsals side by side where no daemon runs.
const ABREAST: usize = 16;

/// Rehearses one target; the record says what came of it. A revocable target gets no marker: nothing is left behind.
pub async fn rehearse(target: &Target, scene: &Scene, actor: Option<Actor>) -> Line {
    let mut line = Line::new(Kind::Rehearsed, Timestamp::now());
    identify(&mut line, target);
    line.reason = Some(Reason::Manual);
    line.actor = actor;
    line.requested = Some(target.ask.duration);
    match mint(target, scene).await {
        Ok((minted, proof)) => {
            let time = |seconds: Option<i64>| seconds.and_then(|s| Timestamp::from_second(s).ok());
            line.granted = minted.claims.lifetime().and_then(|life| u64::try_from(life).ok());
            (line.issued_at, line.expires_at) = (time(minted.claims.iat), time(minted.claims.exp));
            line.audit_id = minted.audit_id;
            line.proof = Some(proof);
            let held = Held { token: minted.token, claims: minted.claims, generation: 0 };
            line.jti = Some(held.issue());
            line.sinks = places(target, scene, &held).await;
        }
        Err((failure, jti)) => {
            line.error = Some(failure.message);
            line.audit_id = failure.audit_id;
            line.jti = jti;
        }
    }
    line.time = Timestamp::now();
    line
}

/// Whether a rotation would have done.
pub fn is_good(line: &Line) -> bool {
    line.error.is_none() && line.sinks.iter().all(|sink| sink.outcome == Outcome::Probed)
}

async fn mint(target: &Target, scene: &Scene) -> Result<(Minted, Proof), (MintFailure, Option<String>)> {
    let Some(cluster) = scene.cluster(&target.cluster) else {
        let message = format!("the schedule has no cluster `{}`", target.cluster);
        return Err((MintFailure { kind: MintFailureKind::Refused, message, retry_after: None, audit_id: None }, None));
    };
    let turn = cluster.turn(LATER).await;
    let minted = cluster.mint(&binding::ask(target, None), turn).await.map_err(|failure| (failure, None))?;
    match proof::of_rehearsed(target, cluster, &minted).await {
        Ok(proof) => Ok((minted, proof)),
        Err(why) => {
            let message = format!("the fresh token failed its proof: {why}");
            let failure = MintFailure { kind: MintFailureKind::BadAnswer, message, retry_after: None, audit_id: minted.audit_id };
            Err((failure, minted.claims.jti))
        }
    }
}

/// Every place of the target, each before what stands in for it.
pub async fn places(target: &Target, scene: &Scene, held: &Held) -> Vec<SinkLine> {
    let surroundings = scene.surroundings(target).await;
    let issue = held.issue();
    let render = |format: &Format| payload(held, format, &surroundings);
    let ask = || ask_hash(target);
    let ours = |found: &Payload| is_ours(found, target);
    let load = load(target, held, &issue, &render, &ask, LATER, Ours(&ours));
    let mut all: Vec<BoxFuture<'_, SinkLine>> = Vec::new();
    for place in target.places() {
        all.push(Box::pin(try_out(place, &load, scene)));
    }
    futures_util::future::join_all(all).await
}

async fn try_out(place: &Place, load: &Load<'_>, scene: &Scene) -> SinkLine {
    let line = |outcome| SinkLine::new(place.sink.kind(), place.sink.place(), outcome);
    match probe(place, load, &scene.stores).await {
        Ok(tried) => SinkLine { tried: Some(tried), ..line(Outcome::Probed) },
        Err(failure) => SinkLine { kind: Some(word(failure.kind)), error: Some(failure.message), ..line(Outcome::Failed) },
    }
}

/// Rehearses where no daemon runs: this process holds the records meanwhile.
///
/// # Errors
/// [`RunError`].
pub async fn alone(schedule: PathBuf, places: Places, meant: Selector, actor: Actor) -> Result<(Vec<Line>, Health), RunError> {
    let accepted = read::read(&schedule).map_err(RunError::Refused)?;
    let super::Opened { scene, writer, .. } = super::open(accepted, &places).await?;
    let targets: Vec<Arc<Target>> = scene.plan.targets.iter().filter(|target| meant(target)).cloned().collect();
    let mut all: Vec<BoxFuture<'_, Line>> = Vec::with_capacity(targets.len());
    for target in &targets {
        all.push(Box::pin(rehearse(target, &scene, Some(actor.clone()))));
    }
    let lines: Vec<Line> = futures_util::stream::iter(all).buffered(ABREAST).collect().await;
    for line in &lines {
        tell(line);
    }
    writer.append(lines.clone()).await;
    Ok((lines, super::ended(writer).await))
}
