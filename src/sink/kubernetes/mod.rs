//! `kubernetesSecret`: a key of a Secret, in the token's own cluster or another one, by server-side apply.
//!
//! Only a Secret that carries our mark, or none at all, is written; one is taken over only where the schedule says
//! `adopt: true`, and never is it absent for a moment. What others add beside our fields stays as it is.
//!
//! Rights: `get`, `create` and `patch` on `secrets`, all three with `resourceNames: [NAME]`. `create` can be limited
//! by name here because an apply has the name in its URL, which a POST has not. `delete` comes on top where the Secret
//! goes with its target (`whenRemoved: delete`, `withdraw`).

mod gone;
mod refused;
mod secret;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::object::{NEVER, applied};
use crate::cluster::rights::Right;
use crate::cluster::{Call, Cluster, Trouble, Urgency};
use crate::sink::kinds::{Sink, calls};
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores};
use crate::token::Payload;
use crate::token::payload::Part;

use refused::failure;
pub(super) use refused::kind;
use secret::{Found, Shape};

/// `kubernetesSecret: {cluster, namespace, name, key, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "KubernetesSecret")]
pub struct SecretSpec {
    /// Name of the cluster; the target's own where the schedule leaves it out.
    #[serde(default)]
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The key of its data that holds the payload.
    #[serde(default = "key")]
    pub key: String,
    /// Whether a Secret that is not ours may be taken over.
    #[serde(default)]
    pub adopt: bool,
}

fn key() -> String {
    "token".into()
}

/// All values of a Secret together (`MaxSecretSize` of its validation).
const LARGEST: usize = 1 << 20;

impl SecretSpec {
    /// What our account has to be allowed to do in the Secret's cluster. `leaves`: whether it is deleted when its
    /// target goes.
    pub fn right(&self, leaves: bool) -> Right {
        let verbs: &[&str] = if leaves { &["get", "create", "patch", "delete"] } else { &["get", "create", "patch"] };
        Right::named(&self.namespace, "", "secrets", &self.name, verbs)
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name)
    }

    fn refuse(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        Failure::new(kind, format!("Secret {}/{} of cluster {}: {what}", self.namespace, self.name, self.cluster))
    }
}

/// Makes one attempt to put our fields into the Secret, as of the state that was read before.
///
/// # Errors
/// [`Failure`]: `Unavailable`, `Throttled`, `Conflict` (somebody wrote meanwhile: read again), `TooLarge`, `Refused`
/// (it is not ours, somebody else owns our key, a right or the namespace is missing, it is immutable or of another
/// type), `BadAnswer`.
pub(super) async fn put(spec: &SecretSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<Put, Failure> {
    let cluster = of(spec, stores)?;
    let shape = Shape::new(spec, payload);
    if shape.size() > LARGEST {
        return Err(spec.refuse(FailureKind::TooLarge, format!("{} bytes are more than the 1 MiB that a Secret holds", shape.size())));
    }
    let attempt = async {
        let found = read(cluster, spec, context.timeout).await?;
        let marks = secret::marks(&context, &shape);
        if let Some(found) = &found {
            found.writable(spec, &shape)?;
            if found.has(&shape, &marks) {
                return Ok(Put::Unchanged);
            }
            if let Some(why) = found.texts(spec).iter().find_map(|held| context.superseded(held)) {
                return Err(spec.refuse(FailureKind::Superseded, why));
            }
        }
        let version = found.as_ref().map_or(NEVER, Found::version);
        let body = secret::body(spec, &shape, &marks, version);
        // A person told us to take over what others own; what is ours already is never taken by force.
        let force = spec.adopt && found.as_ref().is_some_and(|found| !found.is_marked());
        let path = applied(&spec.path(), force);
        cluster.call(Call::apply(&path, &body, context.timeout)).await.map_err(|refusal| failure(spec, &refusal, "patch"))?;
        Ok(Put::Written)
    };
    match tokio::time::timeout(context.timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(spec.refuse(FailureKind::Unavailable, format!("no answer within {} s", context.timeout.as_secs_f32()))),
    }
}

/// Has the API server judge an apply without keeping it (`dryRun=All`): rights, namespace, admission and the owners of
/// fields. No token is sent: each value is an empty JSON object, which Secrets of every type that we write take.
///
/// # Errors
/// [`Failure`], as for a put.
pub(super) async fn probe(spec: &SecretSpec, payload: &Payload, context: Context<'_>, stores: &Stores) -> Result<String, Failure> {
    let cluster = of(spec, stores)?;
    let empty = payload.parts().iter().map(|part| Part::new(part.name.clone(), b"{}".to_vec())).collect();
    let empty = Payload::of(empty, payload.dress());
    let shape = Shape::new(spec, &empty);
    let attempt = async {
        let found = read(cluster, spec, context.timeout).await?;
        if let Some(found) = &found {
            found.writable(spec, &Shape::new(spec, payload))?;
        }
        let version = found.as_ref().map_or(NEVER, Found::version);
        let body = secret::body(spec, &shape, &secret::marks(&context, &shape), version);
        let force = spec.adopt && found.as_ref().is_some_and(|found| !found.is_marked());
        let path = format!("{}&dryRun=All", applied(&spec.path(), force));
        cluster.call(Call::apply(&path, &body, context.timeout)).await.map_err(|refusal| failure(spec, &refusal, "patch"))?;
        Ok("the API server takes an apply (dryRun=All)".to_owned())
    };
    match tokio::time::timeout(context.timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err(spec.refuse(FailureKind::Unavailable, format!("no answer within {} s", context.timeout.as_secs_f32()))),
    }
}

/// What our key holds now; `None` where there is no such Secret or key. It waits for its turn at the API server, for as
/// long as others are served there, and then so long for the answer.
///
/// # Errors
/// [`Failure`], as for a put; a Secret that is not ours is `Refused`.
pub async fn held(spec: &SecretSpec, stores: &Stores, timeout: Duration) -> Result<Option<Payload>, Failure> {
    let cluster = of(spec, stores)?;
    let late = || spec.refuse(FailureKind::Unavailable, format!("no answer within {} s", timeout.as_secs_f32()));
    let nobody = || spec.refuse(FailureKind::Unavailable, format!("its API server answered nobody within {} s", timeout.as_secs_f32()));
    // Reading back can wait for what is more urgent.
    let permit = cluster.upstream().turn(Urgency { deadline: i64::MAX, retry: false }, timeout).await.ok_or_else(nobody)?;
    let read = async {
        let found = cluster.call(Call::get(&spec.path(), timeout)).await;
        permit.end(found.as_ref().map_or_else(|refusal| refusal.verdict(), |_| crate::cluster::Verdict::Healthy));
        understood(spec, found)
    };
    // Boxed: thousands wait for their turn at once, and only the few whose turn it is are as large as a request.
    let found = tokio::time::timeout(timeout, Box::pin(read)).await.map_err(|_| late())??;
    match found {
        None => Ok(None),
        Some(found) => found.value(spec),
    }
}

/// Takes our keys back where they are ours, with the Secret where nothing else stands in it.
///
/// # Errors
/// [`Failure`], as for a put.
pub(super) async fn remove(spec: &SecretSpec, ours: Ours<'_>, stores: &Stores, timeout: Duration) -> Result<Removal, Failure> {
    let cluster = of(spec, stores)?;
    match tokio::time::timeout(timeout, gone::remove(cluster, spec, ours, timeout)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(spec.refuse(FailureKind::Unavailable, format!("no answer within {} s", timeout.as_secs_f32()))),
    }
}

impl Sink for SecretSpec {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.name)
    }

    fn cluster(&self) -> Option<&str> {
        Some(&self.cluster)
    }

    calls!(self);
}

fn of<'a>(spec: &SecretSpec, stores: &'a Stores) -> Result<&'a Cluster, Failure> {
    let unknown = || spec.refuse(FailureKind::Refused, "the schedule has no cluster of that name");
    stores.cluster(&spec.cluster).map(AsRef::as_ref).ok_or_else(unknown)
}

async fn read(cluster: &Cluster, spec: &SecretSpec, timeout: Duration) -> Result<Option<Found>, Failure> {
    understood(spec, cluster.call(Call::get(&spec.path(), timeout)).await)
}

type Answer = Result<zeroize::Zeroizing<Vec<u8>>, crate::cluster::Refusal>;

fn understood(spec: &SecretSpec, answer: Answer) -> Result<Option<Found>, Failure> {
    match answer {
        Ok(body) => Found::read(&body).map(Some).ok_or_else(|| spec.refuse(FailureKind::BadAnswer, "the answer is no Secret")),
        // A missing namespace is found out by the apply, which says so; reads do not tell the two apart.
        Err(refusal) if refusal.trouble == Trouble::NotFound => Ok(None),
        Err(refusal) => Err(failure(spec, &refusal, "get")),
    }
}
