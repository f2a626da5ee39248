//! The decisions of a delivery to one place: another attempt, a fallback, or the end. Pure: times and chance are
//! passed in.

use std::time::Duration;

use super::{Delivered, Outcome};
use crate::cluster::Verdict;
use crate::sink::{Failure, FailureKind, Place, Put};

/// A rotation tries a place for this long before it reports it as owed.
pub const WITHIN: Duration = Duration::from_secs(10);
/// After this long a fallback is written, and the rest of the time is its.
const BEFORE_FALLBACK: Duration = Duration::from_secs(4);
/// Backoff inside a rotation: full jitter below a bound that doubles.
const BASE: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(2);

/// The attempts at one place so far.
pub struct Tries<'a> {
    place: &'a Place,
    sha256: String,
    /// Attempts begin within that time.
    patience: Duration,
    /// The fallback that has the token already.
    served: Option<(usize, String)>,
    attempts: u32,
    /// The fallback that is being tried, and why the place itself does not have the token.
    fallback: Option<(usize, Failure)>,
}

/// What is done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The same place again, after that pause.
    Again(Duration),
    /// The fallback of that index.
    Fallback(usize),
    /// Nothing more.
    Over(Delivered),
}

impl<'a> Tries<'a> {
    /// The tries of a rotation; `sha256` is that of the payload meant for the place.
    pub fn new(place: &'a Place, sha256: String) -> Self {
        let patience = if place.fallback.is_empty() { WITHIN } else { BEFORE_FALLBACK };
        Self { place, sha256, patience, served: None, attempts: 0, fallback: None }
    }

    /// One attempt at a place that is owed; `served` is the fallback that has the token already.
    pub fn once_more(place: &'a Place, sha256: String, served: Option<(usize, String)>) -> Self {
        Self { place, sha256, patience: Duration::ZERO, served, attempts: 0, fallback: None }
    }

    /// The place that is tried.
    pub fn place(&self) -> &'a Place {
        self.place
    }

    /// Takes the result of an attempt, `elapsed` after the first began; `share` in [0, 1) is the jitter.
    pub fn after(&mut self, result: Result<Put, Failure>, elapsed: Duration, share: f64) -> Step {
        match (self.fallback.take(), result) {
            (None, result) => {
                self.attempts += 1;
                match result {
                    Ok(Put::Written) => self.over(Outcome::Written, None, None),
                    Ok(Put::Unchanged) => self.over(Outcome::Unchanged, None, None),
                    Err(failure) => self.failed(failure, elapsed, share),
                }
            }
            (Some((index, failure)), Ok(_)) => {
                let place = self.place.fallback[index].sink.place();
                self.over(Outcome::FellBack, Some(failure), Some((index, place)))
            }
            (Some((index, failure)), Err(error)) => {
                tracing::warn!(place = self.place.fallback[index].sink.place(), %error, "the fallback failed too");
                self.fall_back(index + 1, failure)
            }
        }
    }

    fn failed(&mut self, failure: Failure, elapsed: Duration, share: f64) -> Step {
        let pause = failure.retry_after.unwrap_or_else(|| backoff(self.attempts, failure.kind, share));
        if failure.kind.retry_soon() && elapsed + pause < self.patience {
            return Step::Again(pause);
        }
        if let Some(served) = self.served.take() {
            return self.over(Outcome::FellBack, Some(failure), Some(served));
        }
        self.fall_back(0, failure)
    }

    /// The place does not have it: its fallbacks in order, where the failure is one of unavailability.
    fn fall_back(&mut self, index: usize, failure: Failure) -> Step {
        if failure.kind.allows_fallback() && index < self.place.fallback.len() {
            self.fallback = Some((index, failure));
            return Step::Fallback(index);
        }
        let outcome = if failure.kind.is_final() { Outcome::Failed } else { Outcome::Owed };
        self.over(outcome, Some(failure), None)
    }

    fn over(&mut self, outcome: Outcome, failure: Option<Failure>, fallback: Option<(usize, String)>) -> Step {
        let sha256 = std::mem::take(&mut self.sha256);
        Step::Over(Delivered { outcome, sha256, attempts: self.attempts, failure, fallback, took: Duration::ZERO })
    }
}

/// What an attempt shows of its store's health.
pub fn verdict(failure: Option<&Failure>) -> Verdict {
    match failure {
        None => Verdict::Healthy,
        Some(failure) => match failure.kind {
            FailureKind::Unavailable if failure.retry_after.is_some() => Verdict::Overloaded(failure.retry_after),
            FailureKind::Unavailable | FailureKind::BadAnswer => Verdict::Failed,
            FailureKind::Throttled => Verdict::Overloaded(failure.retry_after),
            _ => Verdict::Healthy,
        },
    }
}

/// Full jitter, but never a busy loop.
fn backoff(attempts: u32, kind: FailureKind, share: f64) -> Duration {
    let base = if kind == FailureKind::Throttled { Duration::from_secs(1) } else { BASE };
    let bound = base.saturating_mul(1 << attempts.min(10)).min(CAP);
    bound.mul_f64(0.1 + 0.9 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_stays_under_its_cap() {
        for (attempts, share) in (1..40).flat_map(|n| [(n, 0.0), (n, 0.99)]) {
            let pause = backoff(attempts, FailureKind::Unavailable, share);
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
            (FailureKind::Superseded, false),
            (FailureKind::HandedOver, false),
        ] {
            assert_eq!(kind.allows_fallback(), allowed, "{kind:?}");
        }
    }
}
