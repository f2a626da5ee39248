//! One line of history, and the names that scripts rely on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fleet::FleetLine;
use super::hook::HookLine;
use super::leave::LeaveLine;
use super::marker::MarkerLine;
use super::moment;
use super::monitored::MonitoredLine;

pub use super::mended::Mended;
pub use super::sink::SinkLine;
pub use crate::sink::delivery::Outcome;

/// Format of the lines that this program writes; newer ones are refused, older ones read.
pub const VERSION: u32 = 1;

/// One event: one JSON line. Keys are absent where they have no meaning; durations are seconds.
/// `S` is a text: a line that is only folded borrows those that most lines have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Ord + Default + Deserialize<'de>"))]
pub struct Line<S = String> {
    /// Format version.
    pub version: u32,
    /// When it happened.
    #[serde(deserialize_with = "moment::read")]
    pub time: Timestamp,
    /// Counts up by one from line to line, across files.
    pub seq: u64,
    /// What happened.
    pub kind: Kind,
    /// Which target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<S>,
    /// The target's count of minted tokens, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<S>,
    /// `NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<S>,
    /// Names what the target asks for (cluster, account, audiences, binding), its duration apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<S>,
    /// The target's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<S, S>,
    /// Why it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Who asked, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// Seconds of life asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<u64>,
    /// Seconds of life given (`exp − iat`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
    /// The token's `iat`.
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// The token's `exp`.
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The token's `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<S>,
    /// `Audit-Id` of the TokenRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<S>,
    /// Which credential minted the token, where it was not the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<Through>,
    /// How the token was proven good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Mint attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// One entry for each place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkLine<S>>,
    /// One entry for each hook that has to be told of a token, or was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookLine>,
    /// One entry for each place that a target leaves (`retired`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaves: Vec<LeaveLine>,
    /// The marker that the token is bound to, where it is revocable; those that are revoked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<MarkerLine>,
    /// A token that others mint (`monitored`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitored: Option<MonitoredLine>,
    /// The fleet (`joined`, `left`, `takenOver`, `handedOver`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetLine>,
    /// Why it failed, or what a person should know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<S>,
    /// SHA-256 of the schedule in force (`started`, `reloaded`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<S>,
    /// Names that a reload added, removed, changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// See `added`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// See `added`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Lines in the checkpoint (`checkpointEnd`) or lines lost (`gap`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What the target's history amounts to (`checkpoint` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// Hash of the line before.
    #[serde(default)]
    pub previous: S,
    /// SHA-256 over this line without this key, the hash before it included; always the last key.
    #[serde(default)]
    pub hash: S,
}

impl Line {
    /// An event of that kind, now; `seq`, `previous` and `hash` are given by the writer.
    pub fn new(kind: Kind, time: Timestamp) -> Self {
        Self {
            version: VERSION,
            time,
            seq: 0,
            kind,
            target: None,
            generation: None,
            cluster: None,
            service_account: None,
            ask: None,
            labels: BTreeMap::new(),
            reason: None,
            actor: None,
            requested: None,
            granted: None,
            issued_at: None,
            expires_at: None,
            jti: None,
            audit_id: None,
            through: None,
            proof: None,
            attempts: None,
            sinks: Vec::new(),
            hooks: Vec::new(),
            leaves: Vec::new(),
            markers: Vec::new(),
            monitored: None,
            fleet: None,
            error: None,
            schedule: None,
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            count: None,
            standing: None,
            previous: String::new(),
            hash: String::new(),
        }
    }
}

/// A kind, reason or outcome in the word that records have for it.
pub fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What a checkpoint knows of a target beyond its token: the fold of lines that `keep` may have removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// When it was last `rotated` or `adopted`.
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<Timestamp>,
    /// When its token was last proven good.
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
    /// Since when its token is known to be refused.
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub rejected_at: Option<Timestamp>,
    /// When `error` was recorded.
    #[serde(default, deserialize_with = "moment::read_some", skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// `failed` records since the last success.
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub failures: u64,
    /// The last rotation that mended something, and how many came in a row before each had lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mended: Option<Mended>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // each word is the record's own; contract and man page explain them
pub enum Kind {
    Checkpoint,
    CheckpointEnd,
    Started,
    Stopped,
    Reloaded,
    ReloadRefused,
    Rotated,
    Failed,
    Paid,
    Cleared,
    Adopted,
    Rejected,
    Told,
    Revoking,
    Revoked,
    Retired,
    Rehearsed,
    Minted,
    Executed,
    Monitored,
    Joined,
    Left,
    TakenOver,
    HandedOver,
    Gap,
}

/// Why a rotation was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Reason {
    New,
    Lifetime,
    Cron,
    Manual,
    Missed,
    Rejected,
    Repair,
    Changed,
    Clock,
    Withdrawn,
    Removed,
}

/// A credential that is used when the usual one has died.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Through {
    /// The cluster's `spare`.
    Spare,
}

/// How a token was proven good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Proof {
    /// The API server accepted it.
    Online,
    /// Its signature fits the cluster's keys.
    Signature,
    /// Its claims are what was asked for, over a TLS connection to the API server.
    Claims,
}

/// Who asked for something by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// User id of the caller.
    pub uid: u32,
    /// User name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name that the caller's command gave, where a user namespace hides whose it is: it proves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
    /// What was typed.
    pub command: String,
}

/// What the kernel shows in place of a user id that a user namespace does not have (user_namespaces(7)).
pub const OVERFLOW: u32 = 65_534;

impl Actor {
    /// Who it was, in words.
    pub fn who(&self) -> String {
        match (&self.user, &self.says) {
            (Some(user), _) => user.clone(),
            (None, Some(says)) => format!("unknown, who says `{says}`"),
            (None, None) if self.uid == OVERFLOW => "unknown".into(),
            (None, None) => format!("uid {}", self.uid),
        }
    }
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}
