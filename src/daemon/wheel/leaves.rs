//! What targets left is taken back, when the timetable says so.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Done, Wheel};
use crate::daemon::rotation::{Fault, tell};
use crate::daemon::scene::Scene;
use crate::daemon::timetable::{Removals, Removed};
use crate::record::{Actor, LeaveLine, Line, Parting};
use crate::schedule::Target;
use crate::sink::{Failure, Ours, Removal};
use crate::token::sealed::{Mark, Seals};
use crate::token::{Payload, candidates};

/// A place that does not answer within that is tried again later.
const WITHIN: Duration = Duration::from_secs(10);

impl Wheel {
    /// Without a daemon: these targets are withdrawn, then the loop ends.
    pub(super) async fn withdraw(&mut self, targets: &[Arc<Target>], actor: &Actor) {
        let names: HashSet<&str> = targets.iter().map(|target| &*target.name).collect();
        // What comes of it is among the outcomes.
        let (waiter, _) = mpsc::unbounded_channel();
        self.event(|table, moment| table.withdraw(&|target| names.contains(&*target.name), actor, &waiter, moment)).await;
    }

    /// Clears places, and records what is new about them.
    pub(super) fn leave(&mut self, removals: Removals) {
        let (scene, writer) = (Arc::clone(&self.scene), self.writer.clone());
        self.tasks.spawn(async move {
            let Removals { name, mut line } = removals;
            let before = line.leaves.clone();
            let subject = line.service_account.as_ref().map(|account| format!("system:serviceaccount:{}", account.replace('/', ":")));
            let mut tries: Vec<BoxFuture<'_, (LeaveLine, Option<Failure>)>> = Vec::with_capacity(before.len());
            for place in before.iter().cloned() {
                tries.push(Box::pin(clear(&scene, place, subject.as_deref())));
            }
            let results = futures_util::future::join_all(tries).await;
            let failed: Vec<&Failure> = results.iter().filter_map(|(_, failure)| failure.as_ref()).collect();
            let fault = failed.iter().map(|failure| Fault { passing: failure.kind.retry_soon(), retry_after: failure.retry_after });
            let fault = fault.max_by_key(|fault| fault.passing);
            line.time = Timestamp::now();
            line.leaves = results.iter().map(|(place, _)| place.clone()).collect();
            let news = line.leaves.iter().zip(&before).any(|(now, before)| now != before || !now.is_owed());
            if news {
                say(&line);
                writer.append(vec![line.clone()]).await;
            }
            Done::Left(name, Box::new(Removed { line, news, fault }))
        });
    }
}

/// Makes one attempt at one place.
async fn clear(scene: &Scene, place: LeaveLine, subject: Option<&str>) -> (LeaveLine, Option<Failure>) {
    let Some(leftover) = place.leftover.as_ref().filter(|_| place.is_owed()) else {
        return (LeaveLine { leftover: None, seals: Seals::default(), ..place }, None);
    };
    let (sha256, seals) = (place.sha256.clone(), place.seals.clone());
    let marked = |held: &Payload| held.parts().iter().any(|part| Mark::of(part.expose()).is_some_and(|mark| seals.know(&mark)));
    let ours =
        |held: &Payload| sha256.as_ref() == Some(&held.sha256()) || subject.is_some_and(|subject| is_of(held, subject)) || marked(held);
    let (outcome, failure) = match leftover.remove(Ours(&ours), &scene.stores, WITHIN).await {
        Ok(Removal::Gone) => (Parting::Gone, None),
        Ok(Removal::Nothing) => (Parting::Nothing, None),
        Ok(Removal::Left) => (Parting::Left, None),
        Err(failure) => (Parting::Owed, Some(failure)),
    };
    let error = failure.as_ref().map(|failure| failure.message.clone());
    let owed = outcome == Parting::Owed;
    let (leftover, seals) = (place.leftover.filter(|_| owed), if owed { place.seals } else { Seals::default() });
    (LeaveLine { outcome, error, leftover, seals, ..place }, failure)
}

/// Whether all that stands there is tokens of that account.
fn is_of(held: &Payload, subject: &str) -> bool {
    let tokens: Vec<_> = held.parts().iter().flat_map(|part| candidates(part.expose())).collect();
    !tokens.is_empty() && tokens.iter().all(|token| token.claims().is_ok_and(|claims| claims.sub == subject))
}

/// The event in the log.
fn say(line: &Line) {
    tell(line);
    for place in line.leaves.iter().filter(|place| place.outcome != Parting::Gone && place.outcome != Parting::Nothing) {
        let target = line.target.as_deref().unwrap_or_default();
        let (outcome, error) = (format!("{:?}", place.outcome).to_lowercase(), place.error.as_deref().unwrap_or_default());
        tracing::warn!(target_name = target, place = place.place, outcome, error, "something stays of a target that goes");
    }
}
