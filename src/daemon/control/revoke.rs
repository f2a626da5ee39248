//! `POST /revoke`: generations of a target are made useless. Where the token in use has no marker nothing can end it
//! alone: a successor is delivered, and the answer says what is left.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Ask, astray, going, json, problem};
use crate::daemon::ask::{Demand, Which, Word};
use crate::record::Actor;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// The target's name.
    pub target: String,
    /// One generation; with neither this nor `allButNewest` every one that was delivered so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// All but the one in use.
    #[serde(default)]
    pub all_but_newest: bool,
    /// Without a successor first.
    #[serde(default)]
    pub now: bool,
    /// What was typed, for the record.
    #[serde(default)]
    pub command: String,
}

impl Revocation {
    fn demand(&self) -> Result<Demand, &'static str> {
        let which = match (self.generation, self.all_but_newest) {
            (Some(_), true) => return Err("`generation` and `allButNewest` say different things: send one"),
            (Some(generation), false) => Which::Generation(generation),
            (None, true) => Which::AllButNewest,
            (None, false) => Which::Delivered,
        };
        Ok(Demand { target: self.target.clone(), which, now: self.now })
    }
}

/// Does it.
pub(super) async fn take(body: &[u8], asks: &mpsc::Sender<Ask>, actor: Actor) -> Answer {
    let wanted: Revocation = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(e) => return problem(StatusCode::BAD_REQUEST, &format!("the request body is not what it should be: {e}")),
    };
    let demand = match wanted.demand() {
        Ok(demand) => demand,
        Err(message) => return problem(StatusCode::BAD_REQUEST, message),
    };
    let actor = Actor { command: wanted.command.chars().take(500).collect(), ..actor };
    let (reply, answer) = oneshot::channel();
    if asks.send(Ask::Revoke(demand, actor.clone(), reply)).await.is_err() {
        return going();
    }
    let answer = match answer.await {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            let name = wanted.target.clone();
            return match astray::of(Box::new(move |target| *target.name == *name), asks).await {
                Some(away) if !away.is_empty() => astray::refusal(&away),
                Some(_) => problem(StatusCode::NOT_FOUND, "no target of the schedule is meant by that"),
                None => going(),
            };
        }
        Err(_) => return going(),
    };
    if answer.outcome != Word::NoMarker {
        return json(&answer);
    }
    let Some(successor) = successor(&wanted.target, asks, actor).await else { return going() };
    let Ok(mut value) = serde_json::to_value(&answer) else { return going() };
    value["successor"] = json!(successor);
    json(&value)
}

/// The terminal record of a rotation that begins now.
async fn successor(target: &str, asks: &mpsc::Sender<Ask>, actor: Actor) -> Option<crate::record::Line> {
    let (reply, taken) = oneshot::channel();
    let (waiter, mut told) = mpsc::unbounded_channel();
    let name = target.to_owned();
    asks.send(Ask::Rotate(Box::new(move |target| *target.name == *name), actor, waiter, reply)).await.ok()?;
    taken.await.ok()?;
    told.recv().await.map(|told| told.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Demand, String> {
        serde_json::from_str::<Revocation>(text).map_err(|e| e.to_string()).and_then(|r| r.demand().map_err(str::to_owned))
    }

    #[test]
    fn a_demand_names_a_target_and_at_most_one_choice_of_generations() {
        let demand = |which, now| Ok(Demand { target: "ci".into(), which, now });
        assert_eq!(read(r#"{"target":"ci"}"#), demand(Which::Delivered, false));
        assert_eq!(read(r#"{"target":"ci","generation":7,"now":true}"#), demand(Which::Generation(7), true));
        assert_eq!(read(r#"{"target":"ci","allButNewest":true}"#), demand(Which::AllButNewest, false));
        for wrong in [r#"{"target":"ci","generation":1,"allButNewest":true}"#, "{}", r#"{"target":"ci","token":"x"}"#, ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
