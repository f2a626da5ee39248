//! `rotate`: the daemon rotates targets now.

use std::time::Duration;

use clap::Args;
use http::Method;

use super::choose::{Meant, nobody};
use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::daemon::control;

/// Ask the daemon to rotate targets now, wait, and show the outcome
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry rotate ci-deployer\n  tokenferry rotate 'ci-*' -l tier=prod\n  tokenferry rotate --all --timeout 10m"
)]
pub struct Rotate {
    #[command(flatten)]
    meant: Meant,
    /// Show who is meant and how they stand; rotate nothing
    #[arg(long)]
    dry_run: bool,
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
    /// Exit code 1 where a target was not rotated, 2 where none is meant, 3 where no daemon runs.
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
        let shown = context.progress("waiting for the daemon to rotate them");
        let answer = control::call(&socket, Method::POST, "/rotate", &choice, self.timeout).await?;
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
        if done == asked { Ok(()) } else { Err(Exit::failed()) }
    }
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
