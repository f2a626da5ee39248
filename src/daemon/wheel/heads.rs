//! The head of the records goes to the log: whoever keeps the log elsewhere can tell that lines were cut off.

use std::time::{Duration, Instant};

use super::Wheel;
use crate::daemon::clock::now_ms;

/// While lines come, the log is told that often at most.
const EVERY: Duration = Duration::from_secs(60);

/// What the log was last told.
#[derive(Default)]
pub(super) struct Told {
    seq: u64,
    at: Option<Instant>,
}

impl Wheel {
    /// When a head that the log has not been told yet may be told, unix ms.
    pub(super) fn head_due(&self) -> Option<i64> {
        let at = self.head_told.at.filter(|_| self.options.once.is_none() && self.writer.health().seq != self.head_told.seq)?;
        let left = EVERY.saturating_sub(at.elapsed());
        Some(now_ms() + i64::try_from(left.as_millis()).unwrap_or(0))
    }

    /// Tells the log the newest durable head, where it has not been told; `now`: however short the time since the last.
    pub(super) fn tell_head(&mut self, now: bool) {
        let early = self.head_told.at.is_some_and(|at| at.elapsed() < EVERY);
        if self.options.once.is_some() || (early && !now) {
            return;
        }
        let health = self.writer.health();
        if health.seq != self.head_told.seq {
            tracing::info!(head = health.head, seq = health.seq, "the head of the records");
            self.head_told.seq = health.seq;
        }
        self.head_told.at = Some(Instant::now());
    }
}
