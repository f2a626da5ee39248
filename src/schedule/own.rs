//! The daemon's own credentials as targets of the plan: what keeps a target fresh keeps them fresh too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::schedule::plan::{Compliance, Plan, Rotate, Target, Terms, WhenRemoved};
use crate::sink::file::{FileSpec, Mode};
use crate::sink::{Place, SinkSpec, WhenPaid};
use crate::token::Format;

/// What their names begin with; no target of a schedule can be called so.
const PREFIX: &str = "own/";
/// Share of its life after which it is renewed: well before half, at which its age is an alarm.
const AT: f64 = 0.4;
/// Seconds between its proofs.
const PROVE_EVERY: u64 = 900;

/// The cluster whose credential a target of that name is.
pub fn cluster_of(target: &str) -> Option<&str> {
    target.strip_prefix(PREFIX)
}

/// The name of the target that is the credential for that cluster.
pub fn name_of(cluster: &str) -> String {
    format!("{PREFIX}{cluster}")
}

/// Where the daemon's own credential for a cluster stands, below the state folder.
pub fn token_file(state: &Path, cluster: &str) -> PathBuf {
    state.join("own").join(cluster).join("token")
}

/// The plan with a target for each cluster that has `own`, delivered to the daemon's state folder, before all others:
/// these wait for it. The clusters learn where their token stands.
pub fn join(mut plan: Plan, state: &Path) -> Plan {
    let mut own = Vec::new();
    for (name, spec) in &mut plan.clusters {
        let Some(ask) = spec.own.as_ref().and_then(|own| own.ask()) else { continue };
        let file = token_file(state, name);
        if let Some(own) = &mut Arc::make_mut(spec).own {
            own.token_file = Some(file.clone());
        }
        let sink = SinkSpec::File(FileSpec { path: file, mode: Mode(0o600), owner: None, group: None, readers: Vec::new() });
        let terms = Terms {
            labels: std::collections::BTreeMap::new(),
            cluster: name.as_str().into(),
            revocable: false,
            overlap: 0,
            rotate: Rotate { at: AT, cron: Vec::new(), splay: None, window: None },
            suspend: false,
            prove: true,
            prove_every: PROVE_EVERY,
            compliance: Compliance::default(),
            when_removed: WhenRemoved::Keep,
            after: Vec::new(),
            hosts: Vec::new(),
        };
        let place =
            Place { sink, format: Format::Raw, encrypt_to: Vec::new(), required: true, fallback: Vec::new(), when_paid: WhenPaid::Keep };
        own.push(Arc::new(Target { name: name_of(name).into(), terms: Arc::new(terms), ask, deliver: vec![place], first: true, line: 0 }));
    }
    if own.is_empty() {
        return plan;
    }
    own.append(&mut plan.targets);
    plan.targets = own;
    plan.by_name = plan.targets.iter().enumerate().map(|(index, target)| (Arc::clone(&target.name), index)).collect();
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::check::{Sources, plan};
    use crate::schedule::timing::{Life, at_risk_from, due_by_lifetime};

    fn joined() -> Plan {
        let text = "version: 1\nclusters:\n  prod: {kubeconfig: /k, own: {serviceAccount: ferry/me, duration: 12h}}\n  other: {kubeconfig: /o}\ntargets: [{name: a, cluster: prod, serviceAccount: a/b, duration: 1h, deliver: [{file: {path: /r/a}}]}]\n";
        let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
        join(plan(&sources, &BTreeMap::new()).unwrap(), Path::new("/state"))
    }

    #[test]
    fn a_cluster_with_own_has_a_target_that_stands_before_all_others_and_its_client_knows_the_file() {
        let plan = joined();
        let names: Vec<&str> = plan.targets.iter().map(|t| &*t.name).collect();
        assert_eq!(names, ["own/prod", "a"]);
        let own = plan.target("own/prod").unwrap();
        assert_eq!((own.ask.namespace.as_str(), own.ask.service_account.as_str(), own.ask.duration), ("ferry", "me", 43_200));
        assert_eq!(own.deliver[0].file(), Some(PathBuf::from("/state/own/prod/token")));
        assert_eq!(plan.clusters["prod"].own.as_ref().unwrap().token_file, own.deliver[0].file());
        assert_eq!(*plan.target("a").unwrap().name, *"a", "the index by name follows");
    }

    #[test]
    fn it_is_renewed_well_before_half_of_its_life_and_an_alarm_from_then_on() {
        let plan = joined();
        let own = plan.target("own/prod").unwrap();
        for seconds in [600, 86_400] {
            let life = Life { issued_at: 1_000_000, expires_at: 1_000_000 + seconds };
            assert_eq!(at_risk_from(own, life), 1_000_000 + seconds / 2);
            let due = due_by_lifetime(own, life, "host") - 1_000_000;
            assert!(due > seconds / 4 && due <= seconds * 2 / 5, "{due} of {seconds}");
        }
    }
}
