//! The main job against real servers, from the first delivery through outages, a kill and reloads, as the
//! records tell it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::daemon::{Host, tool};
use crate::support::servers::Servers;
use crate::support::until;

/// 50 targets: most to files, some to Vault with a fallback file, some to AWS; two contexts of one kubeconfig.
fn schedule(servers: &Servers) -> String {
    let (kube, bao, moto) = (servers.kube(), servers.bao(), servers.moto());
    let mut text = format!(
        "
clusters:
  first: {{kubeconfig: {kubeconfig}, context: minter}}
  second: {{kubeconfig: {kubeconfig}, context: minter2}}
stores:
  vault: {{vault: {{address: '{address}', caFile: {ca}, auth: {{token: {{file: {token}}}}}}}}}
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{moto}'}}}}
defaults: {{duration: 10m, rotate: {{at: 80%, cron: '*/30 * * * *', timeZone: Europe/Berlin}}}}
targets:
",
        kubeconfig = kube.minter_kubeconfig.display(),
        address = bao.address,
        ca = bao.ca.display(),
        token = bao.root_token_file.display(),
        moto = moto.endpoint,
    );
    for n in 0..50 {
        let cluster = if n % 2 == 0 { "first" } else { "second" };
        let deliver = match n {
            0..10 => format!(
                "      - vault: {{store: vault, path: story/t{n}, key: token}}\n        fallback: [{{file: {{path: HERE/out/fallback-t{n}}}}}]\n"
            ),
            10..20 => format!("      - awsSecretsManager: {{store: aws, secretId: story/t{n}}}\n"),
            20..30 => format!(
                "      - file: {{path: HERE/out/t{n}}}\n      - vault: {{store: vault, path: story/t{n}}}\n        required: false\n"
            ),
            _ => format!("      - file: {{path: HERE/out/t{n}}}\n"),
        };
        text += &format!("  - name: t{n}\n    cluster: {cluster}\n    serviceAccount: story/t{n}\n    deliver:\n{deliver}");
    }
    text
}

fn accounts(servers: &Servers) {
    let list: Vec<String> =
        (0..50).map(|n| format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: t{n}, namespace: story}}\n")).collect();
    let file = servers.folder.join("story.yaml");
    std::fs::write(&file, format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: story}}\n---\n{}", list.join("---\n"))).unwrap();
    servers.kubectl(&["apply", "-f", file.to_str().unwrap()]);
}

fn count(host: &Host, kind: &str) -> usize {
    host.records().iter().filter(|l| l["kind"] == kind).count()
}

/// Who the API server takes the bearer of a token file for, asked by the real kubectl.
fn who(servers: &Servers, host: &Host, token: &str) -> String {
    let kube = servers.kube();
    host.write("probe-token", token);
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{tokenFile: {}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
        kube.server,
        kube.ca.display(),
        host.path("probe-token").display()
    );
    let path = host.write("probe.kubeconfig", &config);
    tool(Command::new(&kube.kubectl).arg("--kubeconfig").arg(path).args(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]))
}

/// The same, asked by the kube crate with the file as its `tokenFile`.
fn who_by_kube(servers: &Servers, host: &Host, token: &str) -> String {
    let kube = servers.kube();
    host.write("probe-token", token);
    let config = kube::config::Kubeconfig::from_yaml(&format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{tokenFile: {}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
        kube.server,
        kube.ca.display(),
        host.path("probe-token").display()
    ))
    .unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(crate::support::within(async {
        let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let body = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.to_vec();
        let request =
            http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews").header("content-type", "application/json").body(body);
        let response = client.send(request.unwrap().map(kube::client::Body::from)).await.unwrap();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&bytes).unwrap();
        review["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
    }))
}

fn vault_value(servers: &Servers, path: &str) -> Value {
    let bao = servers.bao();
    let token = std::fs::read_to_string(&bao.root_token_file).unwrap();
    let config = servers.folder.join("curl-vault");
    std::fs::write(&config, format!("header = \"X-Vault-Token: {}\"\n", token.trim())).unwrap();
    let url = format!("{}/v1/secret/data/{path}", bao.address);
    let text = tool(Command::new("curl").args(["-sS", "--config"]).arg(&config).arg("--cacert").arg(&bao.ca).arg(url));
    serde_json::from_str(&text).unwrap()
}

fn aws_value(servers: &Servers, secret: &str) -> String {
    let moto = servers.moto();
    let text = tool(Command::new("curl").args([
        "-sS", "-H", "X-Amz-Target: secretsmanager.GetSecretValue", "-H", "Content-Type: application/x-amz-json-1.1",
        "-H", "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=x",
        "-d", &format!("{{\"SecretId\":\"{secret}\"}}"), &moto.endpoint,
    ]));
    let value: Value = serde_json::from_str(&text).unwrap();
    value["SecretString"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

const AWS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

fn start(host: &mut Host) {
    host.start_with(&AWS);
    until("the daemon answers", 60, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
}

#[test]
fn the_main_job_from_first_delivery_through_outages_kill_and_reloads() {
    let servers = Servers::start("story", &["etcd", "kube", "bao", "moto"]);
    accounts(&servers);
    let text = schedule(&servers);
    let mut host = Host::new(&text);
    assert_eq!(host.run(&["check"]).code, Some(0), "{:?}", host.run(&["check"]));

    // First delivery: every target, every kind of sink.
    start(&mut host);
    until("50 first deliveries", 90, || count(&host, "rotated") == 50);
    let status = host.json(&["status"]);
    assert!(status["targets"].as_array().unwrap().iter().all(|t| t["state"] == "fresh"), "{status:#}");
    for line in host.records().iter().filter(|l| l["kind"] == "rotated") {
        assert_eq!((&line["reason"], &line["proof"], &line["granted"]), (&"new".into(), &"online".into(), &600.into()), "{line}");
        assert!(line["auditId"].is_string() && line["jti"].is_string(), "{line}");
    }

    // What each kind of sink holds authenticates at the real API server.
    assert_eq!(who(&servers, &host, &host.read("out/t30")), "system:serviceaccount:story:t30");
    let in_vault = vault_value(&servers, "story/t0")["data"]["data"]["token"].as_str().unwrap().to_owned();
    assert_eq!(who(&servers, &host, &in_vault), "system:serviceaccount:story:t0");
    assert_eq!(who(&servers, &host, &aws_value(&servers, "story/t10")), "system:serviceaccount:story:t10");
    for (token, target) in [(host.read("out/t30"), "t30"), (in_vault.clone(), "t0"), (aws_value(&servers, "story/t10"), "t10")] {
        assert_eq!(who_by_kube(&servers, &host, &token), format!("system:serviceaccount:story:{target}"));
    }

    // OpenBao stops: fallback written, place owed; paid after it is back, with the newest token.
    servers.kill("bao");
    let answer = host.json(&["rotate", "t0", "t1", "t20", "t30"]);
    assert!(answer["outcomes"].as_array().unwrap().iter().all(|o| o["record"]["kind"] == "rotated"), "{answer:#}");
    let fell = host.records_of("rotated", "t0").pop().unwrap();
    assert_eq!(fell["sinks"][0]["outcome"], "fellBack", "{fell}");
    assert_eq!(fell["sinks"][0]["fallback"], host.path("out/fallback-t0").to_str().unwrap());
    assert_eq!(who(&servers, &host, &host.read("out/fallback-t0")), "system:serviceaccount:story:t0");
    assert_eq!(host.records_of("rotated", "t20").pop().unwrap()["sinks"][1]["outcome"], "owed");
    until("t0 is retrying", 20, || host.target("t0")["state"] == "retrying");
    servers.restart("bao");
    until("t0, t1 and t20 are paid", 90, || ["t0", "t1", "t20"].iter().all(|t| !host.records_of("paid", t).is_empty()));
    let paid = host.records_of("paid", "t0").pop().unwrap();
    assert_eq!((&paid["jti"], &paid["sinks"][0]["outcome"]), (&fell["jti"], &"written".into()), "{paid}");
    assert_eq!(vault_value(&servers, "story/t0")["data"]["data"]["token"].as_str().unwrap(), host.read("out/fallback-t0"));
    until("t0 is fresh", 20, || host.target("t0")["state"] == "fresh");

    // The API server stops past deadlines that are asked for, and comes back: failed, retried, caught up.
    servers.kill("kube");
    let answer = host.json(&["rotate", "t3*", "--timeout", "100s"]);
    assert!(answer["outcomes"].as_array().unwrap().iter().all(|o| o["record"]["kind"] == "failed"), "{answer:#}");
    let kept = host.read("out/t30");
    assert!(!kept.is_empty(), "what was published is gone");
    let troubled = host.target("t30");
    assert_eq!(troubled["state"], "retrying", "{troubled}");
    assert!(troubled["lastError"].as_str().unwrap().contains("127.0.0.1"), "{troubled}");
    let before = count(&host, "rotated");
    servers.restart("kube");
    until("t30 to t39 and t3 are caught up", 120, || count(&host, "rotated") >= before + 11);
    until("all is fresh again", 60, || host.json(&["status"])["targets"].as_array().unwrap().iter().all(|t| t["state"] == "fresh"));
    assert_ne!(host.read("out/t30"), kept);

    // A kill in the middle of a batch, and a restart: nothing is lost, nothing booked twice, fresh ones are left alone.
    let mut batch = host.command(&["rotate", "--all", "--timeout", "5s"]).spawn().unwrap();
    let before = count(&host, "rotated");
    until("the batch is under way", 30, || count(&host, "rotated") > before + 5);
    host.kill();
    batch.wait().unwrap();
    let rotated = count(&host, "rotated");
    start(&mut host);
    until("every place is settled", 60, || host.json(&["status"])["targets"].as_array().unwrap().iter().all(|t| t["state"] == "fresh"));
    let lines = host.records();
    let mut by_target: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in lines.iter().filter(|l| matches!(l["kind"].as_str(), Some("rotated" | "adopted"))) {
        *by_target.entry((line["target"].to_string(), line["jti"].to_string())).or_default() += 1;
    }
    assert!(by_target.values().all(|n| *n == 1), "a token was booked twice");
    let repairs = lines.iter().filter(|l| l["kind"] == "rotated" && l["reason"] == "repair").count();
    assert_eq!(count(&host, "rotated"), rotated + repairs, "a fresh token was minted anew");

    // A bad reload is refused, a good one taken; the records tell it.
    let good = text.replace("duration: 10m", "duration: 20m");
    host.write_schedule(&good.replace("name: t49", "name: t48"));
    assert_eq!(host.run(&["reload"]).code, Some(2));
    host.write_schedule(&good);
    assert_eq!(host.run(&["reload"]).code, Some(0));
    assert!(host.json(&["rotate", "t30"])["outcomes"][0]["record"]["granted"] == 1200);
    let kinds: Vec<String> = host.records().iter().map(|l| l["kind"].as_str().unwrap().to_owned()).collect();
    for kind in ["started", "rotated", "failed", "paid", "reloadRefused", "reloaded"] {
        assert!(kinds.iter().any(|k| k == kind), "the records do not tell of {kind}");
    }
    // Status and records agree on the last token of every target.
    let last: BTreeMap<String, Value> = host
        .records()
        .into_iter()
        .filter(|l| matches!(l["kind"].as_str(), Some("rotated" | "adopted")))
        .map(|l| (l["target"].as_str().unwrap().to_owned(), l["jti"].clone()))
        .collect();
    for target in host.json(&["status"])["targets"].as_array().unwrap() {
        assert_eq!(target["jti"], last[target["name"].as_str().unwrap()], "{target}");
    }
    assert_eq!(host.stop(), Some(0));
    assert_no_token_bytes(&host, &[in_vault, kept]);
}

/// No token shows in records, logs or status.
fn assert_no_token_bytes(host: &Host, tokens: &[String]) {
    let records: String = host.records().iter().map(Value::to_string).collect();
    let status = host.run(&["status", "-o", "json"]).stdout;
    for token in tokens {
        let secret = token.rsplit('.').next().unwrap();
        for (name, text) in [("log", host.log()), ("records", records.clone()), ("status", status.clone())] {
            assert!(!text.contains(secret), "a token's signature stands in the {name}");
        }
    }
    for (name, text) in [("log", host.log()), ("records", records), ("status", status)] {
        assert!(!text.contains("eyJ"), "token-shaped text stands in the {name}");
    }
}

#[test]
fn tokens_for_other_audiences_and_bound_objects_are_what_was_asked_for() {
    let servers = crate::support::servers::cluster();
    servers.kubectl(&["-n", "cicd", "create", "secret", "generic", "anchor"]);
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
defaults: {{cluster: prod, duration: 10m}}
targets:
  - name: audience
    serviceAccount: cicd/builder
    audiences: [vault.example.com]
    deliver: [{{file: {{path: HERE/out/audience}}}}]
  - name: bound
    serviceAccount: cicd/cicd-deployer
    boundTo: {{secret: anchor}}
    deliver: [{{file: {{path: HERE/out/bound}}}}]
  - name: missing
    serviceAccount: cicd/nobody
    deliver: [{{file: {{path: HERE/out/missing}}}}]
",
        servers.kube().minter_kubeconfig.display()
    ));
    let begun = Instant::now();
    host.start();
    until("two are delivered and one has failed", 30, || count(&host, "rotated") == 2 && count(&host, "failed") >= 1);
    assert!(begun.elapsed() < Duration::from_secs(25));
    let line = host.records_of("rotated", "audience").pop().unwrap();
    assert_eq!(line["proof"], "signature", "`rbac` offers the reading of the keys, and only the audience can try it: {line}");
    let failed = host.records_of("failed", "missing").pop().unwrap();
    assert!(failed["error"].as_str().unwrap().contains("`nobody` does not exist"), "{failed}");
    until("missing is retrying", 20, || host.target("missing")["state"] == "retrying");
    until("bound is fresh", 20, || host.target("bound")["state"] == "fresh");
    servers.kubectl(&["-n", "cicd", "create", "serviceaccount", "nobody"]);
    until("the late account is served", 60, || host.path("out/missing").exists());
    servers.kubectl(&["-n", "cicd", "delete", "serviceaccount", "nobody"]);
}
