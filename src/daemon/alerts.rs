//! Who is told of what, and when? Pure: the loop says what is amiss at which moment, the answer is what is told now. What
//! lasts is told again after its `repeat`, and once when it is over. What passes within [`HOLD`] is not told.
//!
//! One run tells one recipient of everything that is due in one word, so that a fleet whose API server is away makes a
//! few messages and not thousands. Of one alert one run is under way at most, so there are
//! never more than the schedule has alerts, and one that hangs holds up no other.

pub mod conditions;
pub mod fleet;
pub mod message;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::schedule::alerts::{AlertSpec, On};

/// What is amiss, or over, for less is not told, ms.
pub const HOLD: i64 = 5_000;
/// From the beginning of one run of an alert to that of the next, ms: what comes meanwhile is gathered.
pub const GATHER: i64 = 5_000;
/// A run that failed is made again after that long, ms, or after `repeat` where that is shorter.
pub const RETRY: i64 = 60_000;

/// Whom or what it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// The daemon as such.
    Daemon,
    /// A target.
    Target(String),
    /// The daemon's own credential for a cluster.
    Cluster(String),
    /// A monitored file.
    File(PathBuf),
    /// Another member of the fleet.
    Member(String),
}

/// A word about a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Matter {
    /// The word.
    pub on: On,
    /// About whom.
    pub subject: Subject,
}

/// Something that is amiss. No secret stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is.
    pub matter: Matter,
    /// How its subject stands, in the word that `status` has.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// When the token in use ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The last failure, masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The machine word of that failure, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
}

/// One message to one recipient.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Which alert, by [`AlertSpec::key`].
    pub alert: String,
    /// The word.
    pub on: On,
    /// Whether it is over.
    pub recovered: bool,
    /// Whether all of it was told before, and lasts.
    pub repeated: bool,
    /// What it tells of.
    pub about: Vec<Condition>,
    /// After which it is told again.
    repeat: i64,
}

/// Something amiss, as it was seen.
#[derive(Debug, Clone)]
struct Seen {
    condition: Condition,
    /// From when on, ms.
    from: i64,
    /// Since when it is over, ms.
    over: Option<i64>,
}

/// What an alert has told of a matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Telling {
    /// Whether the recipient knows.
    told: bool,
    /// While it lasts it is not told again before then, ms.
    again: i64,
    /// After a try in vain the next is not before then, ms.
    retry: i64,
}

impl Default for Telling {
    fn default() -> Self {
        Self { told: false, again: i64::MIN, retry: i64::MIN }
    }
}

/// What one alert did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    running: bool,
    rests_until: i64,
    /// Messages that arrived.
    pub told: u64,
    /// Messages that did not.
    pub failed: u64,
    /// When the last one arrived.
    pub told_at: Option<Timestamp>,
    /// Why the last one did not; nothing after one that did.
    pub error: Option<String>,
}

/// What a restart has to know so that it tells nobody the same again: a memo, which may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    alert: String,
    condition: Condition,
    again: i64,
}

/// What was seen and told.
#[derive(Debug, Default)]
pub struct Alerts {
    seen: BTreeMap<Matter, Seen>,
    told: HashMap<String, BTreeMap<Matter, Telling>>,
    tallies: HashMap<String, Tally>,
}

impl Alerts {
    /// As a run before this one left it.
    pub fn remembered(kept: Vec<Kept>) -> Self {
        let mut alerts = Self::default();
        for Kept { alert, condition, again } in kept {
            let matter = condition.matter.clone();
            alerts.told.entry(alert).or_default().insert(matter.clone(), Telling { told: true, again, retry: i64::MIN });
            alerts.seen.insert(matter, Seen { condition, from: i64::MIN / 2, over: None });
        }
        alerts
    }

    /// What a run after this one has to know.
    pub fn to_keep(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for (alert, matters) in &self.told {
            for (matter, telling) in matters.iter().filter(|(_, telling)| telling.told) {
                let Some(seen) = self.seen.get(matter) else { continue };
                kept.push(Kept { alert: alert.clone(), condition: seen.condition.clone(), again: telling.again });
            }
        }
        kept.sort_by(|a, b| (&a.alert, &a.condition.matter).cmp(&(&b.alert, &b.condition.matter)));
        kept
    }

    /// Takes what is amiss now. What is `undecided` is neither amiss nor over: it stays as it was.
    pub fn look(&mut self, amiss: Vec<Condition>, undecided: impl Fn(&Matter) -> bool, now: i64) {
        let mut lasting = BTreeSet::new();
        for condition in amiss {
            lasting.insert(condition.matter.clone());
            match self.seen.get_mut(&condition.matter) {
                Some(seen) if seen.over.is_none() => {
                    let since = seen.condition.since.min(condition.since);
                    seen.condition = Condition { since, ..condition };
                }
                Some(seen) => *seen = Seen { condition, from: now, over: None },
                None => drop(self.seen.insert(condition.matter.clone(), Seen { condition, from: now, over: None })),
            }
        }
        for (matter, seen) in &mut self.seen {
            if !lasting.contains(matter) && seen.over.is_none() && !undecided(matter) {
                seen.over = Some(now);
            }
        }
        let told = &self.told;
        let known = |matter: &Matter| told.values().any(|matters| matters.contains_key(matter));
        self.seen.retain(|matter, seen| seen.over.is_none() || known(matter));
    }

    /// What begins now; also when more may, unix ms.
    pub fn begin(&mut self, alerts: &[AlertSpec], now: i64) -> (Vec<Run>, Option<i64>) {
        let (mut runs, mut next) = (Vec::new(), None::<i64>);
        for alert in alerts {
            let key = alert.key();
            let tally = self.tallies.entry(key.clone()).or_default();
            if tally.running {
                continue;
            }
            let rests = tally.rests_until.min(now + GATHER);
            let (due, later) = self.due(alert, &key, now);
            next = next.into_iter().chain(later).min();
            let Some((on, recovered)) = due.first().map(|(matter, recovered, _)| (matter.on, *recovered)) else { continue };
            if rests > now {
                next = next.into_iter().chain([rests]).min();
                continue;
            }
            let mut run = Run { alert: key.clone(), on, recovered, repeated: true, about: Vec::new(), repeat: ms(alert.repeat) };
            for (matter, _, repeated) in due.into_iter().filter(|(matter, over, _)| (matter.on, *over) == (on, recovered)) {
                run.repeated &= repeated;
                run.about.extend(self.seen.get(&matter).map(|seen| seen.condition.clone()));
                // It may be over before the recipient has heard of it, and then has to recover.
                self.told.entry(key.clone()).or_default().entry(matter).or_default();
            }
            let tally = self.tallies.entry(key).or_default();
            (tally.running, tally.rests_until) = (true, now + GATHER);
            runs.push(run);
        }
        (runs, next)
    }

    /// What an alert would tell now: each matter, whether it is over, whether it was told before; and when it would next.
    fn due(&mut self, alert: &AlertSpec, key: &str, now: i64) -> (Vec<(Matter, bool, bool)>, Option<i64>) {
        let repeat = ms(alert.repeat);
        let told = self.told.entry(key.to_owned()).or_default();
        let (mut due, mut next) = (Vec::new(), None::<i64>);
        for (matter, seen) in self.seen.iter().filter(|(matter, _)| alert.on.contains(&matter.on)) {
            let telling = told.get(matter).copied().unwrap_or_default();
            // A time that lies further ahead was set by a clock that has been put back since.
            let (again, retry) = (telling.again.min(now + repeat), telling.retry.min(now + RETRY.min(repeat)));
            let held = seen.over.unwrap_or(seen.from).min(now).saturating_add(HOLD);
            let at = if seen.over.is_none() { held.max(again).max(retry) } else { held.max(retry) };
            if at > now {
                next = next.into_iter().chain([at]).min();
            } else if seen.over.is_none() || (telling.told && alert.on.contains(&On::Recovered)) {
                due.push((matter.clone(), seen.over.is_some(), telling.told));
            } else {
                // Nobody was told, or nobody wants to hear that it is over.
                told.remove(matter);
            }
        }
        (due, next)
    }

    /// A run is over; `error` says why it told nobody.
    pub fn ended(&mut self, run: &Run, error: Option<String>, now: i64) {
        let well = error.is_none();
        let tally = self.tallies.entry(run.alert.clone()).or_default();
        tally.running = false;
        if well {
            tally.told += 1;
            tally.told_at = Timestamp::from_millisecond(now).ok();
        } else {
            tally.failed += 1;
        }
        tally.error = error;
        let told = self.told.entry(run.alert.clone()).or_default();
        for condition in &run.about {
            if well && run.recovered {
                told.remove(&condition.matter);
                continue;
            }
            let telling = told.entry(condition.matter.clone()).or_default();
            if well {
                *telling = Telling { told: true, again: now.saturating_add(run.repeat), retry: i64::MIN };
            } else {
                telling.retry = now + RETRY.min(run.repeat);
            }
        }
    }

    /// Another plan is in force: what an alert told that is not in it any more is forgotten.
    pub fn keep_only(&mut self, alerts: &[AlertSpec]) {
        let keys: BTreeSet<String> = alerts.iter().map(AlertSpec::key).collect();
        self.told.retain(|key, _| keys.contains(key));
        // One that is under way ends by itself.
        self.tallies.retain(|key, tally| tally.running || keys.contains(key));
    }

    /// What an alert did since the start.
    pub fn tally(&self, alert: &AlertSpec) -> Tally {
        self.tallies.get(&alert.key()).cloned().unwrap_or_default()
    }
}

fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
