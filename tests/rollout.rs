//! `rolloutRestart` against a real API server and the real controller manager; the tests play the kubelet, who marks
//! Pods ready.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Host;
use crate::support::servers::cluster;
use crate::support::until;

/// One namespace with workloads, and its kubelet.
struct Town {
    namespace: String,
    ready: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    kubelet: Option<std::thread::JoinHandle<()>>,
}

impl Town {
    fn new(namespace: &str) -> Self {
        cluster().kubectl(&["create", "namespace", namespace]);
        cluster().kubectl(&["-n", namespace, "create", "serviceaccount", "ci"]);
        Self::old(namespace)
    }

    /// A namespace that is there already.
    fn old(namespace: &str) -> Self {
        let (ready, over) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (own, end, name) = (Arc::clone(&ready), Arc::clone(&over), namespace.to_owned());
        let kubelet = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                if own.load(Ordering::Relaxed) {
                    mark_ready(&name);
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        Self { namespace: namespace.into(), ready, over, kubelet: Some(kubelet) }
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        cluster().kubectl(&[&["-n", &*self.namespace], arguments].concat())
    }

    fn workload(&self, kind: &str, name: &str, spec: Value) {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": {"app": name}});
        spec["template"] = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "none"}]}});
        let object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": self.namespace, "labels": {"uses": "token"}}, "spec": spec});
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.json");
        std::fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&["create", "-f", file.to_str().unwrap()]);
    }

    fn get(&self, what: &str, name: &str) -> Value {
        serde_json::from_str(&self.kubectl(&["get", what, name, "-o", "json"])).unwrap()
    }

    fn stamp(&self, what: &str, name: &str) -> String {
        let annotations = self.get(what, name)["spec"]["template"]["metadata"]["annotations"].clone();
        annotations["tokenferry/restarted-for"].as_str().unwrap_or_default().to_owned()
    }

    /// A schedule whose targets deliver a Secret each and restart this.
    fn schedule(&self, names: &[&str], hook: &str) -> String {
        let mut text = format!(
            "clusters: {{prod: {{kubeconfig: {}}}}}\ndefaults: {{cluster: prod, duration: 10m, serviceAccount: {}/ci}}\ntargets:\n",
            cluster().kube().admin_kubeconfig.display(),
            self.namespace
        );
        for name in names {
            text += &format!(
                "  - name: {name}\n    deliver: [{{kubernetesSecret: {{namespace: {}, name: {name}}}}}]\n    after: [{{rolloutRestart: {hook}}}]\n",
                self.namespace
            );
        }
        text
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(kubelet) = self.kubelet.take() {
            let _ = kubelet.join();
        }
    }
}

/// What the kubelet says of Pods that run.
fn mark_ready(namespace: &str) {
    let list: Value = serde_json::from_str(&cluster().kubectl(&["-n", namespace, "get", "pods", "-o", "json"])).unwrap();
    for pod in list["items"].as_array().unwrap() {
        let ready = pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
        if ready || !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}).to_string();
        let kube = cluster().kube();
        let mut command = std::process::Command::new(&kube.kubectl);
        command.arg("--kubeconfig").arg(&kube.admin_kubeconfig).args([
            "-n",
            namespace,
            "patch",
            "pod",
            "--subresource=status",
            "--type=merge",
        ]);
        command.args(["-p", &status]).arg(pod["metadata"]["name"].as_str().unwrap());
        // The Pod may be gone by now: the next round sees.
        let _ = crate::support::daemon::finish(command, Duration::from_secs(60));
    }
}

fn hook(host: &Host, target: &str) -> Value {
    host.target(target)["hooks"][0].clone()
}

fn told(host: &Host, target: &str, outcome: &str) -> usize {
    host.records_of("told", target).iter().filter(|line| line["hooks"][0]["outcome"] == outcome).count()
}

#[test]
fn a_token_restarts_its_deployment_once_and_the_hook_is_done_when_every_pod_is_new() {
    let town = Town::new("roll-once");
    town.workload("Deployment", "web", json!({"replicas": 2}));
    until("the first Pods are there", 120, || town.get("deployment", "web")["status"]["availableReplicas"] == 2);
    town.ready.store(false, Ordering::Relaxed);
    let mut host = Host::new(&town.schedule(&["ci"], "{deployment: web, minGap: 1s}"));
    host.start();
    until("it is stamped", 120, || town.stamp("deployment", "web").starts_with("ci=1.0-"));
    assert_eq!(hook(&host, "ci")["outcome"], "pending", "nobody has new Pods yet");
    assert!(host.run(&["status"]).stdout.contains("rolloutRestart prod/roll-once/deployment/web: not told yet"));
    town.ready.store(true, Ordering::Relaxed);
    until("it is done", 180, || hook(&host, "ci")["outcome"] == "done");
    let status = town.get("deployment", "web")["status"].clone();
    assert_eq!((&status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]), (&2.into(), &2.into(), &2.into()));
    // A start asks nobody again; a lost record would find its stamp.
    let generation = town.get("deployment", "web")["metadata"]["generation"].clone();
    assert_eq!(host.stop(), Some(0));
    host.start();
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    until("the second token is told", 180, || told(&host, "ci", "done") == 2);
    assert!(town.stamp("deployment", "web").starts_with("ci=2.0-"));
    let after = town.get("deployment", "web")["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(after, generation.as_i64().unwrap() + 1, "one restart for one token");
    let secret = town.get("secret", "ci");
    assert_eq!(secret["metadata"]["annotations"]["tokenferry/generation"], "2");
    assert_eq!(host.records_of("rotated", "ci").len(), 2, "neither the restart of the daemon nor a hook mints");
}

#[test]
fn targets_that_feed_one_workload_share_a_restart_and_the_next_keeps_its_distance() {
    let town = Town::new("roll-shared");
    town.workload("StatefulSet", "web", json!({"replicas": 1, "serviceName": "web"}));
    let before = town.get("statefulset", "web")["metadata"]["generation"].as_i64().unwrap();
    let mut host = Host::new(&town.schedule(&["a", "b", "c"], "{statefulSet: web, minGap: 20s}"));
    host.start();
    let restarts = || town.get("statefulset", "web")["metadata"]["generation"].as_i64().unwrap() - before;
    until("all three are told", 180, || ["a", "b", "c"].iter().all(|name| told(&host, name, "done") == 1));
    let first = restarts();
    assert!(first <= 2, "{first} restarts for three tokens that came together");
    let stamp = town.stamp("statefulset", "web");
    assert!(["a=1.0-", "b=1.0-", "c=1.0-"].iter().all(|part| stamp.contains(part)), "{stamp}");
    let begun = std::time::Instant::now();
    for name in ["a", "b"] {
        assert_eq!(host.run(&["rotate", name]).code, Some(0));
    }
    assert_eq!(host.run(&["rotate", "a"]).code, Some(0));
    until("the newest of both are told", 180, || {
        ["a", "b"].iter().zip([3, 2]).all(|(name, n)| hook(&host, name)["outcome"] == "done" && hook(&host, name)["generation"] == n)
    });
    let more = restarts() - first;
    let room = i64::try_from(begun.elapsed().as_secs() / 20).unwrap() + 1;
    assert!((1..=room).contains(&more), "{more} more restarts in {:?}", begun.elapsed());
    let stamp = town.stamp("statefulset", "web");
    assert!(stamp.contains("a=3.0-") && stamp.contains("b=2.0-") && stamp.contains("c=1.0-"), "{stamp}");
}

#[test]
fn a_rollout_that_stalls_is_recorded_and_shown_and_done_once_its_pods_get_ready() {
    let town = Town::new("roll-stalled");
    town.ready.store(false, Ordering::Relaxed);
    town.workload("Deployment", "web", json!({"replicas": 1, "progressDeadlineSeconds": 2}));
    let mut host = Host::new(&town.schedule(&["ci"], "{deployment: web, minGap: 1s}"));
    host.start();
    until("the stall is recorded", 180, || told(&host, "ci", "failed") == 1);
    let error = hook(&host, "ci")["error"].as_str().unwrap().to_owned();
    assert!(error.contains("deployment roll-stalled/web of cluster prod: its rollout stalls: "), "{error}");
    let shown = host.run(&["status"]);
    assert!(shown.stdout.contains("its rollout stalls"), "{shown:?}");
    assert_eq!(host.target("ci")["state"], "fresh");
    let generation = town.get("deployment", "web")["metadata"]["generation"].clone();
    town.ready.store(true, Ordering::Relaxed);
    until("it is done", 240, || told(&host, "ci", "done") == 1);
    assert_eq!(town.get("deployment", "web")["metadata"]["generation"], generation, "another try restarts nothing anew");
    assert_eq!(host.records_of("rotated", "ci").len(), 1);
}

#[test]
fn a_rollout_that_takes_longer_than_its_limit_and_a_missing_and_a_paused_workload_are_told_clearly() {
    let town = Town::new("roll-bad");
    town.ready.store(false, Ordering::Relaxed);
    town.workload("Deployment", "slow", json!({"replicas": 1}));
    town.workload("Deployment", "paused", json!({"replicas": 0, "paused": true}));
    town.workload("DaemonSet", "handmade", json!({"updateStrategy": {"type": "OnDelete"}}));
    let mut text = town.schedule(&["slow"], "{deployment: slow, timeout: 2s, minGap: 1s}");
    for (name, hook) in [
        ("missing", "{deployment: nobody}"),
        ("paused", "{deployment: paused}"),
        ("handmade", "{daemonSet: handmade}"),
        ("unlabelled", "{selector: uses=nothing}"),
    ] {
        text += town.schedule(&[name], hook).split_once("targets:\n").unwrap().1;
    }
    let mut host = Host::new(&text);
    host.start();
    for (name, words) in [
        ("slow", "its rollout was not done within 2 s: "),
        ("missing", "deployment roll-bad/nobody of cluster prod: it does not exist"),
        ("paused", "it is paused"),
        ("handmade", "its updateStrategy is OnDelete"),
        ("unlabelled", "workloads with `uses=nothing` in roll-bad of cluster prod: there is none"),
    ] {
        until(name, 120, || hook(&host, name)["error"].as_str().is_some_and(|error| error.contains(words)));
        assert_eq!(host.target(name)["state"], "fresh", "{name}");
        assert_eq!(town.get("secret", name)["metadata"]["annotations"]["tokenferry/generation"], "1", "what was published stays");
    }
    // Mended, it is done without a new token.
    town.workload("Deployment", "nobody", json!({"replicas": 0}));
    town.kubectl(&["rollout", "resume", "deployment/paused"]);
    until("both are done", 240, || told(&host, "missing", "done") == 1 && told(&host, "paused", "done") == 1);
    assert_eq!(host.records_of("rotated", "missing").len(), 1);
}

#[test]
fn workloads_are_found_by_their_labels_with_the_rights_that_the_documentation_names() {
    let town = Town::new("roll-labels");
    town.workload("StatefulSet", "db", json!({"replicas": 2, "serviceName": "db"}));
    town.workload("Deployment", "web", json!({"replicas": 1}));
    town.workload("DaemonSet", "agent", json!({}));
    town.workload("Deployment", "other", json!({"replicas": 0}));
    town.kubectl(&["label", "deployment", "other", "uses=nothing", "--overwrite"]);
    // An account with exactly these rights.
    let rules = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "ferry", "namespace": town.namespace}, "rules": [
        {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"], "resourceNames": ["ci"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "patch"], "resourceNames": ["ci"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "patch"], "resourceNames": ["db", "web", "agent"]},
    ]});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("role.json");
    std::fs::write(&file, rules.to_string()).unwrap();
    town.kubectl(&["create", "-f", file.to_str().unwrap()]);
    town.kubectl(&["create", "serviceaccount", "ferry"]);
    town.kubectl(&["create", "rolebinding", "ferry", "--role=ferry", &format!("--serviceaccount={}:ferry", town.namespace)]);
    let token = town.kubectl(&["create", "token", "ferry"]);
    let kube = cluster().kube();
    let config = kube.kubeconfig(json!({"token": token.trim()}));
    let text = town.schedule(&["ci"], "{selector: uses=token, minGap: 1s}");
    let mut host = Host::new(&text.replace(&kube.admin_kubeconfig.display().to_string(), "HERE/ferry.kubeconfig"));
    host.write("ferry.kubeconfig", &config);
    host.start();
    until("all three are restarted", 240, || told(&host, "ci", "done") == 1);
    for (kind, name) in [("statefulset", "db"), ("deployment", "web"), ("daemonset", "agent")] {
        assert!(town.stamp(kind, name).starts_with("ci=1.0-"), "{kind} {name}");
    }
    assert_eq!(town.stamp("deployment", "other"), "");
    let db = town.get("statefulset", "db")["status"].clone();
    assert_eq!((&db["currentRevision"], &db["readyReplicas"]), (&db["updateRevision"], &2.into()));
}

#[test]
fn the_example_with_a_secret_and_a_restart_works_as_it_stands() {
    let town = Town::old("apps");
    town.workload("Deployment", "web", json!({"replicas": 1}));
    let text = std::fs::read_to_string(crate::shipped::root().join("examples/secret.yaml")).unwrap();
    let kubeconfig = cluster().kube().admin_kubeconfig.display().to_string();
    let (_, body) = text.split_once("version: 1\n").unwrap();
    let mut host = Host::new(&body.replace("/etc/tokenferry/prod.kubeconfig", &kubeconfig));
    host.start();
    until("the Pods are restarted", 180, || told(&host, "reader", "done") == 1);
    assert!(town.stamp("deployment", "web").starts_with("reader=1.0-"));
    assert_eq!(town.get("secret", "reader-token")["metadata"]["annotations"]["tokenferry/target"], "reader");
}
