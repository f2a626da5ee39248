//! No static secret: stores are logged into with tokens that tokenferry mints itself. Against OpenBao's real JWT login
//! with the real API server's keys, and moto's STS.

use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::shipped::root;
use crate::support::daemon::{Host, tool};
use crate::support::servers::Servers;
use crate::support::until;

/// The API server's keys may be read by anybody here, which no other test should meet.
fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        let servers = Servers::start("logins", &["etcd", "kube", "bao", "moto"]);
        let role = "--clusterrole=system:service-account-issuer-discovery";
        servers.kubectl(&["create", "clusterrolebinding", "keys-for-all", role, "--group=system:unauthenticated"]);
        servers.kubectl(&["create", "namespace", "tokenferry"]);
        for account in ["vault-login", "aws-login"] {
            servers.kubectl(&["create", "serviceaccount", account, "-n", "tokenferry"]);
        }
        let ca = std::fs::read_to_string(&servers.kube().ca).unwrap();
        bao(&servers, "POST", "sys/auth/jwt", &json!({"type": "jwt"}));
        let keys = format!("{}/openid/v1/jwks", servers.kube().server);
        until("OpenBao reads the API server's keys", 30, || {
            bao(&servers, "POST", "auth/jwt/config", &json!({"jwks_url": keys, "jwks_ca_pem": ca}))["errors"].is_null()
        });
        let policy = "path \"secret/data/*\" { capabilities = [\"create\", \"read\", \"update\"] }";
        bao(&servers, "POST", "sys/policies/acl/tokenferry", &json!({"policy": policy}));
        let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["https://vault.example.com"],
            "bound_subject": "system:serviceaccount:tokenferry:vault-login", "token_policies": ["tokenferry"]});
        bao(&servers, "POST", "auth/jwt/role/tokenferry", &role);
        servers
    })
}

/// One call as OpenBao's root.
fn bao(servers: &Servers, method: &str, path: &str, body: &Value) -> Value {
    let server = servers.bao();
    let token = std::fs::read_to_string(&server.root_token_file).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-X", method, "--cacert"]).arg(&server.ca).args(["-H", &format!("X-Vault-Token: {}", token.trim())]);
    if !body.is_null() {
        curl.args(["-d", &body.to_string()]);
    }
    serde_json::from_str(&tool(curl.arg(format!("{}/v1/{path}", server.address)))).unwrap_or_default()
}

fn stored(path: &str) -> Option<String> {
    bao(servers(), "GET", &format!("secret/data/{path}"), &Value::Null)["data"]["data"]["token"].as_str().map(str::to_owned)
}

/// Variables that lead the AWS SDK to moto, with no credential among them.
fn aws() -> [(&'static str, &'static str); 4] {
    let endpoint = servers().moto().endpoint.as_str();
    [
        ("AWS_ENDPOINT_URL_STS", endpoint),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/nonexistent"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ]
}

fn started(host: &mut Host) {
    host.start_with(&aws());
    until("the daemon answers", 60, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
}

/// A store in OpenBao that logs in with that target.
fn store(target: &str) -> String {
    let bao = servers().bao();
    format!(
        "{{vault: {{address: '{}', caFile: {}, auth: {{jwt: {{role: tokenferry, target: {target}}}}}}}}}",
        bao.address,
        bao.ca.display()
    )
}

fn host(targets: &str) -> Host {
    let minter = servers().kube().minter_kubeconfig.display().to_string();
    Host::new(&format!(
        "clusters: {{prod: {{kubeconfig: {minter}}}}}
stores: {{bao: {}}}
defaults: {{cluster: prod, duration: 10m}}
targets:
{targets}",
        store("vault-login")
    ))
}

const LOGIN: &str = "serviceAccount: tokenferry/vault-login, audiences: ['https://vault.example.com']";

#[test]
fn the_example_without_static_secrets_serves_vault_and_aws_from_nothing_but_bootstrap() {
    let servers = servers();
    let example = std::fs::read_to_string(root().join("examples/no-static-secrets.yaml")).unwrap();
    let (bao, moto) = (servers.bao(), &servers.moto().endpoint);
    let text = example
        .replace("version: 1\n", "")
        .replace("/etc/tokenferry/prod.kubeconfig", "HERE/prod.kubeconfig")
        .replace("address: https://vault.example.com:8200", &format!("address: {}", bao.address))
        .replace("/etc/ssl/certs/internal-ca.pem", &bao.ca.display().to_string())
        .replace("region: eu-central-1", &format!("region: eu-central-1\n      endpoint: {moto}"))
        .replace("/run/tokenferry/logins", "HERE/out");
    let mut host = Host::new(&text);
    let admin = servers.kube().admin_kubeconfig.display().to_string();
    // Its account's namespace was there before.
    let done = host.run(&["bootstrap", "prod", "--kubeconfig", &admin]);
    assert_eq!(done.code, Some(0), "{done:?}");
    started(&mut host);
    until("the target is delivered", 120, || host.records_of("rotated", "ci-deployer").len() == 1);
    let line = host.records_of("rotated", "ci-deployer").pop().unwrap();
    let outcomes: Vec<&Value> = line["sinks"].as_array().unwrap().iter().map(|s| &s["outcome"]).collect();
    assert_eq!(outcomes, ["written", "written"], "{line}");
    assert!(host.records_of("failed", "ci-deployer").is_empty(), "its stores waited for their logins");
    let rotated = host.rotate("ci-deployer").unwrap();
    assert_eq!(rotated["kind"], "rotated", "{rotated}");
    let token = stored("ci/deployer").unwrap();
    let inspected = host.write("stored", &token);
    let said = host.run(&["inspect", &inspected.display().to_string(), "-o", "json"]).stdout;
    assert!(said.contains(rotated["jti"].as_str().unwrap()), "the newest token stands in OpenBao: {said}");
}

#[test]
fn a_target_whose_store_cannot_be_logged_into_yet_waits_and_no_other_place_of_it_does() {
    // The login's own cluster does not answer: its token cannot come.
    let minter = servers().kube().minter_kubeconfig.display().to_string();
    let mut host = Host::new(&format!(
        "clusters: {{prod: {{kubeconfig: {minter}}}, away: {{kubeconfig: HERE/away}}}}
stores: {{bao: {}}}
defaults: {{cluster: prod, duration: 10m}}
targets:
  - {{name: vault-login, cluster: away, {LOGIN}, deliver: [{{file: {{path: HERE/out/login}}}}]}}
  - {{name: one, serviceAccount: cicd/builder, deliver: [{{file: {{path: HERE/out/one}}}}, {{vault: {{store: bao, path: waits/one}}, fallback: [{{file: {{path: HERE/out/fallback}}}}]}}]}}
",
        store("vault-login")
    ));
    started(&mut host);
    until("its file is written", 60, || host.path("out/one").exists());
    until("it falls back", 60, || host.records_of("rotated", "one").iter().any(|l| l["sinks"][1]["outcome"] == "fellBack"));
    let line = host.records_of("rotated", "one").pop().unwrap();
    assert!(line["sinks"][1]["error"].as_str().unwrap().contains("its target has to be rotated first"), "{line}");
    assert_eq!(stored("waits/one"), None);
    std::fs::copy(&minter, host.path("away")).unwrap();
    until("the login comes", 90, || host.records_of("rotated", "vault-login").len() == 1);
    until("the store is paid", 90, || stored("waits/one").is_some());
}

#[test]
fn a_login_whose_token_ended_while_the_daemon_was_down_is_waited_for() {
    let targets = format!(
        "  - {{name: vault-login, {LOGIN}, deliver: [{{file: {{path: HERE/out/login}}}}]}}
  - {{name: one, serviceAccount: cicd/builder, deliver: [{{vault: {{store: bao, path: late/one}}}}]}}\n"
    );
    let mut host = host(&targets);
    // A token that OpenBao refuses stands in the file, as one does that has ended.
    host.write("out/login", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.bm9uZQ");
    started(&mut host);
    until("it is delivered", 120, || host.records_of("rotated", "one").len() == 1);
    assert!(host.records_of("failed", "one").is_empty(), "{:?}", host.records_of("failed", "one"));
    assert!(stored("late/one").is_some());
}

#[test]
fn a_login_target_may_go_into_its_own_store_too_for_its_file_comes_first() {
    let mut host = host(&format!(
        "  - {{name: vault-login, {LOGIN}, deliver: [{{vault: {{store: bao, path: self/login}}}}, {{file: {{path: HERE/out/login}}}}]}}\n"
    ));
    started(&mut host);
    until("both places have it", 120, || host.records_of("rotated", "vault-login").len() == 1);
    assert_eq!(stored("self/login").unwrap(), host.read("out/login"));
}

#[test]
fn openbaos_kubernetes_login_takes_the_token_of_a_target_too() {
    let servers = servers();
    let (kube, ca) = (servers.kube(), std::fs::read_to_string(&servers.kube().ca).unwrap());
    servers.kubectl(&["create", "serviceaccount", "reviewer", "-n", "tokenferry"]);
    let role = "--clusterrole=system:auth-delegator";
    servers.kubectl(&["create", "clusterrolebinding", "reviewer", role, "--serviceaccount=tokenferry:reviewer"]);
    let reviewer = servers.kubectl(&["create", "token", "reviewer", "-n", "tokenferry", "--duration", "1h"]);
    bao(servers, "POST", "sys/auth/kubernetes", &json!({"type": "kubernetes"}));
    let config = json!({"kubernetes_host": kube.server, "kubernetes_ca_cert": ca, "token_reviewer_jwt": reviewer.trim()});
    bao(servers, "POST", "auth/kubernetes/config", &config);
    let role = json!({"bound_service_account_names": "vault-login", "bound_service_account_namespaces": "tokenferry",
        "audience": "https://vault.example.com", "token_policies": "tokenferry"});
    bao(servers, "POST", "auth/kubernetes/role/tokenferry", &role);
    let (minter, server) = (kube.minter_kubeconfig.display(), servers.bao());
    let mut host = Host::new(&format!(
        "clusters: {{prod: {{kubeconfig: {minter}}}}}
stores: {{bao: {{vault: {{address: '{}', caFile: {}, auth: {{kubernetes: {{role: tokenferry, target: vault-login}}}}}}}}}}
defaults: {{cluster: prod, duration: 10m}}
targets:
  - {{name: vault-login, {LOGIN}, deliver: [{{file: {{path: HERE/out/login}}}}]}}
  - {{name: one, serviceAccount: cicd/builder, deliver: [{{vault: {{store: bao, path: reviewed/one}}}}]}}
",
        server.address,
        server.ca.display()
    ));
    started(&mut host);
    until("the target is delivered", 120, || host.records_of("rotated", "one").len() == 1);
    let line = host.records_of("rotated", "one").pop().unwrap();
    assert_eq!(line["sinks"][0]["outcome"], "written", "{line}");
    assert!(stored("reviewed/one").is_some_and(|token| token.starts_with("eyJ")));
}
