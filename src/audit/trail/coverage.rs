//! Which times several logs cover together.

use jiff::{SignedDuration, Timestamp};

use super::Survey;

/// Rotated logs follow each other: what ends so shortly before the next one begins belongs together. A busy API server
/// writes many events in that time.
const NEXT: SignedDuration = SignedDuration::from_secs(60);

/// Times from first to last event, without the holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    spans: Vec<(Timestamp, Timestamp)>,
    holes: Vec<(Timestamp, Timestamp)>,
}

impl Coverage {
    /// What those logs cover. A hole of one is a hole, whatever the others tell of that time: each API server
    /// writes a log of its own.
    pub fn of(surveys: &[Survey]) -> Self {
        let mut each: Vec<(Timestamp, Timestamp)> = surveys.iter().filter_map(|survey| survey.first.zip(survey.last)).collect();
        each.sort();
        let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (from, to) in each {
            match spans.last_mut() {
                Some(before) if from.duration_since(before.1) <= NEXT => before.1 = before.1.max(to),
                _ => spans.push((from, to)),
            }
        }
        Self { spans, holes: surveys.iter().flat_map(|survey| survey.holes.iter().copied()).collect() }
    }

    /// The first and the last time.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        Some((self.spans.first()?.0, self.spans.last()?.1))
    }

    /// Times between logs that nobody tells of.
    pub fn gaps(&self) -> impl Iterator<Item = (Timestamp, Timestamp)> + '_ {
        self.spans.windows(2).map(|pair| (pair[0].1, pair[1].0))
    }

    /// Whether all that happened between those times would stand in a log.
    pub fn covers(&self, from: Timestamp, to: Timestamp) -> bool {
        self.spans.iter().any(|span| span.0 <= from && to <= span.1) && !self.holes.iter().any(|hole| hole.0 < to && from < hole.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn log(from: i64, to: i64) -> Survey {
        let mut survey = Survey::of("log".into());
        survey.saw(at(from));
        survey.saw(at(to));
        survey
    }

    #[test]
    fn rotated_logs_are_one_span_in_any_order_and_a_missing_one_is_a_gap() {
        let coverage = Coverage::of(&[log(200, 300), log(0, 100), log(101, 199), log(1000, 1100)]);
        assert_eq!(coverage.span(), Some((at(0), at(1100))));
        assert_eq!(coverage.gaps().collect::<Vec<_>>(), [(at(300), at(1000))]);
        assert!(coverage.covers(at(0), at(300)) && coverage.covers(at(1000), at(1000)));
        assert!(!coverage.covers(at(300), at(1000)) && !coverage.covers(at(299), at(301)) && !coverage.covers(at(500), at(500)));
        assert_eq!(Coverage::of(&[]).span(), None);
    }

    #[test]
    fn what_touches_a_hole_is_not_covered() {
        let mut holed = log(0, 100);
        holed.holes.push((at(40), at(50)));
        let coverage = Coverage::of(&[holed]);
        assert!(coverage.covers(at(0), at(40)) && coverage.covers(at(50), at(100)));
        assert!(!coverage.covers(at(45), at(45)) && !coverage.covers(at(30), at(41)) && !coverage.covers(at(0), at(100)));
    }
}
