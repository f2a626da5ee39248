//! The schedule as written: what serde reads from the YAML, nothing checked yet but names and types.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::cluster::{Binding, ClusterSpec};
use crate::schedule::measure::{Bytes, Seconds, Share};
use crate::schedule::yaml::SPLIT;
use crate::sink::StoreSpec;
use crate::sink::aws::AwsSpec;
use crate::sink::file::FileSpec;
use crate::sink::vault::VaultSpec;
use crate::token::Format;

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
    /// A Vault secret.
    pub vault: Option<WithFormat<VaultSpec>>,
    /// An AWS secret.
    pub aws_secrets_manager: Option<WithFormat<AwsSpec>>,
    /// Whether a failure here fails the rotation.
    pub required: Option<bool>,
    /// Where it goes meanwhile.
    pub fallback: Option<Vec<PlaceFile>>,
}

/// A sink's own settings, and the `format` that any sink has among them.
#[derive(Debug, Clone, PartialEq)]
pub struct WithFormat<T> {
    /// How the token is written.
    pub format: Format,
    /// The sink's own.
    pub spec: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WithFormat<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Parts<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = WithFormat<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the settings of a sink")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
                let (mut format, mut spec) = (Format::default(), None);
                while let Some(part) = parts.next_key::<String>()? {
                    if part == "format" { format = parts.next_value::<FormatFile>()?.into() } else { spec = Some(parts.next_value()?) }
                }
                Ok(WithFormat { format, spec: spec.ok_or_else(|| de::Error::missing_field("spec"))? })
            }
        }
        from.deserialize_struct(SPLIT, &["format", "spec"], Parts(std::marker::PhantomData))
    }
}

/// `format`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum FormatFile {
    Raw,
    Json,
    ExecCredential,
    Env(EnvFile),
}

/// `env: {name: …}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnvFile {
    name: EnvName,
}

/// Name of an environment variable (POSIX: letters, digits, underscores, no digit first).
#[derive(Debug)]
struct EnvName(String);

impl<'de> Deserialize<'de> for EnvName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let known = |(at, b): (usize, u8)| b == b'_' || b.is_ascii_alphabetic() || (at > 0 && b.is_ascii_digit());
        if !name.is_empty() && name.bytes().enumerate().all(known) {
            return Ok(Self(name));
        }
        let shown = crate::schedule::measure::shown(&name);
        Err(de::Error::custom(format_args!("{shown} is no name of a variable: write letters, digits and underscores, such as KUBE_TOKEN")))
    }
}

impl From<FormatFile> for Format {
    fn from(format: FormatFile) -> Self {
        match format {
            FormatFile::Raw => Self::Raw,
            FormatFile::Json => Self::Json,
            FormatFile::ExecCredential => Self::ExecCredential,
            FormatFile::Env(env) => Self::Env(env.name.0),
        }
    }
}

/// A text, or a list of texts.
#[derive(Debug, Clone, Default)]
pub struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = elements.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        from.deserialize_any(Texts)
    }
}

/// `prove`: `{every: 1h}`, or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProveFile {
    /// Whether a fresh token is tried before it is published.
    pub prove: bool,
    /// Time between later tries.
    pub every: Option<Seconds>,
}

impl<'de> Deserialize<'de> for ProveFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Prove;
        impl<'de> Visitor<'de> for Prove {
            type Value = ProveFile;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("`{every: 1h}` or `false`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ProveFile, E> {
                match text {
                    "true" => Ok(ProveFile { prove: true, every: None }),
                    "false" => Ok(ProveFile { prove: false, every: None }),
                    _ => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut settings: A) -> Result<ProveFile, A::Error> {
                let mut every = None;
                while let Some(key) = settings.next_key::<String>()? {
                    if key != "every" {
                        let shown = crate::schedule::measure::shown(&key);
                        return Err(de::Error::custom(format_args!("{shown} is unknown here: known is every")));
                    }
                    every = Some(settings.next_value()?);
                }
                Ok(ProveFile { prove: true, every })
            }
        }
        from.deserialize_any(Prove)
    }
}

/// Keys that belong to the format but that this version does not act on: to ignore them would be a lie.
pub fn later(structure: &str, key: &str) -> bool {
    let keys: &[&str] = match structure {
        "ScheduleFile" => &["alerts", "heartbeat", "monitor", "fleet"],
        "ClusterSpec" => &["own", "spare"],
        "StoreSpec" => &["gcpSecretManager", "azureKeyVault", "awsParameterStore"],
        "AppRoleAuth" => &["wrapped"],
        "JwtAuth" => &["target"],
        "AwsStoreSpec" => &["webIdentity"],
        "RecordsFile" => &["signingKey"],
        "MetricsFile" => &["textfile"],
        "TargetFile" => &["revocable", "overlap", "whenRemoved", "after", "hosts"],
        "PlaceFile" => &["directory", "kubernetesSecret", "command"],
        "FileSpec" => &["readers", "encryptTo"],
        "VaultSpec" => &["keepVersions", "adopt", "encryptTo"],
        "AwsSpec" => &["adopt", "encryptTo"],
        "FormatFile" => &["kubeconfig", "template", "dockerConfigJson", "argoCdCluster"],
        _ => &[],
    };
    keys.contains(&key)
}
