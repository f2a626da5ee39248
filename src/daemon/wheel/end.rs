//! The end of the loop: in good order, and in time.

use jiff::Timestamp;

use super::{Done, Wheel};
use crate::record::{Kind, Line};

/// What is in flight at the end may take that long.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(30);

impl Wheel {
    /// Lets what is in flight finish and records it; what waits for its turn never begins.
    pub(super) async fn end(&mut self) {
        self.ticker.stop().await;
        self.stop.send_replace(true);
        for (_, paying) in self.paying.drain() {
            paying.abort();
        }
        let farewell = tokio::time::sleep(FAREWELL);
        tokio::pin!(farewell);
        while !self.tasks.is_empty() {
            tokio::select! {
                done = self.tasks.join_next() => match done {
                    Some(Ok(Done::Rotated(name, Some(finished)))) => {
                        self.counters.count(&finished);
                        self.event(|table, moment| table.rotated(&name, *finished, moment)).await;
                    }
                    Some(Ok(Done::Told(told))) => self.told(*told).await,
                    _ => {}
                },
                () = &mut farewell => {
                    tracing::error!(tasks = self.tasks.len(), "some work did not end in time and is given up; the next start picks it up");
                    break;
                }
            }
        }
        self.tasks.abort_all();
        self.leave_fleet().await;
        if self.options.once.is_none() {
            self.record(Line::new(Kind::Stopped, Timestamp::now())).await;
            self.tell_head(true);
        }
    }
}
