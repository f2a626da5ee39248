//! One target over the period: how old its tokens got, how long it was without a good one, what was done and missed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::period::{Period, Span};
use super::receiver::Receiver;
use crate::record::{Kind, Line, Outcome, Reason, SinkLine, word};

/// Spans that are listed one by one; more are counted and summed alone.
const LISTED: usize = 50;

/// What the records of the period say of one target.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Course {
    /// Its name.
    pub name: String,
    /// The records folder that tells of it, counted from 0.
    pub source: usize,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its cluster.
    pub cluster: Option<String>,
    /// `NAMESPACE/NAME`.
    pub service_account: Option<String>,
    /// Terminal records of success.
    pub rotations: u64,
    /// Those by their reason.
    pub reasons: BTreeMap<String, u64>,
    /// Rotations that came late: their time had passed while nothing ran, or their token had ended.
    pub missed: u64,
    /// Terminal records of failure.
    pub failures: u64,
    /// Their causes, the most frequent first.
    pub causes: Vec<Cause>,
    /// Seconds that the oldest token served in the period had lived.
    pub longest_age: Option<u64>,
    /// Seconds of life of the longest-lived token served in the period.
    pub longest_life: Option<u64>,
    /// Tokens that were given less life than was asked for.
    pub shortened: u64,
    /// The least life that one of those was given, in seconds.
    pub least_given: Option<u64>,
    /// Seconds in which it served no valid token, after its first one.
    pub without_token: u64,
    /// When that was; the first of them.
    pub without: Vec<Span>,
    /// Who received its tokens.
    pub receivers: Vec<Receiver>,
    /// The newest token's `jti`.
    pub jti: Option<String>,
    /// The newest token's end.
    pub expires_at: Option<Timestamp>,
    /// When it went out of the schedule.
    pub retired_at: Option<Timestamp>,
    /// The last rehearsal of its way.
    pub rehearsal: Option<Rehearsal>,
    /// The oldest age in each part of the period, in seconds; `None` where it had no token.
    pub ages: Vec<Option<u64>>,
    #[serde(skip)]
    serving: Option<Served>,
}

/// The token that stands at the places.
#[derive(Debug, Clone, PartialEq)]
struct Served {
    since: Timestamp,
    issued_at: Option<Timestamp>,
    /// When it ended, or was refused.
    ended: Option<Timestamp>,
}

/// A rehearsal: the whole way was tried, and nothing published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// When.
    pub time: Timestamp,
    /// Whether a rotation would have done.
    pub good: bool,
    /// Why not: the token, or places.
    pub error: Option<String>,
    /// Places and fallbacks that were tried.
    pub places: u64,
}

impl Rehearsal {
    fn of(line: &Line) -> Self {
        let broken = line.sinks.iter().filter(|sink| sink.outcome != Outcome::Probed);
        let why = line.error.iter().cloned().chain(broken.map(|sink| sink.error.clone().unwrap_or_else(|| sink.place.clone())));
        let why: Vec<String> = why.collect();
        let error = (!why.is_empty()).then(|| why.join("; "));
        Self { time: line.time, good: error.is_none(), error, places: line.sinks.len() as u64 }
    }
}

/// Why rotations failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// In words.
    pub error: String,
    /// How often.
    pub count: u64,
    /// First and last time.
    pub span: Span,
}

impl Course {
    pub(super) fn new(name: &str, source: usize, parts: usize) -> Self {
        Self {
            name: name.to_owned(),
            source,
            labels: BTreeMap::new(),
            cluster: None,
            service_account: None,
            rotations: 0,
            reasons: BTreeMap::new(),
            missed: 0,
            failures: 0,
            causes: Vec::new(),
            longest_age: None,
            longest_life: None,
            shortened: 0,
            least_given: None,
            without_token: 0,
            without: Vec::new(),
            receivers: Vec::new(),
            jti: None,
            expires_at: None,
            retired_at: None,
            rehearsal: None,
            ages: vec![None; parts],
            serving: None,
        }
    }

    /// Whether there is anything to tell of it in the period.
    pub(super) fn matters(&self) -> bool {
        self.rotations + self.failures + self.without_token > 0
            || self.longest_age.is_some()
            || self.retired_at.is_some()
            || self.rehearsal.is_some()
    }

    /// Takes a line about this target, in the order of the records.
    pub(super) fn take(&mut self, line: &Line, period: &Period) {
        if line.kind == Kind::Checkpoint {
            // What it says is known already, but for the first file that there is.
            if self.serving.is_none() && self.jti.is_none() {
                self.describe(line);
                self.begin(line, line.issued_at.unwrap_or(line.time), period);
                self.refuse(line.standing.as_ref().and_then(|standing| standing.rejected_at));
            }
            return;
        }
        match line.kind {
            Kind::Rotated => {
                self.describe(line);
                self.done(line, period);
                self.begin(line, line.time, period);
            }
            Kind::Failed => {
                self.describe(line);
                self.failed(line, period);
                if line.sinks.iter().any(|sink| stands(sink.outcome)) {
                    self.begin(line, line.time, period);
                }
            }
            Kind::Paid | Kind::Adopted if line.jti.is_some() && line.jti != self.jti => self.begin(line, line.time, period),
            Kind::Rejected if line.jti.is_none() || line.jti == self.jti => self.refuse(Some(line.time)),
            // The token in use died with its marker.
            Kind::Revoked if line.jti.is_some() && line.jti == self.jti => self.refuse(Some(line.time)),
            Kind::Rehearsed if period.holds(line.time) => self.rehearsal = Some(Rehearsal::of(line)),
            Kind::Retired => {
                self.close(line.time, period);
                self.retired_at = period.holds(line.time).then_some(line.time);
            }
            _ => {}
        }
        if matches!(line.kind, Kind::Rotated | Kind::Failed | Kind::Paid) {
            for sink in &line.sinks {
                self.receive(sink, line.time, period);
            }
        }
    }

    /// The end of the period.
    pub(super) fn end(&mut self, period: &Period) {
        self.close(period.until, period);
        for receiver in &mut self.receivers {
            receiver.settle(period.until, period);
        }
        self.receivers.sort_by(|a, b| (a.fallback, &a.sink, &a.place).cmp(&(b.fallback, &b.sink, &b.place)));
        self.causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    }

    fn describe(&mut self, line: &Line) {
        self.labels.clone_from(&line.labels);
        self.cluster.clone_from(&line.cluster);
        self.service_account.clone_from(&line.service_account);
        self.retired_at = None;
    }

    fn done(&mut self, line: &Line, period: &Period) {
        if !period.holds(line.time) {
            return;
        }
        self.rotations += 1;
        if let Some(reason) = line.reason {
            *self.reasons.entry(word(reason)).or_default() += 1;
        }
        let ended = self.serving.as_ref().and_then(|served| served.ended).is_some_and(|end| end < line.time);
        self.missed += u64::from(line.reason == Some(Reason::Missed) || (ended && line.reason != Some(Reason::Rejected)));
    }

    fn failed(&mut self, line: &Line, period: &Period) {
        if !period.holds(line.time) {
            return;
        }
        self.failures += 1;
        let error = line.error.clone().or_else(|| line.sinks.iter().find_map(|sink| sink.error.clone())).unwrap_or_default();
        match self.causes.iter_mut().find(|cause| cause.error == error) {
            Some(cause) => {
                cause.count += 1;
                cause.span.until = line.time;
            }
            None => self.causes.push(Cause { error, count: 1, span: Span { from: line.time, until: line.time } }),
        }
    }

    fn begin(&mut self, line: &Line, since: Timestamp, period: &Period) {
        self.close(since, period);
        if line.expires_at.is_none() {
            return;
        }
        self.jti.clone_from(&line.jti);
        self.expires_at = line.expires_at;
        self.serving = Some(Served { since, issued_at: line.issued_at, ended: line.expires_at });
        if period.until > since {
            self.longest_life = self.longest_life.max(line.granted);
        }
        if let (Some(requested), Some(granted)) = (line.requested, line.granted)
            && granted < requested
            && period.holds(line.time)
        {
            self.shortened += 1;
            self.least_given = Some(self.least_given.map_or(granted, |least| least.min(granted)));
        }
    }

    fn refuse(&mut self, at: Option<Timestamp>) {
        if let (Some(served), Some(at)) = (&mut self.serving, at) {
            served.ended = Some(served.ended.map_or(at, |ended| ended.min(at)));
        }
    }

    /// The token at hand is served no longer: what it was in the period is booked.
    fn close(&mut self, at: Timestamp, period: &Period) {
        let Some(served) = self.serving.take() else { return };
        let Some(span) = period.within(served.since, at) else {
            // It was over before the period; its life counted for nothing here.
            if at <= period.from {
                self.longest_life = None;
            }
            return;
        };
        if let Some(issued_at) = served.issued_at {
            self.longest_age = self.longest_age.max(Some(seconds(issued_at, span.until)));
            for (index, part) in period.parts_of(span, self.ages.len()) {
                self.ages[index] = self.ages[index].max(Some(seconds(issued_at, part.until)));
            }
        }
        if let Some(without) = served.ended.and_then(|ended| period.within(ended.max(served.since), at)) {
            self.without_token += without.seconds();
            if self.without.len() < LISTED {
                self.without.push(without);
            }
        }
    }

    fn receive(&mut self, sink: &SinkLine, time: Timestamp, period: &Period) {
        let held = matches!(sink.outcome, Outcome::Written | Outcome::Unchanged);
        let place = self.receiver(&sink.sink, &sink.place, false);
        if held {
            place.settle(time, period);
            place.received += u64::from(period.holds(time) && sink.outcome == Outcome::Written);
        } else {
            place.owed_since.get_or_insert(time);
        }
        if let Some(fallback) = sink.fallback.as_ref().filter(|_| sink.outcome == Outcome::FellBack) {
            self.receiver("fallback", fallback, true).received += u64::from(period.holds(time));
        }
    }

    fn receiver(&mut self, sink: &str, place: &str, fallback: bool) -> &mut Receiver {
        let found = self.receivers.iter().position(|r| r.sink == sink && r.place == place);
        let index = found.unwrap_or_else(|| {
            let new = Receiver { sink: sink.into(), place: place.into(), received: 0, fallback, owed: 0, owed_since: None };
            self.receivers.push(new);
            self.receivers.len() - 1
        });
        &mut self.receivers[index]
    }
}

/// Whether the token stands at the place, or at the one that stood in for it.
fn stands(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Written | Outcome::Unchanged | Outcome::FellBack)
}

fn seconds(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.as_second() - from.as_second()).unwrap_or(0)
}
