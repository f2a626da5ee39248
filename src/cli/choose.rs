//! Choosing targets: names, globs, labels.

use clap::Args;

use super::{Exit, completions};
use crate::daemon::control::Choice;

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

/// What was typed, for the records: no argument of ours ever holds a secret.
pub fn typed() -> String {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    if let Some(first) = words.first_mut() {
        *first = "tokenferry".into();
    }
    words.join(" ")
}
