//! `encryptTo`: places that only the holders of a key can read, opened by the real `age` and by `get --identity`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::daemon::{Host, tool};
use crate::support::servers::{Servers, servers};
use crate::support::until;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";

/// Makes a key of the host; its public half.
fn key(host: &Host, name: &str) -> String {
    let file = host.path(name);
    tool(Command::new("age-keygen").arg("-o").arg(&file));
    tool(Command::new("age-keygen").arg("-y").arg(&file)).trim().to_owned()
}

/// A host with keys a, b and c, and a schedule in which A and B stand for public halves.
fn host(schedule: &str) -> Host {
    let host = Host::new("targets: []");
    let (a, b) = (key(&host, "a.key"), key(&host, "b.key"));
    key(&host, "c.key");
    host.write_schedule(&schedule.replace("KEY_A", &a).replace("KEY_B", &b));
    host
}

/// What the real age makes of it.
fn opened(host: &Host, text: &str, key: &str) -> String {
    let file = host.write("sealed", text);
    tool(Command::new("age").arg("-d").arg("-i").arg(host.path(key)).arg(file))
}

fn inspected(host: &Host, token: &str) -> Value {
    let file = host.write("plain", token);
    host.json(&["inspect", file.to_str().unwrap()])
}

const FILES: &str = "
clusters: {trial: {embedded: {}}}
monitor: [{path: HERE/out/one}]
defaults: {cluster: trial, duration: 1h}
targets:
  - name: one
    serviceAccount: payments/deployer
    deliver:
      - file: {path: HERE/out/one, encryptTo: [KEY_A, KEY_B]}
      - file: {path: HERE/out/env, format: {env: {name: KUBE_TOKEN}}, encryptTo: [KEY_A]}
      - directory: {path: HERE/out/mounted, files: {token: raw, token.json: json, namespace: namespace}, encryptTo: [KEY_B]}
";

#[test]
fn those_to_whom_it_is_encrypted_open_it_and_nobody_else_learns_anything() {
    let host = host(FILES);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let sealed = host.read("out/one");
    let token = opened(&host, &sealed, "a.key");
    assert_eq!(opened(&host, &sealed, "b.key"), token);
    let seen = inspected(&host, &token);
    assert_eq!(seen["subject"], "system:serviceaccount:payments:deployer", "{seen}");
    // The format is written first, and then encrypted.
    assert_eq!(opened(&host, &host.read("out/env"), "a.key"), format!("KUBE_TOKEN={token}\n"));
    // Of a directory each file is encrypted: the namespace tells whose it is.
    assert_eq!(opened(&host, &host.read("out/mounted/namespace"), "b.key"), "payments");
    assert_eq!(opened(&host, &host.read("out/mounted/token"), "b.key"), token);
    assert!(opened(&host, &host.read("out/mounted/token.json"), "b.key").contains(&token));
    let line = host.records_of("rotated", "one").pop().unwrap();
    for file in ["out/one", "out/env", "out/mounted/token", "out/mounted/token.json", "out/mounted/namespace"] {
        let text = host.read(file);
        assert!(text.starts_with(BEGIN), "{file}");
        let bare: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, bare).unwrap();
        let shown = String::from_utf8_lossy(&bytes);
        for secret in [
            &token[..20],
            token.rsplit('.').next().unwrap(),
            "eyJ",
            "payments",
            "deployer",
            "KUBE_TOKEN",
            "one",
            seen["jti"].as_str().unwrap(),
            line["ask"].as_str().unwrap(),
        ] {
            assert!(!shown.contains(secret), "{file} shows {secret}");
        }
    }
    // What is recorded is the hash of what stands there.
    let hash = tool(Command::new("sha256sum").arg(host.path("out/one")));
    assert_eq!(line["sinks"][0]["sha256"].as_str(), hash.split(' ').next());
}

#[test]
fn get_opens_it_with_an_identity_and_everything_else_says_that_it_is_encrypted() {
    let mut host = host(FILES);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let (file, path) = (host.path("out/one").display().to_string(), |name: &str| host.path(name).display().to_string());
    let token = opened(&host, &host.read("out/one"), "a.key");
    let got = host.run(&["get", "one", "--identity", &path("c.key"), "--identity", &path("b.key")]);
    assert_eq!((got.code, got.stdout.as_str()), (Some(0), token.as_str()), "{got:?}");
    // Armour or none, and beside files that are not encrypted.
    tool(
        Command::new("age")
            .args(["-r", tool(Command::new("age-keygen").arg("-y").arg(host.path("c.key"))).trim(), "-o"])
            .arg(host.path("bare"))
            .arg(host.write("plain", &token)),
    );
    let got = host.run(&["get", &path("bare"), &file, "-i", &path("c.key"), "--path"]);
    assert_eq!((got.code, got.stdout.trim()), (Some(0), path("bare").as_str()), "{got:?}");
    let none = host.run(&["get", "one"]);
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), ""), "{none:?}");
    assert!(none.stderr.contains("out/one: is encrypted (age): `tokenferry get --identity KEYFILE` opens it"), "{none:?}");
    let other = host.run(&["get", &file, "--identity", &path("c.key")]);
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("it was not encrypted to any of these keys"), "{other:?}");
    let cut = host.write("cut", &host.read("out/one")[..200]);
    let other = host.run(&["get", cut.to_str().unwrap(), "--identity", &path("a.key")]);
    assert!(other.code == Some(1) && other.stderr.contains("its armour is cut"), "{other:?}");
    for bad in ["out/one", "missing.key"] {
        let done = host.run(&["get", &file, "--identity", &path(bad)]);
        assert!(done.code == Some(2) && done.stderr.contains(bad), "{done:?}");
    }
    for command in ["inspect", "verify"] {
        let done = host.run(&[command, &file]);
        assert!(done.code == Some(1) && format!("{}{}", done.stdout, done.stderr).contains("is encrypted (age)"), "{command}: {done:?}");
    }
    host.start();
    until("the monitor says so", 60, || host.run(&["status", "-o", "json"]).stdout.contains("is encrypted (age)"));
}

#[test]
fn g5_a_restart_finds_encrypted_places_fresh_and_one_that_was_changed_is_put_right() {
    let mut host = host(FILES);
    host.start();
    until("it is delivered", 60, || host.records_of("rotated", "one").len() == 1);
    let before = host.read("out/one");
    assert_eq!(host.stop(), Some(0));
    host.start();
    until("it is looked at", 60, || host.target("one")["state"] == "fresh");
    assert_eq!(host.stop(), Some(0));
    assert_eq!((host.read("out/one"), host.records_of("rotated", "one").len()), (before.clone(), 1));
    assert!(host.records_of("adopted", "one").is_empty() && host.records_of("paid", "one").is_empty());
    for broken in [&before[..before.len() / 2], "", "garbage"] {
        host.write("out/one", broken);
        let count = host.records_of("rotated", "one").len();
        host.start();
        until("it is put right", 60, || host.records_of("rotated", "one").len() == count + 1);
        assert_eq!(host.records_of("rotated", "one").pop().unwrap()["reason"], "repair");
        opened(&host, &host.read("out/one"), "b.key");
        assert_eq!(host.stop(), Some(0));
    }
}

/// A write whose record was lost: what stands there is this target's, and the records do not know it.
#[test]
fn a_target_that_goes_takes_back_what_is_encrypted_and_its_own_and_leaves_what_is_another_ones() {
    let host = host(
        "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - {name: one, serviceAccount: payments/deployer, deliver: [{file: {path: HERE/out/one, encryptTo: [KEY_A, KEY_B]}}]}
  - {name: two, serviceAccount: payments/other, deliver: [{file: {path: HERE/out/two, encryptTo: [KEY_A, KEY_B]}}]}
  - {name: three, serviceAccount: payments/third, deliver: [{file: {path: HERE/out/three, encryptTo: [KEY_A]}}]}
",
    );
    assert_eq!(host.run(&["once"]).code, Some(0));
    let before = ["one", "two"].map(|name| host.read(&format!("out/{name}")));
    assert_eq!(host.run(&["once", "--force"]).code, Some(0));
    assert_ne!(host.read("out/one"), before[0]);
    host.write("out/one", &before[0]);
    host.write("out/three", &before[1]);
    host.run(&["withdraw", "one"]);
    host.run(&["withdraw", "three"]);
    let outcome = |name: &str| host.records_of("retired", name).pop().unwrap()["leaves"][0].clone();
    assert_eq!(outcome("one")["outcome"], "gone", "{}", outcome("one"));
    assert_eq!(outcome("three")["outcome"], "left", "{}", outcome("three"));
    assert!(!host.path("out/one").exists() && host.read("out/three") == before[1]);
    assert!(outcome("one").get("seals").is_none(), "what is not owed any more needs no knowing: {}", outcome("one"));
}

#[test]
fn stores_hold_it_as_text_and_the_next_rotation_knows_it_for_ours() {
    let (bao, moto) = (servers().bao(), servers().moto());
    let run = std::process::id();
    let mut host = host(&format!(
        "
clusters: {{trial: {{embedded: {{}}}}}}
stores:
  vault: {{vault: {{address: '{}', caFile: {}, auth: {{token: {{file: {}}}}}}}}}
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{}'}}}}
  parameters: {{awsParameterStore: {{region: eu-central-1, endpoint: '{}'}}}}
defaults: {{cluster: trial, duration: 1h, whenRemoved: delete}}
targets:
  - name: all
    labels: {{owner: team}}
    serviceAccount: payments/deployer
    deliver:
      - vault: {{store: vault, mount: kv1, path: sealed-{run}, encryptTo: [KEY_A]}}
      - vault: {{store: vault, path: sealed-{run}, encryptTo: [KEY_A]}}
      - awsSecretsManager: {{store: aws, secretId: sealed-{run}, key: token, encryptTo: [KEY_A]}}
      - awsSecretsManager: {{store: aws, secretId: sealed-whole-{run}, encryptTo: [KEY_A]}}
      - awsParameterStore: {{store: parameters, name: sealed-{run}, tier: advanced, encryptTo: [KEY_A]}}
      - command: {{command: [sh, -c, 'cat >HERE/out/command'], encryptTo: [KEY_A]}}
",
        bao.address,
        bao.ca.display(),
        bao.root_token_file.display(),
        moto.endpoint,
        moto.endpoint,
    ));
    host.start_with(&[("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    until("it is delivered", 90, || host.records_of("rotated", "all").len() == 1);
    let asked = |path: &str| -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "--cacert"]).arg(&bao.ca).arg("-H");
        curl.arg(format!("X-Vault-Token: {}", std::fs::read_to_string(&bao.root_token_file).unwrap().trim()));
        serde_json::from_str(&tool(curl.arg(format!("{}/v1/{path}", bao.address)))).unwrap()
    };
    let read_metadata = || asked(&format!("secret/metadata/sealed-{run}"))["data"]["custom_metadata"].clone();
    let read = |mount: &str| {
        let answer = asked(mount);
        let data = if mount.starts_with("kv1") { &answer["data"] } else { &answer["data"]["data"] };
        data["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let places = [format!("kv1/sealed-{run}"), format!("secret/data/sealed-{run}")];
    let first: Vec<String> = places.iter().map(|place| read(place)).collect();
    let token = opened(&host, &first[0], "a.key");
    assert_eq!(opened(&host, &first[1], "a.key"), token);
    assert_eq!(opened(&host, &host.read("out/command"), "a.key"), token);
    for sink in host.records_of("rotated", "all").pop().unwrap()["sinks"].as_array().unwrap() {
        assert_eq!(sink["outcome"], "written", "{sink}");
    }
    // What a store keeps beside it says until when, and not whose it is.
    let said = read_metadata();
    assert!(said["tokenferry/expires-at"].is_string() && said["managed-by"] == "tokenferry", "{said}");
    assert!(!said.to_string().contains("all") && !said.to_string().contains("team"), "{said}");
    assert_eq!(host.run(&["rotate", "all", "--rehearse", "--timeout", "60s"]).code, Some(0));
    let done = host.run(&["rotate", "all", "--timeout", "60s"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for (place, before) in places.iter().zip(&first) {
        let now = read(place);
        assert!(now != *before && opened(&host, &now, "a.key") != token, "{place} has the token of before");
    }
    // What is ours is known by its mark when it is taken back too.
    let done = host.run(&["withdraw", "all", "--timeout", "60s"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let leaves = host.records_of("retired", "all").pop().unwrap()["leaves"].clone();
    let gone = |leave: &Value| leave["outcome"] == "gone" || leave["sink"] == "command";
    assert!(leaves.as_array().unwrap().iter().all(gone), "{leaves}");
}

#[test]
fn an_encrypted_copy_in_a_fallback_goes_when_the_place_has_held_for_a_while() {
    let servers = Servers::start("sealed", &["bao"]);
    let bao = servers.bao();
    let mut host = host(&format!(
        "
clusters: {{trial: {{embedded: {{}}}}}}
stores: {{vault: {{vault: {{address: '{}', caFile: {}, auth: {{token: {{file: {}}}}}}}}}}}
defaults: {{cluster: trial, duration: 100s}}
targets:
  - name: back
    serviceAccount: ci/back
    deliver:
      - vault: {{store: vault, path: back, encryptTo: [KEY_A]}}
        fallback: [{{file: {{path: HERE/out/back, encryptTo: [KEY_B]}}}}]
",
        bao.address,
        bao.ca.display(),
        bao.root_token_file.display(),
    ));
    host.start();
    until("it is delivered", 60, || host.records_of("rotated", "back").len() == 1);
    servers.kill("bao");
    assert_eq!(host.run(&["rotate", "back", "--timeout", "60s"]).code, Some(0), "a fallback serves");
    opened(&host, &host.read("out/back"), "b.key");
    servers.restart("bao");
    until("it is paid", 60, || !host.records_of("paid", "back").is_empty());
    until("the copy is gone", 90, || !host.path("out/back").exists());
}

#[test]
fn a_try_after_a_lost_answer_carries_the_same_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = bodies.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let head: Vec<String> = reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let length = head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let mut bodies = kept.lock().unwrap();
            bodies.push(String::from_utf8(body).unwrap());
            // The first answers are lost on their way.
            if bodies.len() > 2 {
                let mut stream = stream;
                stream.write_all(b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n").unwrap();
            }
        }
    });
    let host = host(&format!(
        "
clusters: {{trial: {{embedded: {{}}}}}}
targets:
  - name: one
    cluster: trial
    serviceAccount: ci/one
    duration: 1h
    deliver: [{{http: {{url: 'http://{address}/token', encryptTo: [KEY_A]}}}}]
"
    ));
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let bodies = bodies.lock().unwrap();
    assert_eq!(bodies.len(), 3, "{bodies:?}");
    assert!(bodies.iter().all(|body| *body == bodies[0] && body.starts_with(BEGIN)), "{bodies:?}");
    opened(&host, &bodies[0], "a.key");
}
