//! That no token can expire while its issuer answers: is there room for every rotation at the pace that each
//! server's limit allows? Pure. Times are in seconds.
//!
//! Targets that were minted together come due together, spread by their `splay` alone. All of them have to be
//! served between the first that is due and the end of the lives that end first. That holds at every deadline D
//! when the calls of all targets whose windows are D or shorter fit into D at `perSecond`; and nothing piles up when
//! all targets together need fewer calls per second than that.

use crate::schedule::plan::Target;
use crate::schedule::timing;
use crate::sink::{Place, SinkSpec};

/// A peak that a limit cannot serve before tokens end, or a load that it can never serve.
#[derive(Debug, Clone, PartialEq)]
pub struct TooSlow {
    /// Targets that may have to be served in that time.
    pub targets: usize,
    /// Calls that they need.
    pub calls: u64,
    /// Seconds in which they have to be made.
    pub within: u64,
    /// The smallest limit per second that would do.
    pub enough: u64,
}

/// What one server is asked by one target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Calls of one rotation.
    pub calls: u64,
    /// Seconds from when it may be due at the earliest to the end of the token's life.
    pub window: u64,
    /// Seconds between rotations, at the least.
    pub period: u64,
}

impl Demand {
    /// Of a target on a server that it asks so often for each rotation.
    pub fn of(target: &Target, calls: u64) -> Self {
        let life = i64::try_from(target.ask.duration).unwrap_or(i64::MAX);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // lives are far below 2^52
        let due = (life as f64 * target.rotate.at) as i64;
        let splay = timing::lifetime_splay(&target.rotate, life);
        let seconds = |time: i64| u64::try_from(time.max(1)).unwrap_or(1);
        Self { calls, window: seconds(life - due + splay), period: seconds(due - splay) }
    }
}

/// Calls of one rotation for a revocable target: its marker is made, the ring looked through, an older marker deleted.
const MARKER_CALLS: u64 = 6;

/// Calls to the API server for one rotation: the mint, the proof where there is one, the marker where there is one.
pub fn mint_calls(target: &Target) -> u64 {
    1 + u64::from(target.prove) + MARKER_CALLS * u64::from(target.revocable)
}

/// Calls to a store for one rotation: each of its places is read and written. Fallbacks are not counted: they are
/// written instead.
pub fn store_calls(target: &Target, store: &str) -> u64 {
    let here = |place: &&Place| place.sink.store() == Some(store) && !matches!(place.sink, SinkSpec::File(_));
    2 * target.deliver.iter().filter(here).count() as u64
}

/// Whether a limit of so many calls per second can serve all of that in time; 0 is no limit.
///
/// # Errors
/// The tightest span that it cannot serve.
pub fn holds(mut demands: Vec<Demand>, per_second: u32) -> Result<(), TooSlow> {
    let limit = u64::from(per_second);
    if limit == 0 {
        return Ok(());
    }
    demands.sort_by_key(|d| d.window);
    let (mut calls, mut worst) = (0u64, None::<TooSlow>);
    for (index, demand) in demands.iter().enumerate() {
        calls = calls.saturating_add(demand.calls);
        let last_of_window = demands.get(index + 1).is_none_or(|next| next.window > demand.window);
        if last_of_window && calls > limit.saturating_mul(demand.window) {
            let enough = calls.div_ceil(demand.window);
            if worst.as_ref().is_none_or(|w| enough > w.enough) {
                worst = Some(TooSlow { targets: index + 1, calls, within: demand.window, enough });
            }
        }
    }
    if let Some(worst) = worst {
        return Err(worst);
    }
    #[allow(clippy::cast_precision_loss)]
    let steady: f64 = demands.iter().map(|d| d.calls as f64 / d.period as f64).sum();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    if steady > f64::from(per_second) {
        let calls = (steady * 3600.0).ceil() as u64;
        return Err(TooSlow { targets: demands.len(), calls, within: 3600, enough: steady.ceil() as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demands(count: usize, calls: u64, window: u64, period: u64) -> Vec<Demand> {
        vec![Demand { calls, window, period }; count]
    }

    #[test]
    fn without_a_limit_everything_can_be_served() {
        assert_eq!(holds(demands(1_000_000, 2, 1, 1), 0), Ok(()));
    }

    #[test]
    fn the_tightest_span_is_told_with_the_limit_that_would_do() {
        let mut mixed = demands(100, 2, 60, 3000);
        mixed.extend(demands(1000, 2, 7200, 36_000));
        assert_eq!(holds(mixed.clone(), 4), Ok(()));
        assert_eq!(holds(mixed, 3), Err(TooSlow { targets: 100, calls: 200, within: 60, enough: 4 }));
    }

    #[test]
    fn a_load_that_never_ends_is_refused_even_where_each_peak_fits() {
        let slow = holds(demands(10, 2, 100, 10), 1).unwrap_err();
        assert_eq!((slow.within, slow.enough), (3600, 2));
    }

    proptest! {
        /// Earliest deadline first, second by second, all due at once: what the proof allows is served in time.
        #[test]
        fn what_holds_is_served_in_time(windows in prop::collection::vec((1u64..4, 1u64..300), 1..60), limit in 1u32..8) {
            let all: Vec<Demand> = windows.iter().map(|(calls, window)| Demand { calls: *calls, window: *window, period: 1_000_000 }).collect();
            let mut queue: Vec<(u64, u64)> = windows.iter().map(|(calls, window)| (*window, *calls)).collect();
            queue.sort_unstable();
            let mut done = 0u64;
            let late = queue.iter().any(|(window, calls)| {
                done += calls;
                done.div_ceil(u64::from(limit)) > *window
            });
            prop_assert_eq!(holds(all, limit).is_err(), late);
        }
    }
}
