//! Work that comes again after a period, one at a time: a heartbeat, a file that is written anew. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// When it comes next, and what came of it. Times in unix ms.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    next: i64,
    busy: bool,
    tally: Tally,
}

/// What came of it since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// How often it was done.
    pub done: u64,
    /// How often in vain.
    pub failed: u64,
    /// When it was last done.
    pub done_at: Option<Timestamp>,
    /// Why the last try was in vain; nothing after one that was not.
    pub error: Option<String>,
}

impl Pace {
    /// When it begins next; nothing while it is under way.
    pub fn next(&self, now: i64, period: Duration) -> Option<i64> {
        // A time that lies further ahead was set by a clock that has been put back since.
        (!self.busy).then(|| self.next.min(now.saturating_add(ms(period))))
    }

    /// It begins. The next comes a period after the time that this one was meant for, so that none is late by the time
    /// that others took.
    pub fn begin(&mut self, now: i64, period: Duration) {
        let period = ms(period);
        let meant = if self.next <= now && now - self.next < period { self.next } else { now };
        (self.busy, self.next) = (true, meant + period);
    }

    /// It is not done this time.
    pub fn skip(&mut self, now: i64, period: Duration) {
        self.begin(now, period);
        self.busy = false;
    }

    /// It is over; after a failure the next comes after `retry` already. Whether the outcome is another than before.
    pub fn ended(&mut self, error: Option<String>, now: i64, retry: Duration) -> bool {
        let news = error.is_some() != self.tally.error.is_some();
        self.busy = false;
        match error {
            Some(_) => {
                self.tally.failed += 1;
                self.next = self.next.min(now + ms(retry));
            }
            None => {
                self.tally.done += 1;
                self.tally.done_at = Timestamp::from_millisecond(now).ok();
            }
        }
        self.tally.error = error;
        news
    }

    /// It may come before its time, but not before that one.
    pub fn hurry(&mut self, at: i64) {
        self.next = self.next.min(at);
    }

    /// What came of it.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    #[test]
    fn a_failure_is_tried_again_early_and_a_skipped_turn_keeps_the_time_of_the_next() {
        let mut pace = Pace::default();
        pace.begin(5_000, PERIOD);
        assert_eq!(pace.next(5_001, PERIOD), None);
        assert!(pace.ended(Some("no".into()), 6_000, Duration::from_secs(2)));
        assert_eq!(pace.next(6_000, PERIOD), Some(8_000));
        pace.begin(8_000, PERIOD);
        assert!(!pace.ended(Some("no".into()), 8_500, PERIOD));
        assert_eq!((pace.next(8_500, PERIOD), pace.tally().failed), (Some(18_000), 2));
        pace.skip(18_000, PERIOD);
        assert_eq!((pace.next(18_000, PERIOD), pace.tally().done), (Some(28_000), 0));
        assert_eq!(pace.next(-90_000, PERIOD), Some(-80_000), "the clock was put back");
    }

    proptest! {
        #[test]
        fn beats_keep_their_times_however_long_each_takes_and_however_late_the_loop_wakes(
            beats in proptest::collection::vec((0_i64..9_000, 0_i64..900), 1..40), start in 10_000_i64..1_000_000,
        ) {
            let (mut pace, mut now) = (Pace::default(), start);
            for (index, (takes, late)) in (0_i64..).zip(beats) {
                let meant = start + index * 10_000;
                prop_assert!(index == 0 || pace.next(now, PERIOD) == Some(meant));
                now = if index == 0 { start } else { now.max(meant) + late };
                pace.begin(now, PERIOD);
                now += takes;
                pace.ended(None, now, PERIOD);
            }
        }
    }
}
