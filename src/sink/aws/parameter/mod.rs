//! `awsParameterStore`: a SecureString in AWS Systems Manager Parameter Store.
//!
//! Parameter Store keeps a hundred versions of a parameter by itself and lets nobody delete one of them, so there is no
//! `keepVersions`: tokens of the past stay in the history until a hundred newer ones have come, and end by themselves.
//! It has neither check-and-set nor a name for a request. So what stands there is read first, and an older token never
//! goes over a newer one; the number of the version that a write became tells whether somebody else wrote in between,
//! and a newer token of his is put back; what is written is read back. A request that was given up may still be carried
//! out by AWS; the next delivery or proof puts that right.

mod kind;
mod signed;
mod value;
mod words;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Mutex;

use super::refusal::Verdict;
use super::{AwsStoreSpec, client};
use crate::cluster::Upstream;
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores, anew, manners};
use crate::token::Payload;
pub use kind::ParameterStoreSpec;
use signed::Wire;
use value::{not_ours, read, said, set};

/// `awsParameterStore: {store, name, tier, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "AwsParameterStore")]
pub struct ParameterSpec {
    /// Name of the store.
    pub store: String,
    /// Name of the parameter; with its path, from the first slash on, where it has one.
    pub name: String,
    /// Which tier it is made in; AWS asks money for `advanced`, and never takes it back.
    #[serde(default)]
    pub tier: Tier,
    /// Whether a parameter that is not ours may be taken over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// `tier`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "ParameterTier")]
pub enum Tier {
    /// Up to 4,096 bytes.
    #[default]
    Standard,
    /// Up to 8,192 bytes.
    Advanced,
}

impl Tier {
    /// Bytes that a value may have.
    fn largest(self) -> usize {
        match self {
            Self::Standard => 4_096,
            Self::Advanced => 8_192,
        }
    }

    /// As AWS names it.
    fn name(self) -> &'static str {
        match self {
            Self::Standard => "Standard",
            Self::Advanced => "Advanced",
        }
    }
}

/// One AWS account and region with our credentials. Its client is shared by all places.
pub struct ParameterStore {
    name: String,
    upstream: Arc<Upstream>,
    spec: AwsStoreSpec,
    wire: Mutex<Option<Arc<Wire>>>,
}

impl ParameterStore {
    /// Nothing is opened before the first put.
    pub fn new(name: &str, spec: AwsStoreSpec, upstream: Arc<Upstream>) -> Self {
        Self { name: name.into(), upstream, spec, wire: Mutex::default() }
    }

    async fn wire(&self) -> Result<Arc<Wire>, Failure> {
        let mut kept = self.wire.lock().await;
        if let Some(wire) = kept.as_ref() {
            return Ok(Arc::clone(wire));
        }
        let (config, source) = client::login(&self.name, &self.spec).await?;
        let made = Wire::new(config, source, self.spec.endpoint.as_deref());
        let made = made.map_err(|failure| Failure { message: format!("AWS store `{}`: {}", self.name, failure.message), ..failure })?;
        Ok(Arc::clone(kept.insert(Arc::new(made))))
    }

    /// Does it, and once more with credentials found anew where the first ones were refused; within that time.
    async fn attempt<T, F>(&self, limit: Duration, attempt: impl Fn(Arc<Wire>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Verdict>>,
    {
        let whole = async {
            let outcome = anew::attempt(&self.wire, || self.wire(), attempt, |verdict: &Verdict| verdict.credentials).await?;
            outcome.map_err(|verdict| verdict.told(&self.name, &self.upstream))
        };
        anew::quietly(limit, whole, |kind, why| Failure::new(kind, format!("AWS store `{}`: {why}", self.name))).await
    }
}

/// Makes one attempt to set the parameter. One that is missing is made.
///
/// # Errors
/// [`Failure`]: `Unavailable` (not reachable, 5xx, no answer in time), `Throttled`, `Refused` (credentials, rights, the
/// parameter's type or owner), `Conflict` (somebody else wrote meanwhile), `BadAnswer`, `TooLarge`.
async fn put(spec: &ParameterSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    let store = of(spec, stores)?;
    let refuse = |kind, what: String| Err(Failure::new(kind, format!("AWS store `{}`: {what}", store.name)));
    let Ok(text) = std::str::from_utf8(payload.expose()) else {
        return refuse(FailureKind::Refused, format!("`{}` takes text and the payload is not UTF-8: choose another `format`", spec.name));
    };
    if text.is_empty() {
        return refuse(FailureKind::Refused, format!("`{}` cannot be empty, and the payload is", spec.name));
    }
    let largest = spec.tier.largest();
    if text.len() > largest {
        let way = if spec.tier == Tier::Standard { ": `tier: advanced` holds 8192" } else { "" };
        let what =
            format!("`{}` would have {} bytes, and this tier of AWS Parameter Store holds {largest} at most{way}", spec.name, text.len());
        return refuse(FailureKind::TooLarge, what);
    }
    let key = store.spec.kms_key_id.as_deref();
    store.attempt(context.timeout, |wire| async move { set(&wire, spec, text, key, &context).await }).await
}

/// Tries what a put reads before it writes, and says what was found.
async fn probe(spec: &ParameterSpec, _: &Payload, context: Context<'_>, stores: &Stores) -> Result<String, Failure> {
    let look = |wire: Arc<Wire>| async move {
        let there = match read(&wire, spec).await? {
            None => "is not there yet",
            Some(current) => {
                let free = manners::marked(&said(&wire, spec).await?) || spec.adopt || context.manners.ours.is(&current.text);
                if !free {
                    return Err(not_ours(spec, &context));
                }
                "is there and ours"
            }
        };
        Ok(format!("`{}` {there}; whether it may be written AWS does not say before", spec.name))
    };
    of(spec, stores)?.attempt(context.timeout, look).await
}

/// What the place holds now, `None` where there is no such parameter.
///
/// # Errors
/// [`Failure`], as for a put.
pub async fn held(spec: &ParameterSpec, stores: &Stores, timeout: Duration) -> Result<Option<Payload>, Failure> {
    let look = |wire: Arc<Wire>| async move { read(&wire, spec).await };
    let found = of(spec, stores)?.attempt(timeout, look).await?;
    Ok(found.map(|current| Payload::new(current.text.as_bytes().to_vec())))
}

/// Deletes the parameter where it is ours: AWS does so at once, history and all.
async fn remove(spec: &ParameterSpec, ours: Ours<'_>, stores: &Stores, timeout: Duration) -> Result<Removal, Failure> {
    let take = |wire: Arc<Wire>| async move {
        match read(&wire, spec).await? {
            None => return Ok(Removal::Nothing),
            Some(current) if ours.is(&current.text) => {}
            Some(_) => return Ok(Removal::Left),
        }
        let doing = format!("cannot delete `{}`", spec.name);
        match wire.call("DeleteParameter", &json!({"Name": spec.name}), &doing, "ssm:DeleteParameter").await {
            Ok(_) => Ok(Removal::Gone),
            Err(refused) if refused.code == "ParameterNotFound" => Ok(Removal::Gone),
            Err(refused) => Err(refused.verdict),
        }
    };
    of(spec, stores)?.attempt(timeout, take).await
}

fn of<'a>(spec: &ParameterSpec, stores: &'a Stores) -> Result<&'a ParameterStore, Failure> {
    let unknown = || Failure::new(FailureKind::Refused, format!("the schedule has no AWS store `{}`", spec.store));
    stores.live(&spec.store).ok_or_else(unknown)
}
