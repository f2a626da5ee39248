//! Which folders a plan writes to. What a setting of the start alone names (records, socket) is not among them: a reload
//! does not take it up.

use std::path::{Path, PathBuf};

use crate::daemon::scene::embedded_beside;
use crate::schedule::Plan;
use crate::sink::SinkSpec;

/// A folder that is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// The folder.
    pub folder: PathBuf,
    /// For which target; none where it is a setting of the daemon.
    pub target: Option<String>,
    /// The path that the schedule names.
    pub path: PathBuf,
}

/// Folders of every file and directory, fallbacks among them, of the metrics' text, and of embedded clusters' keys.
pub(super) fn of(plan: &Plan, records: &Path) -> Vec<Need> {
    let mut needs: Vec<Need> = embedded(plan, records).collect();
    for target in &plan.targets {
        for place in target.places() {
            let (folder, path) = match &place.sink {
                SinkSpec::File(spec) => (spec.path.parent().unwrap_or(&spec.path), &spec.path),
                SinkSpec::Directory(spec) => (&*spec.files_as.path, &spec.files_as.path),
                _ => continue,
            };
            needs.push(Need { folder: folder.to_owned(), target: Some(target.name.to_string()), path: path.clone() });
        }
    }
    let textfile = plan.unasked.textfile.as_ref();
    let beside = |path: &PathBuf| Some(Need { folder: path.parent()?.to_owned(), target: None, path: path.clone() });
    needs.extend(textfile.and_then(beside));
    needs
}

/// Folders of embedded clusters' keys.
pub(super) fn embedded(plan: &Plan, records: &Path) -> impl Iterator<Item = Need> {
    let folder = |(name, spec): (&String, &std::sync::Arc<crate::cluster::ClusterSpec>)| {
        let embedded = spec.embedded.as_ref()?;
        let folder = embedded.directory.clone().unwrap_or_else(|| embedded_beside(records).join(name));
        Some(Need { path: folder.clone(), folder, target: None })
    };
    plan.clusters.iter().filter_map(folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::check::{Sources, plan};

    #[test]
    fn a_plan_writes_to_the_folders_of_its_files_and_fallbacks_its_metrics_and_its_keys() {
        let text = "version: 1\nmetrics: {textfile: /m/t.prom}\nclusters: {trial: {embedded: {}}, second: {embedded: {directory: /keys}}}\nstores: {v: {vault: {address: 'https://v', auth: {token: {file: /f}}}}}\ntargets:\n- name: a\n  cluster: trial\n  serviceAccount: a/b\n  duration: 1h\n  deliver:\n  - file: {path: /one/t}\n  - directory: {path: /two, files: {token: raw}}\n  - vault: {store: v, mount: m, path: p, key: k}\n    fallback: [{file: {path: /three/t}}]\n  - command: {command: [/bin/true]}\n";
        let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
        let plan = plan(&sources, &BTreeMap::new()).unwrap();
        let mut found: Vec<String> = of(&plan, Path::new("/state/records"))
            .into_iter()
            .map(|need| format!("{} {}", need.folder.display(), need.target.unwrap_or_default()))
            .collect();
        found.sort();
        assert_eq!(found, ["/keys ", "/m ", "/one a", "/state/embedded/trial ", "/three a", "/two a"]);
    }
}
