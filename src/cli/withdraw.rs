//! `withdraw`: what targets published is taken back.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::choose::{Meant, astray, nobody, refused};
use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit, choose, status};
use crate::daemon::control::{self, CallError, Choice};
use crate::daemon::{self, read};

/// Take back what targets published: before a target or a host goes
///
/// At every place and its fallbacks, what is the target's own is deleted: files, directories, Vault and AWS secrets,
/// Kubernetes Secrets; a field of a secret that holds other fields too goes alone, and what somebody else put there
/// stays. It is recorded as retired. A place that does not answer is owed, and the daemon goes on trying.
///
/// A withdrawn target stays in the schedule and is not published again until `tokenferry rotate TARGET` names it, or
/// a reload changes it. Where no daemon runs this command does the work itself.
///
/// What a `command` sink was handed and what was merged into a kubeconfig that others share cannot be taken back: that
/// is said, and the exit code is 1.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry withdraw ci-deployer --dry-run    which places\n  tokenferry withdraw ci-deployer\n  tokenferry withdraw -l host=old\n  tokenferry withdraw --all                    before this host goes"
)]
pub struct Withdraw {
    #[command(flatten)]
    meant: Meant,
    /// Show what would be taken back; take nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait; the daemon goes on all the same
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How to show the outcome
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Withdraw {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where something is owed or beyond reach, 2 where no target is meant or another process holds the
    /// records, 5 where another member of the fleet serves what was named.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let choice = self.meant.choice()?;
        if self.dry_run {
            return self.show(context, &choice).await;
        }
        let shown = context.progress("taking back what was published");
        let answer = match control::call(&context.socket(), Method::POST, "/withdraw", &choice, self.timeout).await {
            Ok(answer) => answer,
            Err(CallError::Nobody(_)) => {
                let records = alone(context, choice).await?;
                drop(shown);
                return self.told(&records);
            }
            Err(error) => return Err(refused(error, &choice, context)),
        };
        drop(shown);
        let records: Vec<Value> = answer["outcomes"].as_array().into_iter().flatten().map(|outcome| outcome["record"].clone()).collect();
        self.told(&records)?;
        astray(&answer, &choice)
    }

    fn told(&self, records: &[Value]) -> Result<(), Exit> {
        match self.output {
            Output::Json => print::json(&records)?,
            Output::Table => {
                let rows: Vec<Vec<Cell>> = records.iter().flat_map(rows).collect();
                print::data(&print::table(&["TARGET", "PLACE", "OUTCOME", ""], &rows))?;
            }
        }
        let mut leaves = records.iter().flat_map(|record| record["leaves"].as_array().into_iter().flatten());
        if leaves.any(|leave| matches!(leave["outcome"].as_str(), Some("owed" | "beyond"))) { Err(Exit::failed()) } else { Ok(()) }
    }

    /// Every place that something would be taken from.
    async fn show(&self, context: &Context, choice: &Choice) -> Result<(), Exit> {
        let looked = status::look(context, choice, self.timeout).await?;
        if let Some(note) = looked.note {
            print::talk(note);
        }
        let status = looked.status;
        let targets = status["targets"].as_array().cloned().unwrap_or_default();
        if targets.is_empty() {
            return Err(nobody());
        }
        let mut found = Vec::new();
        for target in &targets {
            for sink in target["sinks"].as_array().into_iter().flatten() {
                let fallbacks = sink["fallbacks"].as_array().into_iter().flatten();
                for place in std::iter::once(sink).chain(fallbacks) {
                    found.push(json!({"target": target["name"], "sink": place["sink"], "place": place["place"]}));
                }
            }
        }
        match self.output {
            Output::Json => print::json(&json!({ "wouldWithdraw": found })),
            Output::Table => {
                let cell = |place: &Value, key: &str| Cell::from(place[key].as_str().unwrap_or("-"));
                let rows: Vec<Vec<Cell>> =
                    found.iter().map(|place| ["target", "sink", "place"].map(|key| cell(place, key)).into()).collect();
                print::data(&print::table(&["TARGET", "SINK", "PLACE"], &rows))
            }
        }
    }
}

/// Without a daemon.
async fn alone(context: &Context, choice: Choice) -> Result<Vec<Value>, Exit> {
    let schedule = context.schedule(None);
    let accepted = read::read(&schedule).map_err(|problems| Exit::refused(&problems))?;
    if !accepted.plan.targets.iter().any(|target| choice.takes(target)) {
        return Err(nobody());
    }
    drop(accepted);
    let actor = control::caller(choose::typed());
    let once =
        daemon::Once { selector: Box::new(move |target| choice.takes(target)), force: false, withdraw: Some(actor), told: Arc::default() };
    let (told, health) = daemon::once(schedule, context.places.clone(), once).await?;
    if let Some(error) = health.error {
        return Err(Exit::own(format!("what happened could not be recorded: {error}")));
    }
    told.iter().map(|told| serde_json::to_value(&told.line).map_err(|error| Exit::own(error.to_string()))).collect()
}

fn rows(record: &Value) -> Vec<Vec<Cell>> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let leaves = record["leaves"].as_array().into_iter().flatten();
    let row = |leave: &Value| {
        let outcome = word(&leave["outcome"]);
        let (colour, said) = match outcome.as_str() {
            "gone" | "nothing" => (Colour::Good, String::new()),
            "left" => (Colour::Warn, "something that is not ours stands there: it was left".to_owned()),
            "taken" => (Colour::Warn, "another target has the place: it was left".to_owned()),
            "beyond" => (Colour::Bad, "it cannot be taken back: mend it by hand, or let the token end".to_owned()),
            _ => (Colour::Bad, word(&leave["error"])),
        };
        vec![word(&record["target"]).into(), word(&leave["place"]).into(), Cell::new(outcome, colour), said.into()]
    };
    leaves.map(row).collect()
}
