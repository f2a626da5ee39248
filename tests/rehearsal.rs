//! `rotate --rehearse`: the whole way is tried, nothing is published, and a dated record says what came of it.

use serde_json::Value;

use crate::support::daemon::{Done, Host, finish};
use crate::support::servers::{cluster, servers};

const BROKEN: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - name: well
    serviceAccount: ci/well
    deliver: [{file: {path: HERE/out/well, mode: \"0640\"}}, {directory: {path: HERE/out/folder, files: {token: raw, namespace: namespace}}}]
  - name: bad
    serviceAccount: ci/bad
    deliver:
      - file: {path: HERE/out/bad}
        fallback: [{file: {path: HERE/blocked/bad}}]
      - command: {command: [/nonexistent/program]}
";

/// With credentials that moto takes.
fn run(host: &Host, arguments: &[&str]) -> Done {
    let mut command = host.command(arguments);
    command.env("AWS_ACCESS_KEY_ID", "AKIATEST").env("AWS_SECRET_ACCESS_KEY", "test");
    finish(command, std::time::Duration::from_secs(120))
}

fn rehearse(host: &Host, arguments: &[&str]) -> (Done, Vec<Value>) {
    let done = run(host, &[&["rotate", "--rehearse", "-o", "json"], arguments].concat());
    let lines = serde_json::from_str(&done.stdout).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    (done, lines)
}

fn outcomes(line: &Value) -> Vec<(&str, &str)> {
    let sinks = line["sinks"].as_array().unwrap().iter();
    sinks.map(|sink| (sink["sink"].as_str().unwrap(), sink["outcome"].as_str().unwrap())).collect()
}

fn left_in(host: &Host, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(host.path(folder)).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn the_daemon_rehearses_and_publishes_nothing_and_its_record_stays_out_of_every_state() {
    let mut host = Host::new(BROKEN);
    // The first delivery is what makes folders, so that there is something to leave as it is.
    host.start();
    crate::support::until("well is delivered", 60, || host.records_of("rotated", "well").len() == 1);
    let standing = |host: &Host| ["state", "generation", "jti", "lastRotation", "nextRotation"].map(|key| host.target("well")[key].clone());
    let (before, status) = (host.read("out/well"), standing(&host));
    let (done, lines) = rehearse(&host, &["well"]);
    assert_eq!((done.code, lines.len()), (Some(0), 1), "{done:?}");
    assert_eq!(outcomes(&lines[0]), [("file", "probed"), ("directory", "probed")], "{lines:#?}");
    assert_eq!((&lines[0]["kind"], &lines[0]["proof"], &lines[0]["granted"]), (&"rehearsed".into(), &"claims".into(), &3600.into()));
    assert!(lines[0]["actor"]["command"].as_str().unwrap().contains("--rehearse"), "{lines:#?}");
    assert!(host.read("out/well") == before, "a rehearsal is no rotation");
    assert_eq!(standing(&host), status);
    assert_eq!(host.records_of("rotated", "well").len(), 1);
    let recorded = host.records_of("rehearsed", "well");
    assert_eq!((recorded.len(), &recorded[0]["jti"]), (1, &lines[0]["jti"]));
    assert!(left_in(&host, "out").iter().all(|name| !name.ends_with(".tmp")), "{:?}", left_in(&host, "out"));
    assert_eq!(left_in(&host, "out/folder").len(), 4, "..data, its generation and two links: {:?}", left_in(&host, "out/folder"));
    let shown = host.run(&["records", "--kind", "rehearsed"]);
    assert!(shown.code == Some(0) && shown.stdout.contains("out/well=probed"), "{shown:?}");
    let report = host.json(&["report", "--offline", "--since", "1h"]);
    let of = |name: &str| report["targets"].as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    assert_eq!((&of("well")["rehearsal"]["good"], &of("well")["rehearsal"]["time"]), (&true.into(), &recorded[0]["time"]));
    assert_eq!(host.run(&["records", "verify"]).code, Some(0));
    assert_eq!(host.run(&["rotate", "nobody", "--rehearse"]).code, Some(2));
}

#[test]
fn without_a_daemon_this_process_rehearses_and_names_each_place_that_would_fail() {
    let host = Host::new(BROKEN);
    host.write("blocked", "no folder");
    let (done, lines) = rehearse(&host, &["--all"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(outcomes(&lines[0]), [("file", "probed"), ("directory", "probed")], "folders that are made later are no fault");
    assert_eq!(outcomes(&lines[1]), [("file", "probed"), ("file", "failed"), ("command", "failed")], "{lines:#?}");
    assert!(lines[1]["sinks"][2]["error"].as_str().unwrap().contains("/nonexistent/program"), "{lines:#?}");
    assert!(left_in(&host, "out").is_empty(), "{:?}", left_in(&host, "out"));
    assert_eq!(host.records_of("rehearsed", "bad").len(), 1);
    let report = host.json(&["report", "--offline", "--since", "1h"]);
    let bad = report["targets"].as_array().unwrap().iter().find(|t| t["name"] == "bad").unwrap();
    assert_eq!(bad["rehearsal"]["good"], false, "{report:#}");
    assert!(bad["rehearsal"]["error"].as_str().unwrap().contains("/nonexistent/program"), "{report:#}");
    let table = host.run(&["rotate", "--all", "--rehearse"]);
    assert!(table.code == Some(1) && table.stdout.contains("minted for 1h 0m, proven by claims"), "{table:?}");
}

/// A schedule over the real servers; each store place is one of its own.
fn everywhere(name: &str, policy: &str) -> Host {
    let (bao, moto, kube) = (servers().bao(), servers().moto(), cluster().kube());
    let host = Host::new(&format!(
        "
clusters:
  prod: {{kubeconfig: {minter}}}
  admin: {{kubeconfig: {admin}}}
stores:
  vault: {{vault: {{address: '{vault}', caFile: {ca}, auth: {{token: {{file: HERE/vault-token}}}}}}}}
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{aws}'}}}}
targets:
  - name: all
    cluster: prod
    serviceAccount: cicd/builder
    duration: 1h
    deliver:
      - vault: {{store: vault, path: {name}, key: token}}
      - awsSecretsManager: {{store: aws, secretId: {name}}}
      - kubernetesSecret: {{cluster: admin, namespace: cicd, name: {name}}}
      - kubernetesSecret: {{cluster: admin, namespace: cicd, name: {name}-registry, format: {{dockerConfigJson: {{registry: registry.example.com}}}}}}
",
        minter = kube.minter_kubeconfig.display(),
        admin = kube.admin_kubeconfig.display(),
        vault = bao.address,
        ca = bao.ca.display(),
        aws = moto.endpoint,
    ));
    host.write("vault-token", &vault_token(name, policy));
    host
}

/// A login of that policy alone, made with the server's own program.
fn vault_token(name: &str, policy: &str) -> String {
    let bao = servers().bao();
    let root = std::fs::read_to_string(&bao.root_token_file).unwrap();
    let ask = |path: &str, body: Value| -> Value {
        let address = format!("{}/v1/{path}", bao.address);
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--cacert"]).arg(&bao.ca).args(["-X", "POST", "-d", &body.to_string()]);
        let answer = crate::support::daemon::tool(curl.arg("-H").arg(format!("X-Vault-Token: {}", root.trim())).arg(address));
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    };
    ask(&format!("sys/policies/acl/{name}"), serde_json::json!({ "policy": policy }));
    let made = ask("auth/token/create", serde_json::json!({"policies": [name], "no_default_policy": false}));
    made["auth"]["client_token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
}

fn policy(name: &str, capabilities: &str) -> String {
    format!(
        "path \"secret/data/{name}\" {{ capabilities = [{capabilities}] }}\npath \"secret/metadata/{name}\" {{ capabilities = [\"read\"] }}\n"
    )
}

/// What a schedule of that host names in place of a kubeconfig of the servers.
fn own(host: &Host, kubeconfig: &std::path::Path) -> String {
    crate::support::rights::kubeconfig(host, cluster(), kubeconfig).display().to_string()
}

#[test]
fn every_store_is_tried_with_its_real_server_and_holds_nothing_afterwards() {
    let name = "rehearse-well";
    let host = everywhere(name, &policy(name, "\"create\", \"read\", \"update\""));
    let (done, lines) = rehearse(&host, &["all"]);
    let expected = [("vault", "probed"), ("awsSecretsManager", "probed"), ("kubernetesSecret", "probed"), ("kubernetesSecret", "probed")];
    assert_eq!((outcomes(&lines[0]), done.code), (expected.to_vec(), Some(0)), "{lines:#?}");
    assert_eq!((&lines[0]["proof"], lines[0]["auditId"].is_string()), (&"online".into(), true));
    let tried: Vec<&str> = lines[0]["sinks"].as_array().unwrap().iter().map(|s| s["tried"].as_str().unwrap()).collect();
    assert!(tried[0].contains("may be written") && tried[1].contains("AWS does not say") && tried[2].contains("dryRun=All"), "{tried:?}");
    let secrets = cluster().kubectl(&["get", "secrets", "-n", "cicd", "-o", "name"]);
    assert!(!secrets.contains(name), "{secrets}");
    // Then the real way does, and a rehearsal of what stands there finds it ours.
    let once = run(&host, &["once"]);
    if once.code == Some(0) {
        assert_eq!(rehearse(&host, &["all"]).0.code, Some(0));
    } else {
        panic!("what was rehearsed well does not deliver: {once:?}");
    }
}

#[test]
fn a_right_that_is_missing_a_stranger_and_a_missing_namespace_are_found_before_anything_is_published() {
    let name = "rehearse-bad";
    let host = everywhere(name, &policy(name, "\"read\""));
    cluster().kubectl(&["create", "secret", "generic", name, "-n", "cicd", "--from-literal=token=theirs"]);
    let text = host
        .read("schedule.yaml")
        .replace(&format!("namespace: cicd, name: {name}-registry"), &format!("namespace: nowhere, name: {name}-registry"))
        // No right can be granted in a namespace that is not there, and without one nobody learns that it is not.
        .replace(&own(&host, &cluster().kube().admin_kubeconfig), &cluster().kube().admin_kubeconfig.display().to_string());
    std::fs::write(host.schedule(), text).unwrap();
    let (done, lines) = rehearse(&host, &["all"]);
    let places: Vec<&str> = outcomes(&lines[0]).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!((places, done.code), (vec!["failed", "probed", "failed", "failed"], Some(1)), "{lines:#?}");
    let error = |index: usize| lines[0]["sinks"][index]["error"].as_str().unwrap().to_owned();
    assert!(error(0).contains("lacks `create`, `update`"), "{}", error(0));
    assert!(error(2).contains("not ours") && error(3).contains("no namespace nowhere"), "{} {}", error(2), error(3));
    let kept = cluster().kubectl(&["get", "secret", name, "-n", "cicd", "-o", "jsonpath={.data.token}"]);
    assert_eq!(kept, "dGhlaXJz");
    // A login that may not mint: the token itself is what fails.
    let kubeconfig = cluster().kube().kubeconfig(serde_json::json!({"token": "nonsense"}));
    host.write("nobody.kubeconfig", &kubeconfig);
    let text = host.read("schedule.yaml").replace(&own(&host, &cluster().kube().minter_kubeconfig), "nobody.kubeconfig");
    std::fs::write(host.schedule(), text).unwrap();
    let (done, lines) = rehearse(&host, &["all"]);
    assert_eq!((done.code, lines[0]["error"].as_str().is_some_and(|e| e.contains("401"))), (Some(1), true), "{lines:#?}");
}
