//! What became of one place: how each line about it changes that.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::record::hex::Hex;
use crate::record::line::{Outcome, SinkLine};
use crate::record::rare::{Blank, Rare};
use crate::record::text::{assign, text};
use crate::sink::SINKS;

/// What the records say of one place.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaceState {
    /// The sink's key in the schedule.
    pub sink: Cow<'static, str>,
    /// The place as people name it.
    pub place: Box<str>,
    /// What became of it last.
    pub outcome: Outcome,
    /// SHA-256 of the bytes that stand there, of whichever token.
    pub sha256: Option<Hex<32>>,
    /// `jti` of the token that stands there.
    pub jti: Option<Hex<16>>,
    /// Since when it has this outcome: an owed place keeps the time at which it became owed.
    pub since: Timestamp,
    /// What is said of it while it is not written, and of what stood in for it.
    pub detour: Rare<Detour>,
}

/// What goes, or went, another way than to the place itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detour {
    /// Where the newest token was put instead.
    pub fallback: Option<String>,
    /// The failure's machine word, while it is not written.
    pub kind: Option<String>,
    /// The failure in words, while it is not written.
    pub error: Option<String>,
    /// Since when it has its tokens again, after one that it was owed.
    pub returned_at: Option<Timestamp>,
    /// Fallbacks in which a copy of one of this target's tokens stands.
    pub copies: Vec<String>,
}

impl Blank for Detour {
    const BLANK: &'static Self = &Self { fallback: None, kind: None, error: None, returned_at: None, copies: Vec::new() };

    fn is_blank(&self) -> bool {
        self == Self::BLANK
    }
}

impl PlaceState {
    /// A place of which no more is known yet.
    pub fn new(sink: &str, place: &str, outcome: Outcome, since: Timestamp) -> Self {
        let known = SINKS.iter().find(|kind| **kind == sink);
        let sink = known.map_or_else(|| Cow::Owned(sink.to_owned()), |kind| Cow::Borrowed(*kind));
        Self { sink, place: place.into(), outcome, sha256: None, jti: None, since, detour: Rare::default() }
    }

    /// Whether the place still waits for the newest token.
    pub fn owed(&self) -> bool {
        matches!(self.outcome, Outcome::Owed | Outcome::FellBack)
    }

    /// Whether the place itself took the newest token, as far as is known.
    pub fn holds_the_newest(&self) -> bool {
        arrived(self.outcome)
    }

    /// Whether that is its name.
    pub fn is_at(&self, sink: &str, place: &str) -> bool {
        self.sink == sink && *self.place == *place
    }

    pub(super) fn take<S: AsRef<str>>(&mut self, line: &SinkLine<S>, jti: Option<&Hex<16>>, time: Timestamp) {
        let arrived = arrived(line.outcome);
        let was_owed = self.owed();
        if arrived || self.outcome != line.outcome {
            self.since = time;
        }
        self.outcome = line.outcome;
        if arrived {
            self.sha256 = text(line.sha256.as_ref()).map(Hex::from);
            self.jti = jti.cloned();
        }
        let mut detour = self.detour.edit();
        assign(&mut detour.fallback, line.fallback.as_ref());
        assign(&mut detour.kind, line.kind.as_ref());
        assign(&mut detour.error, line.error.as_ref());
        if arrived {
            if was_owed {
                detour.returned_at = (!detour.copies.is_empty()).then_some(time);
            }
        } else if line.outcome.is_owed() {
            detour.returned_at = None;
        }
        if line.outcome == Outcome::FellBack
            && let Some(copy) = text(line.fallback.as_ref())
            && !detour.copies.iter().any(|known| known == copy)
        {
            detour.copies.push(copy.to_owned());
        }
    }

    pub(super) fn cleared<S: AsRef<str>>(&mut self, line: &SinkLine<S>) {
        let mut detour = self.detour.edit();
        detour.copies.retain(|copy| text(line.fallback.as_ref()) != Some(copy));
        if detour.copies.is_empty() {
            detour.returned_at = None;
        }
    }
}

/// Whether the place itself holds the token now.
pub(super) fn arrived(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Written | Outcome::Unchanged)
}
