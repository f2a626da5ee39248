//! The stores that several places share: their settings, logins and clients.

use std::any::Any;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use super::StoreSpec;
use crate::cluster::{Cluster, Clusters, Upstream};

impl StoreSpec {
    /// The token that it logs in with, where a target keeps that fresh: the target's name, and its file.
    pub fn login(&self) -> Option<(&str, &Path)> {
        let login = self.kind_of()?.1.login()?;
        Some((login.target?, login.file))
    }
}

/// A live store, with the settings that it was made from.
struct Kept {
    spec: Arc<StoreSpec>,
    live: Arc<dyn Any + Send + Sync>,
}

/// Live stores by name, made once from a plan; clients and logins are made at first use.
#[derive(Default)]
pub struct Stores {
    kept: BTreeMap<String, Kept>,
    upstreams: BTreeMap<String, Arc<Upstream>>,
    clusters: Clusters,
}

impl Stores {
    /// Stores as a plan has them. A store whose settings did not change keeps its client and login.
    pub fn new(specs: &BTreeMap<String, Arc<StoreSpec>>, before: Option<&Stores>) -> Self {
        let mut stores = Self::default();
        for (name, spec) in specs {
            let upstream = before.and_then(|b| b.upstreams.get(name)).filter(|old| old.limits() == spec.limits).cloned();
            // With other limits, the settings are others too.
            let kept = before.and_then(|b| b.kept.get(name)).filter(|old| old.spec == *spec).map(|old| Arc::clone(&old.live));
            let upstream = upstream.unwrap_or_else(|| Upstream::new(name, spec.limits));
            stores.upstreams.insert(name.clone(), Arc::clone(&upstream));
            if let Some((_, settings)) = spec.kind_of() {
                let live = kept.unwrap_or_else(|| settings.open(name, upstream));
                stores.kept.insert(name.clone(), Kept { spec: Arc::clone(spec), live });
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

    /// The live store of that name, where it is of that kind.
    pub fn live<T: Any>(&self, name: &str) -> Option<&T> {
        self.kept.get(name)?.live.downcast_ref()
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
