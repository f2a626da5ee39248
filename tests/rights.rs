//! `rbac` prints no right too many: with any one verb of it missing, something that the schedule asks for fails.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::daemon::Host;
use crate::support::rights::{apply, kubeconfig};
use crate::support::servers::cluster;
use crate::support::until;

/// A namespace with an account and workloads without Pods, and a schedule that uses every part that needs rights.
struct Place {
    namespace: String,
    host: Host,
}

/// What is left out of what `rbac` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Without {
    Nothing,
    /// A verb of one rule of one Role.
    Verb {
        namespace: String,
        rule: usize,
        verb: String,
    },
    /// The binding of a ClusterRole.
    ClusterRole,
}

impl Place {
    fn new(namespace: &str) -> Self {
        let servers = cluster();
        let other = format!("{namespace}-other");
        servers.kubectl(&["create", "namespace", namespace]);
        servers.kubectl(&["create", "namespace", &other]);
        let mut objects = vec![json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "ci", "namespace": namespace}})];
        // One by its name, the others by their labels.
        for (kind, name) in [("Deployment", "web"), ("Deployment", "front"), ("StatefulSet", "db"), ("DaemonSet", "agent")] {
            let namespace = if name == "web" { &other } else { namespace };
            let labels = json!({"uses": "token"});
            let mut spec = json!({"selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "none"}]}}});
            match kind {
                "DaemonSet" => {}
                "StatefulSet" => (spec["replicas"], spec["serviceName"]) = (0.into(), name.into()),
                _ => spec["replicas"] = 0.into(),
            }
            let metadata = json!({"name": name, "namespace": namespace, "labels": labels});
            objects.push(json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}));
        }
        apply(servers, &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
        let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
        let own = kubeconfig(&host, servers, &servers.kube().minter_kubeconfig);
        std::fs::copy(own, host.path("ferry.kubeconfig")).unwrap();
        let place = Self { namespace: namespace.into(), host };
        place.schedule("");
        place
    }

    fn schedule(&self, leaving: &str) {
        let namespace = &self.namespace;
        self.host.write_schedule(&format!(
            "clusters: {{real: {{kubeconfig: HERE/ferry.kubeconfig}}}}
defaults: {{cluster: real, duration: 1h, serviceAccount: {namespace}/ci}}
targets:
  - {{name: audience, audiences: [vault], deliver: [{{file: {{path: HERE/out/audience}}}}]}}
  - name: kept
    deliver: [{{kubernetesSecret: {{namespace: {namespace}, name: kept}}}}]
    after: [{{rolloutRestart: {{selector: uses=token, namespace: {namespace}, minGap: 1s}}}}]
{leaving}"
        ));
    }

    /// With the targets that go at the end.
    fn whole(&self) {
        let namespace = &self.namespace;
        self.schedule(&format!(
            "  - {{name: dies, revocable: true, whenRemoved: delete, deliver: [{{file: {{path: HERE/out/dies}}}}]}}
  - name: goes
    whenRemoved: delete
    deliver: [{{kubernetesSecret: {{namespace: {namespace}, name: goes}}}}]
    after: [{{rolloutRestart: {{deployment: web, namespace: {namespace}-other, minGap: 1s}}}}]
"
        ));
    }

    /// The printed Role and bindings.
    fn printed(&self) -> Vec<Value> {
        let user = format!("user:minter.{}", self.host.folder.path().file_name().unwrap().to_string_lossy());
        let printed = self.host.run(&["rbac", "--subject", &user, "--name", &self.namespace]);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        printed.stdout.split("---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect()
    }

    /// Every way to leave one verb or binding out.
    fn ways(&self) -> Vec<Without> {
        let printed = self.printed();
        let mut ways = vec![Without::ClusterRole];
        for role in printed.iter().filter(|object| object["kind"] == "Role") {
            // Each run has namespaces of its own, told apart by what comes after their common beginning.
            let namespace = role["metadata"]["namespace"].as_str().unwrap().strip_prefix(&self.namespace).unwrap().to_owned();
            for (rule, body) in role["rules"].as_array().unwrap().iter().enumerate() {
                let verbs = body["verbs"].as_array().unwrap().iter();
                ways.extend(verbs.map(|verb| Without::Verb { namespace: namespace.clone(), rule, verb: verb.as_str().unwrap().into() }));
            }
        }
        ways
    }

    fn grant(&self, without: &Without) {
        let mut objects = self.printed();
        match without {
            Without::Nothing => {}
            Without::ClusterRole => objects.retain(|object| object["kind"] != "ClusterRoleBinding"),
            Without::Verb { namespace, rule, verb } => {
                let namespace = format!("{}{namespace}", self.namespace);
                let theirs = |object: &&mut Value| object["kind"] == "Role" && object["metadata"]["namespace"] == namespace;
                let role = objects.iter_mut().find(theirs).unwrap();
                let verbs = role["rules"][rule]["verbs"].as_array_mut().unwrap();
                verbs.retain(|v| v != verb);
                if verbs.is_empty() {
                    role["rules"].as_array_mut().unwrap().remove(*rule);
                }
            }
        }
        apply(cluster(), &json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
        let missing = if *without == Without::Nothing { 0 } else { 1 };
        until("the API server knows the rights", 60, || {
            let shown = self.host.run(&["rbac", "--diff", "-o", "json"]);
            let lines: Vec<Value> = serde_json::from_str(&shown.stdout).unwrap();
            // The binding of a ClusterRole is no right of its own in that comparison.
            lines.iter().filter(|line| line["verdict"] == "missing").count() >= missing || *without == Without::ClusterRole
        });
    }

    /// Everything that the schedule asks for; what did not work.
    fn serve(&mut self) -> Result<(), String> {
        self.host.start();
        for target in ["audience", "kept", "dies", "goes"] {
            self.told("rotated", target, 1)?;
        }
        let proof = self.host.records_of("rotated", "audience")[0]["proof"].clone();
        if proof != "signature" {
            return Err(format!("the proof is {proof}"));
        }
        self.told("told", "kept", 1)?;
        self.told("told", "goes", 1)?;
        for round in [2, 3] {
            let rotated = self.host.run(&["rotate", "--all", "--timeout", "30s"]);
            if rotated.code != Some(0) {
                return Err(format!("rotate: {rotated:?}"));
            }
            self.told("told", "kept", round)?;
        }
        let revoked = self.host.run(&["revoke", "dies", "--all-but-newest", "--now", "--timeout", "10s"]);
        if revoked.code != Some(0) {
            return Err(format!("revoke: {revoked:?}"));
        }
        self.schedule("");
        let reload = self.host.run(&["reload", "--remove", "2"]);
        if reload.code != Some(0) {
            return Err(format!("reload: {reload:?}"));
        }
        let left = || cluster().kubectl(&["-n", &self.namespace, "get", "secrets", "-o", "name"]);
        let begun = std::time::Instant::now();
        while left() != "secret/kept\n" {
            if begun.elapsed().as_secs() > 10 {
                return Err(format!("left: {}", left()));
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        Ok(())
    }

    /// Waits until that many records of a kind stand there; an error where one says that it failed instead.
    fn told(&self, kind: &str, target: &str, count: usize) -> Result<(), String> {
        let begun = std::time::Instant::now();
        loop {
            let all = self.host.records();
            let of: Vec<&Value> = all.iter().filter(|line| line["target"] == target).collect();
            if let Some(failed) = of.iter().find(|l| l["kind"] == "failed" || l["error"].is_string()) {
                return Err(failed.to_string());
            }
            if of.iter().filter(|l| l["kind"] == kind).count() >= count {
                return Ok(());
            }
            if begun.elapsed().as_secs() > 40 {
                return Err(format!("no {kind} of {target} within 40 s; status: {}", self.host.target(target)));
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

#[test]
fn each_verb_that_rbac_prints_is_needed_and_all_of_them_are_enough() {
    let first = Place::new("rights-all");
    first.whole();
    let mut ways = first.ways();
    assert!(ways.len() > 15, "{ways:?}");
    ways.push(Without::Nothing);
    drop(first);
    let next = AtomicUsize::new(0);
    let needless: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&ways, &next))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(needless.is_empty(), "{needless:#?}");
}

/// Takes one way after the other; those that did not end as they should.
fn work(ways: &[Without], next: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(without) = ways.get(number) else { return wrong };
        let mut place = Place::new(&format!("rights-{number}"));
        place.whole();
        place.grant(without);
        match (place.serve(), without) {
            (Ok(()), Without::Nothing) | (Err(_), Without::Verb { .. } | Without::ClusterRole) => {}
            (Ok(()), _) => wrong.push(format!("all went well without {without:?}")),
            (Err(why), _) => wrong.push(format!("with all rights: {why}")),
        }
        place.host.kill();
    }
}
