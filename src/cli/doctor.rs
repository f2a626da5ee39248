//! `doctor`: what is wrong with this host, cluster and stores.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::print::{self, Cell, Colour, Output};
use super::{Context, Exit};
use crate::audit::doctor::{self, Finding, Host, Patient, Verdict};
use crate::daemon::{control, read};

/// Tell what is wrong with this host, the clusters and the stores
///
/// Looks at the schedule, the records, every folder that tokens go to, each API server (version, clock, issuer,
/// rights) and each store (login, rights to read). Writes nothing and mints nothing. Run it as the daemon's user to see
/// what the daemon sees; a root shell stands outside the service's sandbox. Exits 1 where something is bad.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry doctor
  sudo -u tokenferry tokenferry doctor /etc/tokenferry/schedule.yaml
  tokenferry doctor -o json | jq -r '.[] | select(.verdict == \"bad\") | \"\\(.subject): \\(.evidence)\"'")]
pub struct Doctor {
    /// The schedule
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Show what is well too
    #[arg(short, long)]
    all: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Doctor {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where something is bad.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let path = context.schedule(self.file.as_ref());
        let schedule = read::read(&path);
        let plan = schedule.as_ref().ok().map(|accepted| &accepted.plan);
        let socket = plan.and_then(|plan| plan.socket.clone()).unwrap_or_else(|| context.places.socket.clone());
        let records = plan.and_then(|plan| plan.records.directory.clone()).unwrap_or_else(|| context.places.records.clone());
        let asked = control::call(&socket, Method::GET, "/status", &control::Choice::default(), Duration::from_secs(5)).await;
        let host = match asked {
            Ok(status) => Host::Running { pid: status["daemon"]["pid"].as_u64().unwrap_or(0) },
            Err(error) => Host::Quiet { socket, why: error.to_string() },
        };
        let state = crate::record::read(&records);
        let shown = context.progress("examining host, clusters and stores");
        let findings = doctor::examine(Patient { schedule, path, records, state, host }).await;
        drop(shown);
        let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
        match self.output {
            Output::Json => print::json(&findings)?,
            Output::Table => self.table(&findings)?,
        }
        if bad { Err(Exit::failed()) } else { Ok(()) }
    }

    fn table(&self, findings: &[Finding]) -> Result<(), Exit> {
        let mut shown: Vec<&Finding> = findings.iter().filter(|finding| self.all || finding.verdict != Verdict::Good).collect();
        shown.sort_by_key(|finding| finding.verdict);
        let cells = |finding: &&Finding| {
            let (word, colour) = match finding.verdict {
                Verdict::Good => ("good", Colour::Good),
                Verdict::Warn => ("warning", Colour::Warn),
                Verdict::Unknown => ("unknown", Colour::Warn),
                Verdict::Bad => ("bad", Colour::Bad),
            };
            let remedy = finding.remedy.clone().unwrap_or_default();
            vec![
                Cell::new(word, colour),
                finding.subject.as_str().into(),
                finding.check.into(),
                finding.evidence.as_str().into(),
                Cell::new(remedy, Colour::Faint),
            ]
        };
        if !shown.is_empty() {
            print::data(&print::table(&["VERDICT", "WHERE", "CHECK", "SEEN", "WHAT TO DO"], &shown.iter().map(cells).collect::<Vec<_>>()))?;
        }
        let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        print::talk(&format!(
            "{} checks: {} good, {} bad, {} warnings, {} unknown",
            findings.len(),
            count(Verdict::Good),
            count(Verdict::Bad),
            count(Verdict::Warn),
            count(Verdict::Unknown)
        ));
        Ok(())
    }
}
