//! Who issues it? One API server (or the embedded signer) each: clients, minting, proof, load limits.

pub mod client;
pub mod embedded;
pub mod mint;
pub mod prove;
pub mod upstream;

use std::path::PathBuf;

use serde::Deserialize;

/// One entry of `clusters`, as written and as planned: it needs no translation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterSpec {
    /// A kubeconfig on this host.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; its current one when absent.
    pub context: Option<String>,
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
}

/// `inCluster: {}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InCluster {}

/// `embedded: {directory: …}`; beside the records folder when absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmbeddedSpec {
    /// Where key and `jwks.json` stand.
    pub directory: Option<PathBuf>,
    /// The `iss` claim; `https://NAME.tokenferry.invalid` when absent.
    pub issuer: Option<String>,
}

/// Bounds on the load that we put on one API server or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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

/// Whose token, for whom and how long: what one TokenRequest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub service_account: String,
    /// Seconds of life asked for.
    pub duration: u64,
    /// Audiences; empty = those of the API server.
    pub audiences: Vec<String>,
    /// The object whose end is the token's end.
    pub bound_to: Option<Binding>,
}

/// `boundTo: {secret|pod|node: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Binding {
    /// A Secret of the account's namespace.
    Secret(String),
    /// A Pod of the account's namespace that runs as the account.
    Pod(String),
    /// A Node (Kubernetes 1.31 and later).
    Node(String),
}
