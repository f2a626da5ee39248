//! Markers: an empty Secret of ours, to which the tokens of one generation are bound. Once it is gone the API server
//! refuses them (it caches what it accepted for 10 s); who checks nothing but a signature does not notice.
//!
//! A target has a fixed ring of names, so that `resourceNames` hold. A name that is used again is a new object: tokens
//! are bound to its UID. A Secret that does not carry our mark is somebody else's, and is never touched.

mod once;
mod refused;

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::object::{MARK, NEVER, applied};
use super::rights::Right;
use super::{Call, Cluster, MintFailure, Refusal, Trouble, Urgency, Verdict};

use refused::{failure, full};

/// Names of one target's ring.
pub const RING: usize = 4;
/// The annotation that says what a Secret of ours is a marker for.
const FOR: &str = "tokenferry/marker-of";
/// The annotation that says which daemon made it: two hosts may serve targets of one name.
const OWNER: &str = "tokenferry/owner";
/// The annotation that numbers the generation for which it was made.
const GENERATION: &str = "tokenferry/generation";
/// Longest that one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// A marker made that many seconds before a token that was minted later is not that token's.
const BEFORE: i64 = 60;

/// One marker: that very object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its namespace, that of the account.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// The names of a target's markers.
pub fn ring(target: &str) -> [String; RING] {
    std::array::from_fn(|n| format!("tokenferry.{target}.{n}"))
}

/// What the daemon's account needs for a target's markers. An apply has the name in its URL, so `create` can be
/// limited by name too.
pub fn rights(namespace: &str, target: &str) -> Vec<Right> {
    let verbs = ["get", "create", "patch", "delete"];
    ring(target).iter().map(|name| Right::named(namespace, "", "secrets", name, &verbs)).collect()
}

/// What a marker is made for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// Namespace of the account.
    pub namespace: &'a str,
    /// Name of the target.
    pub target: &'a str,
    /// Names this daemon among others.
    pub owner: &'a str,
    /// The number of the token to be.
    pub generation: u64,
}

/// What is known of a target's ring before a marker is taken from it.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Names that are in use as far as is known.
    pub taken: Vec<String>,
    /// One that was made for a token which nobody got.
    pub unused: Option<Marker>,
    /// One to be shared where no name is free: that of the token in use.
    pub shared: Option<Marker>,
    /// Whether markers that nobody knows of may be shared too; never while some are being deleted.
    pub strangers: bool,
}

#[derive(Deserialize)]
struct Secret {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
}

impl Metadata {
    fn is_marker_of(&self, purpose: &Purpose<'_>) -> bool {
        let says = |key: &str, value: &str| self.annotations.get(key).is_some_and(|found| found == value);
        self.labels.get(MARK.0).is_some_and(|value| value == MARK.1) && says(FOR, purpose.target) && says(OWNER, purpose.owner)
    }

    fn generation(&self) -> Option<u64> {
        self.annotations.get(GENERATION)?.parse().ok()
    }
}

fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

fn marker(purpose: &Purpose<'_>, name: &str, uid: &str) -> Marker {
    Marker { namespace: purpose.namespace.into(), name: name.into(), uid: uid.into() }
}

impl Cluster {
    /// A marker for the next token of a target, in a turn of its own: one that no token of an older generation is
    /// bound to, or, where no name of the ring is free, that of the token in use.
    ///
    /// # Errors
    /// [`MintFailure`], classified: without its marker no token of the target is minted.
    pub async fn mark(&self, purpose: &Purpose<'_>, ring: &Ring, urgency: Urgency) -> Result<Marker, MintFailure> {
        let turn = self.turn(urgency).await;
        let result = self.choose(purpose, ring).await;
        turn.end(match &result {
            Ok(_) => Verdict::Healthy,
            Err(failure) => failure.verdict(),
        });
        result
    }

    async fn choose(&self, purpose: &Purpose<'_>, known: &Ring) -> Result<Marker, MintFailure> {
        let failed = |refusal: &Refusal| failure(purpose, refusal);
        if let Some(again) = &known.unused
            && self.stands(purpose, again).await.map_err(|e| failed(&e))?
        {
            return Ok(again.clone());
        }
        let (mut foreign, mut strangers) = (Vec::new(), Vec::new());
        let names = ring(purpose.target);
        let first = usize::try_from(purpose.generation % RING as u64).unwrap_or(0);
        for name in names.iter().cycle().skip(first).take(RING).filter(|name| !known.taken.contains(name)) {
            if let Some(made) = self.make(purpose, name).await.map_err(|e| failed(&e))? {
                return Ok(made);
            }
            let found = self.secret(purpose.namespace, name).await.map_err(|e| failed(&e))?;
            match found.map(|secret| secret.metadata) {
                Some(found) if found.is_marker_of(purpose) => {
                    let stranger = marker(purpose, name, &found.uid);
                    let lives = found.deletion_timestamp.is_none();
                    // Made for this very token by a run that was killed before it could record it.
                    if lives && known.strangers && found.generation() == Some(purpose.generation) {
                        return Ok(stranger);
                    }
                    strangers.extend(lives.then_some((found.generation(), stranger)));
                }
                Some(_) => {
                    tracing::warn!(
                        target_name = purpose.target,
                        "Secret {}/{name} is not ours and stands where a marker would; it is left alone",
                        purpose.namespace
                    );
                    foreign.push(name.as_str());
                }
                None => {}
            }
        }
        if let Some(shared) = &known.shared
            && self.stands(purpose, shared).await.map_err(|e| failed(&e))?
        {
            return Ok(shared.clone());
        }
        let newest = strangers.into_iter().filter(|_| known.strangers).max_by_key(|(generation, _)| *generation);
        newest.map(|(_, stranger)| stranger).ok_or_else(|| full(purpose, &foreign))
    }

    /// Makes a marker of that name; `None` where a Secret of that name stands already.
    async fn make(&self, purpose: &Purpose<'_>, name: &str) -> Result<Option<Marker>, Refusal> {
        let body = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": name, "namespace": purpose.namespace, "resourceVersion": NEVER,
                "labels": {MARK.0: MARK.1},
                "annotations": {FOR: purpose.target, OWNER: purpose.owner, GENERATION: purpose.generation.to_string()},
            },
        });
        let (path, body) = (applied(&path(purpose.namespace, name), false), body.to_string());
        match self.call(Call::apply(&path, body.as_bytes(), CALL_WITHIN)).await {
            Ok(answer) => read(&answer).map(|secret| Some(marker(purpose, name, &secret.metadata.uid))),
            Err(refusal) if matches!(refusal.trouble, Trouble::Conflict | Trouble::Owned) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, Refusal> {
        match self.call(Call::get(&path(namespace, name), CALL_WITHIN)).await {
            Ok(answer) => read(&answer).map(Some),
            Err(refusal) if refusal.trouble == Trouble::NotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn stands(&self, purpose: &Purpose<'_>, marker: &Marker) -> Result<bool, Refusal> {
        if marker.namespace != purpose.namespace {
            return Ok(false);
        }
        let found = self.secret(&marker.namespace, &marker.name).await?;
        Ok(found.is_some_and(|s| s.metadata.uid == marker.uid && s.metadata.deletion_timestamp.is_none()))
    }

    /// Deletes a marker, in a turn of its own: that object and no other. One that is gone counts as deleted.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn unmark(&self, marker: &Marker, urgency: Urgency) -> Result<(), Refusal> {
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": marker.uid}}).to_string();
        let path = path(&marker.namespace, &marker.name);
        let turn = self.turn(urgency).await;
        let answer = self.call(Call::delete(&path, body.as_bytes(), CALL_WITHIN)).await;
        turn.end(answer.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
        match answer {
            Ok(_) => Ok(()),
            // Gone, or another object of that name: the tokens that were bound to this one are dead.
            Err(refusal) if matches!(refusal.trouble, Trouble::NotFound | Trouble::Conflict) => Ok(()),
            Err(refusal) if refusal.trouble == Trouble::Forbidden => Err(Refusal {
                message: format!(
                    "we may not delete Secret {}/{}: grant `delete` on `secrets` with its name ({})",
                    marker.namespace, marker.name, refusal.message
                ),
                ..refusal
            }),
            Err(refusal) => Err(refusal),
        }
    }

    /// Markers of a target that no record knows, and to which no token in use can be bound: made for the generation of
    /// `purpose` or an older one, or well before the token in use was issued (by the API server's own clock).
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn strays(&self, purpose: &Purpose<'_>, known: &[Marker], issued_at: i64) -> Result<Vec<Marker>, Refusal> {
        let mut strays = Vec::new();
        for name in ring(purpose.target) {
            let turn = self.turn(Urgency { deadline: i64::MAX, retry: false }).await;
            let answer = self.secret(purpose.namespace, &name).await;
            turn.end(answer.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
            let Some(Secret { metadata }) = answer? else { continue };
            let is_known = known.iter().any(|marker| marker.uid == metadata.uid);
            let older = metadata.generation().is_some_and(|generation| generation <= purpose.generation)
                || metadata.creation_timestamp.is_some_and(|made| made.as_second() + BEFORE < issued_at);
            if metadata.is_marker_of(purpose) && !is_known && older && metadata.deletion_timestamp.is_none() {
                strays.push(marker(purpose, &name, &metadata.uid));
            }
        }
        Ok(strays)
    }
}

fn read(answer: &[u8]) -> Result<Secret, Refusal> {
    let secret = serde_json::from_slice::<Secret>(answer).ok().filter(|secret| !secret.metadata.uid.is_empty());
    secret.ok_or_else(|| Refusal {
        trouble: Trouble::BadAnswer,
        message: "the answer is no Secret".into(),
        retry_after: None,
        subject: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rings_of_two_targets_share_no_name_even_where_their_names_look_alike() {
        let names: Vec<String> = ["a", "a.0", "a.0.0", "exec"].iter().flat_map(|target| ring(target)).collect();
        let distinct: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert_eq!(names[..2], ["tokenferry.a.0", "tokenferry.a.1"]);
    }

    #[test]
    fn a_secret_of_another_daemon_or_another_target_or_a_delivered_one_is_no_marker_of_ours() {
        let purpose = Purpose { namespace: "ci", target: "t", owner: "me", generation: 3 };
        let metadata = |labels: serde_json::Value, annotations: serde_json::Value| -> Metadata {
            serde_json::from_value(json!({"uid": "u", "labels": labels, "annotations": annotations})).unwrap()
        };
        let marked = || json!({MARK.0: MARK.1});
        assert!(metadata(marked(), json!({FOR: "t", OWNER: "me"})).is_marker_of(&purpose));
        for (labels, annotations) in [
            (json!({}), json!({FOR: "t", OWNER: "me"})),
            (marked(), json!({FOR: "t", OWNER: "you"})),
            (marked(), json!({FOR: "u", OWNER: "me"})),
            (marked(), json!({"tokenferry/target": "t"})),
        ] {
            assert!(!metadata(labels, annotations).is_marker_of(&purpose));
        }
    }
}
