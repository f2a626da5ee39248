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

impl Check {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where a schedule is refused.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let files = if self.files.is_empty() { vec![context.schedule(None)] } else { self.files };
        let mut problems: Vec<Problem> = Vec::new();
        let mut good = Vec::new();
        let shown = context.progress("planning the schedule");
        for file in &files {
            match read::read(file) {
                Ok(accepted) => {
                    good.push((file, accepted.plan.targets.len()));
                    problems.extend(accepted.plan.warnings);
                }
                Err(found) => problems.extend(found),
            }
        }
        drop(shown);
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
