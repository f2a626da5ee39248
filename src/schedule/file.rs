//! The schedule as written: what serde reads from the YAML, nothing checked yet but names and types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de;

use crate::cluster::{Binding, ClusterSpec};
use crate::schedule::alerts::{AlertFile, HeartbeatFile, MonitorFile};
use crate::schedule::choice::{OneOrMany, ProveFile, WithFormat};
use crate::schedule::format::Part;
use crate::schedule::hooks::HookFile;
use crate::schedule::measure::{Bytes, Seconds, Share};
use crate::schedule::plan::WhenRemoved;
use crate::sink::aws::AwsSpec;
use crate::sink::file::{FileSpec, Mode, Reader};
use crate::sink::kubernetes::SecretSpec;
use crate::sink::vault::VaultSpec;
use crate::sink::{StoreSpec, WhenPaid};
use crate::token::Format;
use crate::token::render::FilePart;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScheduleFile {
    /// Version of the format: 1.
    pub version: Option<u64>,
    /// Patterns of files with more targets.
    pub include: Vec<String>,
    /// Clusters by name.
    pub clusters: BTreeMap<String, ClusterSpec>,
    /// Stores by name.
    pub stores: BTreeMap<String, StoreSpec>,
    /// Where records are kept.
    pub records: RecordsFile,
    /// The control socket.
    pub control: ControlFile,
    /// Metrics.
    pub metrics: MetricsFile,
    /// Who is told of trouble.
    pub alerts: Vec<AlertFile>,
    /// Who is told that all is well.
    pub heartbeat: Option<HeartbeatFile>,
    /// Tokens of others.
    pub monitor: Vec<MonitorFile>,
    /// Reload when the file changes.
    pub reload_on_change: bool,
    /// Keys that targets need not repeat.
    pub defaults: TargetFile,
    /// Read one at a time, elsewhere.
    pub targets: de::IgnoredAny,
}

/// `records`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RecordsFile {
    /// The folder.
    pub directory: Option<PathBuf>,
    /// How long a closed file is kept.
    pub keep: Option<Seconds>,
    /// At which size a file is closed.
    pub max_size: Option<Bytes>,
    /// The key that signs each head.
    pub signing_key: Option<SigningKeyFile>,
}

/// `signingKey: {file: …}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SigningKeyFile {
    /// A P-256 key in PKCS#8 PEM.
    pub file: PathBuf,
}

/// `control`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ControlFile {
    /// The socket.
    pub socket: Option<PathBuf>,
}

/// `metrics`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MetricsFile {
    /// `ADDRESS:PORT`.
    pub listen: Option<String>,
    /// A file for node_exporter.
    pub textfile: Option<PathBuf>,
}

/// One target, or `defaults`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TargetFile {
    /// Unique name.
    pub name: Option<String>,
    /// The owner's own words.
    pub labels: Option<BTreeMap<String, String>>,
    /// Name of the cluster.
    pub cluster: Option<String>,
    /// `NAMESPACE/NAME`.
    pub service_account: Option<String>,
    /// Life to ask for.
    pub duration: Option<Seconds>,
    /// For whom.
    pub audiences: Option<Vec<String>>,
    /// The object whose end is the token's end.
    pub bound_to: Option<Binding>,
    /// Whether each generation can be revoked on its own.
    pub revocable: Option<bool>,
    /// How long the generation before stays good.
    pub overlap: Option<Seconds>,
    /// When.
    pub rotate: Option<RotateFile>,
    /// Not rotated unless asked for.
    pub suspend: Option<bool>,
    /// Whether and how often the token is tried.
    pub prove: Option<ProveFile>,
    /// Limits to keep.
    pub compliance: Option<ComplianceFile>,
    /// Where it goes.
    pub deliver: Option<Vec<PlaceFile>>,
    /// What becomes of its places when it goes out of the schedule.
    pub when_removed: Option<WhenRemoved>,
    /// Who is told.
    pub after: Option<Vec<HookFile>>,
}

/// `rotate`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RotateFile {
    /// Share of the real life.
    pub at: Option<Share>,
    /// One cron expression or several.
    pub cron: Option<OneOrMany>,
    /// Zone of `cron` and `window`.
    pub time_zone: Option<String>,
    /// Most that the stable offset may move a time.
    pub splay: Option<Seconds>,
    /// Preferred hours.
    pub window: Option<WindowFile>,
}

/// `window`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowFile {
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`.
    pub to: String,
    /// `Mon-Fri`, `Sat,Sun`; every day when absent.
    pub days: Option<String>,
}

/// `compliance`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ComplianceFile {
    /// Oldest that a served token may get.
    pub max_age: Option<Seconds>,
    /// Longest life that a token may be given.
    pub max_lifetime: Option<Seconds>,
}

/// One element of `deliver`: exactly one sink, with what stands beside it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlaceFile {
    /// A file.
    pub file: Option<WithFormat<FileSpec>>,
    /// Several files, switched as one.
    pub directory: Option<DirectoryFile>,
    /// A Vault secret.
    pub vault: Option<WithFormat<VaultSpec>>,
    /// An AWS secret.
    pub aws_secrets_manager: Option<WithFormat<AwsSpec>>,
    /// A Secret in a cluster.
    pub kubernetes_secret: Option<WithFormat<SecretSpec>>,
    /// A program that takes it.
    pub command: Option<WithFormat<CommandFile>>,
    /// Whether a failure here fails the rotation.
    pub required: Option<bool>,
    /// Where it goes meanwhile.
    pub fallback: Option<Vec<PlaceFile>>,
    /// What becomes of the copy there.
    pub when_paid: Option<WhenPaid>,
}

/// `directory`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectoryFile {
    /// The folder.
    pub path: PathBuf,
    /// What stands in which file.
    #[serde(default = "as_the_kubelet_mounts")]
    pub files: BTreeMap<String, Part>,
    /// Octal mode of each file.
    #[serde(default)]
    pub mode: Mode,
    /// User name or id.
    pub owner: Option<String>,
    /// Group name or id.
    pub group: Option<String>,
    /// Who may read beside them.
    #[serde(default)]
    pub readers: Vec<Reader>,
}

fn as_the_kubelet_mounts() -> BTreeMap<String, Part> {
    let files = [("token", FilePart::Token(Format::Raw)), ("ca.crt", FilePart::Ca), ("namespace", FilePart::Namespace)];
    files.into_iter().map(|(name, part)| (name.to_owned(), Part(part))).collect()
}

/// `command`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandFile {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Seconds>,
}

/// Keys that belong to the format but that this version does not act on: to ignore them would be a lie.
pub fn later(structure: &str, key: &str) -> bool {
    let keys: &[&str] = match structure {
        "ScheduleFile" => &["fleet"],
        "StoreSpec" => &["gcpSecretManager", "azureKeyVault", "awsParameterStore"],
        "AppRoleAuth" => &["wrapped"],
        "TargetFile" => &["hosts"],
        "FileSpec" | "DirectoryFile" | "SecretSpec" => &["encryptTo"],
        "VaultSpec" | "AwsSpec" => &["encryptTo"],
        _ => &[],
    };
    keys.contains(&key)
}
