//! A secret's field is taken back: with the secret where nothing else stands in it.

use reqwest::Method;
use serde_json::{Map, Value};

use super::custom::{self, send};
use super::kv::{self, Engine, Secret};
use super::{VaultSpec, VaultStore};
use crate::sink::manners::{Ours, is_mark};
use crate::sink::{Failure, Removal};

/// Takes it back where it is ours.
///
/// # Errors
/// As for a put.
pub(super) async fn remove(store: &VaultStore, spec: &VaultSpec, ours: Ours<'_>) -> Result<Removal, Failure> {
    let engine = kv::engine_of(store, spec).await?;
    let Secret { mut fields, version, .. } = kv::read(engine, store, spec).await?;
    match fields.remove(&spec.key) {
        None => return Ok(Removal::Nothing),
        Some(Value::String(text)) if ours.is(&text) => {}
        Some(_) => return Ok(Removal::Left),
    }
    match (engine, fields.is_empty()) {
        (Engine::Two, true) => custom::delete(store, spec).await?,
        (Engine::One, true) => send(store, Method::DELETE, &kv::path(engine, spec), &Value::Null, "`delete`").await?,
        (Engine::One, false) => without(engine, store, spec, fields, version).await?,
        (Engine::Two, false) => {
            without(engine, store, spec, fields, version).await?;
            let custom = custom::read(store, spec).await?.and_then(|found| found.custom_metadata).unwrap_or_default();
            if custom.keys().any(|key| is_mark(key)) {
                custom::write(store, spec, &custom.into_iter().filter(|(key, _)| !is_mark(key)).collect()).await?;
            }
        }
    }
    Ok(Removal::Gone)
}

/// Writes the other fields alone, as of the version that was read.
async fn without(engine: Engine, store: &VaultStore, spec: &VaultSpec, fields: Map<String, Value>, version: u64) -> Result<(), Failure> {
    let body = match engine {
        Engine::One => Value::Object(fields),
        Engine::Two => serde_json::json!({"options": {"cas": version}, "data": fields}),
    };
    send(store, Method::POST, &kv::path(engine, spec), &body, "`create` and `update`").await
}
