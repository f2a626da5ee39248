//! `once`: rotate what is due, then exit.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit, choose};
use crate::daemon::control::{self, CallError, Choice};
use crate::daemon::course::Told;
use crate::daemon::places::Places;
use crate::daemon::read::Accepted;
use crate::daemon::walls::Walls;
use crate::daemon::{self, read};
use crate::record::{Kind, LeaveLine, Outcome, word};

/// Rotate what is due, then exit
///
/// Asks the daemon where one runs. A second run right after mints nothing: fresh tokens are left alone.
/// A dry run asks the API server whether we may (SelfSubjectAccessReview) and never mints.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry once schedule.yaml\n  tokenferry once --target ci-deployer --force\n  tokenferry once --dry-run"
)]
pub struct Once {
    /// The schedule file
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only this target (a name or glob); may be given more than once
    #[arg(short, long = "target", value_name = "NAME", add = super::completions::targets())]
    targets: Vec<String>,
    /// Rotate whether it is due or not
    #[arg(long)]
    force: bool,
    /// Show what would be done, and whether we may
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for a running daemon
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How to show the outcome
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Once {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where a required place failed or is owed, 2 where the schedule is refused.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let schedule = context.schedule(self.file.as_ref());
        let accepted = read::read(&schedule).map_err(|problems| Exit::refused(&problems))?;
        // Before the runtime's threads, which inherit the walls.
        Walls::raise(&accepted.plan, &context.places).tell();
        super::on_one_thread(self.on(schedule, accepted, context))
    }

    async fn on(self, schedule: PathBuf, accepted: Accepted, context: &Context) -> Result<(), Exit> {
        let Places { records, socket, .. } = context.places.by(&accepted.plan);
        let known = daemon::own::join(accepted.plan.clone(), &records).targets;
        let choice = Choice { targets: self.targets.clone(), all: self.targets.is_empty(), command: choose::typed(), ..Choice::default() };
        if !known.is_empty() && !known.iter().any(|t| choice.takes(t)) {
            return Err(Exit::usage(format!("the schedule has no target `{}`", self.targets.join("`, `"))));
        }
        if self.dry_run {
            return super::dry_run::show(accepted, &choice, self.force, self.output, context).await;
        }
        let empty = known.is_empty();
        drop((accepted, known));
        if self.ask_daemon(&socket, &choice, context).await? {
            return Ok(());
        }
        let selector = {
            let choice = choice.clone();
            Box::new(move |target: &_| choice.takes(target))
        };
        let shown = context.progress("rotating what is due");
        let once = daemon::Once { selector, force: self.force, withdraw: None, told: shown.counter() };
        let (told, health) = daemon::once(schedule, context.places.clone(), once).await?;
        drop(shown);
        if empty {
            print::talk("the schedule has no targets; nothing to do");
        } else if told.is_empty() {
            print::talk("every token is fresh; nothing to do");
        }
        match self.output {
            Output::Json => print::json(&told.iter().map(|t| &t.line).collect::<Vec<_>>())?,
            Output::Table if told.is_empty() => {}
            Output::Table => {
                print::data(&print::table(&["TARGET", "OUTCOME", "EXPIRES", "PLACES"], &told.iter().map(row).collect::<Vec<_>>()))?
            }
        }
        if let Some(error) = health.error {
            return Err(Exit::own(format!("what happened could not be recorded: {error}")));
        }
        if told.iter().all(good) { Ok(()) } else { Err(Exit::failed()) }
    }

    /// Where a daemon runs it does the work; true when it did.
    async fn ask_daemon(&self, socket: &std::path::Path, choice: &Choice, context: &Context) -> Result<bool, Exit> {
        let status = match control::call(socket, Method::GET, "/status", choice, self.timeout).await {
            Ok(status) => status,
            Err(CallError::Nobody(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let due =
            |t: &&serde_json::Value| self.force || !matches!(t["state"].as_str(), Some("fresh" | "suspended" | "withdrawn" | "rotating"));
        let names: Vec<String> =
            status["targets"].as_array().into_iter().flatten().filter(due).filter_map(|t| t["name"].as_str().map(str::to_owned)).collect();
        if names.is_empty() {
            print::talk("a daemon runs, and every token is fresh; nothing to do");
            return Ok(true);
        }
        let choice = Choice { targets: names, all: false, ..choice.clone() };
        let shown = context.progress(&format!("waiting for the daemon to rotate {}", choice.targets.len()));
        let answer = control::call(socket, Method::POST, "/rotate", &choice, self.timeout).await?;
        drop(shown);
        print::json(&answer["outcomes"])?;
        let rotated = answer["outcomes"].as_array().is_some_and(|o| o.iter().all(|o| o["record"]["kind"] == "rotated"));
        if rotated { Ok(true) } else { Err(Exit::failed()) }
    }
}

/// Nothing required failed or is owed; what fell back is served.
fn good(told: &Told) -> bool {
    let told_in_vain = told.line.kind == Kind::Told && told.line.error.is_some();
    told.line.kind != Kind::Failed
        && !told_in_vain
        && !told.line.leaves.iter().any(LeaveLine::is_owed)
        && (told.line.kind != Kind::Paid || told.line.sinks.iter().all(|s| s.outcome.is_served()))
}

fn row(told: &Told) -> Vec<Cell> {
    let line = &told.line;
    let places = line.sinks.iter().map(|s| {
        let outcome = match s.outcome {
            Outcome::FellBack => format!("fell back to {}", s.fallback.as_deref().unwrap_or("-")),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("{} {outcome}", s.place)
    });
    let left = line.leaves.iter().map(|l| format!("{} {}", l.place, format!("{:?}", l.outcome).to_lowercase()));
    let hooks = line.hooks.iter().filter(|_| line.kind == Kind::Told).map(|hook| format!("{} {}", hook.hook, hook.to));
    let error = line.error.iter().cloned().chain(line.sinks.iter().filter_map(|s| s.error.clone()));
    vec![
        line.target.as_deref().unwrap_or("-").into(),
        Cell::new(word(line.kind), if good(told) { Colour::Good } else { Colour::Bad }),
        line.expires_at.map_or_else(|| "-".into(), |t| t.to_string()).into(),
        places.chain(left).chain(hooks).chain(error).collect::<Vec<_>>().join("; ").into(),
    ]
}
