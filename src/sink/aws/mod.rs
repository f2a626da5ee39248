//! `awsSecretsManager`: a secret, or one field of a JSON secret, in AWS Secrets Manager.

mod client;
mod fence;
mod gone;
mod kind;
pub mod parameter;
mod refusal;
mod secret;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::cluster::Upstream;
pub use crate::cluster::aws::{AssumeRole, WebIdentity};
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores, anew};
use crate::token::Payload;

/// `awsSecretsManager: {store, secretId, key, keepVersions, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AwsSecretsManager")]
pub struct AwsSpec {
    /// Name of the store.
    pub store: String,
    /// Name or ARN of the secret.
    pub secret_id: String,
    /// Field of a JSON secret; the whole secret when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many versions keep a staging label of ours, the newest among them; none has one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<u32>,
    /// Whether a secret that is not ours may be taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// `awsSecretsManager` under `stores`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "AwsStore")]
pub struct AwsStoreSpec {
    /// Region; the normal AWS chain's when absent.
    pub region: Option<String>,
    /// Profile of the shared AWS files.
    pub profile: Option<String>,
    /// Another address than AWS's own.
    pub endpoint: Option<String>,
    /// Key that encrypts secrets which we create.
    pub kms_key_id: Option<String>,
    /// Take over another role.
    pub assume_role: Option<AssumeRole>,
    /// Log in with a token of a cluster (`AssumeRoleWithWebIdentity`) in place of the normal AWS chain.
    pub web_identity: Option<WebIdentity>,
}

/// One AWS account and region with our credentials. Its client is shared by all places.
pub struct AwsStore {
    name: String,
    upstream: Arc<Upstream>,
    doubts: fence::Doubts,
    spec: AwsStoreSpec,
    client: Mutex<Option<Arc<client::Client>>>,
}

impl AwsStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: AwsStoreSpec, upstream: Arc<Upstream>) -> Self {
        Self { name: name.into(), upstream, doubts: fence::Doubts::default(), spec, client: Mutex::default() }
    }

    fn failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("AWS store `{}`: {what}", self.name))
    }
}

/// Bytes that a secret may have (AWS Secrets Manager quotas).
const LARGEST: usize = 65_536;

/// Makes one attempt to set the secret, or our field of it. A secret that is missing is created.
///
/// # Errors
/// [`Failure`]: `Unavailable` (not reachable, 5xx, no answer in time), `Throttled`, `Refused` (credentials,
/// rights, the secret's state), `Conflict` (somebody else wrote meanwhile), `BadAnswer`, `TooLarge`.
pub(super) async fn put(spec: &AwsSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    let store = of(spec, stores)?;
    let text = std::str::from_utf8(payload.expose()).map_err(|_| {
        let what = format!("`{}` takes text and the payload is not UTF-8: choose another `format`", spec.secret_id);
        store.failure(FailureKind::Refused, what)
    })?;
    if text.len() > LARGEST {
        return Err(secret::too_large(store, spec, text.len()));
    }
    in_time(store, context.timeout, secret::set(store, spec, text, &context)).await
}

/// Tries what a put reads before it writes, and says what was found.
///
/// # Errors
/// [`Failure`], as for a put.
pub(super) async fn probe(spec: &AwsSpec, _: &Payload, context: Context<'_>, stores: &Stores) -> Result<String, Failure> {
    let store = of(spec, stores)?;
    in_time(store, context.timeout, secret::probe(store, spec, &context)).await
}

/// What the place holds now, `None` where there is no such secret or field.
///
/// # Errors
/// [`Failure`], as for a put; a field that is no text is `Refused`.
pub async fn held(spec: &AwsSpec, stores: &Stores, timeout: Duration) -> Result<Option<Payload>, Failure> {
    let store = of(spec, stores)?;
    in_time(store, timeout, secret::get(store, spec)).await
}

/// Takes the secret, or our field of it, back where it is ours.
///
/// # Errors
/// [`Failure`], as for a put.
pub(super) async fn remove(spec: &AwsSpec, ours: Ours<'_>, stores: &Stores, timeout: Duration) -> Result<Removal, Failure> {
    let store = of(spec, stores)?;
    in_time(store, timeout, secret::with_client(store, |client| async move { gone::remove(&client, store, spec, ours).await })).await
}

fn of<'a>(spec: &AwsSpec, stores: &'a Stores) -> Result<&'a AwsStore, Failure> {
    let unknown = || Failure::new(FailureKind::Refused, format!("the schedule has no AWS store `{}`", spec.store));
    stores.live(&spec.store).ok_or_else(unknown)
}

async fn in_time<T>(store: &AwsStore, limit: Duration, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    anew::quietly(limit, attempt, |kind, why| store.failure(kind, why)).await
}
