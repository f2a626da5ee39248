//! `check`: every problem of a schedule, offline.

use std::path::PathBuf;

use clap::Args;

use super::print::{self, Output};
use super::{Context, Exit};
use crate::daemon::read;
use crate::schedule::{Problem, Severity};

/// Tell every problem of a schedule, offline
///
/// Opens the schedule and its includes and nothing else: no socket, no kubeconfig, no secret. Each problem is one
/// line `FILE:LINE:COLUMN: error|warning: …` that says what to write instead.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tokenferry check schedule.yaml\n  tokenferry check --strict -o json *.yaml")]
pub struct Check {
    /// Schedule files
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
    /// How to show the problems
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// From nothing to the first token.
const FIRST_STEPS: &str = "To the first token:
  sudoedit /etc/tokenferry/schedule.yaml       whose token, where it goes (man 5 tokenferry-schedule has one to start from)
  tokenferry check                             every problem of it
  sudo KUBECONFIG=$HOME/.kube/config tokenferry bootstrap CLUSTER
                                               account, rights and credential of the daemon, with your own kubeconfig
  sudo tokenferry host --apply                 folders, and what the unit needs beyond what is shipped
  sudo systemctl enable --now tokenferry       and then: tokenferry status
";

impl Check {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where a schedule is refused.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let none_named = self.files.is_empty();
        let files = if none_named { vec![context.schedule(None)] } else { self.files };
        let mut problems: Vec<Problem> = Vec::new();
        let mut good = Vec::new();
        let shown = context.progress("planning the schedule");
        for file in &files {
            match read::read(file) {
                Ok(mut accepted) => {
                    good.push((file, accepted.plan.targets.len()));
                    problems.append(&mut accepted.plan.warnings);
                    // The process ends soon: a hundred thousand targets are not taken apart one by one before.
                    std::mem::forget(accepted);
                }
                Err(found) => problems.extend(found),
            }
        }
        drop(shown);
        if none_named && !files[0].exists() {
            print::talk(&format!("There is no schedule yet. {FIRST_STEPS}"));
        }
        let bad = problems.iter().any(|p| self.strict || p.severity == Severity::Error);
        match self.output {
            Output::Json => print::json(&problems)?,
            Output::Table => {
                let lines: String = problems.iter().map(|p| format!("{p}\n")).collect();
                print::data(&lines)?;
                for (file, targets) in good {
                    print::talk(&format!("{}: {targets} {}, in order", file.display(), if targets == 1 { "target" } else { "targets" }));
                }
            }
        }
        if bad { Err(Exit { code: 2, message: None }) } else { Ok(()) }
    }
}
