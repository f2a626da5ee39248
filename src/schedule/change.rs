//! From one plan to the next: which targets came, went or changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::schedule::plan::{Plan, Target, WhenRemoved};

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
    /// Settings of the daemon itself that are others, by their keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<&'static str>,
    /// Removed targets of which what they left is deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deleting: Vec<String>,
}

/// Most targets of which what they left is deleted without a word, whatever their share.
const UNASKED: usize = 10;
/// That share of all targets, in percent, is the most; one always may.
const SHARE: usize = 5;

/// Whether what these targets left may be deleted, of that many targets; `told` is the number that a person said.
///
/// # Errors
/// Why not, with what to say.
pub fn guard(leaving: &[String], of: usize, told: Option<usize>) -> Result<(), String> {
    let count = leaving.len();
    let free = UNASKED.min((of * SHARE / 100).max(1));
    match told {
        Some(told) if told == count => return Ok(()),
        None if count <= free => return Ok(()),
        _ => {}
    }
    let names = leaving.iter().take(UNASKED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if count > UNASKED { ", …" } else { "" };
    Err(match told {
        Some(told) => format!("{told} targets are said to go, and what {count} left would be deleted ({names}{more}): nothing was changed"),
        None => format!(
            "what {count} of {of} targets left would be deleted ({names}{more}), more than {free}: nothing was changed. If that is meant: \
             tokenferry reload --remove {count}"
        ),
    })
}

impl Change {
    /// What leads from `before` to `after`.
    pub fn between(before: &Plan, after: &Plan) -> Self {
        let mut change = Self {
            clusters: differing(&before.clusters, &after.clusters),
            stores: differing(&before.stores, &after.stores),
            settings: settings(before, after),
            ..Self::default()
        };
        for target in &after.targets {
            match before.target(&target.name) {
                None => change.added.push(target.name.to_string()),
                Some(old) if !Arc::ptr_eq(old, target) && !same(old, target) => change.changed.push(target.name.to_string()),
                Some(_) => {}
            }
        }
        let gone = before.targets.iter().filter(|old| after.target(&old.name).is_none());
        change.removed = gone.map(|old| old.name.to_string()).collect();
        change
    }

    /// Removed targets that ask for what they left to be deleted.
    pub fn leaving(&self, before: &Plan) -> Vec<String> {
        let asks = |name: &&String| before.target(name).is_some_and(|target| target.when_removed == WhenRemoved::Delete);
        self.removed.iter().filter(asks).cloned().collect()
    }

    /// Whether nothing differs that matters to a target.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Has a plan take over from the one before it, as they are, the targets that mean the same in both: whoever holds one
/// need not be told, and no target stands in memory twice.
pub fn keep_same(before: &Plan, after: &mut Plan) {
    let old = |target: &Arc<Target>| {
        let old = before.target(&target.name)?;
        (!Arc::ptr_eq(old, target) && same(old, target) && old.first == target.first).then(|| Arc::clone(old))
    };
    for target in &mut after.targets {
        if let Some(old) = old(target) {
            *target = old;
        }
    }
    after.memo.follow(old);
}

/// Targets of a plan that are not the very ones of the plan before it.
pub fn renewed<'a>(before: &Plan, after: &'a Plan) -> Vec<&'a Arc<Target>> {
    // Both are in the order of one file, nearly.
    let mut at = 0;
    let mut is_new = |target: &&Arc<Target>| {
        let is_there = |at: usize| before.targets.get(at).is_some_and(|old| Arc::ptr_eq(old, target));
        if !is_there(at) {
            match before.by_name.get(&*target.name) {
                Some(&found) if is_there(found) => at = found,
                _ => return true,
            }
        }
        at += 1;
        false
    };
    after.targets.iter().filter(|target| is_new(target)).collect()
}

/// Whether two targets mean the same, wherever they stand in their files.
fn same(a: &Target, b: &Target) -> bool {
    let Target { name, terms, ask, deliver, first: _, line: _ } = a;
    *name == b.name && (Arc::ptr_eq(terms, &b.terms) || *terms == b.terms) && *ask == b.ask && *deliver == b.deliver
}

/// What belongs to no target.
fn settings(before: &Plan, after: &Plan) -> Vec<&'static str> {
    let (old, new) = (&before.unasked, &after.unasked);
    let differing = [
        ("records", before.records != after.records),
        ("control.socket", before.socket != after.socket),
        ("metrics.listen", before.metrics != after.metrics),
        ("metrics.textfile", old.textfile != new.textfile),
        ("alerts", old.alerts != new.alerts),
        ("heartbeat", old.heartbeat != new.heartbeat),
        ("monitor", old.monitor != new.monitor),
        ("fleet", before.fleet != after.fleet),
        ("reloadOnChange", before.reload_on_change != after.reload_on_change),
    ];
    differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// Those that a running daemon does not take up: they are read at its start.
pub const AT_START: [&str; 5] = ["records", "control.socket", "metrics.listen", "fleet", "reloadOnChange"];

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
    fn one_target_may_always_go_and_many_only_when_their_number_is_said() {
        let names = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
        for (count, of, told, good) in [
            (0, 3, None, true),
            (1, 3, None, true),
            (2, 3, None, false),
            (2, 3, Some(2), true),
            (2, 3, Some(3), false),
            (5, 100, None, true),
            (6, 100, None, false),
            (10, 10_000, None, true),
            (11, 10_000, None, false),
            (11, 10_000, Some(11), true),
            (1, 3, Some(2), false),
            (0, 3, Some(1), false),
        ] {
            assert_eq!(guard(&names(count), of, told).is_ok(), good, "{count} of {of}, told {told:?}");
        }
        assert!(guard(&names(11), 40, None).unwrap_err().contains("tokenferry reload --remove 11"));
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
    fn settings_of_the_daemon_that_differ_are_named() {
        let with = |head: &str| {
            let text = format!("version: 1\n{head}\nclusters: {{trial: {{embedded: {{}}}}}}\n");
            plan(&Sources { path: "/etc/s.yaml".into(), text, includes: Vec::new() }, &BTreeMap::new()).unwrap()
        };
        let before = with("alerts: [{exec: {command: [page]}}]\nmonitor: [{path: /a}]");
        for (head, settings) in [
            ("alerts: [{exec: {command: [page]}}]\nmonitor: [{path: /a}]", &[][..]),
            ("alerts: [{exec: {command: [page]}, repeat: 2h}]\nmonitor: [{path: /a}]", &["alerts"]),
            (
                "metrics: {textfile: /x.prom}\nheartbeat: {http: {url: \"https://x\"}}",
                &["metrics.textfile", "alerts", "heartbeat", "monitor"],
            ),
            (
                "alerts: [{exec: {command: [page]}}]\nmonitor: [{path: /a, maxAge: 1h}]\nreloadOnChange: true",
                &["monitor", "reloadOnChange"],
            ),
        ] {
            let change = Change::between(&before, &with(head));
            assert_eq!((change.settings.as_slice(), change.is_empty()), (settings, settings.is_empty()), "{head}");
        }
    }

    #[test]
    fn a_target_that_only_moved_in_its_file_did_not_change() {
        let before = planned("  - {name: a, deliver: [{file: {path: /r/a}}]}\n");
        let after = planned("\n\n  - {name: a, deliver: [{file: {path: /r/a}}]}\n");
        assert!(Change::between(&before, &after).is_empty());
    }
    #[test]
    fn targets_that_mean_the_same_are_the_very_same_and_all_others_are_told() {
        let target = |name: &str, more: &str| format!("  - {{name: {name}, {more}deliver: [{{file: {{path: /r/{name}}}}}]}}\n");
        let before = planned(&["a", "b", "c", "d"].map(|name| target(name, "")).concat());
        let written = [target("x", ""), target("b", ""), target("c", "suspend: true, "), target("d", ""), target("a", "")];
        let mut after = planned(&written.concat());
        assert_eq!(renewed(&before, &after).len(), 5);
        keep_same(&before, &mut after);
        let names: Vec<&str> = renewed(&before, &after).iter().map(|target| &*target.name).collect();
        assert_eq!(names, ["x", "c"]);
        assert!(Arc::ptr_eq(&after.targets[4], &before.targets[0]));
    }
}
