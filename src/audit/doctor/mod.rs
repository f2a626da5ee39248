//! What is wrong with this host, its clusters and its stores. Every finding says what was looked at, what was seen and
//! what to do about it. Nothing is written and nothing is minted.

mod cluster;
mod host;
mod store;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::daemon::read::Accepted;
use crate::daemon::scene::Scene;
use crate::record::{ReadError, State};
use crate::schedule::Problem;

pub use host::Host;

/// One question to a server or a file system may take so long.
const WITHIN: Duration = Duration::from_secs(10);
/// Things that are looked at side by side.
const ABREAST: usize = 16;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Something will fail, or does.
    Bad,
    /// Worth a look.
    Warn,
    /// It cannot be told from here.
    Unknown,
    /// All is well.
    Good,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `host`, `cluster NAME`, `store NAME`, `target NAME`.
    pub subject: String,
    /// What was looked at, in a word that scripts can rely on.
    pub check: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub remedy: Option<String>,
}

/// Findings about one subject.
pub(super) struct Findings {
    subject: String,
    list: Vec<Finding>,
}

impl Findings {
    fn about(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), list: Vec::new() }
    }

    fn note(&mut self, check: &'static str, verdict: Verdict, evidence: impl Into<String>, remedy: Option<&str>) {
        self.list.push(Finding {
            subject: self.subject.clone(),
            check,
            verdict,
            evidence: evidence.into(),
            remedy: remedy.map(str::to_owned),
        });
    }

    fn good(&mut self, check: &'static str, evidence: impl Into<String>) {
        self.note(check, Verdict::Good, evidence, None);
    }

    fn warn(&mut self, check: &'static str, evidence: impl Into<String>, remedy: &str) {
        self.note(check, Verdict::Warn, evidence, Some(remedy));
    }

    fn bad(&mut self, check: &'static str, evidence: impl Into<String>, remedy: &str) {
        self.note(check, Verdict::Bad, evidence, Some(remedy));
    }

    fn unknown(&mut self, check: &'static str, evidence: impl Into<String>, remedy: &str) {
        self.note(check, Verdict::Unknown, evidence, Some(remedy));
    }
}

/// What the examination starts from.
pub struct Patient {
    /// The schedule, as far as it can be read.
    pub schedule: Result<Accepted, Vec<Problem>>,
    /// Its file.
    pub path: PathBuf,
    /// The records folder.
    pub records: PathBuf,
    /// What the records say.
    pub state: Result<State, ReadError>,
    /// This host.
    pub host: Host,
}

/// Looks at everything.
pub async fn examine(patient: Patient) -> Vec<Finding> {
    let mut findings = host::examine(&patient).await;
    let state = patient.state.unwrap_or_default();
    let Ok(accepted) = patient.schedule else { return findings };
    let scene = Arc::new(Scene::new(Arc::new(accepted.plan), &patient.records, None));
    findings.extend(host::places(&scene).await);
    let clusters: Vec<_> = scene.clusters.iter().cloned().collect();
    for cluster in clusters {
        findings.extend(cluster::examine(&scene, &cluster, &state).await);
    }
    findings.extend(store::examine(&scene).await);
    findings
}
