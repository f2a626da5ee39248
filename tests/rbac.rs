//! `rbac`: its output is what the daemon's account needs, and no more; on the real API server and the real OpenBao.

use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{Host, tool};
use crate::support::rights;
use crate::support::servers::cluster;

/// A fresh account with a kubeconfig of its own, and nothing that it may do.
fn newcomer(host: &Host, name: &str) -> String {
    let servers = cluster();
    servers.kubectl(&["create", "serviceaccount", name, "-n", "default"]);
    let token = servers.kubectl(&["create", "token", name, "-n", "default", "--duration", "1h"]);
    let path = host.write("newcomer-token", token.trim());
    let kube = servers.kube();
    let config = kube.kubeconfig(serde_json::json!({"tokenFile": path}));
    host.write("newcomer.kubeconfig", &config).display().to_string()
}

fn apply(manifests: &str) {
    rights::apply(cluster(), manifests);
}

const TARGETS: &str = "targets:
  - {name: one, serviceAccount: cicd/cicd-deployer, audiences: [vault], deliver: [{file: {path: HERE/out/one}}]}
  - {name: two, serviceAccount: cicd/builder, deliver: [{file: {path: HERE/out/two}}]}
";

#[test]
fn an_account_with_exactly_the_printed_rights_can_serve_the_schedule_and_without_one_it_cannot() {
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    let kubeconfig = newcomer(&host, "rbac-whole");
    host.write_schedule(&format!("clusters: {{real: {{kubeconfig: {kubeconfig}}}}}\ndefaults: {{cluster: real, duration: 1h}}\n{TARGETS}"));
    let before = host.run(&["rbac", "--diff", "-o", "json"]);
    assert_eq!(before.code, Some(1), "{before:?}");
    let missing: Vec<Value> = serde_json::from_str(&before.stdout).unwrap();
    assert_eq!(missing.iter().filter(|d| d["verdict"] == "missing").count(), 2, "{before:?}");
    let printed = host.run(&["rbac", "--name", "rbac-whole"]);
    assert!(printed.stdout.contains("namespace: \"default\", name: \"rbac-whole\""), "the API server says for whom: {printed:?}");
    apply(&printed.stdout);
    crate::support::until("the rights hold", 30, || host.run(&["rbac", "--diff"]).code == Some(0));
    let once = host.run(&["once", "-o", "json"]);
    assert_eq!(once.code, Some(0), "{once:?}");
    cluster().kubectl(&["delete", "rolebinding", "rbac-whole", "-n", "cicd"]);
    crate::support::until("the rights are gone", 30, || host.run(&["once", "--force", "--timeout", "20s"]).code == Some(1));
}

#[test]
fn what_an_account_has_beyond_its_need_is_named() {
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    let kubeconfig = newcomer(&host, "rbac-surplus");
    host.write_schedule(&format!("clusters: {{real: {{kubeconfig: {kubeconfig}}}}}\ndefaults: {{cluster: real, duration: 1h}}\n{TARGETS}"));
    apply(&host.run(&["rbac", "--name", "rbac-surplus"]).stdout);
    cluster().kubectl(&["create", "role", "rbac-more", "-n", "cicd", "--verb=get", "--resource=secrets"]);
    cluster().kubectl(&["create", "rolebinding", "rbac-more", "-n", "cicd", "--role=rbac-more", "--serviceaccount=default:rbac-surplus"]);
    crate::support::until("it is named", 30, || {
        let shown = host.run(&["rbac", "--diff", "-o", "json"]);
        let found: Vec<Value> = serde_json::from_str(&shown.stdout).unwrap();
        shown.code == Some(1) && found.len() == 1 && found[0]["what"] == "get secrets, whatever its name"
    });
}

#[test]
fn without_an_api_server_the_subject_has_to_be_said() {
    let host = Host::new(&format!("clusters: {{real: {{kubeconfig: HERE/none}}}}\ndefaults: {{cluster: real, duration: 1h}}\n{TARGETS}"));
    let asked = host.run(&["rbac"]);
    assert!(asked.code == Some(1) && asked.stderr.contains("--subject NAMESPACE/NAME"), "{asked:?}");
    let said = host.run(&["rbac", "--subject", "tokenferry/tokenferry"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    // kubectl takes them as they are.
    let file = host.write("rbac.yaml", &said.stdout);
    let kube = cluster().kube();
    let dry = tool(
        Command::new(&kube.kubectl).arg("--kubeconfig").arg(&kube.admin_kubeconfig).args(["apply", "--dry-run=server", "-f"]).arg(file),
    );
    assert_eq!(dry.lines().count(), 3, "{dry}");
    assert_eq!(host.run(&["rbac", "--subject", "nonsense"]).code, Some(2));
    assert_eq!(host.run(&["rbac", "--subject", "a/b", "--cluster", "none"]).code, Some(2));
}

#[test]
fn policies_of_stores_name_each_path_once() {
    let host = Host::new(
        "clusters: {trial: {embedded: {}}}
stores:
  v: {vault: {address: 'https://127.0.0.1:1', auth: {token: {file: HERE/none}}}}
  a: {awsSecretsManager: {region: eu-central-1, kmsKeyId: k}}
defaults: {cluster: trial, duration: 1h}
targets:
  - {name: one, serviceAccount: a/b, deliver: [{vault: {store: v, path: ci/x}, fallback: [{vault: {store: v, path: ci/y}}]}, {awsSecretsManager: {store: a, secretId: ci/z}}]}
",
    );
    let rule =
        |path: &str, more: &str| format!("path \"secret/{path}\" {{\n  capabilities = [\"create\", {more}\"read\", \"update\"]\n}}\n");
    let policy = host.run(&["rbac", "--for", "vault"]);
    // The copy in the fallback is removed once the place is paid.
    let expected = [("data/ci/x", ""), ("data/ci/y", ""), ("metadata/ci/x", ""), ("metadata/ci/y", "\"delete\", ")];
    assert_eq!(policy.stdout, expected.map(|(path, more)| rule(path, more)).concat());
    let policy = host.run(&["rbac", "--for", "vault", "--withdraw"]);
    assert!(policy.stdout.contains(&rule("metadata/ci/x", "\"delete\", ")), "{policy:?}");
    let iam: Value = serde_json::from_str(&host.run(&["rbac", "--for", "aws", "--account", "123456789012"]).stdout).unwrap();
    assert_eq!(iam["Statement"][0]["Resource"][0], "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ci/z-??????");
    assert_eq!(iam["Statement"].as_array().unwrap().len(), 2);
    assert!(!iam.to_string().contains("DeleteSecret") && iam.to_string().contains("TagResource"), "{iam}");
    let all: Value = serde_json::from_str(&host.run(&["rbac", "--for", "aws", "--withdraw"]).stdout).unwrap();
    assert!(all.to_string().contains("DeleteSecret"), "{all}");
    assert_eq!(host.run(&["rbac", "--for", "vault", "--store", "a"]).code, Some(2));
}

#[test]
fn the_daemons_own_account_gets_the_right_to_mint_its_own_successor() {
    let host = Host::new(&format!(
        "clusters: {{real: {{kubeconfig: HERE/none, own: {{serviceAccount: ferry/me}}}}}}\ndefaults: {{cluster: real, duration: 1h}}\n{TARGETS}"
    ));
    let shown = host.run(&["rbac"]);
    assert_eq!(shown.code, Some(0), "no API server has to be asked for whom: {shown:?}");
    let own = "metadata: {name: tokenferry, namespace: \"ferry\"}\nrules:\n  - apiGroups: [\"\"]\n    resources: [\"serviceaccounts/token\"]\n    verbs: [create]\n    resourceNames: [\"me\"]\n";
    assert!(
        shown.stdout.contains(own) && shown.stdout.contains("{kind: ServiceAccount, namespace: \"ferry\", name: \"me\"}"),
        "{}",
        shown.stdout
    );
}
