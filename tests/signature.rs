//! Tokens for others than the API server are proven by the cluster's keys, where our account may read them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::daemon::{Host, tool};
use crate::support::servers::{Servers, cluster};
use crate::support::until;

#[test]
fn the_proof_is_the_signature_where_we_may_read_the_keys_and_the_claims_where_we_may_not() {
    let servers = cluster();
    let mut host = Host::new(&format!(
        "
clusters: {{may: {{kubeconfig: {}}}, not: {{kubeconfig: HERE/not.kubeconfig}}}}
defaults: {{serviceAccount: cicd/builder, duration: 1h}}
targets:
  - {{name: may, cluster: may, audiences: [vault], deliver: [{{file: {{path: HERE/out/may}}}}]}}
  - {{name: not, cluster: not, audiences: [vault], deliver: [{{file: {{path: HERE/out/not}}}}]}}
  - {{name: api, cluster: may, deliver: [{{file: {{path: HERE/out/api}}}}]}}
  - {{name: off, cluster: may, audiences: [vault], prove: false, deliver: [{{file: {{path: HERE/out/off}}}}]}}
",
        servers.kube().minter2_kubeconfig.display(),
    ));
    // Somebody who may mint, and not all that `rbac` prints.
    host.write("not.kubeconfig", &std::fs::read_to_string(&servers.kube().minter_kubeconfig).unwrap());
    host.start();
    for (target, proof) in [("may", "signature"), ("not", "claims"), ("api", "online"), ("off", "claims")] {
        until("it is delivered", 60, || host.records_of("rotated", target).len() == 1);
        let line = host.records_of("rotated", target).pop().unwrap();
        assert_eq!(line["proof"], proof, "{line}");
    }
}

#[test]
fn g2_a_token_whose_signing_key_the_cluster_serves_no_more_is_replaced_once() {
    let servers = Servers::start("rekey", &["etcd", "kube"]);
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
targets:
  - {{name: one, cluster: prod, serviceAccount: cicd/builder, audiences: [vault], duration: 1h, prove: {{every: 10s}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        servers.kube().minter2_kubeconfig.display()
    ));
    host.start();
    until("it is delivered", 60, || host.records_of("rotated", "one").len() == 1);
    let first = host.records_of("rotated", "one").pop().unwrap();
    assert_eq!(first["proof"], "signature", "{first}");
    let proven = host.target("one")["provenAt"].clone();
    until("it is proven again", 40, || host.target("one")["provenAt"] != proven);
    assert!(host.records_of("rejected", "one").is_empty());
    let key = servers.folder.join("kube/sa-p256.key");
    let public = servers.folder.join("kube/sa-p256.pub");
    servers.kill("kube");
    tool(Command::new("openssl").args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"]).arg(&key));
    tool(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public));
    servers.restart("kube");
    until("the token of the old key is replaced", 90, || host.records_of("rotated", "one").len() == 2);
    let second = host.records_of("rotated", "one").pop().unwrap();
    assert_eq!((&second["reason"], &second["proof"]), (&json!("rejected"), &json!("signature")), "{second}");
    assert_eq!(host.records_of("rejected", "one").len(), 1);
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
    let proven = host.target("one")["provenAt"].clone();
    until("the new one is proven on the beat", 40, || host.target("one")["provenAt"] != proven);
    assert_eq!(host.records_of("rotated", "one").len(), 2, "a mint loop");
}

/// An API server that mints and answers nothing else: 503. The first token is old already.
fn half_dead() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let minted = Arc::new(AtomicI64::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let minted = Arc::clone(&minted);
            std::thread::spawn(move || serve(stream, &minted));
        }
    });
    port
}

fn serve(mut stream: TcpStream, minted: &AtomicI64) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let (status, body) = if text.contains("/serviceaccounts/one/token") {
            let (now, number) = (jiff::Timestamp::now().as_second(), minted.fetch_add(1, Ordering::SeqCst));
            // Nine tenths and more of the first one's life are gone.
            let iat = if number == 0 { now - 3_420 } else { now };
            let part = |v: serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
            let claims = json!({"sub": "system:serviceaccount:ci:one", "aud": ["api"], "iat": iat, "exp": iat + 3_600, "jti": number.to_string(), "iss": "https://half.dead"});
            let token = format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "ES256"})), part(claims));
            ("201 Created", json!({"kind": "TokenRequest", "status": {"token": token}}).to_string())
        } else {
            ("503 Service Unavailable", "{}".to_owned())
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn g2_a_token_that_nobody_can_prove_waits_while_the_old_one_lives_and_is_published_when_that_is_about_to_end() {
    let port = half_dead();
    let mut host = Host::new(
        "
clusters: {odd: {kubeconfig: HERE/odd.kubeconfig}}
targets:
  - {name: one, cluster: odd, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}
",
    );
    host.write(
        "odd.kubeconfig",
        &format!("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{token: own}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"),
    );
    host.start();
    // With no token, and with one of which 5 % are left, nobody waits for a proof.
    until("two are published on their claims", 60, || host.records_of("rotated", "one").len() == 2);
    assert!(host.records_of("rotated", "one").iter().all(|line| line["proof"] == "claims"));
    assert!(host.records_of("failed", "one").is_empty());
    let old = host.read("out/one");
    let done = host.run(&["rotate", "one", "--timeout", "60s"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let failed = host.records_of("failed", "one").remove(0);
    assert!(failed["error"].as_str().unwrap().contains("cannot be proven now"), "{failed}");
    assert_eq!(host.read("out/one"), old, "the token in use was replaced by an unproven one");
}
