//! `azureKeyVault`: a secret in Azure Key Vault, by Microsoft's own client over the HTTP of the other sinks.
//!
//! Each token is a version of its own, with its end as the secret's (`exp`), and with what is said of it as tags: one
//! request sets them all. A version before it is disabled once it has been replaced for as long as the overlap; those
//! that others made before the secret was ours stay. Key Vault deletes no version alone, and lists them in no order, so
//! each version names those before it that are still in use: no delivery costs more the longer a secret lives.

mod client;
mod earlier;
mod kind;
mod login;
mod refusal;
mod secret;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cluster::Upstream;
use crate::sink::{Failure, FailureKind, Stores, anew};
use client::Wire;

/// `azureKeyVault: {store, name, keepVersions, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AzureKeyVault")]
pub struct AzureSpec {
    /// Name of the store.
    pub store: String,
    /// Name of the secret within its vault.
    pub name: String,
    /// How many versions stay enabled, the newest among them; one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<u32>,
    /// Whether a secret that is not ours may be taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// `azureKeyVault` under `stores`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AzureStore")]
pub struct AzureStoreSpec {
    /// The vault: `https://NAME.vault.azure.net`, without a path.
    pub address: String,
    /// How we log in.
    pub auth: AzureAuth,
    /// Where we log in, when that is not the Entra ID of the vault's own cloud.
    pub authority: Option<String>,
    /// For which service the login is, when the vault's address does not tell: `https://vault.azure.net`.
    pub resource: Option<String>,
    /// CA that alone is trusted; the host's when absent.
    pub ca_file: Option<PathBuf>,
}

/// How we log in: exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AzureAuth")]
pub enum AzureAuth {
    /// With a token of a cluster that the application trusts: no secret is stored.
    WorkloadIdentity(WorkloadIdentity),
    /// As the machine that we run on.
    ManagedIdentity(ManagedIdentity),
    /// With a secret of the application, kept in a file.
    ClientSecret(ClientSecret),
}

/// `workloadIdentity: {tenantId, clientId, tokenFile | target}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AzureWorkloadIdentity")]
pub struct WorkloadIdentity {
    /// The directory, by its id or domain.
    pub tenant_id: String,
    /// The application whose federated credentials name the cluster's issuer and the account.
    pub client_id: String,
    /// File that holds the token; read at each login. With `target`, that target's own file: planning fills it in.
    #[serde(default)]
    pub token_file: PathBuf,
    /// Whose token it is, where we keep it fresh ourselves.
    pub target: Option<String>,
}

/// `managedIdentity: {clientId}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AzureManagedIdentity")]
pub struct ManagedIdentity {
    /// Which one, where the machine has several; its own when absent.
    pub client_id: Option<String>,
}

/// `clientSecret: {tenantId, clientId, secretFile}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AzureClientSecret")]
pub struct ClientSecret {
    /// The directory, by its id or domain.
    pub tenant_id: String,
    /// The application.
    pub client_id: String,
    /// File that holds its secret; read again when it changes.
    pub secret_file: PathBuf,
}

/// One vault with our login. Its client is shared by all places.
pub struct AzureStore {
    name: String,
    upstream: Arc<Upstream>,
    spec: AzureStoreSpec,
    wire: Mutex<Option<Arc<Wire>>>,
}

/// Bytes that a secret may have (Key Vault's limits).
const LARGEST: usize = 25_000;

impl AzureStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: AzureStoreSpec, upstream: Arc<Upstream>) -> Self {
        Self { name: name.into(), upstream, spec, wire: Mutex::default() }
    }

    fn failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("Azure store `{}`: {what}", self.name))
    }

    /// The client; made anew when a file that it was made from changed, and logged in.
    async fn wire(&self) -> Result<Arc<Wire>, Failure> {
        let mut kept = self.wire.lock().await;
        let current = match kept.as_ref() {
            Some(wire) => wire.is_current(&self.spec).await.then(|| Arc::clone(wire)),
            None => None,
        };
        let wire = match current {
            Some(wire) => wire,
            None => {
                let made = Wire::new(&self.spec).await.map_err(|failure| self.failure(failure.kind, failure.message))?;
                Arc::clone(kept.insert(Arc::new(made)))
            }
        };
        drop(kept);
        wire.log_in().await.map_err(|verdict| self.told(verdict))?;
        Ok(wire)
    }

    /// Does it, and once more with a login made anew where the first one was refused; within that time.
    async fn attempt<T, F>(&self, limit: Duration, attempt: impl Fn(Arc<Wire>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, refusal::Verdict>>,
    {
        let whole = async {
            let outcome = anew::attempt(&self.wire, || self.wire(), attempt, |verdict: &refusal::Verdict| verdict.login).await?;
            outcome.map_err(|verdict| self.told(verdict))
        };
        anew::quietly(limit, whole, |kind, why| self.failure(kind, why)).await
    }

    fn told(&self, verdict: refusal::Verdict) -> Failure {
        if verdict.garbled {
            self.upstream.note_garbled();
        }
        Failure { retry_after: verdict.retry_after, ..self.failure(verdict.kind, verdict.why) }
    }
}

fn of<'a>(spec: &AzureSpec, stores: &'a Stores) -> Result<&'a AzureStore, Failure> {
    let unknown = || Failure::new(FailureKind::Refused, format!("the schedule has no Azure store `{}`", spec.store));
    stores.live(&spec.store).ok_or_else(unknown)
}
