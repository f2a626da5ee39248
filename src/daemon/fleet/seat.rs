//! Leave to write, for what began while we held our seat.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Fleet;
use crate::sink::delivery::Leave;
use crate::sink::{Failure, FailureKind};

/// Our seat as it was when something began.
pub struct Seat {
    fleet: Arc<Fleet>,
    term: u64,
}

impl Seat {
    /// Our seat now.
    pub fn now(fleet: &Arc<Fleet>) -> Self {
        Self { fleet: Arc::clone(fleet), term: fleet.term() }
    }
}

impl Leave for Seat {
    fn ask(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async {
            if self.fleet.may_write(self.term).await {
                return Ok(());
            }
            let lease = self.fleet.spec().shown();
            let why =
                format!("our Lease of fleet {lease} ran out or was taken meanwhile, so another member may serve this: nothing was written");
            Err(Failure::new(FailureKind::HandedOver, why))
        })
    }
}
