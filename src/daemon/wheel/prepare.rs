//! A reload's long work, away from the loop: the files read and planned, held against the plan in force, guarded, and
//! kept beside the records.

use std::path::Path;
use std::sync::Arc;

use crate::daemon::ask::Explicit;
use crate::daemon::read::{self, Accepted};
use crate::daemon::touched::Touched;
use crate::daemon::walls::Walls;
use crate::daemon::{cron, files, own};
use crate::schedule::change::{self, Change};
use crate::schedule::cron::CronRule;
use crate::schedule::{Plan, Problem, Severity, Sources};

/// A plan that nothing speaks against, with all that can be made of it beforehand.
pub(super) struct Prepared {
    pub plan: Arc<Plan>,
    pub change: Change,
    /// Its places, watched.
    pub watched: Touched,
    /// Its cron rules.
    pub rules: Vec<CronRule>,
}

/// Takes a schedule, unless more would be deleted than was said. What it says is kept beside the records.
///
/// # Errors
/// Every problem of it.
pub(super) fn prepare(
    path: &Path,
    records: &Path,
    walls: &Walls,
    before: &Plan,
    asked: Option<&Explicit>,
) -> Result<Prepared, Vec<Problem>> {
    let accepted = read::again(path, Some(before))?;
    let outside = walls.outside(&accepted, records);
    if !outside.is_empty() {
        return Err(outside);
    }
    let Accepted { plan, sources } = accepted;
    let mut plan = own::join(plan, records);
    change::keep_same(before, &mut plan);
    let plan = Arc::new(plan);
    let mut change = Change::between(before, &plan);
    let leaving = change.leaving(before);
    match asked {
        None if leaving.is_empty() => {}
        None => {
            let targets = leaving.join(", ");
            tracing::warn!(targets, "what these targets left stays: only `tokenferry reload` deletes it");
        }
        Some(Explicit { remove, .. }) => {
            change::guard(&leaving, before.targets.len(), *remove).map_err(|why| vec![too_much(&plan, why)])?;
            change.deleting = leaving;
        }
    }
    own::prepare(&plan, records);
    keep(records, &sources, &plan);
    let watched = Touched::watch(&plan);
    let rules = cron::rules(&plan);
    Ok(Prepared { plan, change, watched, rules })
}

/// Leaves the accepted text, and where the tokens of its plan stand, beside the records.
pub(super) fn keep(records: &Path, sources: &Sources, plan: &Plan) {
    if let Err(error) = read::keep(records, sources) {
        tracing::warn!(%error, "the accepted schedule cannot be kept beside the records");
    }
    files::keep(records, plan);
}

fn too_much(plan: &Plan, message: String) -> Problem {
    Problem { file: plan.path.clone(), line: 1, column: 1, severity: Severity::Error, target: None, key: "targets".into(), message }
}
