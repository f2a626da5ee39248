//! The fleet: whether its Leases can be read, and whether its members have the same schedule and version.

use super::{Finding, Findings};
use crate::daemon::fleet::share;
use crate::daemon::scene::Scene;

pub(super) async fn examine(scene: &Scene) -> Vec<Finding> {
    let Some(spec) = &scene.plan.fleet else { return Vec::new() };
    let mut found = Findings::about(format!("fleet {}", spec.shown()));
    let Some(cluster) = scene.cluster(&spec.cluster) else { return found.list };
    let leases = match cluster.leases(spec).await {
        Ok((leases, _)) => leases,
        Err(refusal) => {
            let remedy = "make its namespace, and give the rights: tokenferry rbac | kubectl apply -f -";
            found.bad("leases", refusal.message, remedy);
            return found.list;
        }
    };
    let ours = share::sketch(scene.plan.targets.iter().filter(|target| target.is_shared()).map(|target| &*target.name));
    let mut same = 0;
    for said in leases.iter().map(|lease| &lease.said) {
        if said.schedule != scene.plan.sha256 {
            let remedy = if share::is_kin(&said.kin, &ours) {
                "bring all members to one schedule: until then each serves all of its own targets"
            } else {
                "two fleets use one Lease name: give each its own `fleet.lease.name`"
            };
            found.warn("schedule", format!("member {} has another schedule than this one", said.member), remedy);
        } else if said.version != env!("CARGO_PKG_VERSION") {
            found.warn("version", format!("member {} runs version {}", said.member, said.version), "bring all members to one version");
        } else {
            same += 1;
        }
    }
    found.good("leases", format!("members with a Lease: {}, with this schedule and version: {same}", leases.len()));
    found.list
}
