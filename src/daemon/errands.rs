//! Which hook is told next? Pure: the loop says what waits, the answer is what begins now. Work has a key, and what
//! has the same key never overlaps; it has a time before which it may not begin.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::after::{Heard, HookSpec};
use crate::record::fold::{HookState, State, TargetState};
use crate::record::{HookLine, Kind, Line, Outcome};
use crate::schedule::Target;

/// Pauses after failures, ms: they double from the first to the longest.
const FIRST: i64 = 1_000;
const LONGEST: i64 = 300_000;
/// Work that several targets share waits that long for the others, ms.
const GATHER: i64 = 3_000;

/// Notes in the record of a delivery who has to be told of it: every hook, where something arrived somewhere.
pub fn announce(line: &mut Line, target: &Target) {
    let arrived = line.sinks.iter().any(|sink| matches!(sink.outcome, Outcome::Written | Outcome::FellBack));
    if arrived || matches!(line.kind, Kind::Rotated | Kind::Adopted) {
        line.hooks = target.after.iter().map(|hook| HookLine::pending(hook.kind(), hook.to())).collect();
    }
}

/// Whether all hooks of the plan were told of the target's newest token, or had nothing to be told of yet: nobody
/// needs the token before it any more.
pub fn all_told(target: &Target, state: &TargetState) -> bool {
    let waits = |hook: &HookSpec| state.hook(hook.kind(), &hook.to()).is_some_and(|hook| hook.outcome != Heard::Done);
    !target.after.iter().any(waits)
}

/// What is recorded of a hook that has still to be told.
pub fn waiting<'a>(state: &'a State, target: &Target, hook: &HookSpec) -> Option<&'a HookState> {
    state.target(&target.name)?.hook(hook.kind(), &hook.to()).filter(|state| state.outcome != Heard::Done)
}

/// Something that a target's hook has to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Work with this key never overlaps.
    pub key: String,
    /// Whose token.
    pub target: Arc<str>,
    /// Which of the target's hooks, by its index.
    pub hook: usize,
    /// Whether one run serves every target that waits for the key.
    pub shared: bool,
    /// Shortest time between the beginnings of two runs, ms.
    pub gap: i64,
    /// Whether nothing was tried yet for this token: pauses of an older one do not count.
    pub fresh: bool,
    /// When a run last ended well as far as records know, unix ms.
    pub told_at: Option<i64>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Its key.
    pub key: String,
    /// Whether it serves several.
    pub shared: bool,
    /// Targets, each with the index of its hook.
    pub of: Vec<(Arc<str>, usize)>,
}

impl Errand {
    fn retry_key(key: &str, shared: bool, target: &str) -> (String, String) {
        (key.to_owned(), if shared { String::new() } else { target.to_owned() })
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    tries: u32,
    not_before: i64,
}

/// What the loop remembers of hooks between their runs; all else is in the records.
#[derive(Debug, Default)]
pub struct Errands {
    running: HashSet<String>,
    retries: HashMap<(String, String), Retry>,
    begun: HashMap<String, i64>,
    wanted: HashMap<String, i64>,
}

impl Errands {
    /// Takes out what begins now; also gives the time, unix ms, at which more may begin.
    pub fn begin(&mut self, wants: Vec<Want>, now: i64, in_a_hurry: bool) -> (Vec<Errand>, Option<i64>) {
        let mut lanes: BTreeMap<String, Vec<Want>> = BTreeMap::new();
        for want in wants {
            lanes.entry(want.key.clone()).or_default().push(want);
        }
        self.wanted.retain(|key, _| lanes.contains_key(key));
        let (mut errands, mut next) = (Vec::new(), None::<i64>);
        for (key, wants) in lanes {
            if self.running.contains(&key) {
                continue;
            }
            let Some((at, first)) = self.first(&key, &wants, now, in_a_hurry) else { continue };
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            let shared = wants[first].shared;
            let of = wants.iter().enumerate().filter(|(index, _)| shared || *index == first);
            let of = of.map(|(_, want)| (Arc::clone(&want.target), want.hook)).collect();
            self.running.insert(key.clone());
            self.wanted.remove(&key);
            if wants[first].gap > 0 {
                self.begun.insert(key.clone(), now);
            }
            errands.push(Errand { key, shared, of });
        }
        (errands, next)
    }

    /// Which of the wants of one key comes first, and when.
    fn first(&mut self, key: &str, wants: &[Want], now: i64, in_a_hurry: bool) -> Option<(i64, usize)> {
        let gap = wants.iter().map(|want| want.gap).max().unwrap_or(0);
        let told = wants.iter().filter_map(|want| want.told_at).max();
        // A time that lies ahead was told by a clock that has been put back since.
        let begun = self.begun.get(key).copied().max(told).map(|begun| begun.min(now));
        let since = *self.wanted.entry(key.to_owned()).or_insert(now);
        let calm = match (in_a_hurry, gap) {
            (true, _) | (_, 0) => now,
            _ => begun.map_or(i64::MIN, |begun| begun + gap).max(since.min(now) + GATHER.min(gap)),
        };
        let at = |want: &Want| {
            let retry = self.retries.get(&Errand::retry_key(key, want.shared, &want.target)).copied().unwrap_or_default();
            if want.fresh { calm } else { calm.max(retry.not_before.min(now + LONGEST)) }
        };
        wants.iter().enumerate().map(|(index, want)| (at(want), index)).min()
    }

    /// A run is over. `share` in [0, 1) is the jitter of the next try.
    pub fn ended(&mut self, errand: &Errand, well: bool, now: i64, share: f64) {
        self.running.remove(&errand.key);
        for (target, _) in &errand.of {
            let key = Errand::retry_key(&errand.key, errand.shared, target);
            if well {
                self.retries.remove(&key);
                continue;
            }
            let retry = self.retries.entry(key).or_default();
            retry.tries += 1;
            let pause = FIRST.saturating_mul(1 << (retry.tries - 1).min(20)).min(LONGEST);
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // far below 2^52
            let jittered = (pause as f64 * (0.5 + share / 2.0)) as i64;
            retry.not_before = now + jittered;
            if errand.shared {
                break;
            }
        }
    }

    /// Failed attempts of a hook since the last one that did it.
    pub fn tries(&self, key: &str, shared: bool, target: &str) -> u64 {
        self.retries.get(&Errand::retry_key(key, shared, target)).map_or(0, |retry| u64::from(retry.tries))
    }

    /// Whether a run is under way.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn want(key: &str, target: &str, shared: bool, gap: i64) -> Want {
        Want { key: key.into(), target: Arc::from(target), hook: 0, shared, gap, fresh: false, told_at: None }
    }

    fn names(errands: &[Errand]) -> Vec<Vec<&str>> {
        errands.iter().map(|errand| errand.of.iter().map(|(name, _)| &**name).collect()).collect()
    }

    #[test]
    fn work_of_one_key_never_overlaps_and_other_keys_do_not_wait() {
        let mut errands = Errands::default();
        let wants = || vec![want("exec x", "a", false, 0), want("exec x", "b", false, 0), want("exec y", "c", false, 0)];
        let (first, _) = errands.begin(wants(), 0, false);
        assert_eq!(names(&first), [["a"], ["c"]]);
        assert_eq!(errands.begin(wants(), 1, false).0, []);
        errands.ended(&first[0], true, 2, 0.0);
        let (second, _) = errands.begin(vec![want("exec x", "b", false, 0)], 2, false);
        assert_eq!(names(&second), [["b"]]);
    }

    #[test]
    fn a_hook_that_fails_for_one_target_delays_no_other() {
        let mut errands = Errands::default();
        let wants = || vec![want("exec x", "a", false, 0), want("exec x", "b", false, 0)];
        let (first, _) = errands.begin(wants(), 0, false);
        errands.ended(&first[0], false, 10, 0.5);
        let (second, _) = errands.begin(wants(), 10, false);
        assert_eq!(names(&second), [["b"]]);
    }

    #[test]
    fn a_newer_token_does_not_wait_for_the_pause_of_an_older_one() {
        let mut errands = Errands::default();
        for _ in 0..3 {
            let (begun, _) = errands.begin(vec![Want { fresh: true, ..want("exec x", "a", false, 0) }], 0, false);
            errands.ended(&begun[0], false, 0, 0.5);
        }
        assert!(errands.begin(vec![want("exec x", "a", false, 0)], 0, false).0.is_empty());
        assert_eq!(errands.begin(vec![Want { fresh: true, ..want("exec x", "a", false, 0) }], 0, false).0.len(), 1);
    }

    #[test]
    fn targets_that_share_a_workload_share_its_restart_and_the_next_keeps_its_distance() {
        let mut errands = Errands::default();
        let of = |target: &str| want("rolloutRestart w", target, true, 60_000);
        let (none, next) = errands.begin(vec![of("a")], 1_000, false);
        assert_eq!((none, next), (vec![], Some(4_000)));
        let (both, _) = errands.begin(vec![of("a"), of("b")], 4_000, false);
        assert_eq!(names(&both), [["a", "b"]]);
        errands.ended(&both[0], true, 9_000, 0.0);
        let (none, next) = errands.begin(vec![of("a")], 10_000, false);
        assert_eq!((none, next), (vec![], Some(64_000)));
        assert_eq!(names(&errands.begin(vec![of("a"), of("c")], 64_000, false).0), [["a", "c"]]);
    }

    #[test]
    fn the_distance_holds_across_a_restart_and_a_clock_that_is_put_back_stops_nothing() {
        let mut errands = Errands::default();
        let told = |at| vec![Want { told_at: Some(at), ..want("rolloutRestart w", "a", true, 60_000) }];
        assert_eq!(errands.begin(told(100_000), 110_000, false).1, Some(160_000));
        assert_eq!(Errands::default().begin(told(9_000_000), 110_000, false).1, Some(170_000));
        assert_eq!(Errands::default().begin(told(100_000), 110_000, true).0.len(), 1);
    }

    proptest! {
        #[test]
        fn pauses_grow_to_their_bound_and_a_success_ends_them(fails in 1_u32..40, share in 0.0..1.0_f64) {
            let mut errands = Errands::default();
            let wants = || vec![want("exec x", "a", false, 0)];
            let mut now = 0;
            for _ in 0..fails {
                let (begun, next) = errands.begin(wants(), now, false);
                if begun.is_empty() {
                    let next = next.unwrap();
                    prop_assert!(next > now && next <= now + LONGEST);
                    now = next;
                    continue;
                }
                errands.ended(&begun[0], false, now, share);
            }
            let begun = loop {
                match errands.begin(wants(), now, false) {
                    (begun, None) => break begun,
                    (_, Some(next)) => now = next,
                }
            };
            errands.ended(&begun[0], true, now, share);
            prop_assert_eq!(errands.begin(wants(), now, false).0.len(), 1);
        }
    }
}
