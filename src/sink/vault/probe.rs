//! Whether a token could be written here: mount, login, owner and rights are asked, nothing is written.

use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::Request;
use super::kv::{self, Engine};
use super::{VaultSpec, VaultStore, refusal};
use crate::sink::{Context, Failure, FailureKind};

/// Asks a login what it may.
const ASKED: &str = "sys/capabilities-self";

/// Tries everything of a put but the writing.
///
/// # Errors
/// As for a put.
pub(super) async fn probe(store: &VaultStore, spec: &VaultSpec, context: &Context<'_>) -> Result<String, Failure> {
    let engine = kv::engine_of(store, spec).await?;
    let mut secret = kv::read(engine, store, spec).await?;
    if engine == Engine::Two {
        kv::marked(store, spec, &mut secret, context).await?;
    }
    let path = kv::path(engine, spec);
    let Some(found) = capabilities(store, &path).await? else {
        return Ok(format!("`{path}` can be read; whether it may be written this login may not ask ({ASKED})"));
    };
    let may = |what: &str| found.iter().any(|has| has == what || has == "root");
    let missing: Vec<&str> = ["create", "update"].into_iter().filter(|what| !may(what)).collect();
    if missing.is_empty() {
        return Ok(format!("`{path}` can be read and may be written ({ASKED})"));
    }
    let what = format!("the login's policy lacks `{}` on `{path}`: tokenferry rbac --for vault prints what it needs", missing.join("`, `"));
    Err(store.failure(FailureKind::Refused, what))
}

/// What our login may do at a path; `None` where it may not ask.
async fn capabilities(store: &VaultStore, path: &str) -> Result<Option<Vec<String>>, Failure> {
    let body = Zeroizing::new(json!({ "paths": [path] }).to_string().into_bytes());
    let answer = store.ask(&Request { method: Method::POST, path: ASKED, body: Some(body) }).await?;
    match answer.status {
        200 => {}
        403 | 404 => return Ok(None),
        _ => {
            return Err(refusal::of_answer(&answer, &format!("cannot ask `{ASKED}`"), "the policy `default` lets a login ask")
                .into_failure(&store.name));
        }
    }
    let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let listed = value["data"][path].as_array().or_else(|| value[path].as_array());
    let Some(listed) = listed else {
        return Err(store.failure(FailureKind::BadAnswer, format_args!("`{ASKED}` was not answered as Vault answers")));
    };
    Ok(Some(listed.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()))
}
