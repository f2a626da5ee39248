//! Legacy tokens as the API server keeps them: Secrets of the type `kubernetes.io/service-account-token`, marked invalid
//! and good again by a label (Kubernetes 1.28 and later heed it), deleted, and made again with their data.
//!
//! Rights of the person: `list` on secrets, pods, serviceaccounts and workloads to find them; `get`, `patch` on secrets
//! to disable; `get`, `delete` to delete; `create`, `get`, `patch` on secrets and `get` on serviceaccounts to restore.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::object::Object;
use super::pages::Listing;
use super::{Call, Cluster, Refusal, Trouble};
use crate::token::Token;

/// The type of a Secret that holds a legacy token.
pub const TYPE: &str = "kubernetes.io/service-account-token";
/// The day of a token's last use, UTC, written by the API server at most once a day; also where it refuses the token
/// for the next label.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// With this label, a day, the API server refuses the token.
pub const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// The annotation that names the account.
pub const ACCOUNT: &str = "kubernetes.io/service-account.name";
/// The annotation that names that very account.
pub const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Our annotation: when we disabled it.
pub const DISABLED_AT: &str = "tokenferry/legacy-disabled-at";
/// Our annotation: its last use before that. The label itself is taken off then: where it is back, somebody used the
/// token after it was disabled.
pub const USED_BEFORE: &str = "tokenferry/legacy-last-used-before";
/// Legacy tokens without their data: nothing of a token comes over the wire.
pub const TOKENS: Listing =
    Listing { only: "type%3Dkubernetes.io%2Fservice-account-token", metadata: true, ..Listing::of("/api/v1", "secrets") };
/// Every other Secret with its data, but the packed releases of Helm.
pub const OTHER_SECRETS: Listing = Listing {
    only: "type%21%3Dkubernetes.io%2Fservice-account-token%2Ctype%21%3Dhelm.sh%2Frelease.v1",
    ..Listing::of("/api/v1", "secrets")
};

const WITHIN: Duration = Duration::from_secs(15);

/// A Secret as it stands, with its data: it has neither `Debug` nor `Display`.
pub struct Held(Value);

/// An account, as far as a token's fate hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// That very account.
    pub uid: String,
    /// The Secrets that it lists as its own.
    pub secrets: Vec<String>,
}

impl Held {
    /// A Secret that a backup holds.
    pub fn from_backup(value: Value) -> Self {
        Self(value)
    }

    /// For a backup.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.0["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Whether it is of the type that the API server itself keeps a token in.
    pub fn is_token(&self) -> bool {
        self.0["type"] == TYPE
    }

    /// One of its labels.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.0["metadata"]["labels"][name].as_str()
    }

    /// One of its annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.0["metadata"]["annotations"][name].as_str()
    }

    /// The token in it, where the token controller has filled it.
    pub fn token(&self) -> Option<Token> {
        let bytes = Zeroizing::new(STANDARD.decode(self.0["data"]["token"].as_str()?).ok()?);
        std::str::from_utf8(&bytes).ok().map(|text| Token::new(text.to_owned()))
    }

    fn path(&self) -> String {
        path(self.namespace(), self.name())
    }

    /// The object as it is made again: good or disabled, without what the API server adds, and without owners, for an
    /// object whose owner is gone is deleted at once.
    fn anew(&self, disabled: bool) -> Value {
        let mut body = self.0.clone();
        if let Some(metadata) = body["metadata"].as_object_mut() {
            metadata.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "labels" | "annotations"));
        }
        let mut drop = |group: &str, name: &str| {
            if let Some(map) = body["metadata"][group].as_object_mut() {
                map.remove(name);
            }
        };
        drop("labels", LAST_USED);
        if !disabled {
            drop("labels", INVALID_SINCE);
            drop("annotations", DISABLED_AT);
            drop("annotations", USED_BEFORE);
        }
        body
    }
}

/// What marks a token invalid as of now, and makes a later use show.
fn disabling(held: &Held, now: Timestamp) -> Value {
    let day = now.strftime("%Y-%m-%d").to_string();
    json!({
        "labels": {INVALID_SINCE: day, LAST_USED: null},
        "annotations": {DISABLED_AT: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), USED_BEFORE: held.label(LAST_USED)},
    })
}

/// What takes that back. The day of the last use is the newest that is known.
fn enabling(held: &Held) -> Value {
    let used = held.label(LAST_USED).or(held.annotation(USED_BEFORE)).filter(|day| !day.is_empty());
    json!({"labels": {INVALID_SINCE: null, LAST_USED: used}, "annotations": {DISABLED_AT: null, USED_BEFORE: null}})
}

fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

impl Cluster {
    /// The Secret as it stands, where it does.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn held(&self, namespace: &str, name: &str) -> Result<Option<Held>, Refusal> {
        match self.asked(Call::get(&path(namespace, name), WITHIN)).await {
            Ok(found) => Ok(Some(Held(found))),
            Err(refusal) if refusal.trouble == Trouble::NotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Marks the token invalid: the API server refuses it once what it has accepted leaves its cache, within 10 s.
    ///
    /// # Errors
    /// [`Refusal`]; `Conflict` where it was changed, or used for the first time today, since it was read.
    pub async fn disable(&self, held: &Held, now: Timestamp) -> Result<(), Refusal> {
        self.marked_as(held, disabling(held, now)).await
    }

    /// Takes the mark off: the token is accepted again at once.
    ///
    /// # Errors
    /// [`Refusal`], as for [`disable`](Self::disable).
    pub async fn enable(&self, held: &Held) -> Result<(), Refusal> {
        self.marked_as(held, enabling(held)).await
    }

    /// Sets the day of the last use to what it was before we tried the token ourselves.
    ///
    /// # Errors
    /// [`Refusal`], as for [`disable`](Self::disable).
    pub async fn forget_our_use(&self, held: &Held, before: Option<&str>) -> Result<(), Refusal> {
        self.marked_as(held, json!({"labels": {LAST_USED: before}})).await
    }

    async fn marked_as(&self, held: &Held, mut metadata: Value) -> Result<(), Refusal> {
        metadata["uid"] = held.0["metadata"]["uid"].clone();
        metadata["resourceVersion"] = held.0["metadata"]["resourceVersion"].clone();
        let body = json!({"metadata": metadata}).to_string();
        let path = held.path();
        self.asked(Call::patch(&path, "application/merge-patch+json", body.as_bytes(), WITHIN)).await.map(|_| ())
    }

    /// Deletes exactly the Secret that was read: not one that was used, changed or made anew since.
    ///
    /// # Errors
    /// [`Refusal`]; `Conflict` where it is another one by now.
    pub async fn end(&self, held: &Held) -> Result<(), Refusal> {
        let metadata = &held.0["metadata"];
        let body = json!({"preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}}).to_string();
        let path = held.path();
        self.asked(Call::delete(&path, body.as_bytes(), WITHIN)).await.map(|_| ())
    }

    /// Makes a Secret of a backup again, with its token.
    ///
    /// # Errors
    /// [`Refusal`]; `Conflict` where one of that name is there.
    pub async fn make_again(&self, held: &Held, disabled: bool) -> Result<(), Refusal> {
        let body = Zeroizing::new(held.anew(disabled).to_string());
        let path = format!("/api/v1/namespaces/{}/secrets", held.namespace());
        self.asked(Call::post(&path, body.as_bytes(), WITHIN)).await.map(|_| ())
    }

    /// An account, where it is there.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn account(&self, namespace: &str, name: &str) -> Result<Option<Account>, Refusal> {
        let path = Object::account(namespace, name).path();
        let found = match self.asked(Call::get(&path, WITHIN)).await {
            Ok(found) => found,
            Err(refusal) if refusal.trouble == Trouble::NotFound => return Ok(None),
            Err(refusal) => return Err(refusal),
        };
        let secrets = found["secrets"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str());
        let secrets = secrets.map(str::to_owned).collect();
        Ok(Some(Account { uid: found["metadata"]["uid"].as_str().unwrap_or_default().to_owned(), secrets }))
    }

    /// The day since which this cluster notes the use of legacy tokens; earlier uses left no label.
    ///
    /// # Errors
    /// [`Refusal`]; `NotFound` where it notes none.
    pub async fn tracked_since(&self) -> Result<String, Refusal> {
        let path = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
        let found = self.asked(Call::get(path, WITHIN)).await?;
        Ok(found["data"]["since"].as_str().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(labels: Value, annotations: Value) -> Held {
        Held(json!({
            "apiVersion": "v1", "kind": "Secret", "type": TYPE, "data": {"token": STANDARD.encode("a.b.c")},
            "metadata": {
                "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"uid": "gone"}], "labels": labels, "annotations": annotations,
            },
        }))
    }

    #[test]
    fn disabling_takes_the_last_use_off_so_that_a_later_one_shows_and_enabling_puts_it_back() {
        let now: Timestamp = "2026-11-29T23:59:01.5Z".parse().unwrap();
        let patch = disabling(&held(json!({LAST_USED: "2026-11-28"}), json!({})), now);
        assert_eq!(patch["labels"], json!({INVALID_SINCE: "2026-11-29", LAST_USED: null}));
        assert_eq!(patch["annotations"], json!({DISABLED_AT: "2026-11-29T23:59:01Z", USED_BEFORE: "2026-11-28"}));
        let quiet = held(json!({INVALID_SINCE: "2026-11-29"}), json!({DISABLED_AT: "x", USED_BEFORE: "2026-11-28"}));
        assert_eq!(enabling(&quiet)["labels"], json!({INVALID_SINCE: null, LAST_USED: "2026-11-28"}));
        let used = held(json!({INVALID_SINCE: "x", LAST_USED: "2026-12-01"}), json!({USED_BEFORE: "2026-11-28"}));
        assert_eq!(enabling(&used)["labels"][LAST_USED], "2026-12-01");
    }

    #[test]
    fn what_is_made_again_has_its_data_and_no_owner_and_is_good_unless_it_is_to_stay_disabled() {
        let labels = json!({INVALID_SINCE: "2026-11-29", LAST_USED: "2026-11-29", "team": "ci"});
        let held = held(labels, json!({ACCOUNT: "bot", ACCOUNT_UID: "au", DISABLED_AT: "x", USED_BEFORE: null}));
        let good = held.anew(false);
        assert_eq!(
            good["metadata"],
            json!({"name": "s", "namespace": "n", "labels": {"team": "ci"}, "annotations": {ACCOUNT: "bot", ACCOUNT_UID: "au"}})
        );
        assert_eq!((&good["data"], &good["type"]), (&held.0["data"], &TYPE.into()));
        let disabled = held.anew(true);
        assert_eq!(disabled["metadata"]["labels"], json!({INVALID_SINCE: "2026-11-29", "team": "ci"}));
        assert_eq!(disabled["metadata"]["annotations"][DISABLED_AT], "x");
    }

    #[test]
    fn the_token_is_read_from_the_data() {
        assert!(held(json!({}), json!({})).token().is_some_and(|token| token.expose() == "a.b.c"));
        assert!(Held(json!({"data": {}})).token().is_none());
    }
}
