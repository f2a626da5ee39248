//! The daemon's own credential dies: what is said, and the ways back. On the real API server.

use serde_json::{Value, json};

use crate::support::daemon::Host;
use crate::support::servers::cluster;
use crate::support::until;

fn host(namespace: &str, spare: &str) -> Host {
    // The spare's rights are granted before bootstrap has made it.
    cluster().kubectl(&["create", "namespace", namespace]);
    let host = Host::new(&format!(
        "clusters: {{prod: {{kubeconfig: HERE/prod.kubeconfig, own: {{serviceAccount: {namespace}/ferry, duration: 10m}}{spare}}}}}
targets: [{{name: a, cluster: prod, serviceAccount: cicd/cicd-deployer, duration: 10m, deliver: [{{file: {{path: HERE/out/a}}}}]}}]
"
    ));
    bootstrap(&host);
    host
}

fn bootstrap(host: &Host) {
    let admin = cluster().kube().admin_kubeconfig.display().to_string();
    let done = host.run(&["bootstrap", "prod", "--kubeconfig", &admin]);
    assert_eq!(done.code, Some(0), "{done:?}");
}

/// A token of that account as it looks when it has ended.
fn ended(account: &str) -> String {
    use base64::Engine;
    let part = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let now = jiff::Timestamp::now().as_second();
    let issuer = "https://kubernetes.default.svc";
    let claims = json!({"iss": issuer, "aud": [issuer], "sub": account, "iat": now - 1200, "exp": now - 600, "jti": "gone"});
    format!("{}.{}.{}", part(&json!({"alg": "ES256"})), part(&claims), part(&Value::from("none")))
}

#[test]
fn a_dry_run_names_it_once() {
    let host = host("ferry-dry", "");
    let rows = host.json(&["once", "--dry-run"]);
    let names: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["target"]).collect();
    assert_eq!(names, ["own/prod", "a"], "{rows}");
}

#[test]
fn when_it_has_died_status_prints_the_command_and_bootstrap_heals_a_running_daemon() {
    let mut host = host("ferry-dies", "");
    host.start();
    until("all is well", 60, || host.target("a")["state"] == "fresh" && host.target("own/prod")["state"] == "fresh");
    assert_eq!(host.run(&["status"]).code, Some(0));
    // With its account its tokens die at once.
    cluster().kubectl(&["delete", "serviceaccount", "ferry", "-n", "ferry-dies"]);
    // The API server believes a token for 10 s that it has seen before.
    until("its renewal is refused", 60, || {
        host.rotate("own/prod").unwrap()["error"].as_str().is_some_and(|error| error.contains("tokenferry bootstrap prod"))
    });
    let failed = host.rotate("a").unwrap();
    assert!(failed["kind"] == "failed" && failed["error"].as_str().unwrap().contains("tokenferry bootstrap prod"), "{failed}");
    let shown = host.run(&["status"]);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    let command = format!("renew it with `tokenferry bootstrap prod --schedule {}`", host.schedule().display());
    assert!(shown.stdout.contains(&command) && shown.stdout.contains("rejected"), "{shown:?}");
    assert!(host.log().contains("tokenferry bootstrap prod"), "the log warns too");
    let rejected = host.records_of("rejected", "own/prod");
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    let asked = jiff::Timestamp::now();
    bootstrap(&host);
    until("both are well", 60, || host.target("a")["state"] == "fresh" && host.target("own/prod")["state"] == "fresh");
    let healed: Vec<Value> = host
        .records_of("rotated", "a")
        .into_iter()
        .filter(|l| l["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() > asked)
        .collect();
    assert_eq!(healed.len(), 1, "what failed without it is tried at once: {healed:?}");
    assert_eq!(host.run(&["status"]).code, Some(0));
}

#[test]
fn a_daemon_that_was_down_for_longer_than_its_life_uses_the_spare_once_and_records_it() {
    let spare = format!(", spare: {{kubeconfig: {}}}", cluster().kube().minter2_kubeconfig.display());
    let mut host = host("ferry-spare", &spare);
    host.write("state/own/prod/token", &ended("system:serviceaccount:ferry-spare:ferry"));
    host.start();
    until("the target is served", 60, || host.records_of("rotated", "a").len() == 1);
    let renewed = host.records_of("rotated", "own/prod");
    assert_eq!(renewed.len(), 1, "{renewed:?}");
    assert_eq!((&renewed[0]["through"], &renewed[0]["proof"]), (&json!("spare"), &json!("online")), "{renewed:?}");
    assert!(host.log().contains("the spare one renews it"));
    let again = host.rotate("own/prod").unwrap();
    assert!(again["kind"] == "rotated" && again["through"].is_null(), "it is used only when our own has died: {again}");
    assert_eq!(host.target("own/prod")["state"], "fresh");
}

#[test]
fn without_a_spare_a_daemon_starts_with_a_dead_credential_and_says_so() {
    let mut host = host("ferry-dead", "");
    host.write("state/own/prod/token", &ended("system:serviceaccount:ferry-dead:ferry"));
    host.start();
    until("it is told", 60, || {
        let shown = host.run(&["status"]);
        shown.code == Some(1) && shown.stdout.contains("tokenferry bootstrap prod")
    });
    std::fs::remove_file(host.path("state/own/prod/token")).unwrap();
    let failed = host.rotate("a").unwrap();
    assert!(failed["error"].as_str().unwrap().contains("tokenferry bootstrap prod"), "{failed}");
    host.stop();
    let shown = host.run(&["status"]);
    assert!(shown.code == Some(1) && shown.stdout.contains("tokenferry bootstrap prod"), "without a daemon too: {shown:?}");
    bootstrap(&host);
    host.start();
    until("all is well", 60, || host.target("a")["state"] == "fresh" && host.target("own/prod")["state"] == "fresh");
}
