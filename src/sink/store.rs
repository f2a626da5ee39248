//! The stores that several places share: their settings, logins and clients.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::cluster::{Cluster, Clusters, Limits, Upstream};
use crate::sink::{aws, vault};

/// One entry of `stores`: exactly one kind of store, with limits beside it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Store")]
pub struct StoreSpec {
    /// Vault or OpenBao.
    pub vault: Option<vault::VaultStoreSpec>,
    /// AWS Secrets Manager.
    pub aws_secrets_manager: Option<aws::AwsStoreSpec>,
    /// The most that we ask of it at once and per second.
    #[serde(default)]
    pub limits: Limits,
}

impl StoreSpec {
    /// The token that it logs in with, where a target keeps that fresh: the target's name, and its file.
    pub fn login(&self) -> Option<(&str, &Path)> {
        let vault = self.vault.as_ref().map(|vault| &vault.auth);
        match (vault, &self.aws_secrets_manager) {
            (Some(vault::VaultAuth::Kubernetes(auth) | vault::VaultAuth::Jwt(auth)), _) => {
                Some((auth.target.as_deref()?, auth.token_file.as_path()))
            }
            (Some(_), _) | (None, None) => None,
            (None, Some(aws)) => {
                let identity = aws.web_identity.as_ref()?;
                Some((identity.target.as_deref()?, identity.token_file.as_path()))
            }
        }
    }
}

/// Live stores by name, made once from a plan; clients and logins are made at first use.
#[derive(Default)]
pub struct Stores {
    vaults: BTreeMap<String, Arc<vault::VaultStore>>,
    aws: BTreeMap<String, Arc<aws::AwsStore>>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    clusters: Clusters,
}

impl Stores {
    /// Stores as a plan has them. A store whose settings did not change keeps its client and login.
    pub fn new(specs: &BTreeMap<String, Arc<StoreSpec>>, before: Option<&Stores>) -> Self {
        let mut stores = Self::default();
        for (name, spec) in specs {
            let upstream = before.and_then(|b| b.upstreams.get(name)).filter(|old| old.limits() == spec.limits).cloned();
            let upstream = upstream.unwrap_or_else(|| Upstream::new(name, spec.limits));
            stores.upstreams.insert(name.clone(), Arc::clone(&upstream));
            if let Some(spec) = &spec.vault {
                let kept =
                    before.and_then(|b| b.vaults.get(name)).filter(|old| old.spec() == spec && Arc::ptr_eq(old.upstream(), &upstream));
                let store = kept.cloned().unwrap_or_else(|| Arc::new(vault::VaultStore::new(name, spec.clone(), Arc::clone(&upstream))));
                stores.vaults.insert(name.clone(), store);
            }
            if let Some(spec) = &spec.aws_secrets_manager {
                let kept = before.and_then(|b| b.aws.get(name)).filter(|old| old.spec() == spec && Arc::ptr_eq(old.upstream(), &upstream));
                let store = kept.cloned().unwrap_or_else(|| Arc::new(aws::AwsStore::new(name, spec.clone(), Arc::clone(&upstream))));
                stores.aws.insert(name.clone(), store);
            }
        }
        stores
    }

    /// The same with the clusters that sinks may write to.
    pub fn with_clusters(self, clusters: &Clusters) -> Self {
        Self { clusters: clusters.clone(), ..self }
    }

    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// The load that the store of that name gets from us.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.upstreams.get(name)
    }

    /// The load that each store gets from us.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.values()
    }

    /// The Vault store of that name.
    pub fn vault(&self, name: &str) -> Option<&Arc<vault::VaultStore>> {
        self.vaults.get(name)
    }

    /// The AWS store of that name.
    pub fn aws(&self, name: &str) -> Option<&Arc<aws::AwsStore>> {
        self.aws.get(name)
    }
}

/// The error and what caused it, down to the first cause. Only what a transport says is fit for a message;
/// an error that was made from an answer may carry it.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        // An I/O error's `source` leaves out the very error that it carries.
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}
