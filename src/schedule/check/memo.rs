//! What was planned before need not be planned again: a reload of a hundred thousand targets reads those that changed.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::Planner;
use crate::schedule::plan::Target;

/// SHA-256 of a text and of all that gives it its meaning.
pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

/// The pieces of a schedule that its targets were planned from, as far as nothing was to be said of them.
#[derive(Debug, Clone, Default)]
pub struct Memo {
    /// Of all but the targets.
    pub(super) head: Digest,
    pieces: HashMap<Digest, Vec<Arc<Target>>>,
}

/// The digest of a text in the file of that path.
pub(super) fn digest(path: &Path, text: &str) -> Digest {
    digest_of(&[path.as_os_str().as_encoded_bytes(), b"\n", text.as_bytes()])
}

/// The digest of these, one after the other.
pub(super) fn digest_of(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl Memo {
    /// Nothing yet, beside all but the targets.
    pub(super) fn new(head: Digest) -> Self {
        Self { head, pieces: HashMap::new() }
    }

    /// Whether the piece was planned.
    pub(super) fn knows(&self, piece: &Digest) -> bool {
        self.pieces.contains_key(piece)
    }

    /// What was planned of it.
    pub(super) fn of(&self, piece: &Digest) -> &[Arc<Target>] {
        self.pieces.get(piece).map(Vec::as_slice).unwrap_or_default()
    }

    /// Keeps what was planned of a piece.
    pub(super) fn keep(&mut self, piece: Digest, targets: Vec<Arc<Target>>) {
        self.pieces.insert(piece, targets);
    }

    /// Holds the very targets that the plan holds, where they mean the same.
    pub(in crate::schedule) fn follow(&mut self, plan: impl Fn(&Arc<Target>) -> Option<Arc<Target>>) {
        for target in self.pieces.values_mut().flatten() {
            if let Some(other) = plan(target) {
                *target = other;
            }
        }
    }
}

impl Planner<'_> {
    /// Whether a target that was planned now has the name or a place of one that was planned before; those among
    /// themselves have not, or the plan that they stood in would have been refused.
    pub(super) fn collides(&self, before: &[&[Arc<Target>]]) -> bool {
        let taken = |target: &Arc<Target>| {
            self.names.contains_key(&*target.name) || target.places().any(|place| self.places.contains_key(&self.place_key(&place.sink)))
        };
        before.iter().copied().flatten().any(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::fmt::Write;

    use super::super::{Sources, plan, plan_after};
    use super::*;
    use crate::schedule::Plan;

    const TARGETS: usize = 3_000;

    fn text(list: &str) -> String {
        let head = "version: 1\nclusters: {c: {embedded: {}}}\ndefaults: {cluster: c, duration: 1h}\ntargets:\n";
        format!("{head}{list}")
    }

    fn list(change: impl Fn(usize) -> Option<String>) -> String {
        let mut list = String::new();
        for n in 0..TARGETS {
            let plain = || format!("- {{name: t{n}, serviceAccount: bench/account-{n}, deliver: [{{file: {{path: /run/ferry/t{n}}}}}]}}");
            let _ = writeln!(list, "{}", change(n).unwrap_or_else(plain));
        }
        list
    }

    fn sources(text: String) -> Sources {
        Sources { path: "/etc/s.yaml".into(), text, includes: Vec::new() }
    }

    /// Planned anew and planned after another plan: the outcome has to be the same. Gives how many targets are the very
    /// same as before.
    fn both(before: &Plan, sources: &Sources) -> Result<usize, Vec<String>> {
        let told = |problems: Vec<crate::schedule::Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        let anew = plan(sources, &BTreeMap::new()).map_err(told);
        let after = plan_after(sources, &BTreeMap::new(), Some(&before.memo)).map_err(told);
        match (anew, after) {
            (Ok(anew), Ok(after)) => {
                let plain = |plan: &Plan| plan.targets.iter().map(|t| Target { line: 0, ..(**t).clone() }).collect::<Vec<_>>();
                assert_eq!(plain(&anew), plain(&after));
                assert_eq!((anew.by_name, anew.sha256), (after.by_name, after.sha256));
                assert_eq!(
                    anew.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    after.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
                );
                let old: HashSet<*const Target> = before.targets.iter().map(Arc::as_ptr).collect();
                Ok(after.targets.iter().filter(|t| old.contains(&Arc::as_ptr(t))).count())
            }
            (anew, after) => {
                let (anew, after) = (anew.map(drop), after.map(drop));
                assert_eq!(anew, after);
                Err(anew.unwrap_err())
            }
        }
    }

    #[test]
    fn only_pieces_that_changed_are_planned_again_and_the_plan_is_the_same() {
        let before = plan(&sources(text(&list(|_| None))), &BTreeMap::new()).unwrap();
        assert_eq!(before.memo.pieces.values().map(Vec::len).sum::<usize>(), TARGETS);
        let other = |n: usize| format!("- {{name: t{n}, serviceAccount: bench/other, deliver: [{{file: {{path: /run/ferry/t{n}}}}}]}}");
        let kept = both(&before, &sources(text(&list(|n| (n == 1_500).then(|| other(n)))))).unwrap();
        assert!(kept > TARGETS / 2 && kept < TARGETS, "{kept}");
        let more = format!("{}- {{name: new, serviceAccount: a/b, deliver: [{{file: {{path: /run/new}}}}]}}\n", list(|_| None));
        assert!(both(&before, &sources(text(&more))).unwrap() > TARGETS / 2);
        assert_eq!(both(&before, &sources(text(&list(|_| None)))), Ok(TARGETS));
    }

    #[test]
    fn a_change_above_the_targets_has_all_of_them_planned_again() {
        let before = plan(&sources(text(&list(|_| None))), &BTreeMap::new()).unwrap();
        let longer = text(&list(|_| None)).replace("duration: 1h", "duration: 2h");
        assert_eq!(both(&before, &sources(longer)), Ok(0));
    }

    #[test]
    fn a_name_or_place_of_a_target_that_did_not_change_is_still_taken() {
        let before = plan(&sources(text(&list(|_| None))), &BTreeMap::new()).unwrap();
        for twice in [
            "- {name: t7, serviceAccount: a/b, deliver: [{file: {path: /run/new}}]}\n",
            "- {name: new, serviceAccount: a/b, deliver: [{file: {path: /run/ferry/t7}}]}\n",
            "- {name: new, serviceAccount: a/b, deliver: [{file: {path: /run/new}, fallback: [{file: {path: /run/ferry/t7}}]}]}\n",
        ] {
            let told = both(&before, &sources(text(&format!("{}{twice}", list(|_| None))))).unwrap_err();
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].contains("already"), "{told:?}");
        }
        let whole = list(|_| None);
        assert!(both(&before, &sources(text(&format!("{whole}{whole}")))).is_err(), "each piece stands there twice");
    }

    #[test]
    fn what_was_warned_of_is_warned_of_again() {
        let smells = |n: usize| {
            (n == 11)
                .then(|| format!("- {{name: t{n}, serviceAccount: a/b, deliver: [{{file: {{path: /run/ferry/t{n}, mode: \"0644\"}}}}]}}"))
        };
        let before = plan(&sources(text(&list(smells))), &BTreeMap::new()).unwrap();
        assert_eq!(before.warnings.len(), 1);
        let kept = both(&before, &sources(text(&list(smells)))).unwrap();
        assert!(kept > 0 && kept < TARGETS, "{kept}");
    }

    #[test]
    fn an_included_file_that_did_not_change_is_not_planned_again() {
        let part = |from: usize, to: usize, account: &str| {
            let target = |n| format!("- {{name: t{n}, serviceAccount: {account}, deliver: [{{file: {{path: /run/t{n}}}}}]}}\n");
            (from..to).map(target).collect::<String>()
        };
        let of = |account: &str| Sources {
            path: "/etc/s.yaml".into(),
            text: "version: 1\ninclude: [t.d/*.yaml]\nclusters: {c: {embedded: {}}}\ndefaults: {cluster: c, duration: 1h}\n".into(),
            includes: vec![("/etc/t.d/a.yaml".into(), part(0, 50, "a/b")), ("/etc/t.d/b.yaml".into(), part(50, 90, account))],
        };
        let before = plan(&of("a/b"), &BTreeMap::new()).unwrap();
        assert_eq!((both(&before, &of("a/b")), both(&before, &of("a/c"))), (Ok(90), Ok(50)));
    }
}
