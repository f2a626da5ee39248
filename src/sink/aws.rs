//! `awsSecretsManager`: a secret, or one field of a JSON secret, in AWS Secrets Manager.

use serde::Deserialize;

use crate::sink::{Context, Failure, Put, Stores};
use crate::token::Payload;

/// `awsSecretsManager: {store, secretId, key}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsSpec {
    /// Name of the store.
    pub store: String,
    /// Name or ARN of the secret.
    pub secret_id: String,
    /// Field of a JSON secret; the whole secret when absent.
    pub key: Option<String>,
}

/// `awsSecretsManager` under `stores`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
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
}

/// `assumeRole: {roleArn, externalId}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssumeRole {
    /// The role.
    pub role_arn: String,
    /// What its trust policy may ask for.
    pub external_id: Option<String>,
}

/// One AWS account and region with our credentials.
pub struct AwsStore {
    name: String,
    spec: AwsStoreSpec,
}

impl AwsStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: AwsStoreSpec) -> Self {
        Self { name: name.into(), spec }
    }

    /// The settings that it was made from.
    pub fn spec(&self) -> &AwsStoreSpec {
        &self.spec
    }
}

/// One attempt.
pub(super) async fn put(spec: &AwsSpec, _payload: &Payload, _context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    let store = stores.aws(&spec.store).map(|s| &s.name);
    Err(Failure::new(crate::sink::FailureKind::Refused, format!("not built yet: {store:?}")))
}
