//! `vault`: a key of a KV secret (version 2 with check-and-set, or version 1) in Vault or OpenBao.

mod client;
mod custom;
mod gone;
mod kind;
mod kv;
mod login;
pub(super) mod own;
mod probe;
mod refusal;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::cluster::Upstream;
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores};
use crate::token::Payload;

/// `vault: {store, mount, path, key, keepVersions, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Vault")]
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
    /// How many versions stay, the newest among them; all that the server keeps when absent. Version 1 has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_versions: Option<u32>,
    /// Whether a secret that is not ours may be taken over. Version 1 of the engine keeps nothing beside a secret, so
    /// nothing tells whose one is there: our field is always written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

impl VaultSpec {
    /// Where version 2 keeps what it knows of the secret.
    fn metadata_path(&self) -> String {
        format!("{}/metadata/{}", self.mount, self.path)
    }
}

fn mount() -> String {
    "secret".into()
}

fn key() -> String {
    "token".into()
}

/// `vault` under `stores`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "VaultStore")]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenAuth {
    /// The file; read again when it changes.
    pub file: PathBuf,
}

/// `appRole: {roleId, secretIdFile}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppRoleAuth {
    /// Mount of the auth method; `approle` when absent.
    pub mount: Option<String>,
    /// The role's id: no secret.
    pub role_id: String,
    /// File that holds the secret id.
    pub secret_id_file: PathBuf,
}

/// `jwt` and `kubernetes`: `{mount, role, tokenFile | target}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuth {
    /// Mount of the auth method; its usual name when absent.
    pub mount: Option<String>,
    /// The role to log in as.
    pub role: String,
    /// File that holds the JWT; read at each login. With `target`, that target's own file: planning fills it in.
    #[serde(default)]
    pub token_file: PathBuf,
    /// Whose token it is, where we keep it fresh ourselves.
    pub target: Option<String>,
}

/// One Vault server with our login. Its client, login lease and knowledge of mounts are shared by all places.
pub struct VaultStore {
    name: String,
    upstream: Arc<Upstream>,
    spec: VaultStoreSpec,
    wire: Mutex<Option<client::Wire>>,
    login: Mutex<login::State>,
    engines: Mutex<HashMap<String, kv::Engine>>,
}

impl VaultStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: VaultStoreSpec, upstream: Arc<Upstream>) -> Self {
        Self { name: name.into(), upstream, spec, wire: Mutex::default(), login: Mutex::default(), engines: Mutex::default() }
    }

    fn failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("vault store `{}`: {what}", self.name))
    }
}

/// Bytes that a whole secret may have: the entry limit of Vault's integrated storage (`max_entry_size`).
const LARGEST: usize = 1_048_576;

/// Makes one attempt to set our field of the secret. Its other fields stay as they are.
///
/// # Errors
/// [`Failure`]: `Unavailable` (not reachable, sealed, 5xx, no answer in time), `Throttled` (429), `Refused`
/// (our rights, the mount, the request), `Conflict` (somebody else wrote meanwhile), `BadAnswer` (not
/// Vault's), `TooLarge`, `Local` (our own credential or CA file).
pub(super) async fn put(spec: &VaultSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    let store = of(spec, stores)?;
    let text = std::str::from_utf8(payload.expose()).map_err(|_| {
        let what = format!("`{}/{}` takes text and the payload is not UTF-8: choose another `format`", spec.mount, spec.path);
        store.failure(FailureKind::Refused, what)
    })?;
    if text.len() > LARGEST {
        return Err(kv::too_large(store, spec, text.len()));
    }
    in_time(store, context.timeout, kv::set(store, spec, text, &context)).await
}

/// Tries everything of a put but the writing, and says what was found.
///
/// # Errors
/// [`Failure`], as for a put.
pub(super) async fn probe(spec: &VaultSpec, _: &Payload, context: Context<'_>, stores: &Stores) -> Result<String, Failure> {
    let store = of(spec, stores)?;
    in_time(store, context.timeout, probe::probe(store, spec, &context)).await
}

/// What our field holds now, `None` where there is no such secret or field.
///
/// # Errors
/// [`Failure`], as for a put; a field that is no text is `Refused`.
pub async fn held(spec: &VaultSpec, stores: &Stores, timeout: Duration) -> Result<Option<Payload>, Failure> {
    let store = of(spec, stores)?;
    let text: Option<Zeroizing<String>> = in_time(store, timeout, kv::get(store, spec)).await?;
    Ok(text.map(|text| Payload::new(text.as_bytes().to_vec())))
}

/// Takes our field back where it is ours, with the secret where nothing else stands in it.
///
/// # Errors
/// [`Failure`], as for a put.
pub(super) async fn remove(spec: &VaultSpec, ours: Ours<'_>, stores: &Stores, timeout: Duration) -> Result<Removal, Failure> {
    let store = of(spec, stores)?;
    in_time(store, timeout, gone::remove(store, spec, ours)).await
}

fn of<'a>(spec: &VaultSpec, stores: &'a Stores) -> Result<&'a VaultStore, Failure> {
    let unknown = || Failure::new(FailureKind::Refused, format!("the schedule has no vault store `{}`", spec.store));
    stores.live(&spec.store).ok_or_else(unknown)
}

async fn in_time<T>(store: &VaultStore, limit: Duration, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(store.failure(FailureKind::Unavailable, format_args!("no answer within {} s", limit.as_secs_f32()))),
    }
}
