//! Bringing one payload to all places of a target: attempts, backoff, fallback. Places are independent:
//! a dead one delays no other.

pub mod probe;
pub mod tries;

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Context, Failure, FailureKind, Manners, Place, Put, Stores, put};
use crate::cluster::Urgency;
use crate::token::sealed::{self, Seals};
use crate::token::{Format, Payload};
use tries::{Step, Tries, WITHIN, verdict};

/// One attempt may take this long.
const ATTEMPT: Duration = Duration::from_secs(5);

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
    /// Tried in a rehearsal, and nothing speaks against it; nothing was written.
    Probed,
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
    /// What the target asks for, as the records name it: sealed payloads are known by it. Asked for these alone.
    pub ask: &'a (dyn Fn() -> String + Sync),
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
    /// For the sinks' manners.
    pub manners: Manners<'a>,
    /// Asked before each write, where somebody else may have the target by now.
    pub leave: Option<&'a dyn Leave>,
}

/// Gives leave to write.
pub trait Leave: Sync {
    /// Asks for it, now.
    ///
    /// # Errors
    /// Why not.
    fn ask(&self) -> BoxFuture<'_, Result<(), Failure>>;
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
    match made(place, load) {
        Ok(payload) => carry(Tries::new(place, payload.sha256()), payload, Gate::FailFast, load, stores).await,
        Err(failure) => unrendered(failure),
    }
}

/// What goes to a place: the token as it is written there, sealed where the place says to whom.
///
/// # Errors
/// `Local`: the format says what is not known, or there are no random bytes.
pub fn made(place: &Place, load: &Load<'_>) -> Result<Payload, Failure> {
    let payload = (load.render)(&place.format)?;
    if place.encrypt_to.is_empty() {
        return Ok(payload);
    }
    let mark = Seals::new(&place.encrypt_to, &(load.ask)()).mark(load.issued_at, load.expires_at);
    let sealed = sealed::seal(&payload, &place.encrypt_to, &mark);
    sealed.map_err(|error| Failure::new(FailureKind::Local, error.to_string()))
}

/// What the sink of a place is told beside its payload.
fn context<'a>(place: &Place, load: &Load<'a>) -> Context<'a> {
    let Load { target, issue, issued_at, expires_at, generation, .. } = *load;
    let manners = Manners { sealed: !place.encrypt_to.is_empty(), ..load.manners };
    Context { target, issue, issued_at, expires_at, generation, timeout: ATTEMPT, manners }
}

/// One more attempt at a place that is owed. `served` is the fallback that holds the token already.
pub async fn pay(place: &Place, load: &Load<'_>, stores: &Stores, served: Option<(usize, String)>) -> Delivered {
    let begun = Instant::now();
    let delivered = match made(place, load) {
        Ok(payload) => carry(Tries::once_more(place, payload.sha256(), served), payload, Gate::Wait, load, stores).await,
        Err(failure) => unrendered(failure),
    };
    Delivered { took: begun.elapsed(), ..delivered }
}

/// There is nothing to write: what the format says beside the token is not known.
fn unrendered(failure: Failure) -> Delivered {
    Delivered { outcome: Outcome::Owed, sha256: String::new(), attempts: 0, failure: Some(failure), fallback: None, took: Duration::ZERO }
}

/// Does what the tries decide, until they are over. A place gets the same bytes in all of them: sealed anew they would be
/// others, and what an answer was lost of would be written twice.
async fn carry(mut tries: Tries<'_>, payload: Payload, gate: Gate, load: &Load<'_>, stores: &Stores) -> Delivered {
    let begun = Instant::now();
    let place = tries.place();
    let (mut at, mut payload, mut gate) = (place, Ok::<_, Failure>(payload), gate);
    loop {
        let result = match &payload {
            Ok(payload) => attempt(at, payload, load, stores, gate).await,
            Err(failure) => Err(failure.clone()),
        };
        match tries.after(result, begun.elapsed(), fraction()) {
            Step::Again(pause) => tokio::time::sleep(pause).await,
            Step::Fallback(index) => {
                let fallback = &place.fallback[index];
                (at, payload, gate) = (fallback, made(fallback, load), Gate::FailFast);
            }
            Step::Over(delivered) => return delivered,
        }
    }
}

/// What to do at a store whose breaker is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Fail at once: readers wait for a fallback, and the owed queue sends the probes.
    FailFast,
    /// Wait for the turn as a probe.
    Wait,
}

async fn attempt(place: &Place, payload: &Payload, load: &Load<'_>, stores: &Stores, gate: Gate) -> Result<Put, Failure> {
    let (sink, context) = (&place.sink, context(place, load));
    let allowed = || async {
        match load.leave {
            Some(leave) => leave.ask().await,
            None => Ok(()),
        }
    };
    let Some(upstream) = sink.upstream(stores) else {
        allowed().await?;
        return put(sink, payload, context, stores).await;
    };
    let upstream = upstream?;
    let name = format!("{} {}", if sink.store().is_some() { "store" } else { "cluster" }, upstream.name());
    if gate == Gate::FailFast && upstream.is_open() {
        return Err(Failure::new(FailureKind::Unavailable, format!("{name} does not answer; it is being tried again")));
    }
    let Some(permit) = upstream.turn(load.urgency, WITHIN).await else {
        return Err(Failure::new(FailureKind::Unavailable, format!("{name} answered nobody within {} s", WITHIN.as_secs())));
    };
    // In its turn, so that nothing stands between the answer and the write.
    let result = match allowed().await {
        Ok(()) => put(sink, payload, context, stores).await,
        Err(failure) => Err(failure),
    };
    permit.end(verdict(result.as_ref().err()));
    result
}

/// A random share in [0, 1).
fn fraction() -> f64 {
    use ring::rand::SecureRandom;
    let mut byte = [0u8; 2];
    // Without randomness the full bound is waited, which is safe.
    if ring::rand::SystemRandom::new().fill(&mut byte).is_err() {
        return 1.0;
    }
    f64::from(u16::from_le_bytes(byte)) / 65536.0
}
