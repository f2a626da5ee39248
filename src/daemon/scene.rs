//! What a rotation works with: one plan with the clusters and stores that it names. A reload swaps it whole;
//! a rotation keeps the one that it began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cluster::{Cluster, Clusters};
use crate::schedule::Plan;
use crate::sink::Stores;

/// A plan at work.
pub struct Scene {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Its clusters.
    pub clusters: Clusters,
    /// Its stores.
    pub stores: Stores,
    /// A stable name of this host, for the offsets of `splay`.
    pub host: String,
}

impl Scene {
    /// A scene for the plan. Clusters and stores whose settings did not change keep their clients and logins.
    pub fn new(plan: Arc<Plan>, records: &Path, before: Option<&Scene>) -> Self {
        let clusters = Clusters::new(&plan.clusters, &embedded_beside(records), before.map(|b| &b.clusters));
        let stores = Stores::new(&plan.stores, before.map(|b| &b.stores)).with_clusters(&clusters);
        let host = before.map_or_else(host, |b| b.host.clone());
        Self { plan, clusters, stores, host }
    }

    /// The cluster of a target; planning has checked that it is there.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }
}

/// Where embedded clusters keep their keys: `embedded/NAME` beside the records folder.
pub fn embedded_beside(records: &Path) -> PathBuf {
    records.parent().unwrap_or(records).join("embedded")
}

/// The machine id, which outlives renames of the host; its name where there is none.
fn host() -> String {
    std::fs::read_to_string("/etc/machine-id")
        .map(|id| id.trim().to_owned())
        .ok()
        .filter(|id| !id.is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}
