//! Orders about targets: what was taken on, and what came of each.

use http::StatusCode;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Choice, astray, going, json, problem};
use crate::daemon::ask::{Ask, Elsewhere};
use crate::daemon::course::Told;
use crate::daemon::step::Standing;
use crate::record::{Actor, Line};

/// One line of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    state: Standing,
    record: Line,
}

/// The whole answer. Of a hundred thousand outcomes no tree is made first.
#[derive(Debug, Serialize)]
struct Outcomes<'a> {
    asked: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    elsewhere: &'a [Elsewhere],
    outcomes: Vec<Outcome>,
}

/// `POST /rotate`, `POST /rehearse`, `POST /withdraw`.
pub(super) async fn take(path: &str, choice: Choice, asks: &mpsc::Sender<Ask>, actor: Actor) -> Answer {
    if choice.is_empty() {
        return problem(StatusCode::BAD_REQUEST, "name targets, labels, or \"all\": true");
    }
    let (reply, taken) = oneshot::channel();
    let (waiter, told) = mpsc::unbounded_channel();
    let meant = choice.clone();
    // A rehearsal publishes nothing, so any member may do it.
    let (ask, meant) = match path {
        "/rotate" => (Ask::Rotate(choice.rotatable(), actor, waiter, reply), Some(meant.rotatable())),
        "/rehearse" => (Ask::Rehearse(choice.selector(), actor, waiter, reply), None),
        _ => (Ask::Withdraw(choice.selector(), actor, waiter, reply), Some(meant.selector())),
    };
    if asks.send(ask).await.is_err() {
        return going();
    }
    let away = match meant {
        Some(meant) => astray::of(meant, asks).await,
        None => Some(Vec::new()),
    };
    let Some(away) = away else { return going() };
    outcomes(taken, told, &away).await
}

async fn outcomes(taken: oneshot::Receiver<Vec<String>>, mut told: mpsc::UnboundedReceiver<Told>, away: &[Elsewhere]) -> Answer {
    let Ok(taken) = taken.await else { return going() };
    if taken.is_empty() && !away.is_empty() {
        return astray::refusal(away);
    }
    if taken.is_empty() {
        return problem(StatusCode::NOT_FOUND, "no target of the schedule is meant by that");
    }
    let mut outcomes = Vec::with_capacity(taken.len());
    while outcomes.len() < taken.len() {
        match told.recv().await {
            Some(told) => outcomes.push(Outcome { state: told.standing, record: told.line }),
            None => break,
        }
    }
    outcomes.sort_by(|a, b| a.record.target.cmp(&b.record.target));
    json(&Outcomes { asked: &taken, elsewhere: away, outcomes })
}
