//! `report`: beside what jq, kubectl and openssl say of the same records and the same cluster.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{Host, tool};
use crate::support::servers::cluster;
use crate::support::until;

const SCHEDULE: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 20s, rotate: {at: 10%, splay: 0s}, compliance: {maxAge: 15s, maxLifetime: 1m}}
targets:
  - {name: one, labels: {owner: payments}, serviceAccount: ci/one, deliver: [{file: {path: HERE/out/one}}]}
  - {name: two, labels: {owner: search}, serviceAccount: ci/two, deliver: [{file: {path: HERE/out/two}}, {file: {path: HERE/out/also}}]}
";

fn jq(host: &Host, filter: &str) -> Value {
    let mut files: Vec<_> = std::fs::read_dir(host.path("state/records")).unwrap().flatten().map(|e| e.path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "jsonl"));
    serde_json::from_str(&tool(Command::new("jq").args(["-s", filter]).args(files))).unwrap()
}

#[test]
fn a_report_from_records_alone_counts_what_jq_counts_and_is_signed() {
    let mut host = Host::new(SCHEDULE);
    tool(
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(host.path("key.pem")),
    );
    tool(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(host.path("key.pem")).arg("-out").arg(host.path("public.pem")));
    let text = host.read("schedule.yaml").replace("/state/records}", "/state/records, signingKey: {file: key.pem}}");
    std::fs::write(host.schedule(), text).unwrap();
    host.start();
    until("some tokens were rotated", 60, || host.records_of("rotated", "two").len() >= 3);
    assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    assert_eq!(host.stop(), Some(0));
    // Long enough to count as a time without a daemon.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let shown = host.json(&["report", "--offline", "--since", "1h"]);
    let count = jq(&host, r#"[.[] | select(.kind == "rotated")] | group_by(.target) | map(length)"#);
    let ours: Vec<u64> = shown["targets"].as_array().unwrap().iter().map(|t| t["rotations"].as_u64().unwrap()).collect();
    assert_eq!(Value::from(ours), count);
    assert_eq!((&shown["total"]["targets"], &shown["groups"][0]["label"]), (&2.into(), &"payments".into()));
    assert_eq!(shown["targets"][0]["verdict"], "kept", "{shown}");
    assert_eq!(shown["steps"][0]["actor"]["command"].as_str().map(|c| c.contains("rotate")), Some(true), "{}", shown["steps"]);
    assert_eq!(shown["sources"][0]["head"].as_str(), Some(host.run(&["records", "head"]).stdout.trim()));
    assert_eq!(shown["down"].as_array().unwrap().len(), 1, "it is stopped: {}", shown["down"]);

    let csv = host.run(&["report", "--offline", "--since", "1h", "-o", "csv"]).stdout;
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(host.run(&["report", "--offline", "--since", "1h", "-o", "html"]).stdout.contains("payments"));
    assert!(host.run(&["report", "--offline", "--since", "1h"]).stdout.contains("kept"));

    // The month before ours has no record of these targets, which the archive says; it is written once.
    let archive = host.path("archive").display().to_string();
    let kept = host.run(&["report", "--offline", "--archive", &archive]);
    let files: Vec<&str> = kept.stdout.lines().collect();
    assert_eq!(files.len(), 3, "{kept:?}");
    for file in files {
        let signature = format!("{file}.sig");
        let mut check = Command::new("openssl");
        check.args(["dgst", "-sha256", "-verify"]).arg(host.path("public.pem")).args(["-signature", &signature, file]);
        assert!(tool(&mut check).contains("Verified OK"));
    }
    assert_eq!(host.run(&["report", "--offline", "--archive", &archive]).stdout, "", "a kept report is written once");
}

#[test]
fn a_broken_limit_a_lost_token_and_damaged_records_end_with_1_and_are_named() {
    let host = Host::new(&SCHEDULE.replace("maxAge: 15s", "maxAge: 4s").replace("at: 10%", "at: 5%"));
    assert_eq!(host.run(&["once"]).code, Some(0));
    std::thread::sleep(std::time::Duration::from_secs(6));
    let late = host.run(&["report", "--offline", "--since", "1h", "-o", "json"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    let shown: Value = serde_json::from_str(&late.stdout).unwrap();
    assert!(shown["targets"][0]["why"][0].as_str().is_some_and(|why| why.contains("maxAge is 4 s")), "{shown}");
    until("the tokens have ended", 60, || {
        let shown = host.json(&["report", "--offline", "--since", "1h"]);
        shown["total"]["withoutToken"].as_u64().is_some_and(|seconds| seconds > 0)
    });
    let file = std::fs::read_dir(host.path("state/records"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "jsonl"))
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap().replacen("ci/two", "ci/too", 1);
    std::fs::write(&file, text).unwrap();
    let damaged = host.run(&["report", "--offline", "--since", "1h"]);
    assert_eq!(damaged.code, Some(1));
    assert!(damaged.stderr.contains("changed after it was written") && damaged.stdout.contains("one"), "{damaged:?}");
    let backwards = host.run(&["report", "--since", "2026-01-02", "--until", "2026-01-01"]);
    assert_eq!(backwards.code, Some(2), "{backwards:?}");
}

#[test]
fn the_view_of_a_cluster_is_what_kubectl_shows_and_automount_is_the_pods_own_where_it_says_so() {
    let servers = cluster();
    let admin = servers.kube().admin_kubeconfig.display().to_string();
    let space = "report-view";
    servers.kubectl(&["create", "namespace", space]);
    until("its account is there", 60, || servers.kubectl(&["-n", space, "get", "serviceaccounts", "-o", "name"]).contains("default"));
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    let objects = host.write(
        "objects.json",
        &serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shy", "namespace": space}, "automountServiceAccountToken": false},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "eternal", "namespace": space, "annotations": {"kubernetes.io/service-account.name": "shy"}}, "type": "kubernetes.io/service-account-token"},
        ]})
        .to_string(),
    );
    servers.kubectl(&["apply", "-f", &objects.display().to_string()]);
    let pod = |name: &str, account: &str, automount: Option<bool>| {
        let mut spec = serde_json::json!({"serviceAccountName": account, "containers": [{"name": "c", "image": "example.com/c"}]});
        if let Some(automount) = automount {
            spec["automountServiceAccountToken"] = automount.into();
        }
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": space}, "spec": spec});
        let file = host.write(&format!("{name}.json"), &pod.to_string());
        servers.kubectl(&["create", "-f", &file.display().to_string()]);
    };
    // Three that a script which reads the account alone would count wrongly or rightly.
    pod("as-the-account", "shy", None);
    pod("against-the-account", "shy", Some(true));
    pod("default-off", "default", Some(false));
    let shown = host.json(&["report", "--kubeconfig", &admin]);
    let view = &shown["cluster"];
    assert_eq!(view["missing"], serde_json::json!([]), "{view}");
    let ours = view["namespaces"].as_array().unwrap().iter().find(|n| n["name"] == space).unwrap();
    assert_eq!(*ours, serde_json::json!({"name": space, "accounts": 2, "pods": 3, "mounting": 1, "legacy": 1}));
    // What was really mounted stands in the pod, put there by the API server.
    let pods: Value = serde_json::from_str(&servers.kubectl(&["-n", space, "get", "pods", "-o", "json"])).unwrap();
    let mounts = |pod: &&Value| pod["spec"]["volumes"].as_array().is_some_and(|v| v.iter().any(|v| v["projected"].is_object()));
    assert_eq!(pods["items"].as_array().unwrap().iter().filter(mounts).count(), 1);
    let secret = view["legacy"].as_array().unwrap().iter().find(|s| s["namespace"] == space).unwrap();
    assert_eq!((&secret["name"], &secret["account"]), (&"eternal".into(), &"shy".into()));
    let all: Value = serde_json::from_str(&servers.kubectl(&["get", "serviceaccounts", "-A", "-o", "json"])).unwrap();
    let accounts = all["items"].as_array().unwrap().len() as u64;
    assert!(view["accounts"].as_u64().unwrap().abs_diff(accounts) <= 5, "other tests make accounts too");
    servers.kubectl(&["delete", "namespace", space, "--wait=false"]);
}

#[test]
fn a_cluster_that_refuses_half_the_questions_gives_a_partial_view_that_says_so() {
    let servers = cluster();
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    servers.kubectl(&["create", "serviceaccount", "report-reader", "-n", "default"]);
    servers.kubectl(&["create", "clusterrole", "report-reader", "--verb=list", "--resource=namespaces,serviceaccounts"]);
    servers.kubectl(&[
        "create",
        "clusterrolebinding",
        "report-reader",
        "--clusterrole=report-reader",
        "--serviceaccount=default:report-reader",
    ]);
    let token = servers.kubectl(&["create", "token", "report-reader", "-n", "default"]);
    let kube = servers.kube();
    let token = host.write("reader-token", token.trim());
    let config = kube.kubeconfig(serde_json::json!({"tokenFile": token}));
    let config = host.write("reader.kubeconfig", &config).display().to_string();
    let mut last = Value::Null;
    until("the rights hold", 30, || {
        last = host.json(&["report", "--kubeconfig", &config]);
        last["cluster"]["missing"].as_array().is_some_and(|missing| missing.len() == 2)
    });
    let missing = last["cluster"]["missing"].to_string();
    assert!(missing.contains("pods: not allowed") && missing.contains("secrets: not allowed"), "{missing}");
    assert!(last["cluster"]["accounts"].as_u64().unwrap() > 0);
}
