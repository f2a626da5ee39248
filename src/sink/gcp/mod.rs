//! `gcpSecretManager`: a secret in Google Cloud Secret Manager, by Google's own client.
//!
//! Each token is a version of its own, sent with its CRC32C. Versions before it are disabled once they have been
//! replaced for as long as the overlap, and destroyed at the delivery after that; those that others made before the
//! secret was ours stay. `keepVersions` says how many are kept from this.

mod client;
mod federation;
mod kind;
mod refusal;
mod secret;
mod versions;
mod way;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use google_cloud_secretmanager_v1::client::SecretManagerService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cluster::Upstream;
use crate::sink::{Failure, FailureKind, Stores, anew};

/// `gcpSecretManager: {store, secretId, keepVersions, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "GcpSecretManager")]
pub struct GcpSpec {
    /// Name of the store.
    pub store: String,
    /// Name of the secret, without its project.
    pub secret_id: String,
    /// How many versions stay, the newest among them; one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<u32>,
    /// Whether a secret that is not ours may be taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// `gcpSecretManager` under `stores`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "GcpStore")]
pub struct GcpStoreSpec {
    /// The project, by its id.
    pub project: String,
    /// Where secrets that we make are kept, such as `europe-west3`; wherever Google likes when absent.
    #[serde(default)]
    pub locations: Vec<String>,
    /// File with credentials as Google hands them out, of whatever type: a service account, workload identity federation.
    /// The normal Google chain when absent.
    pub credentials_file: Option<PathBuf>,
    /// Log in with a token of a cluster (workload identity federation): no key of Google's is kept anywhere.
    pub workload_identity: Option<WorkloadIdentity>,
    /// Another address than Google's own.
    pub endpoint: Option<String>,
}

/// `workloadIdentity: {audience, serviceAccount, tokenFile | target, tokenUrl}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "WorkloadIdentity")]
pub struct WorkloadIdentity {
    /// The provider that trusts the cluster's issuer: `//iam.googleapis.com/` and its resource name, which ends in
    /// `/workloadIdentityPools/POOL/providers/PROVIDER`.
    pub audience: String,
    /// The service account that is acted as; the federated identity itself when absent.
    pub service_account: Option<String>,
    /// File that holds the token; read at each login. With `target`, that target's own file: planning fills it in.
    #[serde(default)]
    pub token_file: PathBuf,
    /// Whose token it is, where we keep it fresh ourselves.
    pub target: Option<String>,
    /// Where tokens are exchanged; Google's own address when absent.
    pub token_url: Option<String>,
}

/// One project with our credentials. Its client is shared by all places.
pub struct GcpStore {
    name: String,
    upstream: Arc<Upstream>,
    spec: GcpStoreSpec,
    client: Mutex<Option<client::Kept>>,
}

/// Bytes that a secret may have (Secret Manager quotas).
const LARGEST: usize = 65_536;

impl GcpStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: GcpStoreSpec, upstream: Arc<Upstream>) -> Self {
        Self { name: name.into(), upstream, spec, client: Mutex::default() }
    }

    fn failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("GCP store `{}`: {what}", self.name))
    }

    /// The whole name of a secret.
    fn whole(&self, spec: &GcpSpec) -> String {
        format!("projects/{}/secrets/{}", self.spec.project, spec.secret_id)
    }

    /// Does it within that time.
    async fn attempt<T, F>(&self, limit: Duration, attempt: impl FnOnce(SecretManagerService) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, refusal::Verdict>>,
    {
        let whole = async {
            let outcome = attempt(self.client().await?).await;
            outcome.map_err(|verdict| {
                if verdict.garbled {
                    self.upstream.note_garbled();
                }
                Failure { retry_after: verdict.retry_after, ..self.failure(verdict.kind, verdict.why) }
            })
        };
        anew::quietly(limit, whole, |kind, why| self.failure(kind, why)).await
    }
}

fn of<'a>(spec: &GcpSpec, stores: &'a Stores) -> Result<&'a GcpStore, Failure> {
    let unknown = || Failure::new(FailureKind::Refused, format!("the schedule has no GCP store `{}`", spec.store));
    stores.live(&spec.store).ok_or_else(unknown)
}
