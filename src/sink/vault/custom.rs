//! What version 2 of the KV engine keeps beside a secret: custom metadata, which says that it is ours, and versions,
//! of which old ones are retired. Version 1 has neither, so nothing there tells whose a secret is.
//!
//! A secret is marked before its first token is written, so that one which we ourselves wrote before a crash is ours;
//! a mark that is out of date (the expiry) is set after the token, by the next put where a crash came in between.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::client::{Answer, Request};
use super::kv::{not_vault, parsed};
use super::{VaultSpec, VaultStore, refusal};
use crate::sink::manners::{self, retirable};
use crate::sink::{Context, Failure, FailureKind};

/// Most bytes of a value (`maxCustomMetadataValueLength` of the KV engine).
const LONGEST: usize = 512;

/// Custom metadata.
pub(super) type Custom = BTreeMap<String, String>;

/// A secret's metadata.
#[derive(Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub custom_metadata: Option<Custom>,
    #[serde(default)]
    versions: BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    created_time: jiff::Timestamp,
    #[serde(default)]
    destroyed: bool,
}

/// What we say in the metadata of a secret.
pub(super) fn marks(context: &Context<'_>) -> Custom {
    manners::marks(context, |text| {
        let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut end = printable.len().min(LONGEST);
        while !printable.is_char_boundary(end) {
            end -= 1;
        }
        Some(printable[..end].to_owned()).filter(|value| !value.is_empty())
    })
}

/// The metadata of a secret that may have no version; `None` where the login may not read it: a policy for the data
/// alone is enough to deliver.
///
/// # Errors
/// As for a put.
pub(super) async fn read(store: &VaultStore, spec: &VaultSpec) -> Result<Option<Metadata>, Failure> {
    let path = spec.metadata_path();
    let answer = store.ask(&Request { method: Method::GET, path: &path, body: None }).await?;
    match answer.status {
        200 => parsed(&answer).map(Some).ok_or_else(|| not_vault(store, &path)),
        404 if answer.json => Ok(Some(Metadata::default())),
        403 => Ok(None),
        _ => {
            let right = format!("the login's policy needs `read` on `{path}`");
            Err(refusal::of_answer(&answer, &format!("cannot read `{path}`"), &right).into_failure(&store.name))
        }
    }
}

/// Sets the custom metadata, whole.
///
/// # Errors
/// As for a put.
pub(super) async fn write(store: &VaultStore, spec: &VaultSpec, custom: &Custom) -> Result<(), Failure> {
    let body = serde_json::json!({ "custom_metadata": custom });
    let path = spec.metadata_path();
    let answer = ask(store, Method::POST, &path, &body).await?;
    if answer.status == 403 {
        // The token matters more than what is said beside it; whether it is ours is told by the token itself then.
        tracing::debug!(place = %spec.path, "the login may not write `{path}`: the custom metadata stays as it is");
        return Ok(());
    }
    done(store, &answer, &format!("cannot write `{path}`"), "`create` and `update`", &path)
}

/// Deletes the secret with all its versions and metadata.
///
/// # Errors
/// As for a put.
pub(super) async fn delete(store: &VaultStore, spec: &VaultSpec) -> Result<(), Failure> {
    send(store, Method::DELETE, &spec.metadata_path(), &serde_json::Value::Null, "`delete`").await
}

/// Destroys the versions that `keepVersions` does not keep, once what replaced them is as old as the overlap. This is
/// done at each delivery and by the server's own times, so that nothing need be remembered between them.
pub(super) async fn retire(store: &VaultStore, spec: &VaultSpec, context: &Context<'_>) {
    let Some(keep) = spec.keep_versions else { return };
    if let Err(failure) = destroy_old(store, spec, keep, context).await {
        // The token stands there: what is only untidy does not make its delivery fail.
        tracing::warn!(target_name = context.target, place = %spec.path, error = %failure, "old versions stay until the next delivery");
    }
}

async fn destroy_old(store: &VaultStore, spec: &VaultSpec, keep: u32, context: &Context<'_>) -> Result<(), Failure> {
    let Some(Metadata { versions, .. }) = read(store, spec).await? else {
        let path = spec.metadata_path();
        return Err(store.failure(FailureKind::Refused, format_args!("the login's policy needs `read` on `{path}` (HTTP 403)")));
    };
    let live = versions.iter().filter(|(_, version)| !version.destroyed);
    let live: Vec<(i64, u64)> = live.filter_map(|(number, v)| Some((v.created_time.as_second(), number.parse().ok()?))).collect();
    let overlap = i64::try_from(context.manners.overlap.as_secs()).unwrap_or(i64::MAX);
    let old = retirable(&live, usize::try_from(keep).unwrap_or(usize::MAX), overlap);
    if old.is_empty() {
        return Ok(());
    }
    let body = serde_json::json!({ "versions": old });
    send(store, Method::POST, &format!("{}/destroy/{}", spec.mount, spec.path), &body, "`update`").await
}

/// Sends what has no answer worth reading. `right` is what it needs on the path.
pub(super) async fn send(store: &VaultStore, method: Method, path: &str, body: &serde_json::Value, right: &str) -> Result<(), Failure> {
    let doing = format!("cannot {} `{path}`", if method == Method::DELETE { "delete" } else { "write" });
    let answer = ask(store, method, path, body).await?;
    done(store, &answer, &doing, right, path)
}

async fn ask(store: &VaultStore, method: Method, path: &str, body: &serde_json::Value) -> Result<Answer, Failure> {
    let body = if body.is_null() { None } else { Some(Zeroizing::new(body.to_string().into_bytes())) };
    store.ask(&Request { method, path, body }).await
}

fn done(store: &VaultStore, answer: &Answer, doing: &str, right: &str, path: &str) -> Result<(), Failure> {
    match answer.status {
        200 | 204 => Ok(()),
        _ => {
            let right = format!("the login's policy needs {right} on `{path}`");
            Err(refusal::of_answer(answer, doing, &right).into_failure(&store.name))
        }
    }
}

/// The refusal of a secret that somebody else made.
pub(super) fn not_ours(store: &VaultStore, spec: &VaultSpec, context: &Context<'_>) -> Failure {
    let (mount, path) = (&spec.mount, &spec.path);
    let what = format!(
        "`{mount}/{path}` is there and not ours: its metadata lacks {}={} and `{}` holds no token of target {}. Nothing was \
         overwritten: write `adopt: true` beside its `path` to take `{}` over, or name another path",
        manners::MARK.0,
        manners::MARK.1,
        spec.key,
        context.target,
        spec.key
    );
    store.failure(FailureKind::Refused, what)
}
