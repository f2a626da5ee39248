//! `rotate`: the daemon rotates targets now.

use std::time::Duration;

use clap::Args;
use http::Method;

use super::choose::{Meant, astray, nobody, refused};
use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::daemon::control::{self, CallError, Choice};
use crate::daemon::rehearsal;
use crate::record::{Line, Outcome, word};

/// Ask the daemon to rotate targets now, wait, and show the outcome
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry rotate ci-deployer\n  tokenferry rotate 'ci-*' -l tier=prod\n  tokenferry rotate --all --timeout 10m\n  tokenferry rotate --all --rehearse"
)]
pub struct Rotate {
    #[command(flatten)]
    meant: Meant,
    /// Show who is meant and how they stand; rotate nothing
    #[arg(long)]
    dry_run: bool,
    /// Try the whole way and publish nothing: mint, prove, try each place and fallback, record it. Vault is asked what
    /// the login may do, an API server judges an apply that it does not keep, files are made beside the place and removed
    /// again, a command is not run. Where no daemon runs this process does it
    #[arg(long, conflicts_with = "dry_run")]
    rehearse: bool,
    /// How long to wait; the daemon goes on all the same
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How to show the outcome
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Rotate {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where a target was not rotated, 2 where none is meant, 3 where no daemon runs, 5 where another member of
    /// the fleet serves what was named.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let choice = self.meant.choice()?;
        let socket = context.socket();
        if self.dry_run {
            let status = control::call(&socket, Method::GET, "/status", &choice, self.timeout).await?;
            let names: Vec<&str> = status["targets"].as_array().into_iter().flatten().filter_map(|t| t["name"].as_str()).collect();
            if names.is_empty() {
                return Err(nobody());
            }
            return match self.output {
                Output::Json => print::json(&serde_json::json!({ "wouldRotate": names })),
                Output::Table => print::data(&names.iter().map(|n| format!("{n}\n")).collect::<String>()),
            };
        }
        if self.rehearse {
            return self.rehearsed(&choice, context).await;
        }
        let shown = context.progress("waiting for the daemon to rotate them");
        let answer = control::call(&socket, Method::POST, "/rotate", &choice, self.timeout).await;
        let answer = answer.map_err(|error| refused(error, &choice, context))?;
        drop(shown);
        let outcomes = answer["outcomes"].as_array().cloned().unwrap_or_default();
        let asked = answer["asked"].as_array().map_or(0, Vec::len);
        match self.output {
            Output::Json => print::json(&answer)?,
            Output::Table => print::data(&print::table(
                &["TARGET", "OUTCOME", "STATE", "EXPIRES", "PLACES"],
                &outcomes.iter().map(row).collect::<Vec<_>>(),
            ))?,
        }
        let done = outcomes.iter().filter(|o| o["record"]["kind"] == "rotated").count();
        if done == asked { astray(&answer, &choice) } else { Err(Exit::failed()) }
    }
}

impl Rotate {
    async fn rehearsed(&self, choice: &Choice, context: &Context) -> Result<(), Exit> {
        let lines: Vec<Line> = match control::call(&context.socket(), Method::POST, "/rehearse", choice, self.timeout).await {
            Ok(answer) => {
                let told = answer["outcomes"].as_array().into_iter().flatten();
                let lines = told.map(|outcome| serde_json::from_value(outcome["record"].clone())).collect::<Result<Vec<_>, _>>();
                let lines =
                    lines.map_err(|_| Exit::own("the daemon's answer is not that of a rehearsal: is it as new as this program?"))?;
                if answer["asked"].as_array().map_or(0, Vec::len) > lines.len() {
                    return Err(Exit::own("the daemon is about to stop, and rehearses no more"));
                }
                lines
            }
            Err(CallError::Nobody(_)) => alone(choice, context).await?,
            Err(error) => return Err(error.into()),
        };
        if lines.is_empty() {
            return Err(nobody());
        }
        match self.output {
            Output::Json => print::json(&lines)?,
            Output::Table => {
                let rows: Vec<Vec<Cell>> = lines.iter().flat_map(rehearsal_rows).collect();
                print::data(&print::table(&["TARGET", "PLACE", "OUTCOME", "WHAT"], &rows))?;
            }
        }
        if lines.iter().all(rehearsal::is_good) { Ok(()) } else { Err(Exit::failed()) }
    }
}

async fn alone(choice: &Choice, context: &Context) -> Result<Vec<Line>, Exit> {
    let meant = choice.clone();
    let actor = control::caller(choice.command.clone());
    let selector = Box::new(move |target: &_| meant.takes(target));
    let (lines, health) = rehearsal::alone(context.schedule(None), context.places.clone(), selector, actor).await?;
    match health.error {
        Some(error) => Err(Exit::own(format!("what happened could not be recorded: {error}"))),
        None => Ok(lines),
    }
}

/// The token first, then each place.
fn rehearsal_rows(line: &Line) -> Vec<Vec<Cell>> {
    let cells = |place: String, good: bool, what: String| {
        let outcome = if good { Cell::new("good", Colour::Good) } else { Cell::new("bad", Colour::Bad) };
        vec![line.target.as_deref().unwrap_or("-").into(), place.into(), outcome, what.into()]
    };
    let life = line.granted.map(print::span).unwrap_or_default();
    let minted = line
        .error
        .clone()
        .unwrap_or_else(|| format!("minted for {life}, proven by {}", line.proof.map_or_else(|| "nobody".to_owned(), word)));
    let places = line.sinks.iter().map(|sink| {
        let what = sink.tried.clone().or_else(|| sink.error.clone()).unwrap_or_default();
        cells(format!("{} {}", sink.sink, sink.place), sink.outcome == Outcome::Probed, what)
    });
    std::iter::once(cells("token".into(), line.error.is_none(), minted)).chain(places).collect()
}

fn row(outcome: &serde_json::Value) -> Vec<Cell> {
    let record = &outcome["record"];
    let word = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let good = record["kind"] == "rotated";
    let places = record["sinks"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| format!("{}={}", word(&s["place"]), word(&s["outcome"])))
        .collect::<Vec<_>>()
        .join(" ");
    let error =
        record["error"].as_str().or_else(|| record["sinks"].as_array()?.iter().find_map(|s| s["error"].as_str())).unwrap_or_default();
    vec![
        word(&record["target"]).into(),
        Cell::new(word(&record["kind"]), if good { Colour::Good } else { Colour::Bad }),
        word(&outcome["state"]).into(),
        word(&record["expiresAt"]).into(),
        if good { places.into() } else { format!("{places} {error}").trim().to_owned().into() },
    ]
}
