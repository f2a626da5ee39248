//! What the daemon tells unasked: `alerts`, `heartbeat`, `monitor` and `metrics.textfile`, as written and as planned.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::after::http::HttpSpec;
use crate::after::message::Recipient;
use crate::schedule::hooks::{ExecFile, HttpFile};
use crate::schedule::measure::Seconds;

/// What somebody is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum On {
    /// The last rotation of a target failed; a monitored file holds no good token.
    Failed,
    /// A token is about to end, and nothing replaces it; a monitored one is older than its `maxAge`.
    AtRisk,
    /// The token in use has ended.
    Expired,
    /// The API server refuses the token in use.
    Rejected,
    /// What was told before is over.
    Recovered,
    /// A place waits for a token.
    Owed,
    /// Records cannot be written.
    RecordsLost,
    /// The schedule file is refused, and the one accepted before is served.
    ScheduleRefused,
    /// A credential of the daemon's own was not renewed in time, or is refused.
    OwnCredential,
    /// This member of a fleet cannot reach its Lease, or may not; or another one has another schedule, another version or
    /// a clock that is wrong. Told once it has lasted for 15 s.
    FleetTrouble,
}

impl On {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::Failed,
        Self::AtRisk,
        Self::Expired,
        Self::Rejected,
        Self::Recovered,
        Self::Owed,
        Self::RecordsLost,
        Self::ScheduleRefused,
        Self::OwnCredential,
        Self::FleetTrouble,
    ];
}

/// One of `alerts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSpec {
    /// What it tells of.
    pub on: BTreeSet<On>,
    /// Whom.
    pub to: Recipient,
    /// After which it tells again of what lasts.
    pub repeat: Duration,
}

impl AlertSpec {
    /// Tells it from the other alerts of a schedule, and is the same after a restart.
    pub fn key(&self) -> String {
        let words: Vec<String> = self.on.iter().map(|on| format!("{on:?}")).collect();
        format!("{} {}", self.to.key(), words.join(","))
    }
}

/// `heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatSpec {
    /// The dead-man's switch. Its time limit is never longer than the period.
    pub http: HttpSpec,
    /// The period.
    pub every: Duration,
}

/// One of `monitor`: a file with a token that somebody else mints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorSpec {
    /// The file, in any format that `inspect` reads.
    pub path: PathBuf,
    /// Oldest that its token may get, in seconds since its `iat`.
    pub max_age: Option<u64>,
}

/// All that the daemon tells unasked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unasked {
    /// Who is told of trouble.
    pub alerts: Vec<AlertSpec>,
    /// Who is told that all is well.
    pub heartbeat: Option<HeartbeatSpec>,
    /// Tokens of others.
    pub monitor: Vec<MonitorSpec>,
    /// The file for node_exporter's textfile collector.
    pub textfile: Option<PathBuf>,
}

/// One of `alerts`, as written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Alert")]
pub struct AlertFile {
    /// What to tell of; everything when absent. `recovered` tells that something is over.
    pub on: Option<Vec<On>>,
    /// A command, which gets the alert as JSON on its standard input.
    pub exec: Option<ExecFile>,
    /// A request with the alert as its JSON body.
    pub http: Option<HttpFile>,
    /// After which it tells again of what lasts.
    pub repeat: Option<Seconds>,
}

/// `heartbeat`, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Heartbeat")]
pub struct HeartbeatFile {
    /// The request to the dead-man's switch.
    pub http: HttpFile,
    /// Time between two of them.
    pub every: Option<Seconds>,
}

/// One of `monitor`, as written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Monitor")]
pub struct MonitorFile {
    /// The file, in any format that `inspect` reads.
    pub path: PathBuf,
    /// Oldest that its token may get before it is told of.
    pub max_age: Option<Seconds>,
}
