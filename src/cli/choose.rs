//! Choosing targets: names, globs, labels.

use clap::Args;

use crate::daemon::control::Choice;

/// Arguments of commands that work on targets.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// Names or globs of targets
    #[arg(value_name = "TARGET")]
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

/// What was typed, for the records: no argument of ours ever holds a secret.
pub fn typed() -> String {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    if let Some(first) = words.first_mut() {
        *first = "tokenferry".into();
    }
    words.join(" ")
}
