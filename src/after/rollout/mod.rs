//! `rolloutRestart`: the Pods of a workload are replaced, a few at a time, and it is waited for.
//!
//! Each restart is stamped on the Pod template with the tokens that it is for, so that the same token never restarts
//! a workload twice, whoever asks again: a second attempt only waits for what the first began.
//!
//! Rights: `get` and `patch` on the workload (`apps`), with `resourceNames`; with `selector` also `list` on
//! deployments, statefulsets and daemonsets of the namespace, which no name can limit.

mod progress;
mod workload;

use std::time::Duration;

use tokio::time::Instant;

use super::{Failure, News, Said};
use crate::cluster::rights::Right;
use crate::cluster::{Cluster, Clusters};
use progress::Progress;
use workload::{Found, Workload};

/// `rolloutRestart: {deployment | statefulSet | daemonSet | selector, namespace, cluster, timeout, minGap}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSpec {
    /// Name of the cluster.
    pub cluster: String,
    /// The workloads' namespace.
    pub namespace: String,
    /// Which.
    pub which: Which,
    /// How long a rollout is waited for.
    pub timeout: Duration,
    /// Shortest time between two restarts: tokens that arrive in between share the next one.
    pub min_gap: Duration,
}

/// Which workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// One, by kind and name.
    One(Sort, String),
    /// All of the three kinds with these labels, as kubectl's `-l` takes them.
    Selector(String),
}

/// What rolls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Sort {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl Sort {
    const ALL: [Self; 3] = [Self::Deployment, Self::StatefulSet, Self::DaemonSet];

    /// Its key in a schedule.
    pub fn key(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulSet",
            Self::DaemonSet => "daemonSet",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::DaemonSet => "daemonsets",
        }
    }
}

impl RolloutSpec {
    /// What our account has to be allowed to do in the workloads' cluster.
    pub fn rights(&self) -> Vec<Right> {
        match &self.which {
            Which::One(sort, name) => vec![Right::named(&self.namespace, "apps", sort.plural(), name, &["get", "patch"])],
            // Nobody knows their names before.
            Which::Selector(_) => Sort::ALL
                .into_iter()
                .map(|sort| Right { name: None, ..Right::named(&self.namespace, "apps", sort.plural(), "", &["list", "get", "patch"]) })
                .collect(),
        }
    }

    pub(super) fn to(&self) -> String {
        match &self.which {
            Which::One(sort, name) => format!("{}/{}/{}/{name}", self.cluster, self.namespace, sort.key()),
            Which::Selector(selector) => format!("{}/{}/{selector}", self.cluster, self.namespace),
        }
    }
}

/// Between two looks at a rollout.
const PAUSES: [Duration; 4] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

pub(super) async fn restart(spec: &RolloutSpec, news: &[News], clusters: &Clusters) -> Result<Said, Failure> {
    let unknown = || Failure(format!("the schedule has no cluster `{}`", spec.cluster));
    let cluster = clusters.get(&spec.cluster).ok_or_else(unknown)?;
    let deadline = Instant::now() + spec.timeout;
    let workloads = match &spec.which {
        Which::One(sort, name) => vec![Workload { sort: *sort, name: name.clone() }],
        Which::Selector(selector) => workload::matching(cluster, spec, selector).await?,
    };
    let mut errors = Vec::new();
    let mut begun = Vec::new();
    for workload in &workloads {
        match workload.stamp(cluster, spec, news).await {
            Ok(()) => begun.push(workload),
            Err(Failure(why)) => errors.push(why),
        }
    }
    let waits = begun.iter().map(|workload| wait(cluster, spec, workload, deadline));
    errors.extend(futures_util::future::join_all(waits).await.into_iter().filter_map(Result::err).map(|failure| failure.0));
    // Every workload's trouble is told, not only the last one's.
    if errors.is_empty() { Ok(None) } else { Err(Failure(errors.join("; "))) }
}

/// Looks at a rollout until it is done, stalls, or the time is up.
async fn wait(cluster: &Cluster, spec: &RolloutSpec, workload: &Workload, deadline: Instant) -> Result<(), Failure> {
    let mut pauses = PAUSES.into_iter().chain(std::iter::repeat(PAUSES[PAUSES.len() - 1]));
    loop {
        let seen = match workload.look(cluster, spec).await {
            Ok(found) => progress(&found, workload),
            // An API server that is away for a moment stalls no rollout.
            Err(workload::Trouble::Passing(why)) => Progress::Under(why),
            Err(workload::Trouble::Lasting(failure)) => return Err(failure),
        };
        let under = match seen {
            Progress::Done => return Ok(()),
            Progress::Stalled(why) => return Err(workload.failure(spec, &format!("its rollout stalls: {why}"))),
            Progress::Under(why) => why,
        };
        if Instant::now() >= deadline {
            let what = format!("its rollout was not done within {} s: {under}", spec.timeout.as_secs());
            return Err(workload.failure(spec, &what));
        }
        let pause = pauses.next().unwrap_or(PAUSES[0]);
        tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
    }
}

fn progress(found: &Found, workload: &Workload) -> Progress {
    match workload.sort {
        Sort::Deployment => found.deployment(),
        Sort::StatefulSet => found.stateful_set(),
        Sort::DaemonSet => found.daemon_set(),
    }
}
