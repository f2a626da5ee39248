//! Who receives a target's tokens, and how long it waited for them.

use jiff::Timestamp;
use serde::Serialize;

use super::period::Period;

/// A place that had tokens of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receiver {
    /// The sink's key in the schedule.
    pub sink: String,
    /// The place as people name it.
    pub place: String,
    /// Tokens that it received in the period.
    pub received: u64,
    /// Whether it stood in for another place.
    pub fallback: bool,
    /// Seconds in which it waited for a token that others had.
    pub owed: u64,
    #[serde(skip)]
    pub(super) owed_since: Option<Timestamp>,
}

impl Receiver {
    /// It waits no longer.
    pub(super) fn settle(&mut self, at: Timestamp, period: &Period) {
        let waited = self.owed_since.take().and_then(|since| period.within(since, at));
        self.owed += waited.map_or(0, |span| span.seconds());
    }
}
