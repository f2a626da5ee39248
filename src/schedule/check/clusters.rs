//! Clusters, and the paths of our own files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Planner;
use super::report::Spot;
use super::rules;
use super::target::{LONGEST, SHORTEST};
use crate::cluster::{ClusterSpec, Limits};
use crate::schedule::measure::{Seconds, shown};
use crate::schedule::yaml::Step;

/// What targets have to know of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct ClusterFacts {
    /// Whether it signs by itself; `None` where its settings do not tell.
    pub embedded: Option<bool>,
}

impl<'a> Planner<'a> {
    /// Checks and completes `clusters`.
    pub(super) fn clusters(&mut self, spot: &Spot<'_>, specs: BTreeMap<String, ClusterSpec>) -> BTreeMap<String, Arc<ClusterSpec>> {
        let written = spot.node.get("clusters").map(|node| node.entries()).unwrap_or_default();
        for (key, _) in written {
            self.clusters.insert(key.text.to_string(), ClusterFacts { embedded: None });
        }
        let mut planned = BTreeMap::new();
        for (name, mut spec) in specs {
            self.cluster(spot, &name, &mut spec);
            planned.insert(name, Arc::new(spec));
        }
        planned
    }

    fn cluster(&mut self, spot: &Spot<'_>, name: &str, spec: &mut ClusterSpec) {
        let here: [Step<'_>; 2] = ["clusters".into(), name.into()];
        let at = |key| -> [Step<'_>; 3] { [here[0], here[1], Step::Key(key)] };
        if let Err(message) = rules::own_name(name) {
            self.report.error(spot, &here, &message);
        }
        let kinds =
            [("kubeconfig", spec.kubeconfig.is_some()), ("inCluster", spec.in_cluster.is_some()), ("embedded", spec.embedded.is_some())];
        let node = spot.marks.node(spot.node, &here);
        let given: Vec<&str> = kinds.iter().filter(|(key, read)| *read || node.has(key)).map(|(key, _)| *key).collect();
        match given[..] {
            [] => self.report.error(
                spot,
                &here,
                "it says of no cluster how to reach it: write one of kubeconfig: PATH, inCluster: {}, embedded: {}",
            ),
            [kind] => _ = self.clusters.insert(name.to_owned(), ClusterFacts { embedded: Some(kind == "embedded") }),
            _ => self.report.error(spot, &here, &format!("{} exclude each other: keep one", given.join(" and "))),
        }
        if let Some(path) = &mut spec.kubeconfig {
            self.refer(spot, &at("kubeconfig"), path);
        }
        if spec.kubeconfig.is_none() && spec.context.is_some() && !node.has("kubeconfig") {
            self.report.error(spot, &at("context"), "a context is one of a kubeconfig: leave it out, or write kubeconfig: PATH");
        }
        if let Some(directory) = spec.embedded.as_mut().and_then(|embedded| embedded.directory.as_mut()) {
            let steps = [here[0], here[1], "embedded".into(), "directory".into()];
            if let Some(path) = self.own_path(spot, &steps, directory.clone()) {
                *directory = path;
            }
        }
        for (index, endpoint) in spec.endpoints.iter().enumerate() {
            let steps = [here[0], here[1], "endpoints".into(), index.into()];
            match rules::address(endpoint, "https://10.0.0.1:6443") {
                Ok((scheme, _)) if scheme == "https" => {}
                Ok(_) => {
                    self.report.error(spot, &steps, &format!("{} is not https: an API server takes tokens over TLS alone", shown(endpoint)))
                }
                Err(message) => self.report.error(spot, &steps, &message),
            }
        }
        if !spec.endpoints.is_empty() && spec.embedded.is_some() {
            self.report.error(spot, &at("endpoints"), "an embedded cluster has no API server: leave them out");
        }
        self.proxy(spot, &at("proxyUrl"), spec.proxy_url.as_deref());
        self.limits(spot, &at("limits"), spec.limits);
        self.eks(spot, name, spec);
        self.own(spot, name, spec);
    }

    /// `own` and `spare`.
    fn own(&mut self, spot: &Spot<'_>, name: &str, spec: &mut ClusterSpec) {
        let at = |key| -> [Step<'_>; 3] { ["clusters".into(), name.into(), Step::Key(key)] };
        let below = |key, inner| -> [Step<'_>; 4] { ["clusters".into(), name.into(), Step::Key(key), Step::Key(inner)] };
        let other = if spec.embedded.is_some() {
            Some("an embedded cluster needs no credential")
        } else {
            spec.in_cluster.as_ref().map(|_| "the kubelet keeps the credential of a Pod fresh")
        };
        for (key, given) in [("own", spec.own.is_some()), ("spare", spec.spare.is_some())] {
            if let Some(why) = other.filter(|_| given) {
                self.report.error(spot, &at(key), &format!("{why}: leave it out"));
            }
        }
        if let Some(own) = &mut spec.own {
            if let Err(message) = rules::service_account(&own.service_account) {
                self.report.error(spot, &below("own", "serviceAccount"), &message);
            }
            match own.duration.parse::<Seconds>() {
                Ok(Seconds(short @ ..SHORTEST)) => {
                    let message =
                        format!("{} is less than the 10m (600s) that Kubernetes gives at least: write such as 24h", Seconds(short));
                    self.report.error(spot, &below("own", "duration"), &message);
                }
                Ok(Seconds(long)) if long > LONGEST => {
                    self.report.error(spot, &below("own", "duration"), "it is more than Kubernetes takes (4294967296s): write such as 24h");
                }
                Ok(Seconds(seconds)) => own.seconds = seconds,
                Err(bad) => self.report.error(spot, &below("own", "duration"), &bad.to_string()),
            }
        }
        let lacks_own = spec.own.is_none() && !spot.marks.node(spot.node, &at("own")).has("serviceAccount");
        if let Some(spare) = &mut spec.spare {
            if lacks_own && other.is_none() {
                let message = "a spare renews the credential that `own` keeps fresh: write `own: {serviceAccount: …}` too, or leave it out";
                self.report.error(spot, &at("spare"), message);
            }
            self.refer(spot, &below("spare", "kubeconfig"), &mut spare.kubeconfig);
            if spec.kubeconfig.as_ref() == Some(&spare.kubeconfig) {
                let message = "it is the kubeconfig that the cluster has already: a way back has to be another one";
                self.report.error(spot, &below("spare", "kubeconfig"), message);
            }
        }
    }

    fn proxy(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], url: Option<&str>) {
        let Some(url) = url else { return };
        match rules::address(url.trim_end_matches('/'), "http://proxy.example.com:3128") {
            Ok((scheme, _)) if scheme == "http" || scheme == "https" => {}
            Ok(_) => {
                self.report.error(spot, steps, &format!("{} is no HTTP proxy: write such as http://proxy.example.com:3128", shown(url)))
            }
            Err(message) => self.report.error(spot, steps, &message),
        }
    }

    pub(super) fn limits(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], limits: Limits) {
        if limits.in_flight == 0 {
            let steps: Vec<Step<'_>> = steps.iter().copied().chain(["inFlight".into()]).collect();
            self.report.error(spot, &steps, "nothing would ever be asked of it: write 1 or more (64 when absent)");
        }
    }

    /// A file that we read, with variables filled in.
    pub(super) fn refer(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], path: &mut PathBuf) {
        match rules::reference(self.base(spot.file), path, self.variables) {
            Ok(whole) => *path = whole,
            Err(message) => self.report.error(spot, steps, &message),
        }
    }

    /// A path of our own that we write to.
    pub(super) fn own_path(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], path: PathBuf) -> Option<PathBuf> {
        let text = path.to_string_lossy();
        let folder = Path::new(text.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(&text));
        match rules::written_path(self.base(spot.file), folder) {
            Ok(whole) => Some(whole),
            Err(message) => {
                self.report.error(spot, steps, &message);
                None
            }
        }
    }

    /// The folder from which a file's relative paths count.
    pub(super) fn base(&self, file: usize) -> &'a Path {
        self.report.path(file).parent().unwrap_or(Path::new(""))
    }
}
