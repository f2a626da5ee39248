//! How all is: the view that `status` shows, from the running loop or from the records alone.

pub mod fleet;
pub mod outward;
mod rows;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::course::Course;
use super::monitor::{Monitored, Verdict};
use super::own;
use super::revocation;
use super::scene::Scene;
use super::step::{self, Standing};
use crate::record::append::Health;
use crate::record::fold::State;
use crate::schedule::{Problem, Target};

use fleet::FleetStatus;
use outward::{AlertStatus, Outcome};
pub use rows::{FallbackStatus, HookStatus, LeavingStatus, SinkStatus};

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The running daemon; null where none runs.
    pub daemon: Option<DaemonStatus>,
    /// A row for each target.
    pub targets: Vec<TargetStatus>,
    /// Tokens of others that are watched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitored: Vec<Monitored>,
    /// Targets that are gone, and left something which is still to be taken back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<LeavingStatus>,
}

/// The daemon itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonStatus {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: &'static str,
    /// When it started.
    pub since: Timestamp,
    /// The schedule in force.
    pub schedule: ScheduleStatus,
    /// How recording goes.
    pub records: RecordsStatus,
    /// Its clusters.
    pub clusters: Vec<ClusterStatus>,
    /// A schedule that was refused and waits to be mended.
    pub refused: Option<Refused>,
    /// Who is told of trouble.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<AlertStatus>,
    /// Who is told that all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Outcome>,
    /// The file for node_exporter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub textfile: Option<Outcome>,
    /// The fleet that it is one of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
}

/// The schedule in force.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleStatus {
    /// Its file.
    pub file: PathBuf,
    /// SHA-256 of its text.
    pub sha256: String,
}

/// How recording goes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordsStatus {
    /// Hash of the last line on the disk.
    pub head: String,
    /// Its number.
    pub seq: u64,
    /// Lines that were lost since the start.
    pub lost: u64,
    /// Lines that wait in memory.
    pub waiting: u64,
    /// Why nothing can be written now.
    pub error: Option<String>,
    /// Why the last head could not be signed, where heads are.
    pub unsigned: Option<String>,
}

/// One cluster.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// Whether it answers; false while only probes go through.
    pub answers: bool,
    /// Server time less local time, seconds, where an answer has shown it.
    pub skew: Option<f64>,
    /// Whether it signs with a key of our own.
    pub embedded: bool,
}

/// A refused schedule.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// Since when.
    pub since: Timestamp,
    /// Every problem.
    pub problems: Vec<Problem>,
}

/// One target.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its cluster.
    pub cluster: String,
    /// `NAMESPACE/NAME`.
    pub service_account: String,
    /// How it stands.
    pub state: Standing,
    /// Count of its tokens.
    pub generation: u64,
    /// `jti` of the one in use.
    pub jti: Option<String>,
    /// Its `iat`.
    pub issued_at: Option<Timestamp>,
    /// Its `exp`.
    pub expires_at: Option<Timestamp>,
    /// When it was last proven good.
    pub proven_at: Option<Timestamp>,
    /// When it is rotated next.
    pub next_rotation: Option<Timestamp>,
    /// When it last was.
    pub last_rotation: Option<Timestamp>,
    /// What failed last, until a success.
    pub last_error: Option<String>,
    /// Rotations that failed since the last one that did not.
    pub failures: u64,
    /// Which member of the fleet serves it, where they share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its places.
    pub sinks: Vec<SinkStatus>,
    /// Its hooks, as far as they had something to be told of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookStatus>,
    /// What a person should mend at its places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a status is made from.
pub struct View<'a> {
    /// The plan at work.
    pub scene: &'a Scene,
    /// The fold of the records.
    pub state: &'a State,
    /// The loop's courses; none where no daemon runs.
    pub courses: Option<&'a HashMap<Arc<str>, Course>>,
    /// How recording goes.
    pub health: Option<Health>,
    /// When the daemon started.
    pub since: Option<Timestamp>,
    /// A refused schedule.
    pub refused: Option<&'a Refused>,
}

impl View<'_> {
    /// The status of the targets meant.
    pub fn status(&self, meant: &dyn Fn(&Target) -> bool) -> Status {
        let row = |target: &Arc<Target>| {
            let mut row = self.target(target);
            row.notes.extend(own::note(&row, &self.scene.plan.path));
            row
        };
        let targets = self.scene.plan.targets.iter().filter(|t| meant(t)).map(row).collect();
        Status { daemon: self.daemon(), targets, monitored: Vec::new(), leaving: rows::leaving(self.state) }
    }

    fn daemon(&self) -> Option<DaemonStatus> {
        let health = self.health.clone()?;
        let cluster = |c: &Arc<crate::cluster::Cluster>| ClusterStatus {
            name: c.name().into(),
            answers: !c.upstream().is_open(),
            skew: c.upstream().skew(),
            embedded: c.is_embedded(),
        };
        Some(DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            since: self.since?,
            schedule: ScheduleStatus { file: self.scene.plan.path.clone(), sha256: self.scene.plan.sha256.clone() },
            records: RecordsStatus {
                head: health.head,
                seq: health.seq,
                lost: health.lost,
                waiting: health.waiting,
                error: health.error,
                unsigned: health.unsigned,
            },
            clusters: self.scene.clusters.iter().map(cluster).collect(),
            refused: self.refused.cloned(),
            alerts: Vec::new(),
            heartbeat: None,
            textfile: None,
            fleet: None,
        })
    }

    fn target(&self, target: &Target) -> TargetStatus {
        let now = Timestamp::now();
        let state = self.state.target(&target.name);
        let course = self.courses.and_then(|c| c.get(&*target.name));
        let host = &self.scene.host;
        let armed = course.and_then(|c| c.armed).and_then(|(at, _)| Timestamp::from_millisecond(at).ok());
        let planned = step::next_rotation(target, state, now, host);
        let troubled = course.is_some_and(|c| c.failures > 0);
        TargetStatus {
            name: target.name.to_string(),
            labels: target.labels.clone(),
            cluster: target.cluster.to_string(),
            service_account: format!("{}/{}", target.ask.namespace, target.ask.service_account),
            state: if self.state.is_withdrawn(&target.name) {
                Standing::Withdrawn
            } else {
                step::standing(target, state, course.is_some_and(|c| c.rotating), course.map_or(0, |c| c.failures), now, host)
            },
            generation: self.state.generation(&target.name),
            jti: state.and_then(|s| s.jti.as_ref()).map(ToString::to_string),
            issued_at: state.and_then(|s| s.issued_at),
            expires_at: state.and_then(|s| s.expires_at),
            proven_at: course.and_then(|c| c.proven_at).max(state.and_then(|s| s.proven_at)),
            next_rotation: if troubled { armed.or(planned) } else { planned.or(armed) },
            last_rotation: state.and_then(|s| s.last_rotation),
            last_error: state.and_then(|s| s.last_error.as_ref()).map(|t| t.error.clone()),
            failures: state.map_or(0, |s| s.failures).max(course.map_or(0, |c| u64::from(c.failures))),
            owner: None,
            sinks: target.deliver.iter().map(|place| rows::sink(place, state)).collect(),
            hooks: target.after.iter().map(|hook| rows::heard(hook, state)).collect(),
            notes: course.into_iter().flat_map(|c| c.flaws.notes.clone()).chain(state.into_iter().flat_map(revocation::notes)).collect(),
        }
    }
}

impl Status {
    /// Whether something needs a person now: `status` then exits 1.
    pub fn is_bad(&self) -> bool {
        let amiss = |r: &RecordsStatus| r.error.is_some() || r.unsigned.is_some() || r.lost > 0;
        let alone = |d: &DaemonStatus| d.fleet.as_ref().is_some_and(|fleet| fleet.error.is_some());
        let daemon = self.daemon.as_ref().is_some_and(|d| d.refused.is_some() || amiss(&d.records) || alone(d));
        daemon || self.targets.iter().any(|t| t.state.is_bad()) || self.monitored.iter().any(|file| file.state != Verdict::Fresh)
    }
}
