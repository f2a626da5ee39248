//! Records beside the API server's audit log, in both directions: each rotation and the TokenRequest that it came from,
//! TokenRequests for our accounts that no record of ours explains, and tokens of ours that nobody was seen to use.
//!
//! A log covers from its first to its last event, a hole where a line could not be read excepted; so do records. What is
//! not found where one of them does not reach is said to be unknown, never missing.

mod history;
mod log;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::trail::{Coverage, Survey, Unreadable};
use crate::record::query::Query;
use crate::record::{Kind, ReadError};
use log::Log;

pub use history::Hole;
pub use log::Mint;
pub use usage::{Use, Visible};

/// What is asked.
pub struct Question {
    /// The logs: of every API server, and rotated ones too, in any order.
    pub logs: Vec<PathBuf>,
    /// The records folder.
    pub records: PathBuf,
    /// Which rotations and targets are shown; what the others explain is explained all the same.
    pub query: Query,
    /// Whose logs they are, by the cluster's name in the records.
    pub cluster: Option<String>,
    /// What the schedule says of each target's audiences: whether they are left to the API server.
    pub defaults: BTreeMap<String, bool>,
}

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// A log.
    #[error(transparent)]
    Log(#[from] Unreadable),
    /// The records.
    #[error(transparent)]
    Records(#[from] ReadError),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// Each log as it was read.
    pub logs: Vec<Survey>,
    /// The first event of all.
    pub from: Option<Timestamp>,
    /// The last event of all.
    pub to: Option<Timestamp>,
    /// Whose logs they are, as far as the records tell.
    pub clusters: BTreeSet<String>,
    /// Times in which records are missing.
    pub holes: Vec<Hole>,
    /// Each rotation, and each token minted by a person who told us.
    pub rotations: Vec<Rotation>,
    /// TokenRequests for accounts of ours that no record names.
    pub mints: Vec<Unexplained>,
    /// Which targets' tokens are in use.
    pub targets: Vec<Use>,
    /// What is missing from this answer, and why.
    pub notes: Vec<String>,
}

impl Joined {
    /// Whether nothing contradicts: no rotation is missing from a log that covers it, and no mint is unexplained.
    pub fn is_sound(&self) -> bool {
        let rotations = self.rotations.iter().all(|rotation| !matches!(rotation.verdict, Found::Missing | Found::Contradicts));
        rotations && self.mints.iter().all(|mint| mint.verdict != Origin::Unexplained)
    }
}

/// Whether a rotation has its TokenRequest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Found {
    /// Its event is there, by Audit-Id, by the token's id, or both.
    Joined,
    /// The Audit-Id's event tells of another account, or of another token.
    Contradicts,
    /// The log covers the time and has no such event.
    Missing,
    /// The log does not cover the time.
    NotCovered,
    /// The record names no request: a copy of a token that stood elsewhere, or an embedded cluster.
    NoRequest,
    /// Its cluster has another log.
    OtherCluster,
}

/// A rotation beside its TokenRequest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// When it was recorded.
    pub time: Timestamp,
    /// `rotated`, `failed`, `minted`.
    pub kind: Kind,
    /// Of which target, where it was of one.
    pub target: Option<String>,
    /// Of which cluster.
    pub cluster: Option<String>,
    /// `NAMESPACE/NAME`.
    pub service_account: Option<String>,
    /// The token.
    pub jti: Option<String>,
    /// The request, as recorded.
    pub audit_id: Option<String>,
    /// Whether it was found.
    pub verdict: Found,
    /// What was found, or why not.
    pub detail: String,
    /// Its event.
    pub event: Option<Mint>,
}

/// Where a TokenRequest that no record names comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Nobody of ours.
    Unexplained,
    /// A kubelet, for a Pod that mounts it.
    Kubelet,
    /// Records, or the log, do not reach far enough to tell.
    Unknown,
}

/// A TokenRequest for an account of ours that no record names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unexplained {
    /// Its event.
    #[serde(flatten)]
    pub event: Mint,
    /// Where it comes from.
    pub verdict: Origin,
    /// Why that is said.
    pub detail: String,
}

/// Joins them. Logs are read first, one event in memory at a time; then the records, one line at a time. What is kept is
/// each TokenRequest, each token seen in use, and each rotation of that time.
///
/// # Errors
/// [`NoAnswer`] where a log or the folder cannot be opened. What is damaged within them is in the answer.
pub fn join(question: Question) -> Result<Joined, NoAnswer> {
    let log = Log::read(&question.logs)?;
    let coverage = Coverage::of(&log.surveys);
    let Some((from, to)) = coverage.span() else { return Ok(nothing(log)) };
    let mut told = history::read(&question, &log, from)?;
    let named = |clusters: &BTreeSet<String>, cluster: &Option<String>| cluster.as_ref().is_some_and(|name| clusters.contains(name));
    let clusters = clusters(&question, &told);
    for rotation in &mut told.rotations {
        if !matches!(rotation.verdict, Found::Joined | Found::Contradicts | Found::NoRequest) && !named(&clusters, &rotation.cluster) {
            rotation.verdict = Found::OtherCluster;
            rotation.detail = "no record of its cluster joins these logs".into();
        } else if rotation.verdict == Found::Missing {
            (rotation.verdict, rotation.detail) = missing(rotation, &coverage, &told.issued);
        }
    }
    let ours: BTreeSet<String> = told.accounts.iter().filter(|(cluster, _)| clusters.contains(cluster)).map(|(_, sa)| sa.clone()).collect();
    let mints = unexplained(&log, &told, &ours);
    let targets = usage::of(&question, &told, &log, &coverage, &clusters);
    let notes = notes(&question, &log, &coverage, &told, &targets);
    told.rotations.retain(|rotation| rotation_is_asked_for(&question.query, rotation));
    let (rotations, holes) = (told.rotations, told.holes);
    Ok(Joined { logs: log.surveys, from: Some(from), to: Some(to), clusters, holes, rotations, mints, targets, notes })
}

fn nothing(log: Log) -> Joined {
    let mut notes: Vec<String> = log.surveys.iter().flat_map(Survey::said).collect();
    notes.push("the logs hold no event, so nothing can be joined".into());
    let (rotations, mints) = (Vec::new(), Vec::new());
    Joined {
        logs: log.surveys,
        from: None,
        to: None,
        clusters: BTreeSet::new(),
        holes: Vec::new(),
        rotations,
        mints,
        targets: Vec::new(),
        notes,
    }
}

fn rotation_is_asked_for(query: &Query, rotation: &Rotation) -> bool {
    let mut line = crate::record::Line::new(rotation.kind, rotation.time);
    (line.target, line.jti) = (rotation.target.clone(), rotation.jti.clone());
    query.matches(&line)
}

/// Whose logs they are: the cluster that was named, else those of which a record joins, else all.
fn clusters(question: &Question, told: &history::Told) -> BTreeSet<String> {
    if let Some(name) = &question.cluster {
        return BTreeSet::from([name.clone()]);
    }
    let joining = told.rotations.iter().filter(|rotation| rotation.verdict == Found::Joined).filter_map(|r| r.cluster.clone());
    let joining: BTreeSet<String> = joining.collect();
    if joining.is_empty() { told.accounts.iter().map(|(cluster, _)| cluster.clone()).collect() } else { joining }
}

/// What is not found where the log covers the time is missing.
fn missing(rotation: &Rotation, coverage: &Coverage, issued: &BTreeMap<String, Timestamp>) -> (Found, String) {
    const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);
    // A token says when it was issued, in whole seconds; of a failure the record's time is known, and the tries before it.
    const BEFORE: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);
    let (from, to) = match rotation.jti.as_ref().and_then(|jti| issued.get(jti)) {
        Some(at) => (*at, at.saturating_add(SECOND).unwrap_or(*at)),
        None => (rotation.time.saturating_sub(BEFORE).unwrap_or(rotation.time), rotation.time),
    };
    if coverage.covers(from, to) {
        (Found::Missing, format!("the log covers {from} and has no such request"))
    } else {
        (Found::NotCovered, format!("the log does not cover {from}"))
    }
}

fn unexplained(log: &Log, told: &history::Told, ours: &BTreeSet<String>) -> Vec<Unexplained> {
    let mut found = Vec::new();
    for (index, mint) in log.mints.iter().enumerate() {
        if told.explained.contains(&index) || !ours.contains(&mint.service_account) || mint.is_refused() {
            continue;
        }
        let (verdict, detail) = if !mint.is_issued() {
            (Origin::Unknown, "the log does not say how it was answered".to_owned())
        } else if mint.by_kubelet {
            (Origin::Kubelet, "a kubelet, for a Pod of that account".to_owned())
        } else if told.begin.is_none_or(|begin| mint.at < begin) {
            (Origin::Unknown, "before the first record".to_owned())
        } else if let Some(hole) = told.holes.iter().find(|hole| hole.may_hold(mint.at)) {
            (Origin::Unknown, format!("records are missing there: {}", hole.why))
        } else if log.is_ours(&told.explained, &mint.user) {
            (Origin::Unexplained, "by the very user of our own TokenRequests, and no record names it".to_owned())
        } else {
            (Origin::Unexplained, "no record names it".to_owned())
        };
        found.push(Unexplained { event: mint.clone(), verdict, detail });
    }
    found.sort_by_key(|mint| mint.event.at);
    found
}

/// What is missing from the answer.
fn notes(question: &Question, log: &Log, coverage: &Coverage, told: &history::Told, targets: &[Use]) -> Vec<String> {
    let mut notes: Vec<String> = log.surveys.iter().flat_map(Survey::said).collect();
    notes.extend(log.surveys.iter().filter(|survey| survey.events == 0).map(|survey| format!("{}: it holds no event", survey.name)));
    notes.extend(coverage.gaps().map(|(from, to)| format!("no log tells of the time from {from} to {to}")));
    notes.extend(told.holes.iter().map(|hole| format!("records are missing from {} to {}: {}", hole.from, hole.to, hole.why)));
    if log.mints.is_empty() {
        notes.push("the logs hold no TokenRequest at all: the audit policy has to log `create` of serviceaccounts/token".into());
    }
    if !log.names_tokens {
        notes.push("no event names the token that was used (Kubernetes does since 1.30), so unused tokens cannot be told".into());
    }
    if targets.iter().any(|target| target.state == Visible::NotVisible) && question.defaults.is_empty() {
        notes.push(
            "records do not carry audiences, and no schedule could be read: tokens that were not proven on the API server are not visible here"
                .into(),
        );
    }
    if told.rotations.is_empty() {
        notes.push(format!("{}: no record of that time names a TokenRequest of ours", display(&question.records)));
    }
    notes
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
