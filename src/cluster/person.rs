//! The kubeconfig of a person, found as kubectl finds it: the flag, `KUBECONFIG`, `~/.kube/config`, the Pod's own
//! account.

use std::path::{Path, PathBuf};

use kube::config::{Context, Kubeconfig};

use super::{ClusterSpec, InCluster};

/// What a person named, and what the environment says.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `KUBECONFIG`: one file, or several with colons between.
    pub variable: Option<String>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// Whether we run in a Pod (`KUBERNETES_SERVICE_HOST` is set).
    pub in_pod: bool,
}

impl Wish {
    /// By this process's environment.
    pub fn of_this_process(kubeconfig: Option<PathBuf>, context: Option<String>) -> Self {
        let variable = std::env::var("KUBECONFIG").ok().filter(|v| !v.is_empty());
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Self { kubeconfig, context, variable, home, in_pod: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() }
    }

    /// The cluster meant. Of several files in `KUBECONFIG` the first one that has the context counts.
    ///
    /// # Errors
    /// That there is none, and where one was looked for.
    pub fn cluster(&self) -> Result<ClusterSpec, String> {
        let files = self.files();
        let found = match files.as_slice() {
            [one] => Some(one.clone()).filter(|file| self.kubeconfig.is_some() || self.variable.is_some() || file.exists()),
            several => several.iter().find(|file| self.chosen(file).is_some()).cloned(),
        };
        let in_cluster = (found.is_none() && self.kubeconfig.is_none() && self.in_pod).then_some(InCluster {});
        if found.is_none() && in_cluster.is_none() {
            let looked: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
            let looked = if looked.is_empty() { "nowhere: HOME is not set".to_owned() } else { looked.join(", ") };
            return Err(format!(
                "no kubeconfig with that context (looked at {looked}); name one with --kubeconfig, or a cluster of the schedule with --cluster"
            ));
        }
        let context = self.context.clone().filter(|_| found.is_some());
        Ok(ClusterSpec {
            // Files that it names count from its folder, and some are looked up later.
            kubeconfig: found.map(|file| std::path::absolute(&file).unwrap_or(file)),
            context,
            in_cluster,
            ..ClusterSpec::default()
        })
    }

    /// The namespace that the context names, where it names one.
    pub fn namespace(&self) -> Option<String> {
        self.files().iter().find_map(|file| self.chosen(file))?.namespace.filter(|n| !n.is_empty())
    }

    fn files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.kubeconfig {
            return vec![file.clone()];
        }
        if let Some(list) = &self.variable {
            return list.split(':').filter(|part| !part.is_empty()).map(PathBuf::from).collect();
        }
        self.home.iter().map(|home| home.join(".kube/config")).collect()
    }

    fn chosen(&self, file: &Path) -> Option<Context> {
        let kubeconfig = Kubeconfig::read_from(file).ok()?;
        let wanted = self.context.clone().or(kubeconfig.current_context)?;
        kubeconfig.contexts.into_iter().find(|c| c.name == wanted)?.context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &tempfile::TempDir, name: &str, context: &str, namespace: &str) -> PathBuf {
        let path = folder.path().join(name);
        let text = format!(
            "contexts:\n- {{name: {context}, context: {{cluster: c, user: u, namespace: {namespace}}}}}\ncurrent-context: {context}\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_flag_wins_over_the_variable_and_the_variable_over_the_home() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".kube")).unwrap();
        let (one, two) = (file(&folder, "one", "a", "na"), file(&folder, "two", "b", "nb"));
        let own = file(&folder, ".kube/config", "h", "nh");
        let mut wish = Wish { home: Some(folder.path().into()), ..Wish::default() };
        assert_eq!((wish.cluster().unwrap().kubeconfig, wish.namespace()), (Some(own), Some("nh".into())));
        wish.variable = Some(two.display().to_string());
        assert_eq!((wish.cluster().unwrap().kubeconfig, wish.namespace()), (Some(two), Some("nb".into())));
        wish.kubeconfig = Some(one.clone());
        assert_eq!((wish.cluster().unwrap().kubeconfig, wish.namespace()), (Some(one), Some("na".into())));
    }

    #[test]
    fn a_relative_path_is_made_whole_so_that_files_beside_it_are_found_once() {
        let wish = Wish { kubeconfig: Some("ci/kubeconfig".into()), ..Wish::default() };
        let here = std::env::current_dir().unwrap();
        assert_eq!(wish.cluster().unwrap().kubeconfig, Some(here.join("ci/kubeconfig")));
    }

    #[test]
    fn of_several_files_the_one_with_the_context_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (file(&folder, "one", "a", "na"), file(&folder, "two", "b", "nb"));
        let variable = Some(format!("{}::{}:/nonexistent", one.display(), two.display()));
        let wish = Wish { variable, context: Some("b".into()), ..Wish::default() };
        assert_eq!((wish.cluster().unwrap().kubeconfig, wish.namespace()), (Some(two), Some("nb".into())));
        assert!(Wish { context: Some("c".into()), ..wish }.cluster().unwrap_err().contains("no kubeconfig with that context"));
    }

    #[test]
    fn a_pod_uses_its_own_account_and_nothing_at_all_is_told() {
        let pod = Wish { home: Some("/nonexistent".into()), in_pod: true, ..Wish::default() };
        assert!(pod.cluster().unwrap().in_cluster.is_some());
        assert!(Wish { in_pod: false, ..pod }.cluster().unwrap_err().contains("/nonexistent/.kube/config"));
    }
}
