//! `doctor`: what is wrong with this host, cluster and stores.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Method;

use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::audit::doctor::{self, Finding, Host, Patient, Verdict, Viewpoint};
use crate::daemon::control::{self, CallError};
use crate::daemon::named::Named;

/// Tell what is wrong with this host, the clusters and the stores
///
/// Looks at the schedule, the records, every folder that tokens go to, each API server (version, clock, issuer,
/// rights) and each store (login, rights to read). Mints nothing, and writes nothing without --probe. Where a daemon
/// runs it looks itself, with its own user, sandbox and credentials, and says so in each line: a shell, root's too,
/// stands outside of them. Exits 1 where something is bad.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry doctor --probe
  sudo -u tokenferry tokenferry doctor --here /etc/tokenferry/schedule.yaml
  tokenferry doctor -o json | jq -r '.[] | select(.verdict == \"bad\") | \"\\(.subject): \\(.evidence)\"'")]
pub struct Doctor {
    /// The schedule
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Try rights to write too: files are made beside each place and removed again, Vault is asked what the login may do,
    /// API servers judge an apply that they do not keep; no token is written, and AWS tells nothing before it is
    #[arg(long)]
    probe: bool,
    /// Look from here even where a daemon runs
    #[arg(long)]
    here: bool,
    /// How long to wait for a running daemon
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
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
        let shown = context.progress("examining host, clusters and stores");
        let findings = self.findings(context).await?;
        drop(shown);
        let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
        match self.output {
            Output::Json => print::json(&findings)?,
            Output::Table => self.table(&findings)?,
        }
        if bad { Err(Exit::failed()) } else { Ok(()) }
    }

    /// The daemon's own, where one runs and is to be asked, with what only the caller can tell: whether he reaches it.
    async fn findings(&self, context: &Context) -> Result<Vec<Finding>, Exit> {
        let path = context.schedule(self.file.as_ref());
        let socket = Named::by(&path).socket.unwrap_or_else(|| context.places.socket.clone());
        let (request, within) = if self.here { ("/status", Duration::from_secs(5)) } else { (self.request(), self.timeout) };
        let asked = control::call(&socket, Method::GET, request, &control::Choice::default(), within).await;
        let host = match asked {
            Ok(status) if self.here => Host::Running { pid: status["daemon"]["pid"].as_u64().unwrap_or(0) },
            Ok(findings) => {
                let findings = serde_json::from_value::<Vec<Finding>>(findings);
                return findings.map_err(|_| Exit::own("the daemon's answer is not that of a doctor: is it as new as this program?"));
            }
            Err(CallError::Late(_)) => {
                let what = format!("the daemon did not end its look within {} s; --here looks from here", self.timeout.as_secs());
                return Err(Exit::own(what));
            }
            Err(CallError::Refused(404, _)) => {
                print::talk("the daemon is older than this program and looks at nothing itself; all is seen from here");
                Host::Running { pid: 0 }
            }
            Err(error) => Host::Quiet { socket, why: error.to_string() },
        };
        let places = context.places.clone();
        let patient = tokio::task::spawn_blocking(move || Patient::see(path, &places, |_| host)).await;
        let patient = patient.map_err(|_| Exit::own("reading schedule and records was cut short"))?;
        Ok(doctor::examine(patient, self.probe).await)
    }

    fn request(&self) -> &'static str {
        if self.probe { "/doctor?probe=true" } else { "/doctor" }
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
                finding.check.as_ref().into(),
                if finding.seen_from == Viewpoint::Daemon { "daemon" } else { "here" }.into(),
                finding.evidence.as_str().into(),
                Cell::new(remedy, Colour::Faint),
            ]
        };
        if !shown.is_empty() {
            print::data(&print::table(
                &["VERDICT", "WHERE", "CHECK", "FROM", "SEEN", "WHAT TO DO"],
                &shown.iter().map(cells).collect::<Vec<_>>(),
            ))?;
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
