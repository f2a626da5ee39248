//! Calls per minute on each API server and store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::schedule::plan::{Plan, Target};
use crate::schedule::proof;

/// The load on one server.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// `cluster` or `store`.
    pub kind: &'static str,
    /// Its name in the schedule.
    pub name: String,
    /// All calls of that time.
    pub calls: u64,
    /// Most calls in one minute.
    pub peak_per_minute: u64,
    /// When that is.
    pub peak_at: Option<Timestamp>,
    /// `limits.perSecond`; 0 = none.
    pub per_second: u32,
    /// Calls in each twenty-fourth of the time, for a chart.
    pub chart: Vec<u64>,
}

/// Parts of a chart.
pub const PARTS: usize = 24;

struct Count {
    per_second: u32,
    minutes: Vec<u32>,
}

/// The loads while they are counted.
pub struct Loads {
    from: i64,
    counts: BTreeMap<(&'static str, String), Count>,
}

impl Loads {
    /// For all servers of the plan.
    pub fn new(plan: &Plan, from: i64, seconds: i64) -> Self {
        let minutes = usize::try_from(seconds / 60 + 1).unwrap_or(1);
        let clusters = plan.clusters.iter().map(|(name, c)| (("cluster", name.clone()), c.limits.per_second));
        let stores = plan.stores.iter().map(|(name, s)| (("store", name.clone()), s.limits.per_second));
        let counts = clusters.chain(stores).map(|(key, per_second)| (key, Count { per_second, minutes: vec![0; minutes] }));
        Self { from, counts: counts.collect() }
    }

    /// Counts one rotation.
    pub fn add(&mut self, target: &Target, at: i64) {
        let minute = usize::try_from((at - self.from) / 60).unwrap_or(0);
        let mut add = |kind, name: &str, calls: u64| {
            if let Some(slot) = self.counts.get_mut(&(kind, name.to_owned())).and_then(|count| count.minutes.get_mut(minute)) {
                *slot = slot.saturating_add(u32::try_from(calls).unwrap_or(u32::MAX));
            }
        };
        add("cluster", &target.cluster, proof::mint_calls(target));
        let mut stores: Vec<&str> = target.deliver.iter().filter_map(|place| place.sink.store()).collect();
        stores.sort_unstable();
        stores.dedup();
        for store in stores {
            add("store", store, proof::store_calls(target, store));
        }
    }

    /// What was counted.
    pub fn finish(self) -> Vec<Load> {
        let from = self.from;
        let load = |((kind, name), count): ((&'static str, String), Count)| {
            let peak = count.minutes.iter().enumerate().max_by_key(|(index, calls)| (**calls, std::cmp::Reverse(*index)));
            let peak = peak.filter(|(_, calls)| **calls > 0);
            let part = count.minutes.len().div_ceil(PARTS).max(1);
            Load {
                kind,
                name,
                calls: count.minutes.iter().map(|c| u64::from(*c)).sum(),
                peak_per_minute: peak.map_or(0, |(_, calls)| u64::from(*calls)),
                peak_at: peak.and_then(|(index, _)| Timestamp::from_second(from + 60 * i64::try_from(index).ok()?).ok()),
                per_second: count.per_second,
                chart: count.minutes.chunks(part).map(|minutes| minutes.iter().map(|c| u64::from(*c)).sum()).collect(),
            }
        };
        self.counts.into_iter().map(load).collect()
    }
}
