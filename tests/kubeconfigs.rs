//! The formats that say more than the token, delivered by the real program and used by the real kubectl.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::daemon::{Host, PROGRAM, tool};
use crate::support::servers::{Kube, cluster};
use crate::support::until;

const DEPLOYER: &str = "system:serviceaccount:cicd:cicd-deployer";

/// A target on the real cluster with these places.
fn schedule(deliver: &str) -> String {
    let kubeconfig = cluster().kube().minter_kubeconfig.display();
    format!(
        "clusters: {{real: {{kubeconfig: {kubeconfig}}}}}\ntargets:\n- name: ci\n  cluster: real\n  serviceAccount: cicd/cicd-deployer\n  \
         duration: 10m\n  deliver:\n{deliver}"
    )
}

fn kubectl(kube: &Kube, config: &Path, arguments: &[&str]) -> String {
    tool(Command::new(&kube.kubectl).arg("--kubeconfig").arg(config).args(arguments))
}

fn whoami(kube: &Kube, config: &Path, context: &str) -> String {
    let said = kubectl(kube, config, &["--context", context, "auth", "whoami", "-o", "json"]);
    serde_json::from_str::<Value>(&said).unwrap()["status"]["userInfo"]["username"].as_str().unwrap().to_owned()
}

/// A kubeconfig of somebody, with comments, in several styles; the administrator's user among them.
fn of_somebody(kube: &Kube) -> String {
    let admin = flattened(kube);
    let (cert, key) = (
        admin["users"][0]["user"]["client-certificate-data"].as_str().unwrap(),
        admin["users"][0]["user"]["client-key-data"].as_str().unwrap(),
    );
    format!(
        "# written by hand, with love\napiVersion: v1\nkind: Config\npreferences: {{}} # none\nclusters:\n# the one with the servers\n- name: here\n  cluster:\n    \
         server: {}   # keep\n    certificate-authority: {}\n\ncontexts:\n  - context: {{cluster: here, user: boss}}\n    name: boss\n# boss is me\ncurrent-context: boss\nusers:\n\
         - name: boss\n  user:\n    client-certificate-data: {cert}\n    client-key-data: >-\n      {key}\n# end\n",
        kube.server,
        kube.ca.display()
    )
}

fn flattened(kube: &Kube) -> Value {
    serde_json::from_str(&kubectl(kube, &kube.admin_kubeconfig, &["config", "view", "--raw", "--flatten", "-o", "json"])).unwrap()
}

#[test]
fn the_real_kubectl_uses_a_kubeconfig_of_its_own_and_one_merged_into() {
    let kube = cluster().kube();
    let host = Host::new(&schedule(
        "  - file: {path: HERE/out/own, format: kubeconfig}\n  \
         - file: {path: HERE/out/theirs, format: {kubeconfig: {merge: true, namespace: kube-system, user: deployer}}}\n  \
         - file: {path: HERE/out/token}\n  \
         - file: {path: HERE/out/netrc, format: {template: {text: \"machine {{ server }} login {{ serviceAccount }} password {{ token }}\\n\"}}}\n  \
         - file: {path: HERE/out/docker.json, format: {dockerConfigJson: {registry: registry.example.com}}}\n  \
         - file: {path: HERE/out/token.env, format: {env: {name: KUBE_TOKEN}}}\n",
    ));
    let before = of_somebody(kube);
    let theirs = host.write("out/theirs", &before);
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let own = host.path("out/own");
    assert_eq!(whoami(kube, &own, "ci"), DEPLOYER);
    assert_eq!(kubectl(kube, &own, &["config", "view", "--minify", "-o", "jsonpath={..namespace} {..current-context}"]), "cicd ci");
    // Both of them work in one file, and the other's lines all stand there as they stood.
    assert_eq!(whoami(kube, &theirs, "deployer"), DEPLOYER);
    assert!(whoami(kube, &theirs, "boss").contains("admin"));
    let after = host.read("out/theirs");
    let mut lines = after.lines();
    for line in before.lines() {
        assert!(lines.any(|found| found == line), "lost `{line}`:\n{after}");
    }
    assert_eq!(kubectl(kube, &theirs, &["config", "current-context"]).trim(), "boss");
    assert_eq!(
        kubectl(kube, &theirs, &["config", "view", "--minify", "--context", "deployer", "-o", "jsonpath={..namespace}"]),
        "kube-system"
    );
    assert!(!host.path("out/theirs.lock").exists());
    // One mint went to all of them, and the token is read back out of each.
    let token = host.read("out/token");
    for file in ["own", "netrc", "docker.json", "token.env"] {
        let got = host.run(&["get", host.path(&format!("out/{file}")).to_str().unwrap()]);
        assert_eq!((got.code, got.stdout == token), (Some(0), true), "{file}: {}", got.stderr);
    }
    assert!(after.contains(&token));
    assert_eq!(host.records_of("rotated", "ci").len(), 1);
    assert_eq!(host.read("out/netrc"), format!("machine {} login cicd-deployer password {token}\n", kube.server));
}

#[test]
fn a_merged_kubeconfig_is_kept_fresh_and_a_restart_finds_its_token_there() {
    let kube = cluster().kube();
    let mut host = Host::new(&schedule("  - file: {path: HERE/out/theirs, format: {kubeconfig: {merge: true}}}\n"));
    host.write("out/theirs", &of_somebody(kube));
    host.start();
    until("it is merged", 30, || host.records_of("rotated", "ci").len() == 1);
    let first = host.read("out/theirs");
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    let second = host.read("out/theirs");
    let changed: Vec<(&str, &str)> = first.lines().zip(second.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!((changed.len(), first.lines().count()), (1, second.lines().count()), "{changed:?}");
    assert!(changed[0].1.starts_with("    token: \"eyJ"), "{changed:?}");
    // Somebody changes their own part, also while no daemon runs: nothing is minted or written for it (G5).
    assert_eq!(host.stop(), Some(0));
    kubectl(kube, &host.path("out/theirs"), &["config", "set-context", "boss", "--namespace", "default"]);
    let theirs = host.read("out/theirs");
    host.start();
    until("the records say started", 30, || host.records().iter().filter(|l| l["kind"] == "started").count() == 2);
    until("the place was looked at", 30, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
    assert_eq!((host.read("out/theirs"), host.records_of("rotated", "ci").len()), (theirs, 2));
    assert!(
        ["paid", "adopted"].iter().all(|kind| host.records_of(kind, "ci").is_empty()),
        "the restart wrote nothing: {:?}",
        host.records()
    );
    assert_eq!(whoami(kube, &host.path("out/theirs"), "ci"), DEPLOYER);
    // Who takes our entry out gets it back: nothing else holds the token, so another is minted.
    kubectl(kube, &host.path("out/theirs"), &["config", "delete-user", "ci"]);
    until("the entry is back", 60, || host.read("out/theirs").contains("token: \"eyJ"));
}

#[test]
fn a_kubeconfig_that_is_broken_or_locked_is_told_and_left_as_it_is() {
    let kube = cluster().kube();
    let host =
        Host::new(&schedule("  - file: {path: HERE/out/theirs, format: {kubeconfig: {merge: true}}}\n  - file: {path: HERE/out/token}\n"));
    let broken = "apiVersion: v1\nusers: [{name: s3cret\n";
    host.write("out/theirs", broken);
    let done = host.run(&["once"]);
    assert_eq!((done.code, host.read("out/theirs").as_str()), (Some(1), broken), "{done:?}");
    let told = host.records_of("failed", "ci").last().unwrap()["sinks"][0]["error"].as_str().unwrap().to_owned();
    assert!(told.contains("out/theirs, which is left as it is: its YAML is broken at line") && !told.contains("s3cret"), "{told}");
    assert!(host.read("out/token").starts_with("eyJ"), "the other place has it");
    // kubectl's own lock, as one that was killed leaves it behind.
    let good = of_somebody(kube);
    host.write("out/theirs", &good);
    host.write("out/theirs.lock", "");
    let done = host.run(&["once", "--force"]);
    assert_eq!((done.code, host.read("out/theirs")), (Some(1), good), "{done:?}");
    let told = host.records_of("failed", "ci").last().unwrap()["sinks"][0]["error"].as_str().unwrap().to_owned();
    assert!(told.contains("out/theirs.lock stands there") && told.contains("remove it"), "{told}");
    // One of ours whose process is dead goes away by itself.
    host.write("out/theirs.lock", "tokenferry\n");
    let done = host.run(&["once", "--force"]);
    assert_eq!((done.code, host.path("out/theirs.lock").exists()), (Some(0), false), "{done:?}");
    assert_eq!(whoami(kube, &host.path("out/theirs"), "ci"), DEPLOYER);
}

#[test]
fn a_lock_that_a_live_process_holds_is_waited_for() {
    let host = Host::new(&schedule("  - file: {path: HERE/out/theirs, format: {kubeconfig: {merge: true}}}\n"));
    host.write("out/theirs", "apiVersion: v1\nkind: Config\n");
    let lock = host.write("out/theirs.lock", "tokenferry\n");
    let held = std::fs::File::open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        std::fs::remove_file(lock).unwrap();
        drop(held);
    });
    let done = host.run(&["once"]);
    release.join().unwrap();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(host.records_of("rotated", "ci")[0]["sinks"][0]["attempts"].as_u64().unwrap() > 1);
}

#[test]
fn kubectl_that_writes_at_the_same_time_loses_nothing_and_takes_nothing_away() {
    let kube = cluster().kube();
    let host = Host::new(&schedule("  - file: {path: HERE/out/theirs, format: {kubeconfig: {merge: true}}}\n"));
    host.write("out/theirs", &of_somebody(kube));
    let theirs = host.path("out/theirs");
    let (kubectl, path) = (kube.kubectl.clone(), theirs.clone());
    let other = std::thread::spawn(move || {
        for n in 0..20 {
            loop {
                // kubectl itself gives up at once where the lock stands.
                let mut command = Command::new(&kubectl);
                command.arg("--kubeconfig").arg(&path).args(["config", "set", &format!("clusters.c{n}.server"), "https://x"]);
                if command.output().unwrap().status.success() {
                    break;
                }
            }
        }
    });
    for _ in 0..5 {
        let done = host.run(&["once", "--force"]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    other.join().unwrap();
    let view: Value = serde_json::from_str(&self::kubectl(kube, &theirs, &["config", "view", "-o", "json"])).unwrap();
    let names: Vec<&str> = view["clusters"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert!((0..20).all(|n| names.contains(&format!("c{n}").as_str())), "{names:?}");
    assert_eq!(whoami(kube, &theirs, "ci"), DEPLOYER);
    assert!(whoami(kube, &theirs, "boss").contains("admin"));
}

#[test]
fn mint_prints_a_kubeconfig_that_kubectl_uses() {
    let kube = cluster().kube();
    let host = Host::new("clusters: {trial: {embedded: {}}}\ntargets: []");
    let minter = kube.minter_kubeconfig.display().to_string();
    let done = host.run(&["mint", "cicd/cicd-deployer", "--kubeconfig", &minter, "--duration", "10m", "-o", "kubeconfig"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let config = host.write("minted", &done.stdout);
    assert_eq!(whoami(kube, &config, "cicd-deployer"), DEPLOYER);
    let trial = host.run(&["mint", "cicd/x", "--cluster", "trial", "-o", "kubeconfig"]);
    assert_eq!((trial.code, trial.stdout.as_str()), (Some(1), ""));
    assert!(trial.stderr.contains("the address of the cluster `trial` is not known"), "{}", trial.stderr);
}

#[test]
fn a_kubeconfig_that_calls_get_and_one_that_holds_the_token_serve_side_by_side() {
    let kube = cluster().kube();
    let host = Host::new(&schedule("  - file: {path: HERE/out/config, mode: \"0640\", format: kubeconfig}\n"));
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert_eq!(std::fs::metadata(host.path("out/config")).unwrap().permissions().mode() & 0o777, 0o640);
    let plugin = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": kube.server, "certificate-authority": kube.ca}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": PROGRAM,
            "args": ["get", host.path("out/config"), "-o", "execCredential"],
        }}}],
    });
    let config = host.write("plugin", &plugin.to_string());
    assert_eq!(whoami(kube, &config, "c"), DEPLOYER);
}
