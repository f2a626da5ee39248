//! The story of one rotation: mint, prove, render, deliver, record. It ends with one terminal record.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::errands::announce;
use super::scene::Scene;
use super::start;
use crate::cluster::{Cluster, MintFailure, MintFailureKind, Minted, Proven, Urgency};
use crate::record::append::Writer;
use crate::record::{Actor, Kind, Line, Outcome, Proof, Reason, SinkLine};
use crate::schedule::Target;
use crate::sink::delivery::{self, Delivered, Load};
use crate::sink::{Failure, FailureKind, Place};
use crate::token::render::{hex, render};
use crate::token::{Claims, Format, Payload, Surroundings, Token};

/// Tries of the proof before it is put off.
const PROOF_TRIES: u32 = 3;
/// Share of the old token's life below which the new one is published without its proof.
const TOO_LATE_TO_PROVE: f64 = 0.1;

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
    /// Whose token.
    pub target: Arc<Target>,
    /// The plan that it begins with, and ends with.
    pub scene: Arc<Scene>,
    /// Where its record goes.
    pub writer: Writer,
    /// Why.
    pub reason: Reason,
    /// Who asked, where a person did.
    pub actor: Option<Actor>,
    /// The number of the token to be.
    pub generation: u64,
    /// `iat` and `exp` of the token in use.
    pub in_use: Option<(i64, i64)>,
    /// Rotations of this target that failed since the last success.
    pub failures: u32,
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
    let (minted, proof, mint_took) = match fresh(&mut job).await? {
        Ok(fresh) => fresh,
        Err((failure, minted)) => return Some(fail(&job, &failure, minted).await),
    };
    for warning in &minted.warnings {
        tracing::warn!(target_name = job.target.name, "the API server: {warning}");
    }
    let held = Held { generation: job.generation, claims: minted.claims, token: minted.token };
    let delivered = carry(&job.target, &job.scene, &held, urgency(&job)).await;
    let places_took = job.target.deliver.iter().zip(&delivered).map(|(place, d)| (place.sink.kind(), d.took)).collect();
    let mut line = describe(&job, &held.claims, &held.issue());
    line.proof = Some(proof);
    line.audit_id = minted.audit_id;
    line.sinks = job.target.deliver.iter().zip(&delivered).map(|(place, d)| sink_line(place, d)).collect();
    let unserved = |(place, d): (&Place, &Delivered)| place.required && !d.outcome.is_served();
    let fault = job.target.deliver.iter().zip(&delivered).find(|(p, d)| unserved((p, d))).map(|(_, d)| fault_of(d));
    line.kind = if fault.is_some() { Kind::Failed } else { Kind::Rotated };
    announce(&mut line, &job.target);
    let owed = delivered.iter().any(|d| d.outcome.is_owed());
    let durable = record(&job.writer, &line).await;
    Some(Finished { line, held: owed.then(|| Arc::new(held)), fault, durable, mint_took: Some(mint_took), places_took })
}

/// Delivers a held token to all places of its target.
pub async fn carry(target: &Target, scene: &Scene, held: &Held, urgency: Urgency) -> Vec<Delivered> {
    let issue = held.issue();
    let surroundings = scene.surroundings(target).await;
    let render = |format: &Format| payload(held, format, &surroundings);
    let load = load(target, held, &issue, &render, urgency);
    delivery::deliver(&target.deliver, &load, &scene.stores).await
}

/// One more attempt at a place that is owed; `served` is the fallback that has the token already.
pub async fn pay(target: &Target, scene: &Scene, held: &Held, place: &Place, served: Option<(usize, String)>) -> Delivered {
    let issue = held.issue();
    let surroundings = scene.surroundings(target).await;
    let render = |format: &Format| payload(held, format, &surroundings);
    let urgency = Urgency { deadline: held.claims.exp.unwrap_or(0), retry: true };
    let load = load(target, held, &issue, &render, urgency);
    delivery::pay(place, &load, &scene.stores, served).await
}

fn load<'a>(
    target: &'a Target,
    held: &Held,
    issue: &'a str,
    render: &'a (dyn Fn(&Format) -> Result<Payload, Failure> + Sync),
    urgency: Urgency,
) -> Load<'a> {
    let (issued_at, expires_at) = (held.claims.iat.unwrap_or(0), held.claims.exp.unwrap_or(0));
    Load { render, target: &target.name, issue, issued_at, expires_at, generation: held.generation, urgency }
}

fn payload(held: &Held, format: &Format, surroundings: &Surroundings) -> Result<Payload, Failure> {
    render(&held.token, &held.claims, format, surroundings).map_err(|missing| Failure::new(FailureKind::Local, missing.to_string()))
}

type Fresh = Result<(Minted, Proof, Duration), (MintFailure, Option<Minted>)>;

/// A token that is fit to replace a working one, with how it was proven.
async fn fresh(job: &mut Job) -> Option<Fresh> {
    let Some(cluster) = job.scene.cluster(&job.target.cluster).cloned() else {
        return Some(Err((refused(format!("the schedule has no cluster `{}`", job.target.cluster)), None)));
    };
    let turn = tokio::select! {
        turn = cluster.turn(urgency(job)) => turn,
        _ = job.stop.wait_for(|stop| *stop) => return None,
    };
    let begun = tokio::time::Instant::now();
    let minted = match cluster.mint(&job.target.ask, turn).await {
        Ok(minted) => minted,
        Err(failure) => return Some(Err((failure, None))),
    };
    let took = begun.elapsed();
    if let Some(seconds) = clock_ahead(&cluster, &minted.claims) {
        tracing::warn!(target_name = job.target.name, seconds, "this host's clock and the API server's differ");
    }
    Some(match prove(job, &cluster, &minted).await {
        Ok(proof) => Ok((minted, proof, took)),
        Err(failure) => Err((failure, Some(minted))),
    })
}

/// Seconds between the token's `iat` and this host's clock, where they are too many to be a slow answer.
fn clock_ahead(cluster: &Cluster, claims: &Claims) -> Option<i64> {
    let difference = claims.iat? - Timestamp::now().as_second();
    (!cluster.is_embedded() && difference.abs() > 30).then_some(difference)
}

async fn prove(job: &Job, cluster: &Cluster, minted: &Minted) -> Result<Proof, MintFailure> {
    let ours = start::provable(&job.target, &minted.claims);
    if !job.target.prove || !ours || cluster.is_embedded() {
        return Ok(Proof::Claims);
    }
    let mut unknown = String::new();
    for attempt in 0..PROOF_TRIES {
        match cluster.prove(&minted.token, &minted.claims.sub, urgency(job)).await {
            Proven::Online => return Ok(Proof::Online),
            Proven::NotOffered(_) => return Ok(Proof::Claims),
            Proven::Refused(why) => {
                return Err(MintFailure {
                    kind: MintFailureKind::BadAnswer,
                    message: format!("the fresh token failed its proof: {why}; the one in use stays"),
                    retry_after: None,
                    audit_id: minted.audit_id.clone(),
                });
            }
            Proven::Unknown(why) => unknown = why,
        }
        tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
    }
    let now = Timestamp::now().as_second();
    #[allow(clippy::cast_precision_loss)]
    let left = job.in_use.map_or(0.0, |(iat, exp)| (exp - now) as f64 / (exp - iat).max(1) as f64);
    if left < TOO_LATE_TO_PROVE {
        return Ok(Proof::Claims);
    }
    let message = format!("the fresh token cannot be proven now ({unknown}); the one in use stays");
    Err(MintFailure { kind: MintFailureKind::Unavailable, message, retry_after: None, audit_id: minted.audit_id.clone() })
}

async fn fail(job: &Job, failure: &MintFailure, minted: Option<Minted>) -> Finished {
    let mut line = Line::new(Kind::Failed, Timestamp::now());
    about(&mut line, job);
    line.error = Some(failure.message.clone());
    line.audit_id = failure.audit_id.clone();
    line.jti = minted.and_then(|m| m.claims.jti);
    let passing = matches!(failure.kind, MintFailureKind::Unavailable | MintFailureKind::Throttled);
    let durable = record(&job.writer, &line).await;
    Finished {
        line,
        held: None,
        fault: Some(Fault { passing, retry_after: failure.retry_after }),
        durable,
        mint_took: None,
        places_took: Vec::new(),
    }
}

async fn record(writer: &Writer, line: &Line) -> bool {
    tell(line);
    writer.append(vec![line.clone()]).await == crate::record::append::Appended::Durable
}

/// The event in the log, with the fields that journald makes searchable.
pub fn tell(line: &Line) {
    let target = line.target.as_deref().unwrap_or_default();
    let jti = line.jti.as_deref().unwrap_or_default();
    let places = line.sinks.iter().map(|s| format!("{}={:?}", s.place, s.outcome).to_lowercase()).collect::<Vec<_>>().join(" ");
    match line.kind {
        Kind::Failed => {
            let error = line.error.clone().or_else(|| line.sinks.iter().find_map(|s| s.error.clone())).unwrap_or_default();
            tracing::error!(target_name = target, jti, places, "rotation failed: {error}");
        }
        kind => {
            let kind = serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            let until = line.expires_at.map(|t| t.to_string()).unwrap_or_default();
            tracing::info!(target_name = target, jti, places, until, "{kind}");
        }
    }
}

fn describe(job: &Job, claims: &Claims, issue: &str) -> Line {
    let mut line = Line::new(Kind::Rotated, Timestamp::now());
    about(&mut line, job);
    line.granted = claims.lifetime().and_then(|s| u64::try_from(s).ok());
    line.issued_at = claims.iat.and_then(|s| Timestamp::from_second(s).ok());
    line.expires_at = claims.exp.and_then(|s| Timestamp::from_second(s).ok());
    line.jti = Some(issue.to_owned());
    line
}

fn about(line: &mut Line, job: &Job) {
    identify(line, &job.target);
    line.generation = Some(job.generation);
    line.reason = Some(job.reason);
    line.actor.clone_from(&job.actor);
    line.requested = Some(job.target.ask.duration);
    line.attempts = Some(job.failures + 1);
}

/// What every record of a target says of it.
pub fn identify(line: &mut Line, target: &Target) {
    line.target = Some(target.name.clone());
    line.cluster = Some(target.cluster.clone());
    line.service_account = Some(format!("{}/{}", target.ask.namespace, target.ask.service_account));
    line.labels.clone_from(&target.labels);
    line.ask = Some(ask_hash(target));
}

/// Names what a target asks for, its duration apart: a token minted for another ask is no token of this one.
pub fn ask_hash(target: &Target) -> String {
    let ask = &target.ask;
    let text = format!("{}\n{}\n{}\n{:?}\n{:?}", target.cluster, ask.namespace, ask.service_account, ask.audiences, ask.bound_to);
    hex(&ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..8])
}

/// The entry of one place.
pub fn sink_line(place: &Place, delivered: &Delivered) -> SinkLine {
    let word = |kind: FailureKind| serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned));
    SinkLine {
        sink: place.sink.kind().into(),
        place: place.sink.place(),
        outcome: delivered.outcome,
        sha256: matches!(delivered.outcome, Outcome::Written | Outcome::Unchanged | Outcome::FellBack).then(|| delivered.sha256.clone()),
        attempts: delivered.attempts,
        kind: delivered.failure.as_ref().and_then(|f| word(f.kind)),
        error: delivered.failure.as_ref().map(|f| f.message.clone()),
        fallback: delivered.fallback.as_ref().map(|(_, place)| place.clone()),
        jti: None,
        since: None,
    }
}

/// Whether a failed place mends itself.
pub fn fault_of(delivered: &Delivered) -> Fault {
    let failure = delivered.failure.as_ref();
    Fault { passing: failure.is_none_or(|f| f.kind.retry_soon()), retry_after: failure.and_then(|f| f.retry_after) }
}

fn urgency(job: &Job) -> Urgency {
    Urgency { deadline: job.in_use.map_or(i64::MIN, |(_, exp)| exp), retry: job.failures > 0 }
}

fn refused(message: String) -> MintFailure {
    MintFailure { kind: MintFailureKind::Refused, message, retry_after: None, audit_id: None }
}

/// A token's name: its `jti`, or a hash of it where the cluster is too old to give one.
pub fn issue(claims: &Claims, token: &Token) -> String {
    claims.jti.clone().unwrap_or_else(|| {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.expose().as_bytes());
        format!("sha256:{}", &hex(digest.as_ref())[..32])
    })
}
