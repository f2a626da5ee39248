//! Logins without a stored secret, by the whole program: the clouds trust a cluster's tokens, or the machine, until they
//! do not any more.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use super::azure::Azure;
use crate::shipped::root;
use crate::support::daemon::Host;

fn run(host: &Host, variables: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = host.command(arguments);
    let done = command.envs(variables.iter().copied()).output().unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

/// The last record of a target, with what it says of its first place.
fn last(host: &Host, kind: &str, target: &str) -> Value {
    host.records_of(kind, target).pop().unwrap_or_else(|| panic!("no {kind} of {target}"))["sinks"][0].clone()
}

/// Azure with this schedule's vault in it, and the schedule.
fn azure(schedule: &str) -> (Azure, Host) {
    let azure = Azure::start();
    let more = format!(
        "\n      authority: {0}\n      resource: https://vault.test\n      caFile: {1}",
        azure.address,
        azure.file("ca.pem").display()
    );
    let text = schedule
        .replace("version: 1\n", "")
        .replace("prod: {kubeconfig: /etc/tokenferry/prod.kubeconfig}", "prod: {embedded: {}}")
        .replace("address: https://tokens.vault.azure.net", &format!("address: {}{more}", azure.address))
        .replace("/run/tokenferry/logins", "HERE/out");
    let host = Host::new(&text);
    (azure, host)
}

fn asked(azure: &Azure, method: Method, path: &str, body: Value) -> Value {
    tokio::runtime::Runtime::new().unwrap().block_on(azure.call(method, path, body))
}

#[test]
fn the_example_for_azure_logs_in_with_a_token_of_its_own_cluster_until_its_federation_is_revoked() {
    let (azure, host) = azure(&std::fs::read_to_string(root().join("examples/azure.yaml")).unwrap());
    let (code, said) = run(&host, &[], &["once"]);
    assert_eq!(code, Some(1), "nobody trusts the cluster yet: {said}");
    let place = last(&host, "failed", "deployer");
    assert_eq!(place["kind"], "refused", "{place}");
    // Entra ID learns of the cluster's issuer and keys, and of the account.
    let keys: Value = serde_json::from_str(&host.read("state/embedded/prod/jwks.json")).unwrap();
    let login = host.write("login", &host.read("out/azure"));
    let claims = host.json(&["inspect", &login.display().to_string()]);
    let issuer = claims.pointer("/issuer").or_else(|| claims.pointer("/claims/iss")).unwrap_or_else(|| panic!("{claims}"));
    let trusted = json!({"iss": issuer, "sub": "system:serviceaccount:tokenferry:azure-login", "aud": "api://AzureADTokenExchange"});
    asked(&azure, Method::PUT, "entra", json!({"keys": keys, "trusted": trusted}));
    let (code, said) = run(&host, &[], &["once", "--force"]);
    assert_eq!(code, Some(0), "{said}");
    let found = asked(&azure, Method::GET, "secrets/ci-deployer", json!({}));
    let rotated = host.records_of("rotated", "deployer").pop().unwrap();
    let stored = host.write("stored", found["text"].as_str().unwrap());
    let said = host.run(&["inspect", &stored.display().to_string(), "-o", "json"]).stdout;
    assert!(said.contains(rotated["jti"].as_str().unwrap()), "{said}");
    let end = jiff::Timestamp::from_second(found["attributes"]["exp"].as_i64().unwrap()).unwrap().to_string();
    assert_eq!(rotated["expiresAt"].as_str().unwrap(), end, "the secret ends when its token does");
    asked(&azure, Method::PUT, "entra", json!({"federated": false}));
    let (code, said) = run(&host, &[], &["once", "--force"]);
    assert_eq!(code, Some(1), "{said}");
    let place = last(&host, "failed", "deployer");
    assert_eq!(place["kind"], "refused", "{place}");
    assert!(place["error"].as_str().unwrap().contains("no federated credential"), "{place}");
    let still = asked(&azure, Method::GET, "secrets/ci-deployer", json!({}));
    assert_eq!(still["text"], found["text"], "what was published stays");
}

#[test]
fn a_machine_of_azures_logs_in_as_itself() {
    let (azure, host) = azure(
        "clusters:
  prod: {kubeconfig: /etc/tokenferry/prod.kubeconfig}
stores:
  vault:
    azureKeyVault:
      address: https://tokens.vault.azure.net
      auth: {managedIdentity: {}}
targets:
  - {name: one, cluster: prod, serviceAccount: ci/one, duration: 1h, deliver: [{azureKeyVault: {store: vault, name: one}}]}
",
    );
    let endpoint = format!("{}/identity", azure.address);
    let (code, said) = run(&host, &[("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "wrong")], &["once"]);
    assert_eq!(code, Some(1), "{said}");
    let place = last(&host, "failed", "one");
    assert!(place["kind"] == "refused" && place["error"].as_str().unwrap().contains("managed identity"), "{place}");
    assert!(!place.to_string().contains("canary"), "{place}");
    let (code, said) = run(&host, &[("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", "identity-key")], &["once"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(asked(&azure, Method::GET, "secrets/one", json!({}))["text"].as_str().unwrap().starts_with("ey"));
}

/// An STS that answers each request with these bytes.
fn sts(body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 65_536];
            let _ = connection.read(&mut bytes);
            let head = format!(
                "HTTP/1.1 400 Bad Request\r\ncontent-type: text/xml\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = connection.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

#[test]
fn an_aws_role_that_does_not_trust_the_cluster_any_more_is_refused_with_what_to_look_at() {
    let sts = sts(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
        <Message>canary No OpenIDConnect provider found in your account</Message></Error><RequestId>1</RequestId></ErrorResponse>",
    );
    let host = Host::new(&format!(
        "
clusters: {{prod: {{embedded: {{}}}}}}
stores:
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{sts}', webIdentity: {{roleArn: 'arn:aws:iam::123456789012:role/ci', target: login}}}}}}
  parameters: {{awsParameterStore: {{region: eu-central-1, endpoint: '{sts}', webIdentity: {{roleArn: 'arn:aws:iam::123456789012:role/ci', target: login}}}}}}
defaults: {{cluster: prod, duration: 1h}}
targets:
  - {{name: login, serviceAccount: ci/login, deliver: [{{file: {{path: HERE/out/login}}}}]}}
  - {{name: one, serviceAccount: ci/one, deliver: [{{awsSecretsManager: {{store: aws, secretId: one}}}}]}}
  - {{name: two, serviceAccount: ci/two, deliver: [{{awsParameterStore: {{store: parameters, name: two}}}}]}}
"
    ));
    let variables = [("AWS_ENDPOINT_URL_STS", sts.as_str()), ("AWS_EC2_METADATA_DISABLED", "true")];
    let (code, said) = run(&host, &variables, &["once"]);
    assert_eq!(code, Some(1), "{said}");
    for target in ["one", "two"] {
        let place = last(&host, "failed", target);
        assert_eq!(place["kind"], "refused", "{place}");
        assert!(place["error"].as_str().unwrap().contains("no identity provider of the account"), "{place}");
        assert!(!place.to_string().contains("canary") && !said.contains("canary"), "{place}");
    }
}
