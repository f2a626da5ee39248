//! What will happen: the timetable of a plan over hours or days, the load that it puts on each server, and which
//! outages it survives. Pure: from the plan, the lives of the tokens in use and the time.

pub mod drill;
mod load;

use std::collections::BinaryHeap;

use jiff::Timestamp;
use serde::Serialize;

use crate::record::State;
use crate::schedule::plan::{Plan, Target};
use crate::schedule::timing::{self, Life, Why};

pub use load::Load;

/// One rotation to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coming {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub target: String,
    /// `new`, `lifetime`, `cron` or `missed`.
    pub why: &'static str,
    /// Seconds of life that the token before has left by then; `None` for the first one.
    pub left: Option<i64>,
}

/// Cron times of a target against the life of its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Whose.
    pub target: String,
    /// Most seconds between two of its cron times.
    pub widest_gap: u64,
    /// Seconds of its token's real life.
    pub life: u64,
    /// Seconds after which it is due by its life in any case.
    pub due_after: u64,
}

/// What will happen in the time that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The next rotations, in order.
    pub next: Vec<Coming>,
    /// All rotations of that time.
    pub rotations: u64,
    /// The load on each server.
    pub loads: Vec<Load>,
    /// Cron gaps against lives, the tightest first.
    pub gaps: Vec<Gap>,
    /// The least time that any token has left when its rotation is due, seconds, and whose it is.
    pub tightest: Option<(String, i64)>,
}

/// The real life of the target's token: as recorded, else as asked for.
pub(crate) fn granted(target: &Target, state: &State) -> i64 {
    let recorded = state.target(&target.name).and_then(|s| Some(s.expires_at?.as_second() - s.issued_at?.as_second()));
    recorded.filter(|life| *life > 0).unwrap_or_else(|| i64::try_from(target.ask.duration).unwrap_or(i64::MAX / 4))
}

/// A target's rotations from now on: when, why, and the life that ends with each.
pub(crate) fn timetable<'a>(
    target: &'a Target,
    state: &State,
    now: i64,
    host: &'a str,
) -> impl Iterator<Item = (i64, &'static str, Option<Life>)> + 'a {
    let seconds = granted(target, state);
    let recorded =
        state.target(&target.name).and_then(|s| Some(Life { issued_at: s.issued_at?.as_second(), expires_at: s.expires_at?.as_second() }));
    let mut life = recorded;
    let mut clock = now;
    std::iter::from_fn(move || {
        if target.suspend {
            return None;
        }
        let (at, why) = match life {
            None => (clock, "new"),
            Some(life) => match timing::next_rotation(target, life, clock, host) {
                (at, Why::Lifetime) => (at, "lifetime"),
                (at, Why::Cron) => (at, "cron"),
                (at, Why::Missed) => (at, "missed"),
            },
        };
        let ends = life;
        // A second at least, so that no timetable stands still.
        let at = at.max(clock + i64::from(ends.is_some() && clock != now));
        clock = at;
        life = Some(Life { issued_at: at, expires_at: at.saturating_add(seconds) });
        Some((at, why, ends))
    })
}

/// Looks ahead for so many seconds; `first` rotations are listed.
pub fn forecast(plan: &Plan, state: &State, now: Timestamp, seconds: i64, first: usize, host: &str) -> Forecast {
    let (from, until) = (now.as_second(), now.as_second().saturating_add(seconds));
    let mut earliest: BinaryHeap<(i64, usize, &'static str, Option<i64>)> = BinaryHeap::new();
    let mut loads = load::Loads::new(plan, from, seconds);
    let (mut rotations, mut tightest) = (0u64, None::<(String, i64)>);
    for (index, target) in plan.targets.iter().enumerate() {
        for (at, why, life) in timetable(target, state, from, host).take_while(|(at, ..)| *at < until) {
            rotations += 1;
            loads.add(target, at);
            let left = life.map(|l| l.expires_at - at);
            if let Some(left) = left
                && tightest.as_ref().is_none_or(|(_, least)| left < *least)
            {
                tightest = Some((target.name.to_string(), left));
            }
            earliest.push((at, index, why, left));
            if earliest.len() > first {
                earliest.pop();
            }
        }
    }
    let next = earliest.into_sorted_vec().into_iter().filter_map(|(at, index, why, left)| {
        Some(Coming { at: Timestamp::from_second(at).ok()?, target: plan.targets[index].name.to_string(), why, left })
    });
    Forecast {
        from: now,
        until: Timestamp::from_second(until).unwrap_or(now),
        next: next.collect(),
        rotations,
        loads: loads.finish(),
        gaps: gaps(plan, state),
        tightest,
    }
}

fn gaps(plan: &Plan, state: &State) -> Vec<Gap> {
    let mut texts = crate::schedule::cron::CronTexts::default();
    let mut gaps: Vec<Gap> = Vec::new();
    for target in plan.targets.iter().filter(|t| !t.rotate.cron.is_empty() && !t.suspend) {
        let Some(widest_gap) = texts.largest_gap(&target.rotate.cron) else { continue };
        let life = u64::try_from(granted(target, state)).unwrap_or(0);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // lives are far below 2^52
        let due_after = (life as f64 * target.rotate.at) as u64;
        gaps.push(Gap { target: target.name.to_string(), widest_gap, life, due_after });
    }
    gaps.sort_by_key(|gap| i128::from(gap.due_after) - i128::from(gap.widest_gap));
    gaps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::check::{Sources, plan};

    const NOW: i64 = 1_780_308_000; // 2026-06-01T10:00:00Z

    fn planned(targets: &str) -> Plan {
        let text = format!(
            "version: 1\nclusters: {{prod: {{kubeconfig: /k}}}}\ndefaults: {{cluster: prod, serviceAccount: a/b, duration: 24h, rotate: {{splay: 0s}}}}\ntargets:\n{targets}"
        );
        plan(&Sources { path: "/etc/s.yaml".into(), text, includes: Vec::new() }, &BTreeMap::new()).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    #[test]
    fn a_target_without_a_token_is_due_now_and_then_at_its_share() {
        let plan = planned("  - {name: a, deliver: [{file: {path: /r/a}}]}\n");
        let seen = forecast(&plan, &State::default(), now(), 3 * 86_400, 10, "h");
        let times: Vec<i64> = seen.next.iter().map(|c| c.at.as_second() - NOW).collect();
        assert_eq!(times, [0, 69_120, 138_240, 207_360]);
        assert_eq!((seen.next[0].why, seen.next[1].why, seen.next[1].left), ("new", "lifetime", Some(17_280)));
        assert_eq!((seen.rotations, seen.loads[0].calls, seen.loads[0].peak_per_minute), (4, 8, 2));
    }

    #[test]
    fn cron_times_come_on_top_and_the_widest_gap_is_told() {
        let plan = planned("  - {name: a, rotate: {cron: \"0 12 * * 1-5\", timeZone: UTC}, deliver: [{file: {path: /r/a}}]}\n");
        let seen = forecast(&plan, &State::default(), now(), 2 * 86_400, 10, "h");
        let shown: Vec<(i64, &str)> = seen.next.iter().map(|c| ((c.at.as_second() - NOW) / 3600, c.why)).collect();
        assert_eq!(shown, [(0, "new"), (2, "cron"), (21, "lifetime"), (26, "cron"), (45, "lifetime")]);
        assert_eq!((seen.gaps[0].widest_gap, seen.gaps[0].due_after), (3 * 86_400, 69_120));
    }

    #[test]
    fn only_the_first_are_listed_and_all_are_counted() {
        let many: String = (0..50).map(|n| format!("  - {{name: t{n}, deliver: [{{file: {{path: /r/{n}}}}}]}}\n")).collect();
        let seen = forecast(&planned(&many), &State::default(), now(), 86_400, 7, "h");
        assert_eq!((seen.next.len(), seen.rotations), (7, 100));
        assert_eq!(seen.loads[0].peak_per_minute, 100);
    }

    #[test]
    fn a_suspended_target_has_no_timetable() {
        let plan = planned("  - {name: a, suspend: true, deliver: [{file: {path: /r/a}}]}\n");
        assert_eq!(forecast(&plan, &State::default(), now(), 86_400, 10, "h").rotations, 0);
    }

    #[test]
    fn a_drill_names_who_would_lose_a_token_and_what_would_have_saved_it() {
        let plan = planned(
            "  - {name: long, duration: 48h, deliver: [{file: {path: /r/a}}]}\n  - {name: short, deliver: [{file: {path: /r/b}}]}\n",
        );
        let lost = drill::drill(&plan, &State::default(), now(), 6 * 3600, "h");
        assert_eq!(lost.len(), 1, "{lost:?}");
        assert_eq!((lost[0].target.as_str(), lost[0].without), ("short", 6 * 3600 - 17_280));
        assert_eq!((lost[0].saving_at.as_deref(), lost[0].saving_duration.as_str()), (Some("74.9%"), "30h5m"));
        let saved = planned("  - {name: short, rotate: {at: 74.9%}, deliver: [{file: {path: /r/b}}]}\n");
        assert!(drill::drill(&saved, &State::default(), now(), 6 * 3600, "h").is_empty());
    }
}
