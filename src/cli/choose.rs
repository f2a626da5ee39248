//! Choosing targets: names, globs, labels.

use clap::Args;
use serde_json::Value;

use super::{Context, Exit, completions, print};
use crate::daemon::ask::Elsewhere;
use crate::daemon::control::{self, CallError, Choice};
use crate::daemon::read;

/// Arguments of commands that work on targets.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// Names or globs of targets
    #[arg(value_name = "TARGET", add = completions::targets())]
    pub targets: Vec<String>,
    /// Only targets with this label (the value may be a glob); may be given more than once
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

impl Chosen {
    /// As the daemon takes it.
    pub fn choice(&self, all: bool) -> Choice {
        Choice { targets: self.targets.clone(), labels: self.labels.clone(), all, command: typed(), ..Choice::default() }
    }
}

/// Arguments of commands that do something to targets: nobody is meant by saying nothing.
#[derive(Debug, Clone, Args)]
pub struct Meant {
    #[command(flatten)]
    chosen: Chosen,
    /// Every target
    #[arg(long, conflicts_with_all = ["targets", "labels"])]
    all: bool,
}

impl Meant {
    /// As the daemon takes it.
    ///
    /// # Errors
    /// Bad usage where none was named.
    pub fn choice(&self) -> Result<Choice, Exit> {
        let choice = self.chosen.choice(self.all);
        if choice.is_empty() { Err(Exit::usage("name targets, or --all")) } else { Ok(choice) }
    }
}

/// Names and labels that fit no target of the schedule.
pub fn nobody() -> Exit {
    Exit::usage("no target of the schedule is meant by that")
}

/// Why the daemon took an order for none of its targets: in a fleet, one may be of other hosts.
pub fn refused(error: CallError, choice: &Choice, context: &Context) -> Exit {
    if !matches!(error, CallError::Refused(404, _)) {
        return error.into();
    }
    // What is of other hosts alone the daemon has left out of its plan.
    let Ok(accepted) = read::read(&context.schedule(None)) else { return error.into() };
    let away = accepted.plan.targets.iter().filter(|target| !target.hosts.is_empty() && choice.takes(target));
    let said: Vec<String> =
        away.map(|target| format!("{} is served by hosts that match {}: ask there", target.name, target.hosts.join(", "))).collect();
    if said.is_empty() { error.into() } else { Exit::elsewhere(said.join("; ")) }
}

/// Says what of an order other members of the fleet serve.
///
/// # Errors
/// Where one of them was named: of what was chosen by a glob or a label, each member does its own.
pub fn astray(answer: &Value, choice: &Choice) -> Result<(), Exit> {
    let found: Vec<Elsewhere> = serde_json::from_value(answer["elsewhere"].clone()).unwrap_or_default();
    if found.is_empty() {
        return Ok(());
    }
    let said = control::said(&found);
    if found.iter().any(|one| choice.targets.contains(&one.target)) {
        return Err(Exit::elsewhere(said));
    }
    print::talk(&said);
    Ok(())
}

/// What was typed, for the records: no argument of ours ever holds a secret.
pub fn typed() -> String {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    if let Some(first) = words.first_mut() {
        *first = "tokenferry".into();
    }
    words.join(" ")
}
