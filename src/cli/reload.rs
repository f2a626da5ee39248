//! `reload`: the daemon takes its schedule again.

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::print::{self, Output};
use super::{Context, Exit, choose};
use crate::daemon::control;
use crate::schedule::{change, measure};

/// Ask the daemon to take its schedule again; the exit code is the verdict
///
/// A target that went out of the schedule leaves its places as they are, or with `whenRemoved: delete` has what is
/// its own there deleted. Only this command deletes: a start, SIGHUP and reloadOnChange never do. More than 10 targets
/// or 5 % at once are refused until their number is said.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry reload && echo in force\n  tokenferry reload --remove 12    12 targets with whenRemoved: delete go"
)]
pub struct Reload {
    /// So many targets go and have what they left deleted: any other number is refused
    #[arg(long, value_name = "N")]
    remove: Option<usize>,
    /// How long to wait for the verdict
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// How to show the verdict
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// A duration as schedules write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<measure::Seconds>().map(|seconds| Duration::from_secs(seconds.0)).map_err(|e| e.to_string())
}

/// What else is another one now, and what of it waits for the next start.
fn settings(verdict: &Value) {
    let (waiting, taken): (Vec<&str>, Vec<&str>) =
        verdict["settings"].as_array().into_iter().flatten().filter_map(Value::as_str).partition(|key| change::AT_START.contains(key));
    if !taken.is_empty() {
        print::talk(&format!("in force too: {}", taken.join(", ")));
    }
    if !waiting.is_empty() {
        print::talk(&format!("taken up at the next start: {}", waiting.join(", ")));
    }
}

impl Reload {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where the schedule is refused, 3 where no daemon runs.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let body = control::Choice { command: choose::typed(), remove: self.remove, ..control::Choice::default() };
        let shown = context.progress("waiting for the daemon's verdict");
        let verdict = control::call(&context.socket(), Method::POST, "/reload", &body, self.timeout).await?;
        drop(shown);
        let accepted = verdict["accepted"] == true;
        match self.output {
            Output::Json => print::json(&verdict)?,
            Output::Table => {
                for problem in verdict["problems"].as_array().into_iter().flatten() {
                    let word = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
                    let target = problem["target"].as_str().map(|t| format!("target {t}: ")).unwrap_or_default();
                    let key = problem["key"].as_str().map(|k| format!("{k}: ")).unwrap_or_default();
                    print::talk(&format!(
                        "{}:{}:{}: {}: {target}{key}{}",
                        word("file"),
                        problem["line"],
                        problem["column"],
                        word("severity"),
                        word("message")
                    ));
                }
                let count = |key: &str| verdict[key].as_array().map_or(0, Vec::len);
                if accepted {
                    print::talk(&format!("in force: {} added, {} removed, {} changed", count("added"), count("removed"), count("changed")));
                    settings(&verdict);
                    if count("deleting") > 0 {
                        print::talk(&format!(
                            "what {} of the removed left is being deleted; `tokenferry records --kind retired` tells it",
                            count("deleting")
                        ));
                    }
                } else {
                    print::talk("refused; the schedule in force goes on");
                }
            }
        }
        if accepted { Ok(()) } else { Err(Exit { code: 2, message: None }) }
    }
}
