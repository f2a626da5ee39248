//! Whether the limits of servers leave room for every rotation before a token's end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Planner;
use super::report::Spot;
use super::target::Subject;
use crate::cluster::ClusterSpec;
use crate::schedule::cron;
use crate::schedule::measure::Seconds;
use crate::schedule::plan::Target;
use crate::schedule::problem::Severity;
use crate::schedule::proof::{self, Demand, TooSlow};
use crate::schedule::timing;
use crate::sink::StoreSpec;

impl Planner<'_> {
    pub(super) fn pace(
        &mut self,
        spot: &Spot<'_>,
        targets: &[Arc<Target>],
        clusters: &BTreeMap<String, Arc<ClusterSpec>>,
        stores: &BTreeMap<String, Arc<StoreSpec>>,
    ) {
        let limited = clusters.iter().filter(|(_, c)| c.embedded.is_none()).map(|(name, c)| ("clusters", name, c.limits));
        let limited = limited.chain(stores.iter().map(|(name, s)| ("stores", name, s.limits)));
        let limited: Vec<_> = limited.filter(|(.., limits)| limits.per_second > 0).collect();
        if limited.is_empty() {
            return;
        }
        let mut demands: HashMap<(&str, &str), Vec<Demand>> = HashMap::new();
        for target in targets.iter().filter(|t| !t.suspend) {
            demands.entry(("clusters", &target.cluster)).or_default().push(Demand::of(target, proof::mint_calls(target)));
            let mut named: Vec<&str> = target.deliver.iter().filter_map(|place| place.sink.store()).collect();
            named.sort_unstable();
            named.dedup();
            for store in named {
                demands.entry(("stores", store)).or_default().push(Demand::of(target, proof::store_calls(target, store)));
            }
        }
        for (section, name, limits) in limited {
            let Some(demands) = demands.remove(&(section, name.as_str())) else { continue };
            if let Err(slow) = proof::holds(demands, limits.per_second) {
                let steps = [section.into(), name.as_str().into(), "limits".into(), "perSecond".into()];
                self.report.error(spot, &steps, &told(&slow, limits.per_second));
            }
        }
    }
}

impl Planner<'_> {
    /// Some stores count the versions of a secret, and take none from whoever makes them too fast.
    pub(super) fn store_pace(&mut self, subject: &Subject<'_>, target: &Target) {
        if target.suspend {
            return;
        }
        let life = i64::try_from(target.ask.duration).unwrap_or(i64::MAX);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // lives are below 2^52
        let due = (life as f64 * target.rotate.at) as i64 - timing::lifetime_splay(&target.rotate, life);
        let gap = u64::try_from(due).unwrap_or(0).min(cron::shortest_gap(&target.rotate.cron).unwrap_or(u64::MAX));
        for (index, place) in target.deliver.iter().enumerate() {
            let Some((least, why)) = place.sink.kind_of().gap() else { continue };
            if gap < least {
                let message = format!("it would be put every {}, and {why}: rotate every {} or less often", Seconds(gap), Seconds(least));
                let steps = ["deliver".into(), index.into(), place.sink.kind().into()];
                self.say(subject, &steps, Severity::Warning, &message);
            }
        }
    }
}

fn told(slow: &TooSlow, per_second: u32) -> String {
    let TooSlow { targets, calls, within, enough } = slow;
    format!(
        "{targets} targets may need {calls} calls within {}, and {per_second} per second allows {}: tokens would expire; \
         write {enough} or more, or give those targets a longer duration, an earlier `rotate.at` or more splay",
        Seconds(*within),
        u64::from(per_second).saturating_mul(*within),
    )
}
