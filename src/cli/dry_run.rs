//! What a run would do, and whether it may: without minting. A server-side dry run of TokenRequest would hand
//! out a real token, so access is asked for instead.

use jiff::Timestamp;
use serde::Serialize;

use super::print::{self, Cell, Colour, Output};
use super::{Context, Exit};
use crate::cluster::access::Access;
use crate::daemon::control::Choice;
use crate::daemon::read::Accepted;
use crate::daemon::step;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    target: String,
    would: &'static str,
    reason: Option<crate::record::Reason>,
    due: Option<Timestamp>,
    access: Access,
}

/// Shows it. Exits 1 where the API server says that we may not.
pub async fn show(accepted: Accepted, choice: &Choice, force: bool, output: Output, context: &Context) -> Result<(), Exit> {
    let (scene, state) = context.scene(accepted)?;
    let now = Timestamp::now();
    let mut rows = Vec::new();
    for target in scene.plan.targets.iter().filter(|t| choice.takes(t)) {
        let withdrawn = state.is_withdrawn(&target.name);
        let due = step::due(target, state.target(&target.name), now, false, &scene.host).filter(|_| !withdrawn);
        let is_due = force || due.is_some_and(|(at, _)| at <= now.as_millisecond());
        let access = match scene.cluster(&target.cluster) {
            Some(cluster) => cluster.may_mint(&target.ask).await,
            None => Access::Unknown { why: "the schedule does not have its cluster".into() },
        };
        let would = if is_due {
            "rotate"
        } else if withdrawn {
            "leave (withdrawn)"
        } else if target.suspend {
            "leave (suspended)"
        } else {
            "leave (fresh)"
        };
        rows.push(Row {
            target: target.name.to_string(),
            would,
            reason: is_due.then(|| due.map_or(crate::record::Reason::Manual, |(_, reason)| reason)),
            due: due.and_then(|(at, _)| Timestamp::from_millisecond(at).ok()),
            access,
        });
    }
    match output {
        Output::Json => print::json(&rows)?,
        Output::Table => {
            let cells = |row: &Row| {
                let (text, colour) = match &row.access {
                    Access::Allowed => ("allowed".to_owned(), Colour::Good),
                    Access::Denied { why } => (format!("denied: {why}"), Colour::Bad),
                    Access::Unknown { why } => (format!("unknown: {why}"), Colour::Warn),
                };
                vec![row.target.as_str().into(), row.would.into(), print::distance(row.due, now).into(), Cell::new(text, colour)]
            };
            print::data(&print::table(&["TARGET", "WOULD", "DUE", "ACCESS"], &rows.iter().map(cells).collect::<Vec<_>>()))?;
        }
    }
    if rows.iter().any(|r| matches!(r.access, Access::Denied { .. } | Access::Unknown { .. })) { Err(Exit::failed()) } else { Ok(()) }
}
