//! From one plan to the next: which targets came, went or changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::schedule::plan::{Plan, Target};

/// The difference between two plans, by names, in the order of the plan that has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Targets that only the new plan has.
    pub added: Vec<String>,
    /// Targets that only the old plan has.
    pub removed: Vec<String>,
    /// Targets whose settings are others.
    pub changed: Vec<String>,
    /// Clusters that came, went or have other settings.
    pub clusters: Vec<String>,
    /// Stores that came, went or have other settings.
    pub stores: Vec<String>,
}

impl Change {
    /// What leads from `before` to `after`.
    pub fn between(before: &Plan, after: &Plan) -> Self {
        let mut change = Self {
            clusters: differing(&before.clusters, &after.clusters),
            stores: differing(&before.stores, &after.stores),
            ..Self::default()
        };
        for target in &after.targets {
            match before.target(&target.name) {
                None => change.added.push(target.name.clone()),
                Some(old) if !same(old, target) => change.changed.push(target.name.clone()),
                Some(_) => {}
            }
        }
        let gone = before.targets.iter().filter(|old| after.target(&old.name).is_none());
        change.removed = gone.map(|old| old.name.clone()).collect();
        change
    }

    /// Whether nothing differs that matters to a target.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether two targets mean the same, wherever they stand in their files.
fn same(a: &Target, b: &Target) -> bool {
    let Target { name, labels, cluster, ask, revocable, overlap, rotate, suspend, prove, prove_every, compliance, deliver, after, line: _ } =
        a;
    *name == b.name
        && *labels == b.labels
        && *cluster == b.cluster
        && *ask == b.ask
        && *revocable == b.revocable
        && *overlap == b.overlap
        && *rotate == b.rotate
        && *suspend == b.suspend
        && *prove == b.prove
        && *prove_every == b.prove_every
        && *compliance == b.compliance
        && *deliver == b.deliver
        && *after == b.after
}

fn differing<T: PartialEq>(before: &BTreeMap<String, Arc<T>>, after: &BTreeMap<String, Arc<T>>) -> Vec<String> {
    let other = after.iter().filter(|(name, new)| before.get(*name) != Some(*new));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut names: Vec<String> = other.map(|(name, _)| name.clone()).chain(gone.cloned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::check::{Sources, plan};

    fn planned(targets: &str) -> Plan {
        let text = format!(
            "version: 1\nclusters: {{trial: {{embedded: {{}}}}}}\ndefaults: {{cluster: trial, serviceAccount: a/b, duration: 1h}}\ntargets:\n{targets}"
        );
        plan(&Sources { path: "/etc/s.yaml".into(), text, includes: Vec::new() }, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn targets_that_came_went_and_changed_are_named() {
        let before = planned(
            "  - {name: a, deliver: [{file: {path: /r/a}}]}\n  - {name: b, deliver: [{file: {path: /r/b}}]}\n  - {name: c, deliver: [{file: {path: /r/c}}]}\n",
        );
        let after = planned(
            "  - {name: d, deliver: [{file: {path: /r/d}}]}\n  - {name: b, suspend: true, deliver: [{file: {path: /r/b}}]}\n\n  - {name: c, deliver: [{file: {path: /r/c}}]}\n",
        );
        let change = Change::between(&before, &after);
        assert_eq!((change.added, change.removed, change.changed), (vec!["d".into()], vec!["a".into()], vec!["b".into()]));
    }

    #[test]
    fn a_target_that_only_moved_in_its_file_did_not_change() {
        let before = planned("  - {name: a, deliver: [{file: {path: /r/a}}]}\n");
        let after = planned("\n\n  - {name: a, deliver: [{file: {path: /r/a}}]}\n");
        assert!(Change::between(&before, &after).is_empty());
    }
}
