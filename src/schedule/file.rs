//! The schedule as written: what serde reads from the YAML, nothing checked yet but names and types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de;

use crate::cluster::lease::LeaseSpec;
use crate::cluster::{Binding, ClusterSpec};
use crate::schedule::alerts::{AlertFile, HeartbeatFile, MonitorFile};
use crate::schedule::choice::{OneOrMany, ProveFile, WithFormat};
use crate::schedule::encrypt::RecipientFile;
use crate::schedule::format::Part;
use crate::schedule::hooks::HookFile;
use crate::schedule::measure::{Bytes, Seconds, Share};
use crate::schedule::plan::WhenRemoved;
use crate::schedule::schema::{self, Named};
use crate::sink::file::{FileSpec, Mode, Reader};
use crate::sink::kinds::kinds;
use crate::sink::kubernetes::SecretSpec;
use crate::sink::{SinkSpec, StoreSpec, WhenPaid};
use crate::token::Format;
use crate::token::age::Recipient;
use crate::token::render::FilePart;

/// The file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Schedule")]
pub struct ScheduleFile {
    /// Version of the format: 1.
    pub version: Option<u64>,
    /// Patterns of files with more targets, such as `targets.d/*.yaml`; each of those files is a list of targets.
    pub include: Vec<String>,
    /// Clusters by name: where tokens are minted.
    pub clusters: BTreeMap<String, ClusterSpec>,
    /// Stores by name: Vault, OpenBao or a cloud's, and how we log in there.
    pub stores: BTreeMap<String, StoreSpec>,
    /// Where the records of all rotations are kept, and how long.
    pub records: RecordsFile,
    /// The socket over which commands ask the daemon.
    pub control: ControlFile,
    /// Metrics for Prometheus; none unless asked for.
    pub metrics: MetricsFile,
    /// Who is told of trouble, by a command or a request.
    pub alerts: Vec<AlertFile>,
    /// Who is told again and again that all is well, and raises the alarm when that stops.
    pub heartbeat: Option<HeartbeatFile>,
    /// Tokens that others mint, watched all the same.
    pub monitor: Vec<MonitorFile>,
    /// Several daemons that share this schedule, and where they meet.
    pub fleet: Option<FleetFile>,
    /// Whether the schedule is taken again when its file has changed and was quiet for a second; otherwise only when
    /// told to.
    pub reload_on_change: bool,
    /// Keys that targets need not repeat; a target's own key counts before it.
    pub defaults: TargetFile,
    /// The targets: whose tokens are kept fresh, and where they go.
    // Read one at a time, elsewhere.
    #[schemars(with = "Vec<Named>", required)]
    pub targets: de::IgnoredAny,
}

/// `fleet`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Fleet")]
pub struct FleetFile {
    /// The Leases by which its members know of each other.
    pub lease: LeaseSpec,
}

/// `records`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Records")]
pub struct RecordsFile {
    /// The folder; `/var/lib/tokenferry/records` when absent.
    pub directory: Option<PathBuf>,
    /// How long a closed file is kept; 400 days when absent.
    pub keep: Option<Seconds>,
    /// At which size a file is closed and another begun; 64 MiB when absent.
    pub max_size: Option<Bytes>,
    /// The key that signs each head of the records.
    pub signing_key: Option<SigningKeyFile>,
}

/// `signingKey: {file: …}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "SigningKey")]
pub struct SigningKeyFile {
    /// A P-256 key in PKCS#8 PEM.
    pub file: PathBuf,
}

/// `control`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Control")]
pub struct ControlFile {
    /// Its path; `/run/tokenferry/control.sock` when absent.
    pub socket: Option<PathBuf>,
}

/// `metrics`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Metrics")]
pub struct MetricsFile {
    /// Where `/metrics`, `/livez`, `/readyz` and `/status` are served, `ADDRESS:PORT`.
    pub listen: Option<String>,
    /// A file for node_exporter's textfile collector, `….prom`, with what `/metrics` shows.
    pub textfile: Option<PathBuf>,
}

/// One target, or `defaults`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Target")]
pub struct TargetFile {
    /// Unique name: lower-case letters, digits, dots and dashes.
    pub name: Option<String>,
    /// Words of your own, such as `owner: payments`, by which commands choose and reports sum up.
    pub labels: Option<BTreeMap<String, String>>,
    /// Name of the cluster that mints it.
    pub cluster: Option<String>,
    /// Whose token: `NAMESPACE/NAME` of the ServiceAccount.
    pub service_account: Option<String>,
    /// Life to ask for. The API server may grant less; times follow what it granted.
    pub duration: Option<Seconds>,
    /// For whom the token is good; the API server itself when absent.
    pub audiences: Option<Vec<String>>,
    /// The object whose end is the token's end: a Secret or Pod of the account's namespace, or a Node.
    pub bound_to: Option<Binding>,
    /// Whether each generation is bound to a marker of its own, so that `tokenferry revoke` can end it; not beside
    /// `boundTo`.
    pub revocable: Option<bool>,
    /// How long the generation before stays good after its successor was delivered, where `revocable` is true.
    pub overlap: Option<Seconds>,
    /// When it is rotated.
    pub rotate: Option<RotateFile>,
    /// Whether it is left alone until somebody asks (`tokenferry rotate`).
    pub suspend: Option<bool>,
    /// Whether a fresh token is tried before it is published, and how often a delivered one is tried again.
    pub prove: Option<ProveFile>,
    /// Limits that `check` and `report` hold the target to.
    pub compliance: Option<ComplianceFile>,
    /// In a fleet: the hosts that serve it, such as `["ci-*"]`. What has files needs it; what has none has one owner.
    pub hosts: Option<Vec<String>>,
    /// Where it goes: one or more places.
    pub deliver: Option<Vec<PlaceFile>>,
    /// What becomes of its places when it goes out of the schedule, on an explicit reload.
    pub when_removed: Option<WhenRemoved>,
    /// Who is told once it is delivered.
    pub after: Option<Vec<HookFile>>,
}

/// `rotate`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Rotate")]
pub struct RotateFile {
    /// At which share of the granted life it is rotated in any case; 80 % when absent.
    pub at: Option<Share>,
    /// Cron expressions (five fields) at which it is rotated besides.
    pub cron: Option<OneOrMany>,
    /// Zone of `cron` and `window`, such as `Europe/Berlin`; the host's when absent.
    pub time_zone: Option<String>,
    /// Most by which a time is moved so that targets do not all come at once: `at` earlier, cron later. A tenth of the life
    /// or of the cron gap when absent, at most 15 minutes.
    pub splay: Option<Seconds>,
    /// Hours in which rotations are wanted.
    pub window: Option<WindowFile>,
}

/// `window`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Window")]
pub struct WindowFile {
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`.
    pub to: String,
    /// `Mon-Fri`, `Sat,Sun`; every day when absent.
    pub days: Option<String>,
}

/// `compliance`.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Compliance")]
pub struct ComplianceFile {
    /// Oldest that a served token may get.
    pub max_age: Option<Seconds>,
    /// Longest life that a token may be given.
    pub max_lifetime: Option<Seconds>,
}

macro_rules! place_file {
    ($($(#[$doc:meta])* $field:ident, $kind:literal: $variant:ident($spec:ty);)*) => {
        /// One element of `deliver`: exactly one sink, with what stands beside it.
        #[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        #[schemars(rename = "Place", transform = schema::one_sink)]
        // Each sink in a box: a place has one of them all, and a hundred thousand places are read.
        pub struct PlaceFile {
            /// A file on this host.
            pub file: Option<Box<WithFormat<FileSpec>>>,
            /// Several files on this host, switched as one, as in a Pod.
            pub directory: Option<Box<DirectoryFile>>,
            $($(#[$doc])* pub $field: Option<Box<WithFormat<$spec>>>,)*
            /// A Secret in a cluster.
            pub kubernetes_secret: Option<Box<WithFormat<SecretSpec>>>,
            /// A program that takes it on its standard input.
            pub command: Option<Box<WithFormat<CommandFile>>>,
            /// Whether a failure here fails the rotation; true when absent.
            pub required: Option<bool>,
            /// Where it goes while this place cannot be written.
            pub fallback: Option<Vec<PlaceFile>>,
            /// What becomes of the copy there once this place holds the token.
            pub when_paid: Option<WhenPaid>,
        }

        impl PlaceFile {
            /// The sink where it is one that is used as it is written, and its `format`.
            pub fn listed(&self) -> Option<(SinkSpec, &Format)> {
                $(if let Some(written) = &self.$field {
                    return Some((SinkSpec::$variant(Box::new(written.spec.clone())), &written.format));
                })*
                None
            }

            /// To whom it is encrypted, where that is said.
            pub fn encrypt_to(&self) -> Option<Vec<Recipient>> {
                $(if let Some(written) = &self.$field {
                    return written.encrypt_to.clone();
                })*
                let of_file = self.file.as_ref().and_then(|written| written.encrypt_to.clone());
                let of_secret = self.kubernetes_secret.as_ref().and_then(|written| written.encrypt_to.clone());
                let of_command = self.command.as_ref().and_then(|written| written.encrypt_to.clone());
                let of_directory = self.directory.as_ref().and_then(|written| written.encrypt_to.clone()).map(RecipientFile::all);
                of_file.or(of_secret).or(of_command).or(of_directory)
            }
        }
    };
}
kinds!(place_file);

/// `directory`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Directory")]
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
    /// To whom the files with a token are encrypted (age): public keys, age1…, each of whose secret halves opens them.
    pub encrypt_to: Option<Vec<RecipientFile>>,
}

fn as_the_kubelet_mounts() -> BTreeMap<String, Part> {
    let files = [("token", FilePart::Token(Format::Raw)), ("ca.crt", FilePart::Ca), ("namespace", FilePart::Namespace)];
    files.into_iter().map(|(name, part)| (name.to_owned(), Part(part))).collect()
}

/// `command`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Command")]
pub struct CommandFile {
    /// Program and arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Seconds>,
}

/// Keys that belong to the format but that this version does not act on: to ignore them would be a lie.
pub fn later(structure: &str, key: &str) -> bool {
    let keys: &[&str] = match structure {
        "AppRoleAuth" => &["wrapped"],
        _ => &[],
    };
    keys.contains(&key)
}
