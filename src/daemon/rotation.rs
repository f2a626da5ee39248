//! The story of one rotation: mint, prove, render, deliver, record. It ends with one terminal record.

mod line;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::binding;
use super::crowd::Pass;
use super::errands::announce;
use super::fleet::Seat;
use super::proof;
use super::scene::Scene;
use super::start::{is_ours, issued_at};
use super::timetable::Turn;
use crate::cluster::upstream::Permit;
use crate::cluster::{Cluster, MintFailure, MintFailureKind, Minted, Urgency};
use crate::record::append::Writer;
use crate::record::{Line, Proof, Through};
use crate::schedule::{Target, own};
use crate::sink::delivery::{self, Delivered, Load};
use crate::sink::{Failure, FailureKind, Manners, Ours, Place};
use crate::token::render::render;
use crate::token::{Claims, Format, Payload, Surroundings, Token};
pub use line::{ask_hash, conclude, conclude_without, fault_of, identify, issue, sealed_at, sink_line, tell};

/// Clocks that differ by more seconds than that do so by no slow answer: one of them is wrong.
const AHEAD: i64 = 30;

/// A token that is kept while a place is owed it, and wiped with the last of them.
pub struct Held {
    /// The token.
    pub token: Token,
    /// What it says.
    pub claims: Claims,
    /// Which of its target's tokens it is.
    pub generation: u64,
}

impl Held {
    /// What records and stores name it by: its `jti`, or a hash where a cluster gives none.
    pub fn issue(&self) -> String {
        issue(&self.claims, &self.token)
    }
}

/// One rotation to be done.
pub struct Job {
    /// Whose, and why.
    pub turn: Box<Turn>,
    /// The plan that it begins with, and ends with.
    pub scene: Arc<Scene>,
    /// Where its record goes.
    pub writer: Writer,
    /// Turns true when the daemon stops: what waits for its turn then never begins.
    pub stop: watch::Receiver<bool>,
}

/// What came of it.
pub struct Finished {
    /// The record, as it was handed to the writer.
    pub line: Line,
    /// The token, while some place is owed it.
    pub held: Option<Arc<Held>>,
    /// Why it failed, for the decision when to try again.
    pub fault: Option<Fault>,
    /// Whether the API server refuses our own credential.
    pub unauthorized: bool,
    /// Whether the record is on the disk.
    pub durable: bool,
    /// How long the API server took, where it was asked.
    pub mint_took: Option<Duration>,
    /// What each place took, by the sink's key.
    pub places_took: Vec<(&'static str, Duration)>,
}

/// A failure as far as the next try depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Whether it will pass by itself (outage, overload) or needs a person (refusal).
    pub passing: bool,
    /// How long the other side asked us to wait.
    pub retry_after: Option<Duration>,
}

/// Mints, proves, delivers and records one token. `None` where the daemon stopped before its turn came.
pub async fn rotate(mut job: Job) -> Option<Finished> {
    let seat = job.scene.seat(&job.turn.target);
    match queue(&mut job).await? {
        // Thousands wait for their turn at once, and only the few whose turn it is are as large as all that follows.
        Ok(turn) => Some(Box::pin(served(job, seat, turn)).await),
        Err(failure) => Some(Box::pin(fail(&job, &failure, None)).await),
    }
}

/// The right to mint now, and to go on from there.
struct Served {
    cluster: Arc<Cluster>,
    permit: Permit,
    pass: Option<Pass>,
}

/// Waits for the turn of a mint at the target's cluster.
async fn queue(job: &mut Job) -> Option<Result<Served, MintFailure>> {
    let Some(cluster) = job.scene.cluster(&job.turn.target.cluster).cloned() else {
        return Some(Err(refused(format!("the schedule has no cluster `{}`", job.turn.target.cluster))));
    };
    if job.turn.target.revocable
        && let Err(failure) = Box::pin(binding::bind(job, &cluster)).await?
    {
        return Some(Err(failure));
    }
    let Job { turn: order, scene, stop, .. } = job;
    let crowd = (!order.target.first).then(|| scene.crowds.of(&order.target));
    let turn = async {
        // By urgency first: only whose turn it is stands in line for a pass.
        let permit = cluster.turn(order.urgency(Timestamp::now())).await;
        let Some(crowd) = crowd else { return (permit, None) };
        match crowd.try_enter() {
            Some(pass) => (permit, Some(pass)),
            None => {
                drop(permit);
                let pass = crowd.enter().await;
                (cluster.turn(order.urgency(Timestamp::now())).await, Some(pass))
            }
        }
    };
    let (permit, pass) = tokio::select! {
        turn = turn => turn,
        _ = stop.wait_for(|stop| *stop) => return None,
    };
    Some(Ok(Served { cluster, permit, pass }))
}

async fn served(job: Job, seat: Option<Seat>, turn: Served) -> Finished {
    let Served { cluster, permit, pass: _pass } = turn;
    let (minted, proof, mint_took) = match fresh(&job, &cluster, permit).await {
        Ok(fresh) => fresh,
        Err((failure, minted)) => return fail(&job, &failure, minted).await,
    };
    let turn = &job.turn;
    for warning in &minted.warnings {
        tracing::warn!(target_name = &*turn.target.name, "the API server: {warning}");
    }
    let held = Held { generation: turn.generation, claims: minted.claims, token: minted.token };
    let delivered = carry(&turn.target, &job.scene, &held, turn.urgency(Timestamp::now()), seat.as_ref()).await;
    let (mut line, fault) = conclude(turn, &held, proof, &delivered, Timestamp::now());
    line.audit_id = minted.audit_id;
    line.through = minted.through_spare.then_some(Through::Spare);
    announce(&mut line, &turn.target);
    let places_took = turn.target.deliver.iter().zip(&delivered).map(|(place, d)| (place.sink.kind(), d.took)).collect();
    let owed = delivered.iter().any(|d| d.outcome.is_owed());
    let durable = record(&job.writer, &line).await;
    Finished { line, held: owed.then(|| Arc::new(held)), fault, unauthorized: false, durable, mint_took: Some(mint_took), places_took }
}

/// Delivers a held token to all places of its target.
pub async fn carry(target: &Target, scene: &Scene, held: &Held, urgency: Urgency, seat: Option<&Seat>) -> Vec<Delivered> {
    let issue = held.issue();
    let surroundings = scene.surroundings(target).await;
    let render = |format: &Format| payload(held, format, &surroundings);
    let ask = || ask_hash(target);
    let ours = |found: &Payload| is_ours(found, target);
    let newer = |found: &Payload| is_newer(found, target, scene, held);
    let load = fenced(load(target, held, &issue, &render, &ask, urgency, Ours(&ours)), Ours(&newer), seat);
    delivery::deliver(&target.deliver, &load, &scene.stores).await
}

/// One more attempt at a place that is owed; `served` is the fallback that has the token already.
pub async fn pay(target: &Target, scene: &Scene, held: &Held, place: &Place, served: Option<(usize, String)>) -> Delivered {
    let issue = held.issue();
    let surroundings = scene.surroundings(target).await;
    let render = |format: &Format| payload(held, format, &surroundings);
    let ask = || ask_hash(target);
    let urgency = Urgency { deadline: held.claims.exp.unwrap_or(0), retry: true };
    let ours = |found: &Payload| is_ours(found, target);
    let seat = scene.seat(target);
    let newer = |found: &Payload| is_newer(found, target, scene, held);
    let load = fenced(load(target, held, &issue, &render, &ask, urgency, Ours(&ours)), Ours(&newer), seat.as_ref());
    delivery::pay(place, &load, &scene.stores, served).await
}

/// A token on its way to the places of its target.
pub(super) fn load<'a>(
    target: &'a Target,
    held: &Held,
    issue: &'a str,
    render: &'a (dyn Fn(&Format) -> Result<Payload, Failure> + Sync),
    ask: &'a (dyn Fn() -> String + Sync),
    urgency: Urgency,
    ours: Ours<'a>,
) -> Load<'a> {
    let (issued_at, expires_at) = (held.claims.iat.unwrap_or(0), held.claims.exp.unwrap_or(0));
    let owner = target.labels.get("owner").map(String::as_str);
    let manners = Manners { owner, overlap: Duration::from_secs(target.overlap), ours, ..Manners::default() };
    Load { render, target: &target.name, ask, issue, issued_at, expires_at, generation: held.generation, urgency, manners, leave: None }
}

/// Never over a newer token; in a fleet, only while the target is ours.
fn fenced<'a>(load: Load<'a>, newer: Ours<'a>, seat: Option<&'a Seat>) -> Load<'a> {
    Load { manners: Manners { newer, ..load.manners }, leave: seat.map(|seat| seat as &dyn delivery::Leave), ..load }
}

fn is_newer(found: &Payload, target: &Target, scene: &Scene, held: &Held) -> bool {
    // The clock of an embedded cluster is this host's own: what it issued before it was put back is of no use yet, and
    // would stand in the way. In a fleet another member's clock may be the right one.
    let own_clock = || !scene.is_shared(target) && scene.cluster(&target.cluster).is_some_and(|cluster| cluster.is_embedded());
    let ahead = |issued: i64| issued > Timestamp::now().as_second() + AHEAD && own_clock();
    issued_at(found, target).is_some_and(|issued| Some(issued) > held.claims.iat && !ahead(issued))
}

/// The bytes of a format.
pub(super) fn payload(held: &Held, format: &Format, surroundings: &Surroundings) -> Result<Payload, Failure> {
    render(&held.token, &held.claims, format, surroundings).map_err(|missing| Failure::new(FailureKind::Local, missing.to_string()))
}

type Fresh = Result<(Minted, Proof, Duration), (MintFailure, Option<Minted>)>;

/// A token that is fit to replace a working one, with how it was proven.
async fn fresh(job: &Job, cluster: &Cluster, permit: Permit) -> Fresh {
    let ask = binding::ask(&job.turn.target, job.turn.marker.as_ref());
    let begun = tokio::time::Instant::now();
    let minted = match own::cluster_of(&job.turn.target.name) {
        Some(_) => cluster.renew(&ask, permit).await,
        None => cluster.mint(&ask, permit).await,
    };
    let took = begun.elapsed();
    // Whoever has the turn now asks first: the API server is not to wait while we check and write.
    tokio::task::yield_now().await;
    let minted = minted.map_err(|failure| (failure, None))?;
    if let Some(seconds) = clock_ahead(cluster, &minted.claims) {
        tracing::warn!(target_name = &*job.turn.target.name, seconds, "this host's clock and the API server's differ");
    }
    match proof::of_fresh(job, cluster, &minted).await {
        Ok(proof) => Ok((minted, proof, took)),
        Err(failure) => Err((failure, Some(minted))),
    }
}

/// Seconds between the token's `iat` and this host's clock, where they are too many to be a slow answer.
fn clock_ahead(cluster: &Cluster, claims: &Claims) -> Option<i64> {
    let difference = claims.iat? - Timestamp::now().as_second();
    (!cluster.is_embedded() && difference.abs() > AHEAD).then_some(difference)
}

async fn fail(job: &Job, failure: &MintFailure, minted: Option<Minted>) -> Finished {
    let (line, fault) = conclude_without(&job.turn, failure, minted.and_then(|m| m.claims.jti), Timestamp::now());
    let durable = record(&job.writer, &line).await;
    let unauthorized = failure.kind == MintFailureKind::Unauthorized;
    Finished { line, held: None, fault: Some(fault), unauthorized, durable, mint_took: None, places_took: Vec::new() }
}

async fn record(writer: &Writer, line: &Line) -> bool {
    tell(line);
    writer.append(vec![line.clone()]).await == crate::record::append::Appended::Durable
}

fn refused(message: String) -> MintFailure {
    MintFailure { kind: MintFailureKind::Refused, message, retry_after: None, audit_id: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_one<A, R>(_: fn(A) -> R) -> usize {
        size_of::<R>()
    }

    fn of_three<A, B, C, R>(_: fn(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn a_rotation_is_small_while_it_waits_and_no_giant_at_work() {
        let (waiting, working) = (of_one(rotate), of_three(served));
        assert!(waiting <= 1_024, "a hundred thousand that are due together would each take {waiting} bytes");
        assert!(working <= 8_192, "a thousand in memory at once would each take {working} bytes: box what is seldom done");
    }
}
