//! `eks`: the login of a cluster on Amazon EKS, and the targets whose tokens clusters log in with.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Planner;
use super::deliver::joined;
use super::logins::readable;
use super::report::Spot;
use super::rules;
use crate::cluster::{ClusterSpec, aws};
use crate::schedule::measure::shown;
use crate::schedule::plan::Target;
use crate::schedule::yaml::Step;

impl Planner<'_> {
    /// Checks and completes it for a cluster.
    pub(super) fn eks(&mut self, spot: &Spot<'_>, name: &str, spec: &mut ClusterSpec) {
        let here: [Step<'_>; 3] = ["clusters".into(), name.into(), "eks".into()];
        let node = spot.marks.node(spot.node, &here);
        if spec.eks.is_some() && spec.kubeconfig.is_none() && !spot.marks.node(spot.node, &here[..2]).has("kubeconfig") {
            let message = "a kubeconfig names the address and the CA of the cluster: write kubeconfig: PATH beside it (`aws eks \
                           update-kubeconfig` makes one; the plugin in it is not run)";
            self.report.error(spot, &here, message);
        }
        let Some(eks) = &mut spec.eks else { return };
        let words = [("name", Some(&eks.name)), ("region", Some(&eks.region)), ("profile", eks.profile.as_ref())];
        for (key, value) in words.into_iter().filter_map(|(key, value)| Some((key, value?))).filter(|(key, _)| node.has(key)) {
            if let Err(message) = rules::word(value) {
                self.report.error(spot, &joined(&here, key), &message);
            } else if key == "region" && aws::host("sts", value).is_none() {
                let message = format!("no address of AWS STS is known for the region {}: write such as eu-central-1", shown(value));
                self.report.error(spot, &joined(&here, key), &message);
            }
        }
        let identity = joined(&here, "webIdentity");
        let no_arn = |arn: &str| {
            (!arn.starts_with("arn:")).then(|| format!("{} is no ARN: write such as arn:aws:iam::123456789012:role/tokens", shown(arn)))
        };
        if let Some(message) = eks.role_arn.as_deref().and_then(no_arn) {
            self.report.error(spot, &joined(&here, "roleArn"), &message);
        }
        if eks.external_id.is_some() && eks.role_arn.is_none() && !node.has("roleArn") {
            self.report.error(
                spot,
                &joined(&here, "externalId"),
                "a role asks for it, and there is none: write roleArn too, or leave it out",
            );
        }
        if let Some(web) = &mut eks.web_identity {
            if let Some(message) = no_arn(&web.role_arn) {
                self.report.error(spot, &joined(&identity, "roleArn"), &message);
            }
            self.login_token(spot, &identity, &mut web.token_file, web.target.is_some());
        }
    }

    /// Finds the targets that clusters log in with, and tells the clusters where their tokens stand.
    pub(super) fn cluster_logins(
        &mut self,
        spot: &Spot<'_>,
        targets: &mut [Arc<Target>],
        clusters: &mut BTreeMap<String, Arc<ClusterSpec>>,
    ) {
        let wanted: Vec<(String, String)> =
            clusters.iter().filter_map(|(cluster, spec)| Some((cluster.clone(), login(spec)?.to_owned()))).collect();
        for (cluster, name) in wanted {
            let way = ["clusters", &*cluster, "eks", "webIdentity", "target"];
            let steps: Vec<Step<'_>> = way.map(Step::Key).to_vec();
            let Some(found) = self.login_target(spot, &steps, &name, targets) else { continue };
            if let Some(circle) = circle(&cluster, targets, clusters) {
                let message = format!("the login goes round in a circle: {circle}; log in with a token of another cluster");
                self.report.error(spot, &steps, &message);
                continue;
            }
            let Some(file) = readable(&targets[found]) else {
                let message = format!(
                    "the cluster reads the token of {name} on this host, and {name} has no file there: give it a `file` place in the format raw"
                );
                self.report.error(spot, &steps, &message);
                continue;
            };
            Arc::make_mut(&mut targets[found]).first = true;
            let spec = clusters.get_mut(&cluster).map(Arc::make_mut);
            if let Some(web) = spec.and_then(|spec| spec.eks.as_mut()?.web_identity.as_mut()) {
                web.token_file = file;
            }
        }
    }
}

/// The target whose token a cluster logs in with.
fn login(spec: &ClusterSpec) -> Option<&str> {
    spec.eks.as_ref()?.web_identity.as_ref()?.target.as_deref()
}

/// The way from a cluster back to one that was passed, in words.
fn circle(cluster: &str, targets: &[Arc<Target>], clusters: &BTreeMap<String, Arc<ClusterSpec>>) -> Option<String> {
    let (mut here, mut passed, mut told) = (cluster, vec![cluster], Vec::new());
    loop {
        let name = login(clusters.get(here)?)?;
        let target = targets.iter().find(|target| *target.name == *name)?;
        told.push(format!("cluster {here} logs in with target {name}, which cluster {} mints", target.cluster));
        here = &target.cluster;
        if passed.contains(&here) {
            return Some(told.join("; "));
        }
        passed.push(here);
    }
}
