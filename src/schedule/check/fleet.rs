//! `fleet`, and which hosts of it serve a target.

use super::Planner;
use super::report::Spot;
use super::rules;
use super::target::Subject;
use crate::cluster::lease::LeaseSpec;
use crate::schedule::file::FleetFile;
use crate::schedule::measure::shown;
use crate::schedule::plan::is_of_a_host;
use crate::schedule::yaml::{Step, closest};
use crate::sink::Place;

/// Longest name of a fleet: it stands in a label, and before each member's name.
const LONGEST: usize = 50;

impl Planner<'_> {
    /// Checks `fleet`.
    pub(super) fn fleet(&mut self, spot: &Spot<'_>, file: Option<FleetFile>) -> Option<LeaseSpec> {
        let LeaseSpec { cluster, namespace, name } = file?.lease;
        self.fleet = true;
        let at = |key: &'static str| -> [Step<'_>; 3] { ["fleet".into(), "lease".into(), key.into()] };
        match self.clusters.get(&cluster).map(|facts| facts.embedded) {
            Some(Some(true)) => {
                self.report.error(spot, &at("cluster"), "an embedded cluster has no Leases: name one that has an API server");
            }
            Some(_) => {}
            None => {
                let near = closest(&cluster, self.clusters.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
                let way = near.unwrap_or_else(|| "write it under `clusters`".into());
                self.report.error(spot, &at("cluster"), &format!("there is no cluster {}: {way}", shown(&cluster)));
            }
        }
        if let Err(message) = rules::namespace(&namespace) {
            self.report.error(spot, &at("namespace"), &message);
        }
        if !rules::subdomain(&name) || name.contains('.') || name.len() > LONGEST {
            let message = format!("{} is no name of a fleet: write at most {LONGEST} of a-z, 0-9 and -", shown(&name));
            self.report.error(spot, &at("name"), &message);
        }
        Some(LeaseSpec { cluster, namespace, name })
    }

    /// Checks which hosts serve a target.
    pub(super) fn hosts(&mut self, subject: &Subject<'_>, hosts: Option<&[String]>, deliver: &[Place]) {
        let steps: [Step<'_>; 1] = ["hosts".into()];
        let here = deliver.iter().any(is_of_a_host);
        let Some(hosts) = hosts else {
            if self.fleet && here {
                let message = "in a fleet a file belongs to a host: write which hosts serve the target, such as `hosts: [\"*\"]`";
                self.error(subject, &steps, message);
            }
            return;
        };
        if !self.fleet {
            return self.error(subject, &steps, "hosts are told apart in a fleet alone: write `fleet` at the top, or leave this out");
        }
        if hosts.is_empty() {
            return self.error(subject, &steps, "no host would serve it: name one, or leave `hosts` out");
        }
        let plain = |glob: &String| {
            !glob.is_empty() && glob.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'*' | b'?'))
        };
        if let Some(at) = hosts.iter().position(|glob| !plain(glob)) {
            let message = format!("{} is no name of a host: write a-z, 0-9, - and ., with * and ? for what may differ", shown(&hosts[at]));
            return self.error(subject, &["hosts".into(), at.into()], &message);
        }
        let is_one = hosts.len() == 1 && !hosts[0].contains(['*', '?']);
        if !is_one && deliver.iter().any(|place| !is_of_a_host(place)) {
            let message = "each of these hosts would bring a token of its own to the same store: name one host, or make two targets of it, \
                           the one with the files alone with `hosts`";
            self.error(subject, &steps, message);
        }
    }
}
