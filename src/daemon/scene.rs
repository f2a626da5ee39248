//! What a rotation works with: one plan with the clusters and stores that it names. A reload swaps it whole;
//! a rotation keeps the one that it began with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::clock;
use super::crowd::Crowds;
use super::fleet::{Fleet, Seat};
use super::timetable::World;
use crate::cluster::{Cluster, Clusters};
use crate::schedule::{Plan, Target};
use crate::sink::Stores;
use crate::token::Surroundings;
use crate::token::render::hex;

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
    /// Names this daemon among those that serve targets of one name: a hash of host and records folder.
    pub owner: String,
    /// Our seat in the fleet, where the schedule is one's.
    pub fleet: Option<Arc<Fleet>>,
    /// How many rotations stand in memory.
    pub crowds: Arc<Crowds>,
}

impl Scene {
    /// A scene for the plan. Clusters and stores whose settings did not change keep their clients and logins.
    pub fn new(plan: Arc<Plan>, records: &Path, before: Option<&Scene>) -> Self {
        let clusters = Clusters::new(&plan.clusters, &embedded_beside(records), before.map(|b| &b.clusters));
        let stores = Stores::new(&plan.stores, before.map(|b| &b.stores)).with_clusters(&clusters);
        if let Some(before) = before {
            // Who we are is read at the start alone.
            let (host, owner, fleet) = (before.host.clone(), before.owner.clone(), before.fleet.clone());
            return Self { plan, clusters, stores, host, owner, fleet, crowds: Arc::clone(&before.crowds) };
        }
        let host = host();
        let owner = owner(&host, records);
        let lease = plan.fleet.as_ref();
        let fleet = lease.and_then(|lease| Some(Fleet::new(lease.clone(), &plan, Arc::clone(clusters.get(&lease.cluster)?), &owner)));
        // Whoever takes a target over has to find it due when its owner would have.
        let host = lease.map_or(host, |lease| format!("fleet/{}", lease.shown()));
        Self { plan, clusters, stores, host, owner, fleet, crowds: Arc::default() }
    }

    /// Whether other members of a fleet may serve the target as well as we.
    pub fn is_shared(&self, target: &Target) -> bool {
        self.fleet.is_some() && target.is_shared()
    }

    /// Our seat, for what begins now at a target that other members may serve.
    pub fn seat(&self, target: &Target) -> Option<Seat> {
        let fleet = self.fleet.as_ref().filter(|fleet| fleet.is_kept())?;
        target.is_shared().then(|| Seat::now(fleet))
    }

    /// Names the daemon among those that serve targets of that name: of one that a fleet shares, the fleet.
    pub fn owner_of(&self, target: &Target) -> &str {
        if self.is_shared(target) { &self.host } else { &self.owner }
    }

    /// What formats say of a target beside its token. Where the API server is, is looked up only for formats that
    /// say it; where that fails they say so.
    pub async fn surroundings(&self, target: &Target) -> Surroundings {
        let places = target.places();
        let (mut server, mut ca) = (None, None);
        if places.into_iter().any(|place| place.format.needs_cluster())
            && let Some(cluster) = self.cluster(&target.cluster)
        {
            match cluster.address().await {
                Ok(Some((url, pem))) => (server, ca) = (Some(url), pem.map(|pem| pem.to_vec())),
                Ok(None) => {}
                Err(error) => tracing::warn!(target_name = &*target.name, %error, "the address of the cluster is not known"),
            }
        }
        Surroundings {
            target: target.name.to_string(),
            cluster: target.cluster.to_string(),
            namespace: target.ask.namespace.clone(),
            service_account: target.ask.service_account.clone(),
            server,
            ca,
        }
    }

    /// The cluster of a target; planning has checked that it is there.
    pub fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }
}

impl World for Scene {
    fn skew(&self, cluster: &str) -> Option<f64> {
        self.cluster(cluster)?.upstream().skew()
    }

    fn share(&self) -> f64 {
        clock::share()
    }
}

/// Where embedded clusters keep their keys: `embedded/NAME` beside the records folder.
pub fn embedded_beside(records: &Path) -> PathBuf {
    records.parent().unwrap_or(records).join("embedded")
}

/// The machine id is for this host alone, so others see a hash of it (machine-id(5)).
fn owner(host: &str, records: &Path) -> String {
    let text = format!("tokenferry\n{host}\n{}", records.display());
    hex(&ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..8])
}

/// A stable name of this host: the machine id, which outlives renames of the host; its name where there is none.
pub fn host() -> String {
    std::fs::read_to_string("/etc/machine-id")
        .map(|id| id.trim().to_owned())
        .ok()
        .filter(|id| !id.is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}
