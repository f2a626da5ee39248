//! One workload: found, stamped, looked at.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{RolloutSpec, Sort};
use crate::after::{Failure, News};
use crate::cluster::{Call, Cluster, Refusal, Urgency, Verdict};
use crate::token::render::hex;

/// Names the tokens that a Pod template was last restarted for: `TARGET=GENERATION.ROUND-ISSUE`, a space between.
const STAMP: &str = "tokenferry/restarted-for";
const WITHIN: Duration = Duration::from_secs(10);
/// Tries of a stamp that somebody else's write came before.
const TRIES: u32 = 5;
/// More than a selector should ever mean.
const MOST: usize = 100;

/// One workload by name.
pub(super) struct Workload {
    pub sort: Sort,
    pub name: String,
}

/// Why a look showed nothing.
pub(super) enum Trouble {
    /// It will pass.
    Passing(String),
    /// It needs a person.
    Lasting(Failure),
}

/// A workload as the API server shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub metadata: Metadata,
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    resource_version: String,
    #[serde(default)]
    pub generation: i64,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub replicas: Option<i64>,
    #[serde(default)]
    paused: bool,
    template: Template,
    update_strategy: Option<Strategy>,
}

#[derive(Debug, Deserialize)]
struct Template {
    #[serde(default)]
    metadata: TemplateMetadata,
}

#[derive(Debug, Default, Deserialize)]
struct TemplateMetadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Strategy {
    #[serde(rename = "type", default)]
    kind: String,
    rolling_update: Option<Rolling>,
}

#[derive(Debug, Deserialize)]
struct Rolling {
    #[serde(default)]
    partition: i64,
}

/// The numbers of all three kinds; those of another kind are 0.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub observed_generation: i64,
    pub replicas: i64,
    pub updated_replicas: i64,
    pub ready_replicas: i64,
    pub available_replicas: i64,
    pub current_revision: String,
    pub update_revision: String,
    pub desired_number_scheduled: i64,
    pub updated_number_scheduled: i64,
    pub number_available: i64,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub message: String,
}

impl Found {
    pub fn partition(&self) -> i64 {
        self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).map_or(0, |r| r.partition)
    }

    fn stamp(&self) -> &str {
        self.spec.template.metadata.annotations.get(STAMP).map_or("", String::as_str)
    }

    /// Why a new stamp would restart nothing.
    fn unwilling(&self) -> Option<&'static str> {
        if self.metadata.deletion_timestamp.is_some() {
            Some("it is being deleted")
        } else if self.spec.paused {
            Some("it is paused, so that nothing would roll: resume it (kubectl rollout resume)")
        } else if self.spec.update_strategy.as_ref().is_some_and(|s| s.kind == "OnDelete") {
            Some("its updateStrategy is OnDelete, so that nothing would roll: use RollingUpdate")
        } else {
            None
        }
    }
}

/// What a token is called on a stamp: generations alone would repeat after lost records.
fn entry(news: &News) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, news.issue.as_bytes());
    format!("{}.{}-{}", news.generation, news.round, &hex(digest.as_ref())[..8])
}

/// The stamp with these tokens on it, the ones of other targets kept.
fn stamped(before: &str, news: &[News]) -> String {
    let mut entries: BTreeMap<&str, String> =
        before.split(' ').filter_map(|part| part.split_once('=')).map(|(target, entry)| (target, entry.to_owned())).collect();
    entries.extend(news.iter().map(|news| (&*news.target, entry(news))));
    entries.iter().map(|(target, entry)| format!("{target}={entry}")).collect::<Vec<_>>().join(" ")
}

impl Workload {
    fn path(&self, spec: &RolloutSpec) -> String {
        format!("/apis/apps/v1/namespaces/{}/{}/{}", spec.namespace, self.sort.plural(), self.name)
    }

    pub fn failure(&self, spec: &RolloutSpec, what: &str) -> Failure {
        Failure(format!("{} {}/{} of cluster {}: {what}", self.sort.key(), spec.namespace, self.name, spec.cluster))
    }

    fn refused(&self, spec: &RolloutSpec, refusal: &Refusal, verb: &str) -> Failure {
        use crate::cluster::Trouble as T;
        let words = &refusal.message;
        let what = match refusal.trouble {
            T::NotFound => "it does not exist: make it, or mend the hook".to_owned(),
            T::Forbidden => format!(
                "we may not {verb} it: grant get and patch on {}.apps with resourceNames [{}] in namespace {} ({words})",
                self.sort.plural(),
                self.name,
                spec.namespace
            ),
            T::Unauthorized => "the API server refuses our own credential; renew the one that the kubeconfig names".to_owned(),
            _ => words.clone(),
        };
        self.failure(spec, &what)
    }

    /// Sees to it that the Pod template carries these tokens, unless it does.
    ///
    /// # Errors
    /// [`Failure`], with the way out.
    pub async fn stamp(&self, cluster: &Cluster, spec: &RolloutSpec, news: &[News]) -> Result<(), Failure> {
        let path = format!("{}?fieldManager=tokenferry", self.path(spec));
        let mut last = String::new();
        for _ in 0..TRIES {
            let found = match self.look(cluster, spec).await {
                Ok(found) => found,
                Err(Trouble::Passing(why)) => return Err(self.failure(spec, &why)),
                Err(Trouble::Lasting(failure)) => return Err(failure),
            };
            let stamp = stamped(found.stamp(), news);
            if stamp == found.stamp() {
                return Ok(());
            }
            if let Some(why) = found.unwilling() {
                return Err(self.failure(spec, why));
            }
            let patch = json!({
                // Somebody else's write in between is a conflict, not something to write over.
                "metadata": {"resourceVersion": found.metadata.resource_version},
                "spec": {"template": {"metadata": {"annotations": {STAMP: stamp}}}},
            });
            let body = patch.to_string();
            match ask(cluster, Call::patch(&path, "application/merge-patch+json", body.as_bytes(), WITHIN)).await {
                Ok(_) => {
                    tracing::info!(workload = self.name, namespace = spec.namespace, kind = self.sort.key(), "restarted for fresh tokens");
                    return Ok(());
                }
                Err(refusal) if refusal.trouble == crate::cluster::Trouble::Conflict => last = refusal.message,
                Err(refusal) => return Err(self.refused(spec, &refusal, "patch")),
            }
        }
        Err(self.failure(spec, &format!("others write it all the time ({last})")))
    }

    /// How it stands.
    pub async fn look(&self, cluster: &Cluster, spec: &RolloutSpec) -> Result<Found, Trouble> {
        use crate::cluster::Trouble as T;
        match ask(cluster, Call::get(&self.path(spec), WITHIN)).await {
            Ok(body) => serde_json::from_slice(&body)
                .map_err(|error| Trouble::Passing(format!("the answer is no workload (line {}, column {})", error.line(), error.column()))),
            Err(refusal) if matches!(refusal.trouble, T::Unavailable | T::Throttled | T::BadAnswer) => {
                Err(Trouble::Passing(refusal.message))
            }
            Err(refusal) => Err(Trouble::Lasting(self.refused(spec, &refusal, "get"))),
        }
    }
}

/// One request in its turn; a restart can wait for what is more urgent.
async fn ask(cluster: &Cluster, call: Call<'_>) -> Result<zeroize::Zeroizing<Vec<u8>>, Refusal> {
    let permit = cluster.turn(Urgency { deadline: i64::MAX, retry: false }).await;
    let answer = cluster.call(call).await;
    permit.end(answer.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
    answer
}

#[derive(Deserialize)]
struct List {
    /// Null where there is none.
    items: Option<Vec<Item>>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// All workloads with those labels.
///
/// # Errors
/// [`Failure`], also where there is none: a label that nobody has is a mistake.
pub(super) async fn matching(cluster: &Cluster, spec: &RolloutSpec, selector: &str) -> Result<Vec<Workload>, Failure> {
    let failure = |what: String| Failure(format!("workloads with `{selector}` in {} of cluster {}: {what}", spec.namespace, spec.cluster));
    let escaped: String = selector
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let mut found = Vec::new();
    for sort in Sort::ALL {
        let path = format!("/apis/apps/v1/namespaces/{}/{}?labelSelector={escaped}", spec.namespace, sort.plural());
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let body = ask(cluster, Call { accept, ..Call::get(&path, WITHIN) }).await.map_err(|refusal| match refusal.trouble {
            crate::cluster::Trouble::Forbidden => {
                failure(format!("we may not list them: grant list on {}.apps in the namespace ({})", sort.plural(), refusal.message))
            }
            _ => failure(refusal.message),
        })?;
        let list: List = serde_json::from_slice(&body).map_err(|_| failure("the answer is no list".into()))?;
        found.extend(list.items.into_iter().flatten().map(|item| Workload { sort, name: item.metadata.name }));
    }
    match found.len() {
        0 => Err(failure("there is none: label one, or mend the hook".into())),
        many if many > MOST => Err(failure(format!("{many} are more than the {MOST} that one hook restarts: write a narrower selector"))),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(target: &str, generation: u64, round: u64) -> News {
        News { target: target.into(), generation, round, issue: format!("{target}{generation}"), expires_at: None, path: None }
    }

    #[test]
    fn a_stamp_keeps_other_targets_and_does_not_change_for_the_same_token() {
        let first = stamped("", &[news("b", 3, 0), news("a", 1, 0)]);
        assert!(first.starts_with("a=1.0-") && first.contains(" b=3.0-"), "{first}");
        assert_eq!(stamped(&first, &[news("a", 1, 0)]), first);
        let next = stamped(&first, &[news("a", 2, 0)]);
        assert!(next.starts_with("a=2.0-") && next.contains(" b=3.0-"), "{next}");
        assert_ne!(stamped(&next, &[news("a", 2, 1)]), next);
    }

    #[test]
    fn the_same_generation_of_another_token_is_another_stamp() {
        let other = News { issue: "after lost records".into(), ..news("a", 1, 0) };
        assert_ne!(stamped("", &[news("a", 1, 0)]), stamped("", &[other]));
    }
}
