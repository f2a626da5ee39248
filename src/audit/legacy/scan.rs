//! Looks through a cluster for tokens that live too long, and for those who hang on them. In pages; of all that is read
//! only the finds are kept. What may not be read is named.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use jiff::Timestamp;
use serde_json::Value;

use super::references::{self, How};
use super::{Find, Inventory, Kind, Name, Reference, UNSEEN, Whereabouts, find, uses};
use crate::audit::trail::{Trail, Unreadable};
use crate::cluster::legacy::{OTHER_SECRETS, TOKENS};
use crate::cluster::pages::{Bare, Gap, Listing, Metadata, Scope};
use crate::cluster::{Cluster, Trouble};

/// What makes pods, and where the pod stands in it.
const TEMPLATES: [(Listing, &str, &str); 8] = [
    (Listing::of("/apis/apps/v1", "deployments"), "Deployment", "/spec/template/spec"),
    (Listing::of("/apis/apps/v1", "statefulsets"), "StatefulSet", "/spec/template/spec"),
    (Listing::of("/apis/apps/v1", "daemonsets"), "DaemonSet", "/spec/template/spec"),
    (Listing::of("/apis/apps/v1", "replicasets"), "ReplicaSet", "/spec/template/spec"),
    (Listing::of("/apis/batch/v1", "jobs"), "Job", "/spec/template/spec"),
    (Listing::of("/apis/batch/v1", "cronjobs"), "CronJob", "/spec/jobTemplate/spec/template/spec"),
    (Listing::of("/api/v1", "replicationcontrollers"), "ReplicationController", "/spec/template/spec"),
    (Listing::of("/api/v1", "podtemplates"), "PodTemplate", "/template/spec"),
];

/// What is looked for.
pub struct Question<'a> {
    /// Where.
    pub scope: Scope,
    /// Only these Secrets, by namespace and name; all where there is none.
    pub only: &'a BTreeSet<(String, String)>,
    /// Whether Secrets of every type are opened, for the tokens in them.
    pub others: bool,
    /// Seconds that a token may live.
    pub longest: i64,
    /// When it is asked.
    pub now: Timestamp,
}

impl Question<'_> {
    fn is_meant(&self, metadata: &Metadata) -> bool {
        self.only.is_empty() || self.only.contains(&(metadata.namespace.clone(), metadata.name.clone()))
    }
}

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// The API server does not answer, or not us.
    #[error("{0}")]
    Cluster(String),
    /// The audit log.
    #[error(transparent)]
    Log(#[from] Unreadable),
}

/// Looks, and reads the audit log where one is given.
///
/// # Errors
/// [`Unanswered`] where the API server does not answer or the log cannot be read; whatever else is missing is in the
/// inventory.
pub async fn look<R: BufRead>(cluster: &Cluster, question: &Question<'_>, log: Option<Trail<R>>) -> Result<Inventory, Unanswered> {
    let mut scan = Scan { cluster, question, finds: Vec::new(), gaps: Vec::new(), missing: Vec::new() };
    scan.token_secrets().await?;
    if question.others {
        scan.other_secrets().await;
    }
    scan.finds.sort_by(|a, b| (&a.namespace, &a.secret, &a.key).cmp(&(&b.namespace, &b.secret, &b.key)));
    let survey = match log {
        // A log of gigabytes takes its time.
        Some(trail) => Some(tokio::task::block_in_place(|| uses::read(trail, &mut scan.finds))?),
        None => None,
    };
    scan.missing.extend(survey.iter().flat_map(|survey| survey.said()));
    let mut tracked_since = None;
    if !scan.finds.is_empty() {
        tracked_since = scan.tracked_since().await;
        scan.accounts().await;
        scan.pods().await;
        scan.templates().await;
    }
    let told = scan.gaps.iter().map(ToString::to_string);
    let missing = scan.missing.into_iter().chain(told).collect();
    let whole = |gap: &Gap| gap.namespaces.is_empty() || question.scope != Scope::All;
    let forbidden = scan.finds.is_empty() && scan.gaps.iter().any(|gap| gap.resource == "secrets" && gap.forbidden && whole(gap));
    Ok(Inventory { finds: scan.finds, tracked_since, log: survey, missing, unseen: UNSEEN, gaps: scan.gaps, forbidden })
}

struct Scan<'s> {
    cluster: &'s Cluster,
    question: &'s Question<'s>,
    finds: Vec<Find>,
    gaps: Vec<Gap>,
    missing: Vec<String>,
}

impl Scan<'_> {
    async fn token_secrets(&mut self) -> Result<(), Unanswered> {
        let mut found = Vec::new();
        let gaps = self.cluster.within::<Bare>(TOKENS, &self.question.scope, |one| found.push(one.metadata)).await;
        if let Some(gap) = gaps.iter().find(|gap| !gap.forbidden && found.is_empty() && gap.namespaces.len() < 2) {
            return Err(Unanswered::Cluster(gap.why.clone()));
        }
        self.gaps.extend(gaps);
        self.finds.extend(found.iter().filter(|metadata| self.question.is_meant(metadata)).map(find::in_token_secret));
        Ok(())
    }

    async fn other_secrets(&mut self) {
        let (mut found, question) = (Vec::new(), self.question);
        let gaps = self.cluster.within::<find::Secret>(OTHER_SECRETS, &question.scope, |one| {
            if question.is_meant(&one.metadata) {
                found.extend(find::in_secret(&one, question.longest, question.now));
            }
        });
        let gaps = gaps.await;
        // The same was told for token Secrets.
        let new: Vec<Gap> = gaps.into_iter().filter(|gap| !self.gaps.contains(gap)).collect();
        self.gaps.extend(new);
        self.finds.extend(found);
    }

    async fn tracked_since(&mut self) -> Option<String> {
        match self.cluster.tracked_since().await {
            Ok(day) => Some(day),
            Err(refusal) if refusal.trouble == Trouble::NotFound => {
                self.missing.push("this cluster does not note the use of legacy tokens (Kubernetes before 1.26)".into());
                None
            }
            Err(refusal) => {
                let why = format!("{refusal}: since when uses are noted is unknown, so no last use may mean no note");
                self.gaps.push(Gap { resource: "configmaps".into(), namespaces: vec!["kube-system".into()], why, forbidden: false });
                None
            }
        }
    }

    /// Whether the accounts are there, what they list, and what they pull images with.
    async fn accounts(&mut self) {
        let index = Index::of(&self.finds);
        let mut known: BTreeMap<Name, String> = BTreeMap::new();
        let wanted: BTreeSet<Name> = self.finds.iter().filter_map(|find| find.account.clone()).collect();
        let mut named = Vec::new();
        let gaps = self.cluster.within::<Value>(Listing::of("/api/v1", "serviceaccounts"), &self.question.scope, |account| {
            let name = name_of(&account);
            for (secret, how) in references::of_account(&account) {
                named.extend(index.at(&name.namespace, &secret).map(|at| (at, name.clone(), how)));
            }
            if wanted.contains(&name) {
                known.insert(name, account["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
            }
        });
        let gaps = gaps.await;
        for (at, account, how) in named {
            let find = &mut self.finds[at];
            // What the token controller lists there itself is not somebody who hangs on it: it takes it off again.
            if how == How::Secrets && find.kind == Kind::TokenSecret && find.account.as_ref() == Some(&account) {
                find.auto_generated = true;
            } else {
                let count = 1;
                find.references.push(Reference { kind: "ServiceAccount".into(), name: account.name, how, count, past: false });
            }
        }
        let seen = |name: &Name| match &self.question.scope {
            Scope::All => gaps.is_empty(),
            Scope::Namespace(namespace) => gaps.is_empty() && *namespace == name.namespace,
        };
        let mut asked: BTreeMap<Name, Option<String>> = known.into_iter().map(|(name, uid)| (name, Some(uid))).collect();
        for name in wanted {
            if asked.contains_key(&name) {
                continue;
            }
            if seen(&name) {
                asked.insert(name, None);
            } else if let Ok(account) = self.cluster.account(&name.namespace, &name.name).await {
                asked.insert(name, account.map(|account| account.uid));
            }
        }
        for find in &mut self.finds {
            find.account_is = whereabouts(find, &asked);
        }
        self.gaps.extend(gaps);
    }

    async fn pods(&mut self) {
        let index = Index::of(&self.finds);
        let callers = uses::addresses(&self.finds);
        let (mut named, mut pods_of, mut at_address) = (Counted::default(), BTreeMap::new(), BTreeMap::new());
        let gaps = self.cluster.within::<Value>(Listing::of("/api/v1", "pods"), &self.question.scope, |pod| {
            let (name, spec, past) = (name_of(&pod), &pod["spec"], references::is_over("Pod", &pod));
            let owner = references::controller(&pod).map(|(kind, owner)| (format!("Pods of {kind}"), owner.to_owned()));
            let (kind, called) = owner.unwrap_or_else(|| ("Pod".into(), name.name.clone()));
            for (secret, how) in references::of_pod(spec) {
                index.at(&name.namespace, &secret).for_each(|at| named.take(at, &kind, &called, how, past));
            }
            if past {
                return;
            }
            if references::mounts_bound_token(spec) {
                let account = spec["serviceAccountName"].as_str().unwrap_or("default").to_owned();
                *pods_of.entry(Name { namespace: name.namespace.clone(), name: account }).or_insert(0) += 1;
            }
            if spec["hostNetwork"] != true {
                let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten().filter_map(|one| one["ip"].as_str());
                let known = addresses.filter(|address| callers.contains(*address)).map(|address| (address.to_owned(), name.to_string()));
                at_address.extend(known.collect::<Vec<_>>());
            }
        });
        self.gaps.extend(gaps.await);
        named.into(&mut self.finds);
        for find in &mut self.finds {
            find.bound_pods = find.account.as_ref().and_then(|account| pods_of.get(account)).copied().unwrap_or(0);
            for one in &mut find.uses {
                one.pod = one.addresses.iter().find_map(|address| at_address.get(address)).cloned();
            }
        }
    }

    async fn templates(&mut self) {
        let index = Index::of(&self.finds);
        for (listing, kind, pointer) in TEMPLATES {
            let mut named = Counted::default();
            let gaps = self.cluster.within::<Value>(listing, &self.question.scope, |object| {
                let (name, past) = (name_of(&object), references::is_over(kind, &object));
                let spec = object.pointer(pointer).unwrap_or(&Value::Null);
                for (secret, how) in references::of_pod(spec) {
                    index.at(&name.namespace, &secret).for_each(|at| named.take(at, kind, &name.name, how, past));
                }
            });
            self.gaps.extend(gaps.await);
            named.into(&mut self.finds);
        }
    }
}

/// Finds by namespace and Secret.
struct Index(BTreeMap<(String, String), Vec<usize>>);

impl Index {
    fn of(finds: &[Find]) -> Self {
        let mut index: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, find) in finds.iter().enumerate() {
            index.entry((find.namespace.clone(), find.secret.clone())).or_default().push(at);
        }
        Self(index)
    }

    fn at(&self, namespace: &str, secret: &str) -> impl Iterator<Item = usize> + '_ {
        self.0.get(&(namespace.to_owned(), secret.to_owned())).into_iter().flatten().copied()
    }
}

/// References to finds, each counted.
#[derive(Default)]
struct Counted(BTreeMap<(usize, String, String, How, bool), u64>);

impl Counted {
    fn take(&mut self, at: usize, kind: &str, name: &str, how: How, past: bool) {
        *self.0.entry((at, kind.to_owned(), name.to_owned(), how, past)).or_insert(0) += 1;
    }

    fn into(self, finds: &mut [Find]) {
        for ((at, kind, name, how, past), count) in self.0 {
            finds[at].references.push(Reference { kind, name, how, count, past });
        }
    }
}

fn name_of(object: &Value) -> Name {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    Name { namespace: text("namespace"), name: text("name") }
}

fn whereabouts(find: &Find, asked: &BTreeMap<Name, Option<String>>) -> Whereabouts {
    match (find.account.as_ref().and_then(|account| asked.get(account)), &find.account_uid) {
        (None, _) => Whereabouts::Unknown,
        (Some(None), _) => Whereabouts::Gone,
        (Some(Some(uid)), Some(own)) if uid != own => Whereabouts::Another,
        // A token Secret that the token controller has not filled yet names no UID.
        (Some(Some(_)), _) => Whereabouts::Here,
    }
}
