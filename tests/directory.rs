//! The `directory` sink: several files that switch as one, read as a Pod reads its mounted account.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Host, tool};
use crate::support::servers::{Kube, cluster};
use crate::support::until;

const TRIAL: &str = "clusters: {trial: {embedded: {}}}
targets:
- name: ci
  cluster: trial
  serviceAccount: cicd/bot
  duration: 1h
  deliver:
  - directory: {path: HERE/out/ci, mode: \"0640\", files: {token: raw, copy: json, namespace: namespace}}
";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn generations(folder: &Path) -> usize {
    names(folder).iter().filter(|name| name.starts_with("..") && *name != "..data").count()
}

#[test]
fn files_stand_as_the_kubelet_mounts_them_and_switch_together() {
    let host = Host::new(TRIAL);
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let folder = host.path("out/ci");
    let link = |name: &str| std::fs::read_link(folder.join(name)).unwrap();
    assert_eq!((link("token"), link("namespace")), (PathBuf::from("..data/token"), PathBuf::from("..data/namespace")));
    assert_eq!(host.read("out/ci/namespace"), "cicd");
    let copy: Value = serde_json::from_str(&host.read("out/ci/copy")).unwrap();
    assert_eq!(copy["token"], host.read("out/ci/token"));
    assert_eq!(std::fs::metadata(folder.join("token")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(generations(&folder), 1);
    let before = link("..data");
    // The same again touches nothing; a new token leaves the one before for readers on their way into it.
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert_eq!(link("..data"), before);
    assert_eq!(host.run(&["once", "--force"]).code, Some(0));
    assert_ne!(link("..data"), before);
    assert!(folder.join(&before).join("token").exists());
    assert_eq!(host.run(&["once", "--force"]).code, Some(0));
    assert!(!folder.join(&before).exists());
    assert_eq!(generations(&folder), 2);
    assert_eq!(host.run(&["get", "ci"]).stdout, host.read("out/ci/token"));
    assert_eq!(host.run(&["get", "--path", "ci"]).stdout, format!("{}\n", folder.join("copy").display()));
}

#[test]
fn what_somebody_breaks_is_put_right_without_a_new_mint() {
    let mut host = Host::new(TRIAL);
    host.start();
    until("it is delivered", 30, || host.records_of("rotated", "ci").len() == 1);
    let folder = host.path("out/ci");
    let token = host.read("out/ci/token");
    let good = || {
        std::fs::read_to_string(folder.join("token")).is_ok_and(|text| text == token)
            && std::fs::read_to_string(folder.join("namespace")).is_ok_and(|text| text == "cicd")
    };
    let break_it: [(&str, &dyn Fn()); 4] = [
        ("a link is missing", &|| std::fs::remove_file(folder.join("token")).unwrap()),
        ("a link leads elsewhere", &|| {
            std::fs::remove_file(folder.join("namespace")).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", folder.join("namespace")).unwrap();
        }),
        ("a file has another mode", &|| {
            std::fs::set_permissions(folder.join("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::remove_file(folder.join("copy")).unwrap();
        }),
        ("a file of the generation is gone", &|| {
            std::fs::remove_file(std::fs::canonicalize(folder.join("namespace")).unwrap()).unwrap();
            std::fs::remove_file(folder.join("namespace")).unwrap();
        }),
    ];
    for (what, spoil) in break_it {
        spoil();
        let right = || {
            good()
                && folder.join("copy").exists()
                && std::fs::metadata(folder.join("token")).is_ok_and(|m| m.permissions().mode() & 0o777 == 0o640)
        };
        until(what, 60, right);
    }
    assert_eq!(host.records_of("rotated", "ci").len(), 1);
}

#[test]
fn what_is_not_ours_is_not_replaced() {
    let host = Host::new(TRIAL);
    std::fs::create_dir(host.path("out/ci")).unwrap();
    host.write("out/ci/token", "theirs");
    let done = host.run(&["once"]);
    assert_eq!((done.code, host.read("out/ci/token").as_str()), (Some(1), "theirs"));
    let told = host.records_of("failed", "ci")[0]["sinks"][0]["error"].as_str().unwrap().to_owned();
    assert!(told.contains("out/ci/token is no link of ours: remove it"), "{told}");
    assert_eq!(generations(&host.path("out/ci")), 0, "what was made for nothing is gone");
    std::fs::remove_file(host.path("out/ci/token")).unwrap();
    std::fs::create_dir(host.path("out/ci/..data")).unwrap();
    assert_eq!(host.run(&["once", "--force"]).code, Some(1));
    let told = host.records_of("failed", "ci").last().unwrap()["sinks"][0]["error"].as_str().unwrap().to_owned();
    assert!(told.contains("..data is no link, so it is not ours"), "{told}");
}

#[test]
fn a_file_that_leaves_the_schedule_leaves_the_folder() {
    let host = Host::new(TRIAL);
    assert_eq!(host.run(&["once"]).code, Some(0));
    std::fs::write(host.path("out/ci/theirs"), "mine").unwrap();
    host.write_schedule(&TRIAL.replace("copy: json, ", ""));
    assert_eq!(host.run(&["once", "--force"]).code, Some(0));
    let visible: Vec<String> = names(&host.path("out/ci")).into_iter().filter(|name| !name.starts_with("..")).collect();
    assert_eq!(visible, ["namespace", "theirs", "token"]);
}

/// What is wrong with a read through the folder: all files are of one token, or the reader says which are not.
fn mixed(folder: &Path) -> Option<String> {
    // As a careful reader does: the link once, then the files behind it.
    let generation = match std::fs::read_link(folder.join("..data")) {
        Ok(target) => folder.join(target),
        Err(error) => return Some(format!("..data: {error}")),
    };
    let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
    let of_links =
        read(folder.join("token")).and_then(|token| if token.matches('.').count() == 2 { Ok(()) } else { Err("no whole token".into()) });
    if let Err(fault) = of_links {
        return Some(fault);
    }
    let (Ok(token), Ok(copy)) = (read(generation.join("token")), read(generation.join("copy"))) else { return None };
    let copy: Value = match serde_json::from_str(&copy) {
        Ok(copy) => copy,
        Err(error) => return Some(format!("copy: {error}")),
    };
    (copy["token"] != token).then(|| "token and copy differ".into())
}

#[test]
fn g1_g4_no_reader_of_a_directory_sees_a_mixture_whenever_the_daemon_is_killed() {
    let kills: u32 = std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let mut host = Host::new(&TRIAL.replace("duration: 1h", "duration: 60s\n  rotate: {at: 5%, splay: 1s}"));
    host.start();
    let folder = host.path("out/ci");
    until("it is delivered", 30, || folder.join("token").exists());
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let reader = {
        let (folder, stop, reads) = (folder.clone(), Arc::clone(&stop), Arc::clone(&reads));
        std::thread::spawn(move || {
            let mut bad = Vec::new();
            while !stop.load(Ordering::Relaxed) && bad.len() < 5 {
                reads.fetch_add(1, Ordering::Relaxed);
                bad.extend(mixed(&folder));
            }
            bad
        })
    };
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(u64::from(kill * 37 % 400)));
        host.kill();
        host.start_with(&[]);
    }
    until("the daemon answers", 60, || host.run(&["status", "-o", "json"]).stdout.contains("\"pid\""));
    stop.store(true, Ordering::Relaxed);
    let bad = reader.join().unwrap();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(host.stop(), Some(0));
    // The next start leaves nothing of the killed ones behind.
    host.start();
    assert_eq!(host.stop(), Some(0));
    assert!(generations(&folder) <= 2 && !names(&folder).iter().any(|name| name.ends_with(".tmp")), "{:?}", names(&folder));
    println!("{kills} kills, {} reads of a directory, 0 bad", reads.load(Ordering::Relaxed));
}

#[test]
fn g4_a_start_after_a_crash_at_every_step_reaches_the_same_folder() {
    let host = Host::new(TRIAL);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let folder = host.path("out/ci");
    let token = host.read("out/ci/token");
    // What a crash leaves behind: a half-written generation, a link on its way, a link that is missing.
    std::fs::create_dir(folder.join("..0123456789abcdef")).unwrap();
    std::fs::write(folder.join("..0123456789abcdef/token"), "half").unwrap();
    std::os::unix::fs::symlink("..0123456789abcdef", folder.join("...data.0123456789abcdef.tmp")).unwrap();
    std::os::unix::fs::symlink("..data/token", folder.join(".token.0123456789abcdef.tmp")).unwrap();
    std::fs::create_dir(folder.join("..2026_01_01_00_00_00.123")).unwrap();
    std::fs::remove_file(folder.join("namespace")).unwrap();
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert_eq!((host.read("out/ci/token"), host.read("out/ci/namespace")), (token, "cicd".into()));
    assert_eq!(host.records_of("rotated", "ci").len(), 1, "nothing was minted for it");
    let left = names(&folder);
    assert!(!left.iter().any(|name| name.ends_with(".tmp") || name == "..0123456789abcdef"), "{left:?}");
    assert!(left.iter().any(|name| name == "..2026_01_01_00_00_00.123"), "what only resembles ours stays: {left:?}");
}

fn real() -> String {
    let kubeconfig = cluster().kube().minter_kubeconfig.display();
    format!(
        "clusters: {{real: {{kubeconfig: {kubeconfig}}}}}\ntargets:\n- {{name: ci, cluster: real, serviceAccount: cicd/cicd-deployer, duration: 10m, \
         deliver: [{{directory: {{path: HERE/out/ci}}}}]}}\n"
    )
}

/// A command in a mount namespace of its own, where the folder stands as in a Pod.
fn as_in_a_pod(kube: &Kube, folder: &Path, program: &Path, arguments: &[&str]) -> Command {
    let port = kube.server.rsplit(':').next().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]).arg(
        "mount -t tmpfs tmpfs /run && mkdir -p /var/run/secrets/kubernetes.io/serviceaccount && \
         mount --bind \"$0\" /var/run/secrets/kubernetes.io/serviceaccount && exec \"$@\"",
    );
    command.arg(folder).arg(program).args(arguments);
    command
        .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .env("KUBERNETES_SERVICE_PORT", port)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent");
    command
}

/// Runs a client until it is seen with the first token, rotates, and waits until it comes with the second: not one
/// request may fail on the way.
fn lives_through_a_rotation(name: &str, program: &Path, arguments: &[&str], variables: &[(&str, &str)]) {
    if !rustix::process::geteuid().is_root() {
        let _ = std::io::stderr().write_all(format!("\nNOT RUN: {name}: needs root to mount as in a Pod\n").as_bytes());
        return;
    }
    let kube = cluster().kube();
    let mut host = Host::new(&real());
    host.start();
    until("it is delivered", 30, || host.records_of("rotated", "ci").len() == 1);
    let jti = |n: usize| host.records_of("rotated", "ci")[n]["jti"].as_str().unwrap().to_owned();
    let mut command = as_in_a_pod(kube, &host.path("out/ci"), program, arguments);
    let mut client = command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let pipe = client.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    let mut requests = 0;
    let mut seen = |what: &str, wanted: &str| loop {
        let line = lines.recv_timeout(Duration::from_secs(150)).unwrap_or_else(|e| panic!("{name}: {what}: {e}"));
        assert!(!line.contains("FAILED"), "{name}: after {requests} requests: {line}");
        if !line.starts_with("cicd system:serviceaccount:cicd:cicd-deployer ") {
            continue;
        }
        requests += 1;
        if line.contains(wanted) {
            break;
        }
    };
    seen("the first token", &jti(0));
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    // client-go and kube-rs read a token file again after a minute at most.
    seen("the second token", &jti(1));
    drop(client.stdin.take());
    client.wait().unwrap();
    println!("{name}: {requests} requests across a rotation, 0 failed");
}

#[test]
fn client_go_in_a_pods_place_lives_through_a_rotation_without_a_failed_request() {
    lives_through_a_rotation("client-go", &cluster().kube().in_cluster.clone(), &[], &[]);
}

#[test]
fn kube_rs_in_a_pods_place_lives_through_a_rotation_without_a_failed_request() {
    if std::env::var_os("IN_A_PODS_PLACE").is_some() {
        return be_a_pod();
    }
    let name = "directory::kube_rs_in_a_pods_place_lives_through_a_rotation_without_a_failed_request";
    let own = std::env::current_exe().unwrap();
    lives_through_a_rotation("kube-rs", &own, &["--exact", name, "--nocapture"], &[("IN_A_PODS_PLACE", "1")]);
}

/// One request after the other with kube's own in-cluster loading, until standard input ends.
fn be_a_pod() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        end.store(true, Ordering::Relaxed);
    });
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let config = kube::Config::incluster().unwrap();
        let namespace = config.default_namespace.clone();
        let client = kube::Client::try_from(config).unwrap();
        while !ended.load(Ordering::Relaxed) {
            let body = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
            let request =
                http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews").header("content-type", "application/json");
            // The crate's own way is what is tried here.
            #[expect(clippy::disallowed_methods)]
            let answer: Result<Value, _> = client.request(request.body(body.into_bytes()).unwrap()).await;
            match answer {
                Ok(review) => {
                    let user = &review["status"]["userInfo"];
                    println!(
                        "{namespace} {} {}",
                        user["username"].as_str().unwrap(),
                        user["extra"]["authentication.kubernetes.io/credential-id"]
                    );
                }
                Err(error) => println!("FAILED {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn kubectl_trusts_the_ca_that_stands_beside_the_token() {
    let kube = cluster().kube();
    let host = Host::new(&real());
    assert_eq!(host.run(&["once"]).code, Some(0));
    let said = tool(
        Command::new("curl")
            .args(["-sS", "--fail", "--cacert"])
            .arg(host.path("out/ci/ca.crt"))
            .arg("-H")
            .arg(format!("@{}", {
                let header = host.write("header", &format!("Authorization: Bearer {}", host.read("out/ci/token")));
                header.display().to_string()
            }))
            .arg(format!("{}/api", kube.server)),
    );
    assert!(said.contains("serverAddressByClientCIDRs"), "{said}");
}
