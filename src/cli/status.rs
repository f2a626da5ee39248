//! `status`: how every target stands.

mod fleet;
mod unasked;
mod watch;

use std::time::Duration;

use clap::Args;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::choose::Chosen;
use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::daemon::control::{self, CallError, Choice};
use crate::daemon::monitor;
use crate::daemon::read;
use crate::daemon::start;
use crate::daemon::status::View;

/// Show how every target stands
///
/// Asks the running daemon; where none runs, folds the records and says so. Exits 1 where a target is at risk,
/// expired or rejected, a monitored token is not well, records are being lost, or a refused schedule waits to be mended.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry status\n  tokenferry status 'ci-*' --watch\n  tokenferry status -o json | jq '.targets[] | select(.state != \"fresh\") | .name'"
)]
pub struct Status {
    #[command(flatten)]
    chosen: Chosen,
    /// Show the members of the fleet, and who serves each target
    #[arg(long)]
    fleet: bool,
    /// Show it again every two seconds, until interrupted; with -o json one line each time
    #[arg(short, long)]
    watch: bool,
    /// How long to wait for the daemon
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Status {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where something needs a person, 2 where no target is meant.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        if self.watch {
            return self.watch(context).await;
        }
        let looked = self.look(context).await?;
        if let Some(note) = looked.note {
            print::talk(note);
        }
        self.check_meant(&looked.status)?;
        match self.output {
            Output::Json => print::json(&looked.status)?,
            Output::Table => print::data(&shown(&looked.status, self.fleet))?,
        }
        if looked.bad { Err(Exit::failed()) } else { Ok(()) }
    }

    fn check_meant(&self, status: &Value) -> Result<(), Exit> {
        let empty = status["targets"].as_array().is_none_or(Vec::is_empty);
        if empty && !self.chosen.targets.is_empty() {
            return Err(Exit::usage(format!("the schedule has no target `{}`", self.chosen.targets.join("`, `"))));
        }
        Ok(())
    }

    async fn look(&self, context: &Context) -> Result<Looked, Exit> {
        look(context, &self.chosen.choice(false), self.timeout).await
    }
}

/// How all stands.
pub struct Looked {
    /// What the daemon says, or the records.
    pub status: Value,
    /// Whether something needs a person.
    pub bad: bool,
    /// Where it is from, where no daemon said it.
    pub note: Option<&'static str>,
}

/// How these targets stand, and whether one needs a person.
pub async fn look(context: &Context, choice: &Choice, timeout: Duration) -> Result<Looked, Exit> {
    match control::call(&context.socket(), Method::GET, "/status", choice, timeout).await {
        Ok(status) => {
            let bad = is_bad(&status);
            Ok(Looked { status, bad, note: None })
        }
        Err(CallError::Nobody(_)) => {
            let accepted = read::read(&context.schedule(None)).map_err(|problems| Exit::refused(&problems))?;
            let (scene, state) = context.scene(accepted)?;
            let view = View { scene: &scene, state: &state, courses: None, health: None, since: None, refused: None };
            let mut status = view.status(&|target| choice.takes(target));
            for row in &mut status.targets {
                if let Some(target) = scene.plan.target(&row.name) {
                    row.notes.extend(start::host_notes(&scene, target).await);
                }
            }
            status.monitored = monitor::look(&scene.plan.unasked.monitor, Timestamp::now()).await;
            let bad = status.is_bad();
            let status = serde_json::to_value(&status).map_err(|e| Exit::own(e.to_string()))?;
            Ok(Looked { status, bad, note: Some("no daemon runs; this is what the records say") })
        }
        Err(error) => Err(error.into()),
    }
}

fn is_bad(status: &Value) -> bool {
    let daemon = &status["daemon"];
    let records = &daemon["records"];
    let amiss = !records["error"].is_null() || !records["unsigned"].is_null() || records["lost"].as_u64() > Some(0);
    let troubled = !daemon["refused"].is_null() || amiss || !daemon["fleet"]["error"].is_null();
    let monitored = status["monitored"].as_array().into_iter().flatten();
    troubled
        || monitored.into_iter().any(|file| file["state"] != "fresh")
        || status["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|t| matches!(t["state"].as_str(), Some("atRisk" | "expired" | "rejected")))
}

fn shown(status: &Value, with_fleet: bool) -> String {
    let now = Timestamp::now();
    let daemon = &status["daemon"];
    let mut text = String::new();
    if let Some(problems) = daemon["refused"]["problems"].as_array() {
        text.push_str("The schedule file is refused; the one accepted last is served:\n");
        for problem in problems {
            text.push_str(&format!(
                "  {}:{}:{}: {}\n",
                problem["file"].as_str().unwrap_or("-"),
                problem["line"],
                problem["column"],
                problem["message"].as_str().unwrap_or("-")
            ));
        }
    }
    if let Some(why) = daemon["records"]["unsigned"].as_str() {
        print::talk(&format!("heads of the records are not signed: {why}"));
    }
    if let Some(error) = daemon["records"]["error"].as_str() {
        text.push_str(&format!(
            "Records cannot be written: {error} ({} wait, {} lost)\n",
            daemon["records"]["waiting"], daemon["records"]["lost"]
        ));
    }
    text.push_str(&fleet::troubled(daemon));
    text.push_str(&unasked::failing(daemon));
    if with_fleet {
        text.push_str(&fleet::members(daemon));
    }
    let targets = status["targets"].as_array().cloned().unwrap_or_default();
    if targets.is_empty() {
        text.push_str("The schedule has no targets.\n");
        text.push_str(&unasked::monitored(status, now));
        return text;
    }
    let mut heads = vec!["TARGET", "STATE", "EXPIRES", "NEXT", "LAST", "PLACES"];
    let mut rows: Vec<Vec<Cell>> = targets.iter().map(|t| row(t, now)).collect();
    if with_fleet {
        heads.push("OWNER");
        rows.iter_mut().zip(&targets).for_each(|(row, target)| row.push(target["owner"].as_str().unwrap_or("-").into()));
    }
    text.push_str(&print::table(&heads, &rows));
    for target in &targets {
        let name = target["name"].as_str().unwrap_or_default();
        let sinks = target["sinks"].as_array().into_iter().flatten();
        let errors = target["lastError"].as_str().into_iter().map(str::to_owned);
        let owed = sinks.filter_map(|s| Some(format!("{}: {}", s["place"].as_str()?, s["error"].as_str()?)));
        let notes = target["notes"].as_array().into_iter().flatten().filter_map(|n| n.as_str().map(str::to_owned));
        let hooks = target["hooks"].as_array().into_iter().flatten().filter_map(untold);
        let back = (target["state"] == "withdrawn").then(|| format!("withdrawn; `tokenferry rotate {name}` publishes it again"));
        let mut said: Vec<String> = errors.chain(owed).chain(hooks).chain(notes).chain(back).collect();
        said.dedup();
        for line in said {
            text.push_str(&format!("{name}: {line}\n"));
        }
    }
    for gone in status["leaving"].as_array().into_iter().flatten() {
        for place in gone["places"].as_array().into_iter().flatten() {
            let (name, at) = (gone["name"].as_str().unwrap_or("-"), place["place"].as_str().unwrap_or("-"));
            let why = place["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
            text.push_str(&format!("{name}: what it left at {at} is still to be taken back{why}\n"));
        }
    }
    text.push_str(&unasked::monitored(status, now));
    text
}

/// A hook that waits for its turn, or failed.
fn untold(hook: &Value) -> Option<String> {
    let name = format!("{} {}", hook["hook"].as_str()?, hook["to"].as_str()?);
    match (hook["outcome"].as_str()?, hook["error"].as_str()) {
        ("done", _) => None,
        (_, Some(error)) => Some(format!("{name}: {error}")),
        _ => Some(format!("{name}: not told yet")),
    }
}

fn row(target: &Value, now: Timestamp) -> Vec<Cell> {
    let time = |key: &str| target[key].as_str().and_then(|t| t.parse().ok());
    let state = target["state"].as_str().unwrap_or("-");
    let colour = match state {
        "fresh" => Colour::Good,
        "atRisk" | "expired" | "rejected" => Colour::Bad,
        "suspended" | "withdrawn" | "elsewhere" => Colour::Faint,
        _ => Colour::Warn,
    };
    let sinks = target["sinks"].as_array().cloned().unwrap_or_default();
    let good = sinks.iter().filter(|s| matches!(s["outcome"].as_str(), Some("written" | "unchanged"))).count();
    let places = Cell::new(format!("{good}/{}", sinks.len()), if good == sinks.len() { Colour::Plain } else { Colour::Warn });
    vec![
        target["name"].as_str().unwrap_or("-").into(),
        Cell::new(state, colour),
        print::distance(time("expiresAt"), now).into(),
        print::distance(time("nextRotation"), now).into(),
        print::distance(time("lastRotation"), now).into(),
        places,
    ]
}
