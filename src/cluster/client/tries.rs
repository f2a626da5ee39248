//! How the making of clients went last: what those know by who waited for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::NoClient;

/// The try that is under way or was last, and the last one that failed.
#[derive(Default)]
pub(super) struct Tries(Mutex<Last>);

#[derive(Default)]
struct Last {
    begun: Option<Instant>,
    failed: Option<(Instant, NoClient)>,
}

impl Tries {
    fn last(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One begins now.
    pub fn begin(&self) {
        self.last().begun = Some(Instant::now());
    }

    /// It failed, now.
    pub fn fail(&self, why: &NoClient) {
        self.last().failed = Some((Instant::now(), why.clone()));
    }

    /// Why one failed that ended after that moment. Whoever waited for it knows by that: each of many would fail in the
    /// same way, one after the other.
    pub fn failed_after(&self, moment: Instant) -> Option<NoClient> {
        self.last().failed.as_ref().filter(|(ended, _)| *ended > moment).map(|(_, why)| why.clone())
    }

    /// Whether the last one began that long ago.
    pub fn began_before(&self, than: Duration) -> bool {
        self.last().begun.is_some_and(|begun| begun.elapsed() >= than)
    }
}
