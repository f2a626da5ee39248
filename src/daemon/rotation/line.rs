//! What the records, and the log, say of a rotation.

use jiff::Timestamp;

use super::{Fault, Held};
use crate::cluster::{MintFailure, MintFailureKind};
use crate::daemon::binding;
use crate::daemon::timetable::Turn;
use crate::record::{Kind, Line, Outcome, Proof, SinkLine, word};
use crate::schedule::Target;
use crate::sink::Place;
use crate::sink::delivery::Delivered;
use crate::token::render::hex;
use crate::token::sealed::{Mark, Seals};
use crate::token::{Claims, Token};

/// The record of a rotation whose token was minted, and why it failed where it did. Pure.
pub fn conclude(turn: &Turn, held: &Held, proof: Proof, delivered: &[Delivered], now: Timestamp) -> (Line, Option<Fault>) {
    let places = || turn.target.deliver.iter().zip(delivered);
    let fault = places().find(|(place, d)| place.required && !d.outcome.is_served()).map(|(_, d)| fault_of(d));
    let mut line = Line::new(if fault.is_some() { Kind::Failed } else { Kind::Rotated }, now);
    about(&mut line, turn);
    line.granted = held.claims.lifetime().and_then(|s| u64::try_from(s).ok());
    line.issued_at = held.claims.iat.and_then(|s| Timestamp::from_second(s).ok());
    line.expires_at = held.claims.exp.and_then(|s| Timestamp::from_second(s).ok());
    line.jti = Some(held.issue());
    line.proof = Some(proof);
    line.sinks = places().map(|(place, d)| sink_line(place, d)).collect();
    (line, fault)
}

/// The record of a rotation that gave no token to publish; `jti` is that of one which failed its proof. Pure.
pub fn conclude_without(turn: &Turn, failure: &MintFailure, jti: Option<String>, now: Timestamp) -> (Line, Fault) {
    let mut line = Line::new(Kind::Failed, now);
    about(&mut line, turn);
    line.error = Some(failure.message.clone());
    line.audit_id.clone_from(&failure.audit_id);
    line.jti = jti;
    let passing = matches!(failure.kind, MintFailureKind::Unavailable | MintFailureKind::Throttled);
    (line, Fault { passing, retry_after: failure.retry_after })
}

/// The event in the log, with the fields that journald makes searchable.
pub fn tell(line: &Line) {
    let target = line.target.as_deref().unwrap_or_default();
    let jti = line.jti.as_deref().unwrap_or_default();
    let places = line.sinks.iter().map(|s| format!("{}={:?}", s.place, s.outcome).to_lowercase());
    let left = line.leaves.iter().map(|l| format!("{}={:?}", l.place, l.outcome).to_lowercase());
    let places = places.chain(left).collect::<Vec<_>>().join(" ");
    match line.kind {
        Kind::Failed => {
            let error = line.error.clone().or_else(|| line.sinks.iter().find_map(|s| s.error.clone())).unwrap_or_default();
            tracing::error!(target_name = target, jti, places, "rotation failed: {error}");
        }
        kind => {
            let kind = word(kind);
            let until = line.expires_at.map(|t| t.to_string()).unwrap_or_default();
            match &line.error {
                Some(error) => tracing::warn!(target_name = target, jti, places, until, "{kind}: {error}"),
                None => tracing::info!(target_name = target, jti, places, until, "{kind}"),
            }
        }
    }
}

fn about(line: &mut Line, turn: &Turn) {
    identify(line, &turn.target);
    line.generation = Some(turn.generation);
    line.reason = Some(turn.reason);
    line.actor.clone_from(&turn.actor);
    line.requested = Some(turn.target.ask.duration);
    line.attempts = Some(turn.failures + 1);
    line.markers = turn.marker.iter().map(|marker| binding::line(&turn.target, marker)).collect();
}

/// What every record of a target says of it.
pub fn identify(line: &mut Line, target: &Target) {
    line.target = Some(target.name.to_string());
    line.cluster = Some(target.cluster.to_string());
    line.service_account = Some(format!("{}/{}", target.ask.namespace, target.ask.service_account));
    line.labels.clone_from(&target.labels);
    line.ask = Some(ask_hash(target));
}

/// Names what a target asks for, its duration apart: a token minted for another ask is no token of this one.
pub fn ask_hash(target: &Target) -> String {
    let ask = &target.ask;
    let revocable = if target.revocable { "\nrevocable" } else { "" };
    let text =
        format!("{}\n{}\n{}\n{:?}\n{:?}{revocable}", target.cluster, ask.namespace, ask.service_account, ask.audiences, ask.bound_to);
    hex(&ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..8])
}

/// When something sealed was issued, unix seconds, where it says of itself that it is this target's. The hashes are made
/// for what is sealed alone.
pub fn sealed_at(bytes: &[u8], target: &Target) -> Option<i64> {
    let mark = Mark::of(bytes)?;
    let seals = Seals::new(target.places().flat_map(|place| &place.encrypt_to), &ask_hash(target));
    seals.know(&mark).then_some(mark.issued_at)
}

/// The entry of one place.
pub fn sink_line(place: &Place, delivered: &Delivered) -> SinkLine {
    SinkLine {
        sha256: matches!(delivered.outcome, Outcome::Written | Outcome::Unchanged | Outcome::FellBack).then(|| delivered.sha256.clone()),
        attempts: delivered.attempts,
        kind: delivered.failure.as_ref().map(|f| word(f.kind)),
        error: delivered.failure.as_ref().map(|f| f.message.clone()),
        fallback: delivered.fallback.as_ref().map(|(_, place)| place.clone()),
        ..SinkLine::new(place.sink.kind(), place.sink.place(), delivered.outcome)
    }
}

/// Whether a failed place mends itself.
pub fn fault_of(delivered: &Delivered) -> Fault {
    let failure = delivered.failure.as_ref();
    Fault { passing: failure.is_none_or(|f| f.kind.retry_soon()), retry_after: failure.and_then(|f| f.retry_after) }
}

/// A token's name: its `jti`, or a hash of it where the cluster is too old to give one.
pub fn issue(claims: &Claims, token: &Token) -> String {
    claims.jti.clone().unwrap_or_else(|| {
        let digest = ring::digest::digest(&ring::digest::SHA256, token.expose().as_bytes());
        format!("sha256:{}", &hex(digest.as_ref())[..32])
    })
}
