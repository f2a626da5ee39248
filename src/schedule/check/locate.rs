//! Where a path is written in a schedule: for what is wrong with it only on this host, which planning does not see.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Sources, rules};
use crate::schedule::yaml::{self, At, Node, START, Value};

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// In which file.
    pub file: PathBuf,
    /// Its line and column there.
    pub at: At,
    /// Its key, as a path; empty where it is not written at all.
    pub key: String,
}

/// Where each of these paths (whole, as the plan has them) is written: under the target of that name, in `defaults`, or
/// where no target is named anywhere else in the schedule. What is written nowhere stands where its target begins, or at
/// the schedule's first character.
pub fn locate(sources: &Sources, wanted: &[(Option<String>, PathBuf)]) -> Vec<Written> {
    let mut places: Vec<Option<Written>> = vec![None; wanted.len()];
    let mut of_target: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, (target, _)) in wanted.iter().enumerate() {
        of_target.entry(target.as_deref().unwrap_or_default()).or_default().push(index);
    }
    if let Ok((root, _)) = yaml::head(&sources.text) {
        for (place, (target, path)) in places.iter_mut().zip(wanted) {
            let (tree, key) = if target.is_some() { (root.get("defaults"), "defaults") } else { (Some(&root), "") };
            *place = tree.and_then(|tree| written(&sources.path, tree, key, path));
        }
    }
    let texts = std::iter::once((&sources.path, &sources.text, false));
    for (file, text, whole) in texts.chain(sources.includes.iter().map(|(path, text)| (path, text, true))) {
        let mut index = 0;
        // Nothing here is broken: the plan was made from it.
        let _ = yaml::targets(text, whole, |node| {
            let key = if whole { format!("[{index}]") } else { format!("targets[{index}]") };
            index += 1;
            let Some(Value::Scalar { text: name, .. }) = node.get("name").map(|name| &name.value) else { return };
            for wanted_here in of_target.get(&**name).into_iter().flatten() {
                let found = written(file, &node, &key, &wanted[*wanted_here].1);
                let place = &mut places[*wanted_here];
                *place = found.or(place.take()).or_else(|| Some(Written { file: file.clone(), at: node.at, key: key.clone() }));
            }
        });
    }
    let nowhere = || Written { file: sources.path.clone(), at: START, key: String::new() };
    places.into_iter().map(|place| place.unwrap_or_else(nowhere)).collect()
}

fn written(file: &Path, node: &Node, key: &str, path: &Path) -> Option<Written> {
    let below = |step: String, node: &Node| written(file, node, &step, path);
    match &node.value {
        Value::Null => None,
        Value::Scalar { text, .. } => {
            let base = file.parent().unwrap_or(Path::new("/"));
            let text = text.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(text);
            let same = rules::written_path(base, Path::new(text)).is_ok_and(|whole| whole == path);
            same.then(|| Written { file: file.to_owned(), at: node.at, key: key.to_owned() })
        }
        Value::List(list) => list.iter().enumerate().find_map(|(index, node)| below(format!("{key}[{index}]"), node)),
        Value::Map(entries) => {
            let dot = if key.is_empty() { "" } else { "." };
            entries.iter().find_map(|(name, node)| below(format!("{key}{dot}{}", name.text), node))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_under_its_target_in_defaults_in_an_include_and_elsewhere() {
        let text = "version: 1\nmetrics: {textfile: m/t.prom}\ndefaults:\n  deliver: [{file: {path: /all}}]\ntargets:\n- name: a\n  deliver:\n  - file: {path: /b}\n    fallback: [{directory: {path: out/d/}}]\n- {name: b}\n";
        let included = "- {name: c, deliver: [{file: {path: x}}]}\n";
        let sources =
            Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: vec![("/etc/t.d/c.yaml".into(), included.into())] };
        let wanted = |target: Option<&str>, path: &str| (target.map(str::to_owned), PathBuf::from(path));
        let found = locate(
            &sources,
            &[
                wanted(Some("a"), "/etc/out/d"),
                wanted(Some("b"), "/all"),
                wanted(Some("c"), "/etc/t.d/x"),
                wanted(None, "/etc/m/t.prom"),
                wanted(Some("a"), "/nowhere"),
                wanted(None, "/nowhere"),
            ],
        );
        let shown: Vec<String> =
            found.iter().map(|at| format!("{}:{}:{} {}", at.file.display(), at.at.line, at.at.column, at.key)).collect();
        assert_eq!(
            shown,
            [
                "/etc/s.yaml:9:35 targets[0].deliver[0].fallback[0].directory.path",
                "/etc/s.yaml:4:27 defaults.deliver[0].file.path",
                "/etc/t.d/c.yaml:1:37 [0].deliver[0].file.path",
                "/etc/s.yaml:2:21 metrics.textfile",
                "/etc/s.yaml:6:3 targets[0]",
                "/etc/s.yaml:1:1 ",
            ]
        );
    }
}
