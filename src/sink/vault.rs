//! `vault`: a key of a KV secret (version 2 with check-and-set, or version 1) in Vault or OpenBao.

use std::path::PathBuf;

use serde::Deserialize;

use crate::sink::{Context, Failure, Put, Stores};
use crate::token::Payload;

/// `vault: {store, mount, path, key}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultSpec {
    /// Name of the store.
    pub store: String,
    /// Mount of the KV engine.
    #[serde(default = "mount")]
    pub mount: String,
    /// Path of the secret below the mount.
    pub path: String,
    /// Field of the secret that holds the payload; others are left as they are.
    #[serde(default = "key")]
    pub key: String,
}

fn mount() -> String {
    "secret".into()
}

fn key() -> String {
    "token".into()
}

/// `vault` under `stores`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VaultStoreSpec {
    /// `https://HOST:PORT`, without a path.
    pub address: String,
    /// Vault namespace.
    pub namespace: Option<String>,
    /// CA that alone is trusted; the host's when absent.
    pub ca_file: Option<PathBuf>,
    /// How we log in.
    pub auth: VaultAuth,
}

/// How we log in: exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VaultAuth {
    /// A token kept in a file by somebody else.
    Token(TokenAuth),
    /// AppRole.
    AppRole(AppRoleAuth),
    /// The login of a Kubernetes ServiceAccount token, checked by TokenReview.
    Kubernetes(JwtAuth),
    /// The same, checked by signature.
    Jwt(JwtAuth),
}

/// `token: {file}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenAuth {
    /// The file; read again when it changes.
    pub file: PathBuf,
}

/// `appRole: {roleId, secretIdFile}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppRoleAuth {
    /// Mount of the auth method; `approle` when absent.
    pub mount: Option<String>,
    /// The role's id: no secret.
    pub role_id: String,
    /// File that holds the secret id.
    pub secret_id_file: PathBuf,
}

/// `jwt` and `kubernetes`: `{mount, role, tokenFile}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuth {
    /// Mount of the auth method; its usual name when absent.
    pub mount: Option<String>,
    /// The role to log in as.
    pub role: String,
    /// File that holds the JWT; read at each login.
    pub token_file: PathBuf,
}

/// One Vault server with our login.
pub struct VaultStore {
    name: String,
    spec: VaultStoreSpec,
}

impl VaultStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: VaultStoreSpec) -> Self {
        Self { name: name.into(), spec }
    }

    /// The settings that it was made from.
    pub fn spec(&self) -> &VaultStoreSpec {
        &self.spec
    }
}

/// One attempt.
pub(super) async fn put(spec: &VaultSpec, _payload: &Payload, _context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    let store = stores.vault(&spec.store).map(|s| &s.name);
    Err(Failure::new(crate::sink::FailureKind::Refused, format!("not built yet: {store:?}")))
}
