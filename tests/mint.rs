//! `mint`: one token for a person, from a real API server.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Done, Host, PROGRAM, tool};
use crate::support::servers::{Kube, Servers, cluster};

fn host() -> Host {
    Host::new("clusters: {trial: {embedded: {}}}\ntargets: []")
}

/// Mints as a user that may do nothing else.
fn mint(host: &Host, arguments: &[&str]) -> Done {
    let kubeconfig = cluster().kube().minter_kubeconfig.display().to_string();
    host.run(&[&["mint", "--kubeconfig", &kubeconfig], arguments].concat())
}

/// A kubeconfig whose user is this; no token on any command line.
fn config(host: &Host, kube: &Kube, user: Value) -> std::path::PathBuf {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": kube.server, "certificate-authority": kube.ca}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "cicd"}}],
        "users": [{"name": "u", "user": user}],
    });
    host.write("kubeconfig", &config.to_string())
}

fn whoami(kube: &Kube, config: &Path) -> String {
    let said = tool(Command::new(&kube.kubectl).arg("--kubeconfig").arg(config).args(["auth", "whoami", "-o", "json"]));
    serde_json::from_str::<Value>(&said).unwrap()["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
}

#[test]
fn the_real_kubectl_authenticates_with_a_minted_token_in_a_file() {
    let (host, kube) = (host(), cluster().kube());
    let done = mint(&host, &["cicd-deployer", "-n", "cicd", "--duration", "10m"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(!done.stdout.ends_with('\n'));
    let token = host.write("token", &done.stdout);
    assert_eq!(whoami(kube, &config(&host, kube, json!({"tokenFile": token}))), "system:serviceaccount:cicd:cicd-deployer");
}

#[test]
fn json_is_the_token_request_that_kubectl_prints() {
    let host = host();
    let done = mint(&host, &["cicd/builder", "--duration", "20m", "--audience", "a", "--audience", "b", "-o", "json"]);
    let told: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    assert_eq!(
        (told["kind"].as_str(), told["metadata"]["name"].as_str(), told["metadata"]["namespace"].as_str()),
        (Some("TokenRequest"), Some("builder"), Some("cicd"))
    );
    assert_eq!((&told["spec"]["audiences"], &told["spec"]["expirationSeconds"]), (&json!(["a", "b"]), &json!(1200)));
    let token = host.write("token", told["status"]["token"].as_str().unwrap());
    let seen = host.json(&["inspect", token.to_str().unwrap()]);
    assert_eq!((seen["expiresAt"].as_str(), &seen["audiences"]), (told["status"]["expirationTimestamp"].as_str(), &json!(["a", "b"])));
}

#[test]
fn kubectl_takes_it_as_its_credential_plugin() {
    let (host, kube) = (host(), cluster().kube());
    let args = ["mint", "cicd/builder", "--kubeconfig", kube.minter_kubeconfig.to_str().unwrap(), "-o", "exec-credential"];
    let plugin = json!({"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": PROGRAM, "args": args});
    assert_eq!(whoami(kube, &config(&host, kube, json!({"exec": plugin}))), "system:serviceaccount:cicd:builder");
}

#[test]
fn a_token_is_bound_to_its_object_and_another_uid_is_refused() {
    let (host, servers) = (host(), cluster());
    let name = format!("mint-marker-{}", std::process::id());
    servers.kubectl(&["create", "secret", "generic", &name, "-n", "cicd"]);
    let uid = servers.kubectl(&["get", "secret", &name, "-n", "cicd", "-o", "jsonpath={.metadata.uid}"]);
    let bound = ["cicd/builder", "--bound-object-kind", "Secret", "--bound-object-name", &name];
    let done = mint(&host, &[&bound[..], &["--bound-object-uid", &uid]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let token = host.write("token", &done.stdout);
    let seen = host.json(&["inspect", token.to_str().unwrap()]);
    assert_eq!(seen["boundTo"][0], json!({"kind": "secret", "name": name, "uid": uid}));
    let other = mint(&host, &[&bound[..], &["--bound-object-uid", "0"]].concat());
    assert_eq!((other.code, other.stdout.as_str(), other.stderr.contains("another UID")), (Some(1), "", true), "{}", other.stderr);
    let alone = mint(&host, &["cicd/builder", "--bound-object-kind", "Secret"]);
    assert_eq!(alone.code, Some(2));
    servers.kubectl(&["delete", "secret", &name, "-n", "cicd"]);
}

#[test]
fn who_may_not_mint_learns_which_right_is_missing() {
    let (host, kube) = (host(), cluster().kube());
    let done = mint(&host, &["cicd/builder"]);
    let token = host.write("token", &done.stdout);
    let config = config(&host, kube, json!({"tokenFile": token})).display().to_string();
    let refused = host.run(&["mint", "builder", "--kubeconfig", &config]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("grant `create` on `serviceaccounts/token` with resourceNames [builder] in namespace cicd"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_cannot_be_minted_is_told_without_a_word_on_stdout() {
    let host = host();
    for (arguments, code, said) in [
        (vec!["cicd/nobody"], 1, "serviceaccounts `nobody` does not exist"),
        (vec!["cicd/builder", "--duration", "5m"], 1, "422"),
        (vec!["cicd/builder", "--context", "nowhere"], 1, "no context `nowhere`"),
        (vec!["cicd/../x"], 2, "no ServiceAccount"),
        (vec!["cicd/builder", "-n", "other"], 2, "another namespace"),
        (vec!["cicd/builder", "--cluster", "trial"], 2, "cannot be used with"),
    ] {
        let done = mint(&host, &arguments);
        assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{arguments:?}: {}", done.stderr);
    }
    let nowhere = host.command(&["mint", "cicd/builder"]).env("KUBECONFIG", "/nonexistent/config").output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/nonexistent/config"));
}

#[test]
fn kubeconfig_of_the_environment_and_clusters_of_the_schedule_serve_too() {
    let (host, kube) = (host(), cluster().kube());
    let output = host.command(&["mint", "cicd/builder"]).env("KUBECONFIG", &kube.minter2_kubeconfig).output().unwrap();
    assert!(output.status.success() && output.stdout.starts_with(b"eyJ"), "{}", String::from_utf8_lossy(&output.stderr));
    let trial = host.run(&["mint", "cicd/builder", "--cluster", "trial", "--duration", "10s"]);
    assert_eq!((trial.code, trial.stdout.starts_with("eyJ")), (Some(0), true), "{}", trial.stderr);
    let unknown = host.run(&["mint", "cicd/builder", "--cluster", "none"]);
    assert_eq!((unknown.code, unknown.stderr.contains("no cluster `none`; it has: trial")), (Some(2), true), "{}", unknown.stderr);
}

#[test]
fn a_life_that_the_server_shortened_is_told_on_stderr() {
    let servers = Servers::start("mint-capped", &["etcd", "kube"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/servers");
    tool(Command::new(script).arg("restart").arg(&servers.folder).args(["kube", "--max-token-expiration", "1h"]));
    let host = host();
    let kubeconfig = servers.kube().minter_kubeconfig.display().to_string();
    let done = host.run(&["mint", "cicd/builder", "--kubeconfig", &kubeconfig, "--duration", "2h"]);
    assert_eq!((done.code, done.stdout.starts_with("eyJ")), (Some(0), true), "{}", done.stderr);
    assert!(done.stderr.starts_with("tokenferry: warning: ") && done.stderr.contains("shortened"), "{}", done.stderr);
}
