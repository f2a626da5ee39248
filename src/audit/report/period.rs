//! The time that a report is about.

use jiff::Timestamp;
use serde::Serialize;

/// From a time on, and until another one, which is no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

impl Span {
    /// How long it is.
    pub fn seconds(&self) -> u64 {
        u64::try_from(self.until.as_second() - self.from.as_second()).unwrap_or(0)
    }
}

/// What is asked about.
pub type Period = Span;

impl Span {
    /// Whether a moment is part of it.
    pub fn holds(&self, time: Timestamp) -> bool {
        self.from <= time && time < self.until
    }

    /// The part of another span that is part of this one, where there is any.
    pub fn within(&self, from: Timestamp, until: Timestamp) -> Option<Self> {
        let span = Self { from: from.max(self.from), until: until.min(self.until) };
        (span.from < span.until).then_some(span)
    }

    /// Which of so many equal parts a moment belongs to.
    pub fn part(&self, time: Timestamp, parts: usize) -> usize {
        let seconds = u64::try_from(time.as_second() - self.from.as_second()).unwrap_or(0);
        usize::try_from(seconds / self.part_length(parts)).unwrap_or(usize::MAX).min(parts.saturating_sub(1))
    }

    /// The equal parts of this span that another one touches, with what it covers of each.
    pub fn parts_of(&self, span: Self, parts: usize) -> Vec<(usize, Self)> {
        let length = self.part_length(parts);
        let at = |part: u64| Timestamp::from_second(self.from.as_second().saturating_add_unsigned(length.saturating_mul(part))).ok();
        (self.part(span.from, parts)..=self.part(span.until, parts))
            .filter_map(|part| {
                let whole = Self { from: at(part as u64)?, until: at(part as u64 + 1)? };
                Some((part, whole.within(span.from, span.until)?))
            })
            .collect()
    }

    fn part_length(&self, parts: usize) -> u64 {
        self.seconds().max(1).div_ceil(parts.max(1) as u64).max(1)
    }
}
