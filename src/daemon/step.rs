//! What is next for a target? Pure: from its records, its plan and the time. Times are unix milliseconds
//! where they are due times, unix seconds where they are claims.

use jiff::Timestamp;
use serde::Serialize;

use super::rotation::Fault;
use crate::record::Reason;
use crate::record::fold::TargetState;
use crate::schedule::Target;
use crate::schedule::timing::{self, Life, Why};

/// Slow retries: what a person has to mend (a missing role, account, folder) may appear any minute. They begin as
/// fast as others: an API server that has just started refuses with 403 what it allows a second later.
const SLOW: i64 = 300_000;
/// First pause after a failure that passes by itself.
const FIRST: i64 = 1_000;
/// Longest pause while there is time.
const LONGEST: i64 = 30_000;
/// A token issued that many seconds ahead of the server's time was issued by another clock.
const AHEAD: i64 = 60;
/// Longest pause when a token is about to end.
const URGENT: i64 = 5_000;

/// The life of the token in use, as recorded.
pub fn life(state: &TargetState) -> Option<Life> {
    Some(Life { issued_at: state.issued_at?.as_second(), expires_at: state.expires_at?.as_second() })
}

/// When the target is to be rotated and why, given no failure; `None` where it never is by itself.
///
/// `now` is the API server's time where `server_time` says so: only then is a token from the future one that was
/// issued by a wrong clock.
pub fn due(target: &Target, state: Option<&TargetState>, now: Timestamp, server_time: bool, host: &str) -> Option<(i64, Reason)> {
    if target.suspend {
        return None;
    }
    let seconds = now.as_second();
    let Some(life) = state.and_then(life) else { return Some((now.as_millisecond(), Reason::New)) };
    if state.is_some_and(|s| s.rejected_at.is_some()) {
        return Some((now.as_millisecond(), Reason::Rejected));
    }
    if server_time && life.issued_at > seconds + AHEAD {
        return Some((now.as_millisecond(), Reason::Clock));
    }
    let (at, why) = timing::next_rotation(target, life, seconds, host);
    let reason = match why {
        Why::Lifetime => Reason::Lifetime,
        Why::Missed => Reason::Missed,
        Why::Cron if has_ticked(target, life, now) => Reason::Cron,
        // A cron time ahead is the scheduler's to tell.
        Why::Cron => return Some((timing::due_by_lifetime(target, life, host).saturating_mul(1000), Reason::Lifetime)),
    };
    Some((at.saturating_mul(1000), reason))
}

fn has_ticked(target: &Target, life: Life, now: Timestamp) -> bool {
    let issued = Timestamp::from_second(life.issued_at).unwrap_or(now);
    target.rotate.cron.iter().any(|rule| rule.next(issued).is_some_and(|tick| tick <= now))
}

/// When a person can expect the next rotation, cron times ahead included.
pub fn next_rotation(target: &Target, state: Option<&TargetState>, now: Timestamp, host: &str) -> Option<Timestamp> {
    if target.suspend {
        return None;
    }
    let life = state.and_then(life)?;
    Timestamp::from_second(timing::next_rotation(target, life, now.as_second(), host).0).ok()
}

/// When a failed rotation is tried again: soon and ever later while life is long, sooner as it ends; never given up.
/// `share` in [0, 1) is the jitter.
pub fn retry(now: i64, failures: u32, fault: Fault, life: Option<Life>, share: f64) -> i64 {
    let left = life.map_or(0, |l| l.expires_at.saturating_mul(1000) - now);
    let whole = life.map_or(0, |l| l.seconds().saturating_mul(1000));
    let bound = if !fault.passing {
        // Slow in the end, yet at least twice in what is left of a short life.
        if life.is_some() { SLOW.min((left / 2).max(URGENT)) } else { SLOW }
    } else if life.is_none() {
        LONGEST
    } else if left < whole / 10 {
        URGENT
    } else {
        LONGEST.min((left / 20).max(FIRST))
    };
    let grown = FIRST.saturating_mul(1 << failures.min(20).saturating_sub(1)).min(bound);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // far below 2^52
    let jittered = (grown as f64 * (0.5 + share / 2.0)) as i64;
    let wish = fault.retry_after.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX).min(600_000));
    now + jittered.max(wish).max(10)
}

/// The API server's time as well as it is known: the local clock, put right by the skew that its answers show.
/// Small differences are the network's.
pub fn server_time(local: Timestamp, skew: Option<f64>) -> Timestamp {
    let skew = skew.filter(|s| s.abs() > 2.0).unwrap_or(0.0);
    #[allow(clippy::cast_possible_truncation)] // `as` saturates
    local.checked_add(jiff::SignedDuration::from_millis((skew * 1000.0) as i64)).unwrap_or(local)
}

/// A word for how a target stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// It never had a token.
    New,
    /// All is well.
    Fresh,
    /// Its time has come; its turn has not.
    Due,
    /// Being rotated.
    Rotating,
    /// The last try failed, or a place is owed; there is time.
    Retrying,
    /// Failing, and little life is left.
    AtRisk,
    /// What is served has ended.
    Expired,
    /// What is served is refused by the API server.
    Rejected,
    /// Rotated on request only.
    Suspended,
    /// Another member of the fleet serves it.
    Elsewhere,
    /// A person took it back; it is published again on request only, or when its schedule changes.
    Withdrawn,
}

impl Standing {
    /// Whether it needs a person now: `status` exits 1.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::AtRisk | Self::Expired | Self::Rejected)
    }
}

/// Whether a target's last try failed.
pub fn is_failing(state: Option<&TargetState>, failures: u32) -> bool {
    failures > 0 || state.is_some_and(|s| s.failures > 0)
}

/// What is wrong with the token in use, where it needs a person: rejected, expired or at risk.
pub fn danger(target: &Target, state: Option<&TargetState>, rotating: bool, failures: u32, now: Timestamp) -> Option<Standing> {
    let life = state.and_then(life);
    let seconds = now.as_second();
    if state.is_some_and(|s| s.rejected_at.is_some()) {
        return Some(Standing::Rejected);
    }
    if life.is_some_and(|l| l.expires_at <= seconds) {
        return Some(Standing::Expired);
    }
    let given_up = is_failing(state, failures) || !rotating;
    let late = |life: Life| given_up && !target.suspend && seconds >= timing::at_risk_from(target, life);
    life.filter(|life| late(*life)).map(|_| Standing::AtRisk)
}

/// How a target stands now.
pub fn standing(target: &Target, state: Option<&TargetState>, rotating: bool, failures: u32, now: Timestamp, host: &str) -> Standing {
    if let Some(danger) = danger(target, state, rotating, failures, now) {
        return danger;
    }
    let life = state.and_then(life);
    let troubled = is_failing(state, failures);
    let owed = state.is_some_and(|s| s.places.iter().any(|p| p.owed()));
    if rotating {
        return Standing::Rotating;
    }
    if troubled || owed {
        return Standing::Retrying;
    }
    if target.suspend {
        return Standing::Suspended;
    }
    let Some(_) = life else { return Standing::New };
    match due(target, state, now, false, host) {
        Some((at, _)) if at <= now.as_millisecond() => Standing::Due,
        _ => Standing::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const PASSING: Fault = Fault { passing: true, retry_after: None };
    const LASTING: Fault = Fault { passing: false, retry_after: None };

    #[test]
    fn a_refused_target_is_tried_soon_at_first_and_slowly_in_the_end() {
        let life = Some(Life { issued_at: 0, expires_at: 86_400 });
        assert!(retry(0, 1, LASTING, life, 0.5) <= 1_000);
        let at = retry(0, 15, LASTING, life, 0.0);
        assert!((150_000..=300_000).contains(&at), "{at}");
    }

    #[test]
    fn a_wish_of_the_server_is_a_floor() {
        let fault = Fault { passing: true, retry_after: Some(Duration::from_secs(40)) };
        assert!(retry(0, 1, fault, None, 0.9) >= 40_000);
    }

    #[test]
    fn the_first_retry_comes_within_a_second_even_for_a_long_life() {
        let life = Some(Life { issued_at: 0, expires_at: 86_400 });
        assert!(retry(0, 1, PASSING, life, 0.99) <= 1_000);
    }

    proptest! {
        #[test]
        fn retries_never_stop_and_tighten_as_the_end_nears(now in 0i64..86_400_000, failures in 1u32..1_000, share in 0.0f64..1.0) {
            let life = Life { issued_at: 0, expires_at: 86_400 };
            let at = retry(now, failures, PASSING, Some(life), share);
            prop_assert!(at > now && at - now <= LONGEST);
            if 86_400_000 - now < 8_640_000 {
                prop_assert!(at - now <= URGENT);
            }
        }
    }
}
