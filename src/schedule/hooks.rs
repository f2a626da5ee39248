//! `after` as written: what serde reads of hooks.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schedule::measure::Seconds;

/// One element of `after`: exactly one hook.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Hook")]
pub enum HookFile {
    /// A command.
    Exec(ExecFile),
    /// A signal.
    Signal(SignalFile),
    /// A unit.
    Systemd(SystemdFile),
    /// A request.
    Http(HttpFile),
    /// A rollout restart.
    RolloutRestart(RolloutFile),
}

/// `exec`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ExecHook")]
pub struct ExecFile {
    /// Program and arguments.
    pub command: Vec<String>,
    /// After which it is killed.
    pub timeout: Option<Seconds>,
}

/// `signal`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "SignalHook")]
pub struct SignalFile {
    /// The file with the process number.
    pub pid_file: Option<PathBuf>,
    /// The unit.
    pub unit: Option<String>,
    /// Which signal.
    pub signal: String,
}

/// `systemd`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "SystemdHook")]
pub struct SystemdFile {
    /// The unit to reload.
    pub reload_unit: Option<String>,
    /// The unit to restart.
    pub restart_unit: Option<String>,
    /// How long that may take.
    pub timeout: Option<Seconds>,
}

/// `http`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "HttpHook")]
pub struct HttpFile {
    /// Where.
    pub url: String,
    /// The verb; POST when absent.
    pub method: Option<String>,
    /// How long the answer may take.
    pub timeout: Option<Seconds>,
}

/// `rolloutRestart`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "RolloutRestartHook")]
pub struct RolloutFile {
    /// A Deployment.
    pub deployment: Option<String>,
    /// A StatefulSet.
    pub stateful_set: Option<String>,
    /// A DaemonSet.
    pub daemon_set: Option<String>,
    /// Labels of workloads.
    pub selector: Option<String>,
    /// Their namespace; that of the target's Secret when absent.
    pub namespace: Option<String>,
    /// Their cluster; that of the target's Secret, else the target's own, when absent.
    pub cluster: Option<String>,
    /// How long a rollout is waited for.
    pub timeout: Option<Seconds>,
    /// Shortest time between two restarts.
    pub min_gap: Option<Seconds>,
}
