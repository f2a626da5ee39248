//! A secret, or our field of it, is taken back.

use serde_json::{Map, Value};

use super::client::Client;
use super::refusal::{self, Verdict};
use super::secret::{self, Current};
use super::{AwsSpec, AwsStore, tags};
use crate::sink::Removal;
use crate::sink::manners::Ours;

/// The label that AWS itself gives the version before.
const PREVIOUS: &str = "AWSPREVIOUS";

/// Takes it back where it is ours. A secret that holds nothing else is deleted at once: a token has nothing that is
/// worth a window of recovery, and a name that waits in one cannot be used again.
pub(super) async fn remove(client: &Client, store: &AwsStore, spec: &AwsSpec, ours: Ours<'_>) -> Result<Removal, Verdict> {
    let Current { text, version, binary } = secret::read(client, spec).await?;
    let Some(text) = text else { return Ok(if binary { Removal::Left } else { Removal::Nothing }) };
    let Some(key) = &spec.key else {
        return if ours.is(&text) { delete(client, spec).await } else { Ok(Removal::Left) };
    };
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(&text) else { return Ok(Removal::Left) };
    match fields.remove(key) {
        None => return Ok(Removal::Nothing),
        Some(Value::String(held)) if ours.is(&held) => {}
        Some(_) => return Ok(Removal::Left),
    }
    if fields.is_empty() {
        return delete(client, spec).await;
    }
    let rest = zeroize::Zeroizing::new(Value::Object(fields).to_string());
    let token = secret::request_token(&spec.secret_id, "gone", &rest, &version);
    secret::write(client, store, spec, &rest, &token, None).await?;
    if let Some(found) = tags::describe(client, spec).await? {
        if let Some(version) = found.version_at(PREVIOUS) {
            tags::remove_stage(client, spec, PREVIOUS, version).await?;
        }
        tags::erase(client, spec, &found).await?;
    }
    Ok(Removal::Gone)
}

async fn delete(client: &Client, spec: &AwsSpec) -> Result<Removal, Verdict> {
    let deleted = client.delete_secret().secret_id(&spec.secret_id).force_delete_without_recovery(true).send().await;
    let doing = || format!("cannot delete `{}`", spec.secret_id);
    deleted.map(|_| Removal::Gone).map_err(|error| refusal::of(&error, &doing(), "secretsmanager:DeleteSecret"))
}
