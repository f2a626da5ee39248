//! `doctor`: set-ups that are broken on purpose, each named with what to do about it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::daemon::{Host, finish, tool};
use crate::support::faketime;
use crate::support::servers::{cluster, kubeconfig, servers};

fn findings(host: &Host) -> Vec<Value> {
    serde_json::from_value(host.json(&["doctor"])).unwrap()
}

fn probed(host: &Host) -> Vec<Value> {
    serde_json::from_value(host.json(&["doctor", "--probe"])).unwrap()
}

/// What a probe says of the places.
fn writable(all: &[Value]) -> Vec<(&str, &str)> {
    let of = all.iter().filter(|f| f["check"] == "writable");
    of.map(|f| (f["verdict"].as_str().unwrap(), f["evidence"].as_str().unwrap())).collect()
}

/// The finding of that check which is not well.
fn named(host: &Host, check: &str, words: &str) {
    let all = findings(host);
    let found = all.iter().find(|f| f["check"] == check && f["verdict"] != "good");
    let found = found.unwrap_or_else(|| panic!("nothing is wrong with {check}: {all:#?}"));
    let said = format!("{} {}", found["evidence"].as_str().unwrap(), found["remedy"].as_str().unwrap_or_default());
    assert!(said.contains(words), "`{said}` does not say `{words}`");
    assert!(found["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{found}");
    let code = host.run(&["doctor"]).code;
    assert_eq!(code, Some(i32::from(all.iter().any(|f| f["verdict"] == "bad"))), "{all:#?}");
}

fn trial() -> Host {
    Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]\n",
    )
}

fn with_cluster(server: &str, ca: &str, token: &str) -> Host {
    let host = Host::new(
        "clusters: {prod: {kubeconfig: HERE/kubeconfig}}\ntargets: [{name: one, cluster: prod, serviceAccount: cicd/builder, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]\n",
    );
    let token = host.write("own-token", token);
    host.write("kubeconfig", &kubeconfig(server, Path::new(ca), json!({"tokenFile": token})));
    host
}

/// A host whose kubeconfig has a client certificate for so many days.
fn with_certificate(days: u32) -> Host {
    let (host, kube) = (trial(), cluster().kube());
    let ca = kube.ca.with_extension("");
    let path = |name: &str| host.path(name).display().to_string();
    let openssl = |arguments: &[&str]| tool(Command::new("openssl").args(arguments));
    openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=doctor",
        "-keyout",
        &path("key"),
        "-out",
        &path("csr"),
    ]);
    host.write("extensions", "extendedKeyUsage=clientAuth\n");
    let (cert, key) = (ca.with_extension("crt").display().to_string(), ca.with_extension("key").display().to_string());
    openssl(&[
        "x509",
        "-req",
        "-in",
        &path("csr"),
        "-CA",
        &cert,
        "-CAkey",
        &key,
        "-set_serial",
        "7",
        "-days",
        &days.to_string(),
        "-extfile",
        &path("extensions"),
        "-out",
        &path("crt"),
    ]);
    host.write("kubeconfig", &kubeconfig(&kube.server, &kube.ca, json!({"client-certificate": path("crt"), "client-key": path("key")})));
    host.write_schedule("clusters: {prod: {kubeconfig: HERE/kubeconfig}}\ntargets: [{name: one, cluster: prod, serviceAccount: cicd/builder, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]\n");
    host
}

#[test]
fn a_sound_host_has_nothing_bad_and_a_running_daemon_is_seen() {
    let mut host = trial();
    host.start();
    let all = findings(&host);
    assert!(all.iter().all(|f| f["verdict"] != "bad"), "{all:#?}");
    let daemon = all.iter().find(|f| f["check"] == "daemon").unwrap();
    assert!(daemon["evidence"].as_str().unwrap().contains(&host.pid().to_string()), "{daemon}");
    let table = host.run(&["doctor", "--all"]);
    assert!(table.stdout.contains("good") && table.stderr.contains("checks"), "{table:?}");
}

#[test]
fn what_is_wrong_with_the_host_is_named() {
    let host = trial();
    std::fs::remove_file(host.schedule()).unwrap();
    named(&host, "schedule", "is not there");

    let host = trial();
    std::fs::write(host.schedule(), "version: 1\ntargets: [{nam: x}]\n").unwrap();
    named(&host, "schedule", "tokenferry check");

    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []\n");
    named(&host, "schedule", "has no targets");

    let host = trial();
    named(&host, "daemon", "none runs");
    named(&host, "embedded", "for trials only");

    let host = trial();
    drop(std::os::unix::net::UnixListener::bind(host.path("control.sock")).unwrap());
    named(&host, "daemon", "systemctl status");

    let host = trial();
    std::fs::create_dir_all(host.path("out")).unwrap();
    std::fs::set_permissions(host.path("out"), std::fs::Permissions::from_mode(0o777)).unwrap();
    named(&host, "place", "chmod go-w");

    let host = trial();
    std::fs::create_dir_all(host.path("out/one")).unwrap();
    named(&host, "place", "is a folder");

    let host = trial();
    std::fs::create_dir_all(host.path("out")).unwrap();
    tool(Command::new("mkfifo").arg(host.path("out/one")));
    named(&host, "place", "is a named pipe");

    let host = trial();
    assert_eq!(host.run(&["once"]).code, Some(0));
    let file = std::fs::read_dir(host.path("state/records"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "jsonl"));
    std::fs::write(file.unwrap(), "not a record\n").unwrap();
    named(&host, "records", "tokenferry records verify");

    let host = trial();
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 256; exec \"$@\"", "sh"])
        .arg(crate::support::daemon::PROGRAM)
        .arg("--schedule")
        .arg(host.schedule())
        .arg("doctor");
    assert!(finish(few, std::time::Duration::from_secs(60)).stdout.contains("at most 256 open files"));
}

#[test]
fn a_folder_of_files_that_stands_already_is_as_good_as_one_to_be_made() {
    let host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{directory: {path: HERE/out/one, files: {token: raw}}}]}]\n",
    );
    let places = |host: &Host| findings(host).into_iter().filter(|f| f["check"] == "place").collect::<Vec<_>>();
    assert!(places(&host).iter().all(|place| place["verdict"] == "good"), "{:#?}", places(&host));
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert!(places(&host).iter().all(|place| place["verdict"] == "good"), "{:#?}", places(&host));
}

#[test]
fn a_full_disk_under_records_and_places_is_named() {
    if !crate::support::can_mount("a_full_disk_under_records_and_places_is_named", &[]) {
        return;
    }
    let host = trial();
    for (at, check) in [("out", "placeRoom"), ("state/records", "recordsRoom")] {
        std::fs::create_dir_all(host.path(at)).unwrap();
        tool(Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k,mode=0700", "tokenferry-test"]).arg(host.path(at)));
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| named(&host, check, "make room")));
        tool(Command::new("umount").arg("-l").arg(host.path(at)));
        if let Err(panic) = said {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn what_is_wrong_with_a_cluster_is_named() {
    let kube = cluster().kube();
    let (server, ca) = (kube.server.clone(), kube.ca.display().to_string());
    cluster().kubectl(&["create", "serviceaccount", "doctor", "-n", "default"]);
    let token = cluster().kubectl(&["create", "token", "doctor", "-n", "default", "--duration", "30m"]);
    let token = token.trim();

    named(&with_cluster("https://127.0.0.1:1", &ca, token), "reachable", "connection refused");
    named(&with_cluster(&server, &ca, &format!("{token}x")), "reachable", "refused");
    named(&with_cluster(&server, &servers().bao().ca.display().to_string(), token), "reachable", "ertificate");
    let host = with_cluster(&server, &ca, token);
    named(&host, "rights", "tokenferry rbac");
    named(&host, "credentialLife", "keeps a token fresh");
    std::fs::remove_file(host.path("kubeconfig")).unwrap();
    named(&host, "reachable", "No such file");

    let all = findings(&with_cluster(&server, &ca, token));
    let shown = all.iter().find(|f| f["check"] == "certificate").unwrap();
    assert!(shown["verdict"] == "good" && shown["evidence"].as_str().unwrap().contains("is good until 20"), "{shown}");
    named(&with_certificate(1), "credentialLife", "our own certificate ends");

    // The clock of this host alone: libfaketime moves what the program sees.
    let host = with_cluster(&server, &ca, token);
    let mut skewed = host.command(&["doctor", "-o", "json"]);
    skewed.env("LD_PRELOAD", faketime()).env("FAKETIME", "+300s").env("DONT_FAKE_MONOTONIC", "1");
    let done = finish(skewed, std::time::Duration::from_secs(60));
    assert!(done.stdout.contains("s ahead of the API server's"), "{done:?}");
}

#[test]
fn what_is_wrong_with_a_store_is_named() {
    let bao = servers().bao();
    let (address, ca, root) = (bao.address.clone(), bao.ca.display().to_string(), bao.root_token_file.display().to_string());
    let with = |address: &str, ca: &str, token: &str, place: &str| {
        Host::new(&format!(
            "clusters: {{trial: {{embedded: {{}}}}}}\nstores: {{vault: {{vault: {{address: \"{address}\", caFile: {ca}, auth: {{token: {{file: {token}}}}}}}}}}}\ntargets: [{{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{place}]}}]\n"
        ))
    };
    let vault = "{vault: {store: vault, mount: secret, path: doctor/one, key: token}}";
    let well = findings(&with(&address, &ca, &root, vault));
    assert!(well.iter().any(|f| f["subject"] == "store vault" && f["verdict"] == "good"), "{well:#?}");
    named(&with("https://127.0.0.1:1", &ca, &root, vault), "readable", "no connection");
    named(&with(&address, &ca, "/nonexistent", vault), "readable", "/nonexistent");
    named(&with(&address, &ca, &root, "{vault: {store: vault, mount: nowhere, path: doctor/one, key: token}}"), "readable", "mount");
    named(&with(&address, &ca, &root, "{file: {path: HERE/out/one}}"), "used", "no target delivers to it");
    let host = with(&address, &ca, &root, "{command: {command: [/nonexistent/program]}}");
    named(&host, "program", "/nonexistent/program");
}

#[test]
fn where_a_daemon_runs_it_looks_itself_and_each_line_says_from_where_it_was_seen() {
    if !crate::support::can_mount("where_a_daemon_runs_it_looks_itself_and_each_line_says_from_where_it_was_seen", &[]) {
        return;
    }
    let mut host = trial();
    std::fs::create_dir_all(host.path("out")).unwrap();
    // As a unit's sandbox: what this process may write is read-only to the daemon.
    host.start_below(&format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", host.path("out").display()));
    let from = |all: &[Value], check: &str| {
        let found = all.iter().find(|f| f["check"] == check).unwrap_or_else(|| panic!("{check}: {all:#?}"));
        (found["seenFrom"].as_str().unwrap().to_owned(), found["verdict"].as_str().unwrap().to_owned())
    };
    let within = findings(&host);
    assert!(within.iter().all(|f| f["seenFrom"] == "daemon"), "{within:#?}");
    assert_eq!(from(&within, "place"), ("daemon".into(), "bad".into()), "{within:#?}");
    let here: Vec<Value> = serde_json::from_value(host.json(&["doctor", "--here"])).unwrap();
    assert!(here.iter().all(|f| f["seenFrom"] == "here"), "{here:#?}");
    assert_eq!(from(&here, "place"), ("here".into(), "good".into()), "a shell stands outside of the sandbox: {here:#?}");
    let daemon = within.iter().find(|f| f["check"] == "daemon").unwrap();
    assert!(daemon["evidence"].as_str().unwrap().contains("as process"), "{daemon}");
    let table = host.run(&["doctor", "--all"]);
    assert!(table.code == Some(1) && table.stdout.lines().any(|l| l.contains("place") && l.contains("daemon")), "{table:?}");
}

#[test]
fn a_probe_tries_rights_to_write_and_leaves_nothing_behind() {
    let host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}, {directory: {path: HERE/out/dir, files: {token: raw}}}]}]\n",
    );
    assert!(findings(&host).iter().all(|f| f["check"] != "writable"), "nothing is tried without being asked");
    let all = probed(&host);
    let places = writable(&all);
    assert_eq!(places.iter().map(|(verdict, _)| *verdict).collect::<Vec<_>>(), ["good", "good"], "{places:?}");
    assert!(places[0].1.contains("was made in") && places[1].1.contains("made by the first delivery"), "{places:?}");
    assert_eq!(std::fs::read_dir(host.path("out")).unwrap().count(), 0);
    assert!(!host.path("state/records").exists(), "a look leaves no record");
}

#[test]
fn a_probe_finds_a_store_that_lets_read_and_not_write() {
    let bao = servers().bao();
    let token = std::fs::read_to_string(&bao.root_token_file).unwrap();
    let ask = |path: &str, body: Value| -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--cacert"]).arg(&bao.ca).args(["-X", "POST", "-d", &body.to_string()]);
        let answer = tool(curl.arg("-H").arg(format!("X-Vault-Token: {}", token.trim())).arg(format!("{}/v1/{path}", bao.address)));
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    };
    let policy =
        "path \"secret/data/doctor/*\" { capabilities = [\"read\"] }\npath \"secret/metadata/doctor/*\" { capabilities = [\"read\"] }";
    ask("sys/policies/acl/doctor-reads", json!({ "policy": policy }));
    let made = ask("auth/token/create", json!({"policies": ["doctor-reads"]}));
    let host = Host::new(&format!(
        "clusters: {{trial: {{embedded: {{}}}}}}\nstores: {{vault: {{vault: {{address: \"{}\", caFile: {}, auth: {{token: {{file: HERE/reader}}}}}}}}}}\ntargets: [{{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{{vault: {{store: vault, mount: secret, path: doctor/two}}}}]}}]\n",
        bao.address,
        bao.ca.display()
    ));
    host.write("reader", made["auth"]["client_token"].as_str().unwrap());
    let all = probed(&host);
    assert!(all.iter().any(|f| f["check"] == "readable" && f["verdict"] == "good"), "{all:#?}");
    let places = writable(&all);
    assert!(places.len() == 1 && places[0].0 == "bad" && places[0].1.contains("lacks `create`, `update`"), "{places:?}");
}
