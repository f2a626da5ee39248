//! Bringing one payload to all places of a target: attempts, backoff, fallback. Places are independent:
//! a dead one delays no other.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Context, Failure, FailureKind, Place, Put, SinkSpec, Stores, put};
use crate::cluster::{Urgency, Verdict};
use crate::token::{Format, Payload};

/// A rotation tries a place for this long before it reports it as owed.
const WITHIN: Duration = Duration::from_secs(10);
/// After this long a fallback is written, and the rest of the time is its.
const BEFORE_FALLBACK: Duration = Duration::from_secs(4);
/// One attempt may take this long.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Backoff inside a rotation: full jitter below a bound that doubles.
const BASE: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(2);

/// What became of one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// New bytes stand there.
    Written,
    /// The bytes stood there already.
    Unchanged,
    /// A fallback has them; the place is owed.
    FellBack,
    /// Nobody has them yet; it is tried again.
    Owed,
    /// Given up for this token: it can never stand there.
    Failed,
}

impl Outcome {
    /// Whether readers of the place, or of its fallback, have the token.
    pub fn is_served(self) -> bool {
        matches!(self, Self::Written | Self::Unchanged | Self::FellBack)
    }

    /// Whether the place itself is still to be written.
    pub fn is_owed(self) -> bool {
        matches!(self, Self::FellBack | Self::Owed)
    }
}

/// What became of one place, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The verdict.
    pub outcome: Outcome,
    /// SHA-256 of the payload meant for the place.
    pub sha256: String,
    /// Attempts made at it, its fallbacks not counted.
    pub attempts: u32,
    /// Why the place itself does not have it.
    pub failure: Option<Failure>,
    /// Which fallback has it, by its index and place.
    pub fallback: Option<(usize, String)>,
    /// How long it took, tries and pauses included.
    pub took: Duration,
}

/// A token on its way: what to write in which format, and how urgent it is.
pub struct Load<'a> {
    /// Makes the payload of a format.
    pub render: &'a (dyn Fn(&Format) -> Result<Payload, Failure> + Sync),
    /// Name of the target.
    pub target: &'a str,
    /// The token's `jti`.
    pub issue: &'a str,
    /// The token's `iat`, unix seconds.
    pub issued_at: i64,
    /// The token's `exp`, unix seconds.
    pub expires_at: i64,
    /// Which of its target's tokens it is.
    pub generation: u64,
    /// Its turn at the stores.
    pub urgency: Urgency,
}

/// Delivers to all places at once; the answer has their order.
pub async fn deliver(places: &[Place], load: &Load<'_>, stores: &Stores) -> Vec<Delivered> {
    let mut all: Vec<BoxFuture<'_, Delivered>> = Vec::with_capacity(places.len());
    for place in places {
        all.push(Box::pin(to_one(place, load, stores)));
    }
    futures_util::future::join_all(all).await
}

async fn to_one(place: &Place, load: &Load<'_>, stores: &Stores) -> Delivered {
    let begun = Instant::now();
    let delivered = tried(place, load, stores).await;
    Delivered { took: begun.elapsed(), ..delivered }
}

async fn tried(place: &Place, load: &Load<'_>, stores: &Stores) -> Delivered {
    let payload = match (load.render)(&place.format) {
        Ok(payload) => payload,
        Err(failure) => return unrendered(failure),
    };
    let begun = Instant::now();
    let patience = if place.fallback.is_empty() { WITHIN } else { BEFORE_FALLBACK };
    let mut attempts = 0;
    let failure = loop {
        attempts += 1;
        let failure = match attempt(&place.sink, &payload, load, stores, Gate::FailFast).await {
            Ok(put) => return done(put, &payload, attempts),
            Err(failure) => failure,
        };
        let pause = failure.retry_after.unwrap_or_else(|| backoff(attempts, failure.kind));
        if !failure.kind.retry_soon() || begun.elapsed() + pause >= patience {
            break failure;
        }
        tokio::time::sleep(pause).await;
    };
    unserved(place, load, stores, &payload, attempts, failure).await
}

/// One more attempt at a place that is owed. `served` is the fallback that holds the token already.
pub async fn pay(place: &Place, load: &Load<'_>, stores: &Stores, served: Option<(usize, String)>) -> Delivered {
    let begun = Instant::now();
    let delivered = one_more(place, load, stores, served).await;
    Delivered { took: begun.elapsed(), ..delivered }
}

async fn one_more(place: &Place, load: &Load<'_>, stores: &Stores, served: Option<(usize, String)>) -> Delivered {
    let payload = match (load.render)(&place.format) {
        Ok(payload) => payload,
        Err(failure) => return unrendered(failure),
    };
    match attempt(&place.sink, &payload, load, stores, Gate::Wait).await {
        Ok(put) => done(put, &payload, 1),
        Err(failure) if served.is_some() => Delivered {
            outcome: Outcome::FellBack,
            sha256: payload.sha256(),
            attempts: 1,
            failure: Some(failure),
            fallback: served,
            took: Duration::ZERO,
        },
        Err(failure) => unserved(place, load, stores, &payload, 1, failure).await,
    }
}

/// There is nothing to write: what the format says beside the token is not known.
fn unrendered(failure: Failure) -> Delivered {
    Delivered { outcome: Outcome::Owed, sha256: String::new(), attempts: 0, failure: Some(failure), fallback: None, took: Duration::ZERO }
}

fn done(put: Put, payload: &Payload, attempts: u32) -> Delivered {
    let outcome = match put {
        Put::Written => Outcome::Written,
        Put::Unchanged => Outcome::Unchanged,
    };
    Delivered { outcome, sha256: payload.sha256(), attempts, failure: None, fallback: None, took: Duration::ZERO }
}

/// The place does not have it: its fallbacks in order, where the failure is one of unavailability.
async fn unserved(place: &Place, load: &Load<'_>, stores: &Stores, payload: &Payload, attempts: u32, failure: Failure) -> Delivered {
    let sha256 = payload.sha256();
    if failure.kind.allows_fallback() {
        for (index, fallback) in place.fallback.iter().enumerate() {
            let put = match (load.render)(&fallback.format) {
                Ok(payload) => attempt(&fallback.sink, &payload, load, stores, Gate::FailFast).await,
                Err(failure) => Err(failure),
            };
            match put {
                Ok(_) => {
                    let fallback = Some((index, fallback.sink.place()));
                    return Delivered {
                        outcome: Outcome::FellBack,
                        sha256,
                        attempts,
                        failure: Some(failure),
                        fallback,
                        took: Duration::ZERO,
                    };
                }
                Err(error) => tracing::warn!(target_name = load.target, place = fallback.sink.place(), %error, "the fallback failed too"),
            }
        }
    }
    let outcome = if failure.kind == FailureKind::TooLarge { Outcome::Failed } else { Outcome::Owed };
    Delivered { outcome, sha256, attempts, failure: Some(failure), fallback: None, took: Duration::ZERO }
}

/// What to do at a store whose breaker is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Fail at once: readers wait for a fallback, and the owed queue sends the probes.
    FailFast,
    /// Wait for the turn as a probe.
    Wait,
}

async fn attempt(sink: &SinkSpec, payload: &Payload, load: &Load<'_>, stores: &Stores, gate: Gate) -> Result<Put, Failure> {
    let Load { target, issue, issued_at, expires_at, generation, .. } = *load;
    let context = Context { target, issue, issued_at, expires_at, generation, timeout: ATTEMPT };
    let Some(upstream) = sink.upstream(stores) else { return put(sink, payload, context, stores).await };
    let upstream = upstream?;
    let name = format!("{} {}", if sink.store().is_some() { "store" } else { "cluster" }, upstream.name());
    if gate == Gate::FailFast && upstream.is_open() {
        return Err(Failure::new(FailureKind::Unavailable, format!("{name} does not answer; it is being tried again")));
    }
    let turn = tokio::time::timeout(WITHIN, upstream.enter(load.urgency)).await;
    let Ok(permit) = turn else {
        return Err(Failure::new(FailureKind::Unavailable, format!("{name} gave no turn within {} s", WITHIN.as_secs())));
    };
    let result = put(sink, payload, context, stores).await;
    permit.end(match &result {
        Ok(_) => Verdict::Healthy,
        Err(failure) => match failure.kind {
            FailureKind::Unavailable if failure.retry_after.is_some() => Verdict::Overloaded(failure.retry_after),
            FailureKind::Unavailable | FailureKind::BadAnswer => Verdict::Failed,
            FailureKind::Throttled => Verdict::Overloaded(failure.retry_after),
            _ => Verdict::Healthy,
        },
    });
    result
}

fn backoff(attempts: u32, kind: FailureKind) -> Duration {
    let base = if kind == FailureKind::Throttled { Duration::from_secs(1) } else { BASE };
    let bound = base.saturating_mul(1 << attempts.min(10)).min(CAP);
    bound.mul_f64(fraction())
}

/// A random share in [0.1, 1): full jitter, but never a busy loop.
fn fraction() -> f64 {
    use ring::rand::SecureRandom;
    let mut byte = [0u8; 2];
    // Without randomness the full bound is waited, which is safe.
    if ring::rand::SystemRandom::new().fill(&mut byte).is_err() {
        return 1.0;
    }
    0.1 + 0.9 * f64::from(u16::from_le_bytes(byte)) / 65536.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_stays_under_its_cap() {
        for attempts in 1..40 {
            let pause = backoff(attempts, FailureKind::Unavailable);
            assert!(pause >= Duration::from_millis(5) && pause <= CAP, "{pause:?}");
        }
    }

    #[test]
    fn only_unavailability_reaches_a_fallback() {
        for (kind, allowed) in [
            (FailureKind::Unavailable, true),
            (FailureKind::Throttled, true),
            (FailureKind::BadAnswer, true),
            (FailureKind::Refused, false),
            (FailureKind::Local, false),
            (FailureKind::Conflict, false),
            (FailureKind::TooLarge, false),
        ] {
            assert_eq!(kind.allows_fallback(), allowed, "{kind:?}");
        }
    }
}
