//! One entry of `clusters`, as the schedule writes it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{eks, job, own};

/// One entry of `clusters`, as written and as planned: it needs no translation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Cluster")]
pub struct ClusterSpec {
    /// A kubeconfig on this host.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; its current one when absent.
    pub context: Option<String>,
    /// Log in to Amazon EKS in this process, in place of what the kubeconfig's user has.
    pub eks: Option<eks::EksSpec>,
    /// Use the Pod's own account.
    pub in_cluster: Option<InCluster>,
    /// Sign with a key of our own: for trials, never for production.
    pub embedded: Option<EmbeddedSpec>,
    /// API servers of this cluster, tried in order of health, in place of the kubeconfig's server.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// HTTP proxy on the way to the API server.
    pub proxy_url: Option<String>,
    /// The most that we ask of the API server at once and per second.
    #[serde(default)]
    pub limits: Limits,
    /// The credential that we keep fresh ourselves.
    pub own: Option<own::OwnSpec>,
    /// The way back when that one has died.
    pub spare: Option<own::SpareSpec>,
    /// The API server of a CI job that logs in by itself; no schedule writes it.
    #[serde(skip)]
    pub job: Option<job::JobLogin>,
}

/// `inCluster: {}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InCluster {}

/// `embedded: {directory: …}`; beside the records folder when absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Embedded")]
pub struct EmbeddedSpec {
    /// Where key and `jwks.json` stand.
    pub directory: Option<PathBuf>,
    /// The `iss` claim; `https://NAME.tokenferry.invalid` when absent.
    pub issuer: Option<String>,
}

/// Bounds on the load that we put on one API server or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Requests under way at once.
    pub in_flight: u32,
    /// Requests begun per second; 0 = no limit.
    pub per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 0 }
    }
}
