//! `format`, and `files` of a directory: how a token is written.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::schedule::measure::shown;
use crate::schedule::schema;
use crate::token::render::{ArgoCdFormat, DockerFormat, FilePart, KubeconfigFormat};
use crate::token::{Format, template};

/// `format`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Format", transform = schema::bare)]
pub enum FormatFile {
    /// The token.
    Raw,
    /// With what belongs to it.
    Json,
    /// For client-go.
    ExecCredential,
    /// `NAME=token`.
    Env(EnvFile),
    /// For kubectl.
    Kubeconfig(KubeconfigFormat),
    /// For registries.
    DockerConfigJson(DockerFormat),
    /// For Argo CD.
    ArgoCdCluster(ArgoCdFormat),
    /// For everything else.
    Template(TemplateFile),
}

/// `template: {text: …}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Template")]
pub struct TemplateFile {
    /// The text, with `{{ token }}` and the other values in it (see `tokenferry-schedule`(5)).
    #[schemars(with = "String")]
    text: TemplateText,
}

/// A template that can be rendered.
#[derive(Debug)]
struct TemplateText(String);

impl<'de> Deserialize<'de> for TemplateText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        template::check(&text).map_err(de::Error::custom)?;
        Ok(Self(text))
    }
}

/// `env: {name: …}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Env")]
pub struct EnvFile {
    /// Name of the variable: letters, digits and underscores.
    #[schemars(with = "String", regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
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
        Err(de::Error::custom(format_args!(
            "{} is no name of a variable: write letters, digits and underscores, such as KUBE_TOKEN",
            shown(&name)
        )))
    }
}

impl From<FormatFile> for Format {
    fn from(format: FormatFile) -> Self {
        match format {
            FormatFile::Raw => Self::Raw,
            FormatFile::Json => Self::Json,
            FormatFile::ExecCredential => Self::ExecCredential,
            FormatFile::Env(env) => Self::Env(env.name.0),
            FormatFile::Kubeconfig(settings) => Self::Kubeconfig(Box::new(settings)),
            FormatFile::DockerConfigJson(settings) => Self::DockerConfigJson(Box::new(settings)),
            FormatFile::ArgoCdCluster(settings) => Self::ArgoCdCluster(Box::new(settings)),
            FormatFile::Template(template) => Self::Template(template.text.0),
        }
    }
}

/// What stands in one file of a directory: a format, or what the kubelet mounts beside a token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Part", transform = schema::bare)]
pub enum PartFile {
    /// The token.
    Raw,
    /// With what belongs to it.
    Json,
    /// For client-go.
    ExecCredential,
    /// `NAME=token`.
    Env(EnvFile),
    /// For kubectl.
    Kubeconfig(KubeconfigFormat),
    /// For registries.
    DockerConfigJson(DockerFormat),
    /// For everything else.
    Template(TemplateFile),
    /// The cluster's CA certificates.
    Ca,
    /// The account's namespace.
    Namespace,
}

/// The same, read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "PartFile")]
pub struct Part(pub FilePart);

impl From<PartFile> for Part {
    fn from(part: PartFile) -> Self {
        Self(part.into())
    }
}

impl From<PartFile> for FilePart {
    fn from(part: PartFile) -> Self {
        let format = match part {
            PartFile::Ca => return Self::Ca,
            PartFile::Namespace => return Self::Namespace,
            PartFile::Raw => FormatFile::Raw,
            PartFile::Json => FormatFile::Json,
            PartFile::ExecCredential => FormatFile::ExecCredential,
            PartFile::Env(settings) => FormatFile::Env(settings),
            PartFile::Kubeconfig(settings) => FormatFile::Kubeconfig(settings),
            PartFile::DockerConfigJson(settings) => FormatFile::DockerConfigJson(settings),
            PartFile::Template(settings) => FormatFile::Template(settings),
        };
        Self::Token(format.into())
    }
}
