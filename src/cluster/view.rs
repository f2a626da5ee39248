//! Who has tokens in a cluster: its namespaces, accounts, pods and legacy token Secrets. Read in pages, so that a large
//! cluster is never in memory whole; of Secrets only the metadata is asked for. What may not be read is named.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::legacy::{ACCOUNT, INVALID_SINCE, LAST_USED, TOKENS};
use super::pages::{Bare, Listing, Metadata};
use super::{Cluster, Refusal, Trouble};

/// What was seen of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Its name in the schedule or the kubeconfig.
    pub name: String,
    /// Namespace by namespace.
    pub namespaces: Vec<NamespaceView>,
    /// Accounts that pods use or that mount no token by themselves; the rest is counted alone.
    pub accounts_in_use: Vec<AccountView>,
    /// Accounts of all namespaces.
    pub accounts: u64,
    /// Accounts with `automountServiceAccountToken: false`.
    pub automount_off: u64,
    /// Pods that are not over.
    pub pods: u64,
    /// Those of them with a token mounted: what the pod says counts more than what its account says.
    pub mounting: u64,
    /// Secrets of the type `kubernetes.io/service-account-token`: tokens without an end.
    pub legacy: Vec<LegacySecret>,
    /// What could not be read, and why.
    pub missing: Vec<String>,
}

/// One namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceView {
    /// Its name.
    pub name: String,
    /// Its accounts.
    pub accounts: u64,
    /// Its pods.
    pub pods: u64,
    /// Pods with a token mounted.
    pub mounting: u64,
    /// Its legacy token Secrets.
    pub legacy: u64,
}

/// One account that somebody uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its own setting; mounted when absent.
    pub automount: Option<bool>,
    /// Pods that run as it.
    pub pods: u64,
    /// Pods of it with a token mounted.
    pub mounting: u64,
}

/// A token without an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LegacySecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The account that it is for.
    pub account: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The day of its last use, where the API server has noted one (`kubernetes.io/legacy-token-last-used`).
    pub last_used: Option<String>,
    /// Since when the API server refuses it for want of use (`kubernetes.io/legacy-token-invalid-since`).
    pub invalid_since: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    #[serde(default)]
    metadata: Metadata,
    automount_service_account_token: Option<bool>,
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    service_account_name: String,
    automount_service_account_token: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

impl Cluster {
    /// What can be seen with our own credential.
    pub async fn view(&self) -> View {
        let mut view = View { name: self.name().to_owned(), ..View::default() };
        let mut spaces: BTreeMap<String, NamespaceView> = BTreeMap::new();
        let mut accounts: BTreeMap<(String, String), AccountView> = BTreeMap::new();
        let seen = self.pages::<Bare>(Listing { metadata: true, ..Listing::of("/api/v1", "namespaces") }, None, |one| {
            spaces
                .entry(one.metadata.name.clone())
                .or_insert_with(|| NamespaceView { name: one.metadata.name, ..NamespaceView::default() });
        });
        note(&mut view.missing, "namespaces", seen.await);
        let (mut all, mut off) = (0, 0);
        let seen = self.pages::<Account>(Listing::of("/api/v1", "serviceaccounts"), None, |one| {
            all += 1;
            off += u64::from(one.automount_service_account_token == Some(false));
            space(&mut spaces, &one.metadata.namespace).accounts += 1;
            let key = (one.metadata.namespace, one.metadata.name);
            let known = AccountView { namespace: key.0.clone(), name: key.1.clone(), ..AccountView::default() };
            accounts.insert(key, AccountView { automount: one.automount_service_account_token, ..known });
        });
        note(&mut view.missing, "serviceaccounts", seen.await);
        (view.accounts, view.automount_off) = (all, off);
        let (mut pods, mut mounting) = (0, 0);
        let seen = self.pages::<Pod>(Listing::of("/api/v1", "pods"), None, |one| {
            if matches!(one.status.phase.as_str(), "Succeeded" | "Failed") {
                return;
            }
            let name = if one.spec.service_account_name.is_empty() { "default".to_owned() } else { one.spec.service_account_name };
            let key = (one.metadata.namespace.clone(), name);
            let new = || AccountView { namespace: key.0.clone(), name: key.1.clone(), ..AccountView::default() };
            let account = accounts.entry(key.clone()).or_insert_with(new);
            let mounts = u64::from(one.spec.automount_service_account_token.or(account.automount).unwrap_or(true));
            account.pods += 1;
            account.mounting += mounts;
            let space = space(&mut spaces, &one.metadata.namespace);
            space.pods += 1;
            space.mounting += mounts;
            pods += 1;
            mounting += mounts;
        });
        note(&mut view.missing, "pods", seen.await);
        (view.pods, view.mounting) = (pods, mounting);
        let mut legacy = Vec::new();
        let seen = self.pages::<Bare>(TOKENS, None, |one| {
            space(&mut spaces, &one.metadata.namespace).legacy += 1;
            legacy.push(LegacySecret::of(one.metadata));
        });
        note(&mut view.missing, "secrets", seen.await);
        view.legacy = legacy;
        view.namespaces = spaces.into_values().collect();
        view.accounts_in_use = accounts.into_values().filter(|account| account.pods > 0 || account.automount == Some(false)).collect();
        view
    }
}

impl LegacySecret {
    fn of(metadata: Metadata) -> Self {
        let label = |name: &str| metadata.labels.get(name).cloned();
        Self {
            account: metadata.annotations.get(ACCOUNT).cloned().unwrap_or_default(),
            last_used: label(LAST_USED),
            invalid_since: label(INVALID_SINCE),
            created: metadata.creation_timestamp,
            namespace: metadata.namespace,
            name: metadata.name,
        }
    }
}

fn space<'s>(spaces: &'s mut BTreeMap<String, NamespaceView>, name: &str) -> &'s mut NamespaceView {
    spaces.entry(name.to_owned()).or_insert_with(|| NamespaceView { name: name.to_owned(), ..NamespaceView::default() })
}

fn note(missing: &mut Vec<String>, what: &str, seen: Result<(), Refusal>) {
    match seen {
        Ok(()) => {}
        Err(refusal) if refusal.trouble == Trouble::Forbidden => missing.push(format!("{what}: not allowed ({refusal})")),
        Err(refusal) => missing.push(format!("{what}: {refusal}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_secret_tells_its_account_and_its_last_use() {
        let text = r#"{"name":"s","namespace":"n","creationTimestamp":"2024-01-02T03:04:05Z","labels":{"kubernetes.io/legacy-token-last-used":"2024-05-06"},"annotations":{"kubernetes.io/service-account.name":"bot"}}"#;
        let secret = LegacySecret::of(serde_json::from_str(text).unwrap());
        assert_eq!((secret.account.as_str(), secret.last_used.as_deref(), secret.invalid_since), ("bot", Some("2024-05-06"), None));
        assert_eq!(secret.created, Some("2024-01-02T03:04:05Z".parse().unwrap()));
    }
}
