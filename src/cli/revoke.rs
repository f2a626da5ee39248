//! `revoke`: generations of a target's token are made useless.

use std::time::Duration;

use clap::Args;
use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit, choose};
use crate::daemon::control::{self, Choice, Revocation};

/// Make delivered tokens of a target useless
///
/// For a target with `revocable: true` the daemon first delivers the next generation to every place and tells every
/// hook, then deletes the markers of all generations before it, and tries what it found of them: the API server refuses
/// a token within 10 s after its marker. Those who never ask the API server, but check the signature alone, accept it
/// until it ends. What cannot be done now is recorded, and the daemon goes on until it is done.
///
/// The token of another target cannot be ended alone: a successor is delivered, and the exit code is 1 with the time
/// that is left and what would end the token at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry revoke ci-deployer                     replace it, then end all that was delivered before
  tokenferry revoke ci-deployer --now               end it at once; the next one follows
  tokenferry revoke ci-deployer --all-but-newest    end what only stays good for the overlap
  tokenferry revoke ci-deployer --generation 41")]
pub struct Revoke {
    /// Name of the target
    #[arg(value_name = "TARGET")]
    target: String,
    /// That generation alone
    #[arg(long, value_name = "N", conflicts_with = "all_but_newest")]
    generation: Option<u64>,
    /// Every generation but the one in use
    #[arg(long)]
    all_but_newest: bool,
    /// Do not wait for a successor: whoever uses the token is refused until he has the next one
    #[arg(long)]
    now: bool,
    /// How long to wait; the daemon goes on all the same
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How to show the outcome
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Revoke {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where something is owed, or could not be revoked at all; 2 where there is no such target; 3 where no
    /// daemon runs; 5 where another member of the fleet serves it.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let wanted = Revocation {
            target: self.target.clone(),
            generation: self.generation,
            all_but_newest: self.all_but_newest,
            now: self.now,
            command: choose::typed(),
        };
        let shown = context.progress("waiting until the token is refused");
        let answer = control::call(&context.socket(), Method::POST, "/revoke", &wanted, self.timeout).await;
        let meant = Choice { targets: vec![self.target.clone()], ..Choice::default() };
        let answer = answer.map_err(|error| choose::refused(error, &meant, context))?;
        drop(shown);
        let records = answer["records"].as_array().cloned().unwrap_or_default();
        match self.output {
            Output::Json => print::json(&answer)?,
            Output::Table if records.is_empty() => {}
            Output::Table => print::data(&print::table(
                &["TARGET", "GENERATION", "OUTCOME", "HOW IT IS KNOWN", "WOULD HAVE ENDED"],
                &records.iter().map(row).collect::<Vec<_>>(),
            ))?,
        }
        match answer["outcome"].as_str().unwrap_or_default() {
            "revoked" => Ok(()),
            "nothing" => {
                print::talk("nothing is to be revoked: no such generation stands");
                Ok(())
            }
            "noMarker" => Err(Exit::own(self.without_marker(&answer))),
            "unknown" => Err(Exit::own(answer["error"].as_str().unwrap_or_default())),
            _ => Err(Exit::own(format!("the revocation is owed: {}", answer["error"].as_str().unwrap_or_default()))),
        }
    }

    fn without_marker(&self, answer: &Value) -> String {
        let ends = answer["expiresAt"].as_str().and_then(|end| end.parse::<Timestamp>().ok());
        let until = ends.map(|end| format!("{end} ({})", print::distance(Some(end), Timestamp::now()))).unwrap_or_default();
        let successor = &answer["successor"];
        let next = if successor["kind"] == "rotated" {
            format!("its successor, generation {}, is delivered", successor["generation"])
        } else {
            let why = successor["error"].as_str().or_else(|| successor["sinks"].as_array()?.iter().find_map(|s| s["error"].as_str()));
            format!("its successor could not be delivered ({})", why.unwrap_or("the records say why"))
        };
        format!(
            "generation {} of {} has no marker and cannot be revoked on its own: {next}; whoever has the old token can use it until \
             {until}. It ends at once by {}. With `revocable: true` in the schedule later generations can be revoked",
            answer["generation"],
            self.target,
            answer["endsBy"].as_str().unwrap_or("nothing")
        )
    }
}

fn row(record: &Value) -> Vec<Cell> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let marker = &record["markers"][0];
    let generations = match marker["first"].as_u64() {
        Some(first) => format!("{first}-{}", record["generation"]),
        None => record["generation"].to_string(),
    };
    let known = match marker["verified"].as_str() {
        Some("refused") => "the API server refuses it",
        _ => "its marker is gone; no copy was at hand to try",
    };
    vec![
        word(&record["target"]).into(),
        generations.into(),
        Cell::new("revoked", Colour::Good),
        known.into(),
        word(&record["expiresAt"]).into(),
    ]
}
