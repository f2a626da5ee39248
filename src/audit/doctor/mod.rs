//! What is wrong with this host, its clusters and its stores. Every finding says what was looked at, what was seen and
//! what to do about it. Nothing is minted; nothing is written but by a probe that was asked for, which cleans up.

mod cluster;
mod fleet;
mod host;
mod probe;
mod store;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::daemon::fleet::here;
use crate::daemon::places::Places;
use crate::daemon::read::{self, Accepted};
use crate::daemon::scene::Scene;
use crate::daemon::walls::Walls;
use crate::record::{ReadError, State};
use crate::schedule::Problem;

pub use host::Host;

/// One question to a server or a file system may take so long.
const WITHIN: Duration = Duration::from_secs(10);
/// Things that are looked at side by side.
const ABREAST: usize = 16;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

/// From where something was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Viewpoint {
    /// From within the daemon, with its user, sandbox and credentials.
    Daemon,
    /// From the process that was typed.
    Here,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `host`, `cluster NAME`, `store NAME`, `target NAME`.
    pub subject: String,
    /// What was looked at, in a word that scripts can rely on.
    pub check: Cow<'static, str>,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub remedy: Option<String>,
    /// From where it was seen.
    pub seen_from: Viewpoint,
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
            check: Cow::Borrowed(check),
            verdict,
            evidence: evidence.into(),
            remedy: remedy.map(str::to_owned),
            seen_from: Viewpoint::Here,
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
    /// What confines the process that looks, where that is the daemon.
    pub walls: Option<Arc<Walls>>,
}

impl Patient {
    /// Reads schedule and records; it may wait for the disk.
    pub fn see(path: PathBuf, places: &Places, host: impl FnOnce(&Path) -> Host) -> Self {
        let schedule = read::read(&path).map(|accepted| Accepted { plan: here(accepted.plan), ..accepted });
        let Places { records, socket, .. } = schedule.as_ref().map_or_else(|_| places.clone(), |accepted| places.by(&accepted.plan));
        let state = crate::record::read(&records);
        Self { schedule, path, records, state, host: host(&socket), walls: None }
    }
}

/// What the daemon sees that this process is: for its control socket. It looks with clients and logins of its own, so
/// that what it serves with is not disturbed.
pub async fn within(path: PathBuf, places: Places, walls: Arc<Walls>, probe: bool) -> Vec<Finding> {
    let pid = u64::from(std::process::id());
    let patient = tokio::task::spawn_blocking(move || Patient::see(path, &places, |_| Host::Running { pid })).await;
    let Ok(patient) = patient else { return Vec::new() };
    let mut findings = examine(Patient { walls: Some(walls), ..patient }, probe).await;
    findings.iter_mut().for_each(|finding| finding.seen_from = Viewpoint::Daemon);
    findings
}

/// Looks at everything; clusters and places side by side. With `probe` rights to write are tried as well: files are made
/// and removed again, stores are asked.
pub async fn examine(patient: Patient, probe: bool) -> Vec<Finding> {
    // Records are verified and a program is asked about the clock: both may take long.
    let seen = tokio::task::spawn_blocking(move || {
        let findings = host::examine(&patient);
        (patient, findings)
    });
    let Ok((patient, mut findings)) = seen.await else { return Vec::new() };
    let state = patient.state.unwrap_or_default();
    let Ok(accepted) = patient.schedule else { return findings };
    let scene = Arc::new(Scene::new(Arc::new(accepted.plan), &patient.records, None));
    findings.extend(host::places(&scene).await);
    let mut clusters: Vec<BoxFuture<'_, Vec<Finding>>> = Vec::new();
    for cluster in scene.clusters.iter() {
        clusters.push(Box::pin(cluster::examine(&scene, cluster, &state)));
    }
    findings.extend(abreast(clusters).await);
    findings.extend(fleet::examine(&scene).await);
    findings.extend(store::examine(&scene).await);
    if probe {
        findings.extend(probe::examine(&scene).await);
    }
    findings
}

/// So many at once, in their order.
async fn abreast(all: Vec<BoxFuture<'_, Vec<Finding>>>) -> Vec<Finding> {
    let all: Vec<Vec<Finding>> = futures_util::stream::iter(all).buffered(ABREAST).collect().await;
    all.into_iter().flatten().collect()
}
