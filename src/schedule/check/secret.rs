//! `kubernetesSecret`, and what else names something in a cluster.

use super::deliver::joined;
use super::report::Spot;
use super::{Planner, rules};
use crate::schedule::measure::shown;
use crate::schedule::yaml::{Step, closest};
use crate::sink::kubernetes::SecretSpec;

impl Planner<'_> {
    /// Checks a Secret's names, and fills in its cluster.
    pub(super) fn secret_place(&mut self, spot: &Spot<'_>, here: &[Step<'_>], spec: &SecretSpec, own: Option<&str>) -> SecretSpec {
        let cluster = Some(&*spec.cluster).filter(|name| !name.is_empty());
        let cluster = self.reachable(spot, here, cluster, own);
        if let Err(message) = rules::namespace(&spec.namespace) {
            self.report.error(spot, &joined(here, "namespace"), &message);
        }
        if !rules::subdomain(&spec.name) {
            let message = format!("{} is no name of a Secret: write a-z, 0-9, - and .", shown(&spec.name));
            self.report.error(spot, &joined(here, "name"), &message);
        }
        let known = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if spec.key.is_empty() || spec.key.len() > 253 || !spec.key.bytes().all(known) || matches!(&*spec.key, "." | "..") {
            let message = format!("{} is no key of a Secret: write letters, digits, -, _ and .", shown(&spec.key));
            self.report.error(spot, &joined(here, "key"), &message);
        }
        SecretSpec { cluster, ..spec.clone() }
    }

    /// The cluster that is meant: the one named, else the target's own. It has to have an API server.
    pub(super) fn reachable(&mut self, spot: &Spot<'_>, here: &[Step<'_>], named: Option<&str>, own: Option<&str>) -> String {
        let steps = if named.is_some() { joined(here, "cluster") } else { here.to_vec() };
        let Some(name) = named.or(own) else { return String::new() };
        let message = match self.clusters.get(name) {
            Some(facts) if facts.embedded == Some(true) => {
                let whose = if named.is_none() { "this target's cluster " } else { "" };
                format!("{whose}{} is embedded and has no API server: name another with `cluster`", shown(name))
            }
            Some(_) => return name.to_owned(),
            // that the target's own is missing was said of the target
            None if named.is_none() => return name.to_owned(),
            None => match closest(name, self.clusters.keys().map(String::as_str)) {
                Some(near) => format!("there is no cluster {}: did you mean `{near}`?", shown(name)),
                None => format!("there is no cluster {}: write it under `clusters`", shown(name)),
            },
        };
        self.report.error(spot, &steps, &message);
        name.to_owned()
    }
}
