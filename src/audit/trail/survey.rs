//! What a log covers, and which of its lines are no events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

/// So many lines of each flaw are named by their number; the rest is counted.
pub(super) const NAMED: usize = 10;
/// So many holes are kept apart; where there are more, the last one grows.
const HOLES: usize = 1000;

/// Why a line is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Flaw {
    /// JSON that ends before its end.
    Cut,
    /// Longer than any line that is read.
    TooLong,
    /// No JSON.
    NotJson,
    /// JSON of something else, or of an event without its id, times or stage.
    NotAnEvent,
    /// An event of `audit.k8s.io` in another version than v1.
    OtherVersion,
    /// An event of another level than `Metadata`, `Request` and `RequestResponse`.
    OtherLevel,
}

impl Flaw {
    fn said(self, one: bool) -> &'static str {
        match (self, one) {
            (Self::Cut, true) => "is cut in the middle",
            (Self::Cut, false) => "are cut in the middle",
            (Self::TooLong, true) => "is longer than 8 MiB",
            (Self::TooLong, false) => "are longer than 8 MiB",
            (Self::NotJson, true) => "is no JSON",
            (Self::NotJson, false) => "are no JSON",
            (Self::NotAnEvent, true) => "is no event of audit.k8s.io",
            (Self::NotAnEvent, false) => "are no events of audit.k8s.io",
            (Self::OtherVersion, true) => "is an event in another version than audit.k8s.io/v1",
            (Self::OtherVersion, false) => "are events in another version than audit.k8s.io/v1",
            (Self::OtherLevel, true) => "is an event of no level that is known (Metadata, Request, RequestResponse)",
            (Self::OtherLevel, false) => "are events of no level that is known (Metadata, Request, RequestResponse)",
        }
    }
}

/// Lines with the same flaw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Lines {
    /// How many.
    pub count: u64,
    /// The numbers of the first ones, from 1.
    pub numbers: Vec<u64>,
}

/// One log as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// Its file.
    pub name: String,
    /// Lines read.
    pub lines: u64,
    /// Events among them.
    pub events: u64,
    /// The earliest event.
    pub first: Option<Timestamp>,
    /// The latest event.
    pub last: Option<Timestamp>,
    /// Lines that are no events.
    pub flaws: BTreeMap<Flaw, Lines>,
    /// Times between two events where lines stand that could not be read.
    pub holes: Vec<(Timestamp, Timestamp)>,
    /// Whether a line was passed over since the last event.
    #[serde(skip)]
    open: bool,
}

impl Survey {
    pub(super) fn of(name: String) -> Self {
        Self { name, lines: 0, events: 0, first: None, last: None, flaws: BTreeMap::new(), holes: Vec::new(), open: false }
    }

    /// Events come nearly in order: those of requests that end together may change places.
    pub(super) fn saw(&mut self, at: Timestamp) {
        self.events += 1;
        if let (true, Some(before)) = (self.open, self.last) {
            let hole = (before.min(at), before.max(at));
            let many = self.holes.len() >= HOLES;
            match self.holes.last_mut() {
                Some(last) if many => last.1 = last.1.max(hole.1),
                _ => self.holes.push(hole),
            }
        }
        self.open = false;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }

    pub(super) fn passed_over(&mut self, flaw: Flaw) {
        let lines = self.flaws.entry(flaw).or_default();
        lines.count += 1;
        if lines.numbers.len() < NAMED {
            lines.numbers.push(self.lines);
        }
        self.open = true;
    }

    /// Whether every line was an event.
    pub fn is_whole(&self) -> bool {
        self.flaws.is_empty()
    }

    /// What could not be read, a sentence for each flaw.
    pub fn said(&self) -> Vec<String> {
        let of = |(flaw, lines): (&Flaw, &Lines)| {
            let numbers: Vec<String> = lines.numbers.iter().map(u64::to_string).collect();
            let more = lines.count - numbers.len() as u64;
            let listed = match (numbers.split_last(), more) {
                (Some((last, [])), 0) => format!("line {last}"),
                (Some((last, rest)), 0) => format!("lines {} and {last}", rest.join(", ")),
                _ => format!("lines {} and {more} more", numbers.join(", ")),
            };
            format!("{}: {listed} {}", self.name, flaw.said(lines.count == 1))
        };
        self.flaws.iter().map(of).collect()
    }
}
