//! What the records say of tokens that others mint: how old they got, and how long a file held no good one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::period::Period;
use crate::record::{Line, MonitoredLine, Verdict, word};
use crate::schedule::measure::Seconds;

/// One monitored file over the period. What was not watched, while no daemon ran, counts as it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    /// The file.
    pub path: PathBuf,
    /// The records folder that tells of it.
    pub source: usize,
    /// How it stood at the end.
    pub state: Verdict,
    /// Different tokens that were seen in it.
    pub tokens: usize,
    /// Greatest age of one of them, seconds.
    pub longest_age: Option<u64>,
    /// Longest life that one was given, seconds.
    pub longest_life: Option<u64>,
    /// Seconds in which it was not well.
    pub unwell: u64,
    /// In which ways, and for how long each.
    pub why: Vec<String>,
    #[serde(skip)]
    last: Option<Look>,
    #[serde(skip)]
    seen: BTreeSet<String>,
    #[serde(skip)]
    spans: BTreeMap<Verdict, u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    at: Timestamp,
    state: Verdict,
    issued: Option<Timestamp>,
}

impl Watched {
    /// A file of which nothing is known yet.
    pub fn new(path: PathBuf, source: usize) -> Self {
        Self {
            path,
            source,
            state: Verdict::Fresh,
            tokens: 0,
            longest_age: None,
            longest_life: None,
            unwell: 0,
            why: Vec::new(),
            last: None,
            seen: BTreeSet::new(),
            spans: BTreeMap::new(),
        }
    }

    /// Takes the next line about it.
    pub fn take(&mut self, line: &Line, seen: &MonitoredLine, period: &Period) {
        self.pass(line.time, period);
        if period.holds(line.time) {
            let life = line.expires_at.zip(line.issued_at).map(|(ends, issued)| seconds(issued, ends));
            self.longest_life = self.longest_life.max(life);
            self.seen.extend(line.jti.clone());
        }
        self.last = Some(Look { at: line.time, state: seen.state, issued: line.issued_at });
    }

    /// What was seen last lasted until then.
    fn pass(&mut self, until: Timestamp, period: &Period) {
        let Some(last) = &self.last else { return };
        let Some(span) = period.within(last.at, until) else { return };
        if last.state != Verdict::Fresh {
            *self.spans.entry(last.state).or_default() += span.seconds();
        }
        self.longest_age = self.longest_age.max(last.issued.map(|issued| seconds(issued, span.until)));
    }

    /// The end of the period, or now where that lies ahead.
    pub fn end(&mut self, period: &Period, now: Timestamp) {
        self.pass(period.until.min(now), period);
        self.state = self.last.as_ref().map_or(Verdict::Fresh, |last| last.state);
        self.tokens = self.seen.len();
        self.unwell = self.spans.values().sum();
        self.why = self.spans.iter().map(|(state, span)| format!("{} for {}", word(*state), Seconds(*span))).collect();
    }
}

fn seconds(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.as_second() - from.as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::period::Span;
    use super::*;
    use crate::record::Kind;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn ages_lives_and_spans_without_a_good_token_are_those_of_the_period() {
        let period = Span { from: at(1_000), until: at(10_000) };
        let mut watched = Watched::new("/t".into(), 0);
        for (time, state, jti, issued, ends) in [
            (500, Verdict::Fresh, Some("a"), Some(400), Some(4_000)),
            (3_000, Verdict::Fresh, Some("b"), Some(3_000), Some(6_600)),
            (6_600, Verdict::Expired, Some("b"), Some(3_000), Some(6_600)),
            (7_000, Verdict::Missing, None, None, None),
            (7_500, Verdict::Fresh, Some("c"), Some(7_500), Some(9_000)),
            (9_000, Verdict::Expired, Some("c"), Some(7_500), Some(9_000)),
        ] {
            let seen = MonitoredLine { path: "/t".into(), state, max_age: None };
            let line = Line {
                jti: jti.map(Into::into),
                issued_at: issued.map(at),
                expires_at: ends.map(at),
                monitored: Some(seen.clone()),
                ..Line::new(Kind::Monitored, at(time))
            };
            watched.take(&line, &seen, &period);
        }
        watched.end(&period, at(9_600));
        assert_eq!(
            (watched.state, watched.tokens, watched.longest_age, watched.longest_life),
            (Verdict::Expired, 2, Some(4_000), Some(3_600))
        );
        assert_eq!((watched.unwell, watched.why), (400 + 500 + 600, vec!["missing for 8m20s".to_owned(), "expired for 16m40s".to_owned()]));
    }
}
