//! `bootstrap` and the credential that the daemon keeps fresh for itself, on the real API server with RBAC.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::daemon::{Done, Host, PROGRAM, finish};
use crate::support::servers::{Servers, cluster};
use crate::support::until;

const TARGETS: &str = "defaults: {cluster: prod, duration: 10m}
targets:
  - {name: a, serviceAccount: cicd/cicd-deployer, deliver: [{file: {path: HERE/out/a}}]}
  - {name: b, serviceAccount: cicd/builder, audiences: [vault], deliver: [{file: {path: HERE/out/b}}]}
";

fn schedule(namespace: &str, more: &str) -> String {
    format!(
        "clusters: {{prod: {{kubeconfig: HERE/prod.kubeconfig, own: {{serviceAccount: {namespace}/ferry, duration: 10m}}{more}}}}}\n{TARGETS}"
    )
}

fn admin() -> String {
    cluster().kube().admin_kubeconfig.display().to_string()
}

fn bootstrap(host: &Host, more: &[&str]) -> Done {
    let admin = admin();
    host.run(&[&["bootstrap", "prod", "--kubeconfig", &admin][..], more].concat())
}

fn bootstrapped(namespace: &str, more: &str) -> Host {
    let host = Host::new(&schedule(namespace, more));
    let done = bootstrap(&host, &[]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    host
}

/// What stands in the cluster for that daemon, with versions and uids.
fn objects(servers: &Servers, namespace: &str) -> Vec<String> {
    let name = format!("tokenferry.{namespace}.ferry");
    let of = |arguments: &[&str]| {
        let found = servers.kubectl(&[arguments, &["--ignore-not-found", "-o", "json"]].concat());
        (!found.is_empty()).then(|| {
            let object: Value = serde_json::from_str(&found).unwrap();
            format!("{} {} {}", object["kind"], object["metadata"]["uid"], object["metadata"]["resourceVersion"])
        })
    };
    let binding = format!("{name}-service-account-issuer-discovery");
    [
        of(&["get", "namespace", namespace]),
        of(&["get", "serviceaccount", "ferry", "-n", namespace]),
        of(&["get", "role", &name, "-n", namespace]),
        of(&["get", "role", &name, "-n", "cicd"]),
        of(&["get", "rolebinding", &name, "-n", "cicd"]),
        of(&["get", "clusterrolebinding", &binding]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Answers of the API server to that account that are no success.
fn refused(servers: &Servers, account: &str) -> Vec<String> {
    let text = std::fs::read_to_string(servers.folder.join("audit.log")).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let theirs = lines.filter(|line| line["user"]["username"] == account && line["responseStatus"]["code"].as_u64() >= Some(400));
    theirs.map(|line| line.to_string()).collect()
}

#[test]
fn with_what_bootstrap_made_alone_the_daemon_serves_its_targets_and_renews_itself_without_a_failed_request() {
    let mut host = bootstrapped("ferry-serves", "");
    let own = host.path("state/own/prod/token");
    assert_eq!([mode(&host.path("state/own")), mode(own.parent().unwrap()), mode(&own)], [0o700, 0o700, 0o600]);
    let kubeconfig = host.read("prod.kubeconfig");
    assert!(kubeconfig.contains(&own.display().to_string()) && kubeconfig.contains("certificate-authority-data"), "{kubeconfig}");
    assert!(!kubeconfig.contains("eyJ"), "no token stands in it");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    host.write_schedule(&(schedule("ferry-serves", "") + &format!("metrics: {{listen: '127.0.0.1:{port}'}}\n")));
    host.start();
    until("both are delivered", 60, || ["a", "b"].iter().all(|t| host.records_of("rotated", t).len() == 1));
    assert_eq!(host.records_of("adopted", "own/prod").len(), 1, "the first token is taken as it is");
    assert!(host.records_of("rotated", "own/prod").is_empty());
    for round in 0..4 {
        let before = host.read("state/own/prod/token");
        let renewed = host.rotate("own/prod").unwrap();
        assert_eq!((&renewed["kind"], &renewed["proof"]), (&json!("rotated"), &json!("online")), "{renewed}");
        assert_ne!(host.read("state/own/prod/token"), before);
        for target in ["a", "b"] {
            let line = host.rotate(target).unwrap();
            assert_eq!(line["kind"], "rotated", "round {round}: {line}");
        }
    }
    // The client takes a new file up to 5 s later.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(host.rotate("a").unwrap()["kind"], "rotated");
    assert!(host.records().iter().all(|line| line["kind"] != "failed" && line["kind"] != "rejected"), "{:?}", host.records());
    assert_eq!(refused(cluster(), "system:serviceaccount:ferry-serves:ferry"), Vec::<String>::new());
    let row = host.target("own/prod");
    assert_eq!((&row["state"], &row["serviceAccount"]), (&json!("fresh"), &json!("ferry-serves/ferry")), "{row}");
    let metrics = crate::support::daemon::tool(std::process::Command::new("curl").args([
        "-sS",
        "--fail",
        &format!("http://127.0.0.1:{port}/metrics"),
    ]));
    let expires: jiff::Timestamp = row["expiresAt"].as_str().unwrap().parse().unwrap();
    let line = format!("tokenferry_own_credential_expiry_timestamp_seconds{{cluster=\"prod\"}} {}", expires.as_second());
    assert!(metrics.contains(&line), "no `{line}` in:\n{metrics}");
}

#[test]
fn bootstrap_again_changes_nothing_but_the_token_and_takes_rights_away_that_are_needed_no_more() {
    let host = bootstrapped("ferry-again", "");
    let (before, token, kubeconfig) = (objects(cluster(), "ferry-again"), host.read("state/own/prod/token"), host.read("prod.kubeconfig"));
    assert_eq!(before.len(), 6, "{before:?}");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let again = bootstrap(&host, &[]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.contains("ServiceAccount ferry-again/ferry: unchanged"), "{again:?}");
    assert_eq!(objects(cluster(), "ferry-again"), before);
    assert_eq!(host.read("prod.kubeconfig"), kubeconfig);
    assert_ne!(host.read("state/own/prod/token"), token);
    // A schedule without these targets needs less.
    host.write_schedule(&schedule("ferry-again", "").replace(TARGETS, "targets: []\n"));
    let less = bootstrap(&host, &[]);
    assert_eq!(less.code, Some(0), "{less:?}");
    assert!(less.stderr.contains("Role cicd/tokenferry.ferry-again.ferry: removed"), "{less:?}");
    assert_eq!(objects(cluster(), "ferry-again").len(), 3, "namespace, account, and its right on itself");
}

#[test]
fn a_dry_run_tells_and_changes_nothing_and_remove_takes_exactly_what_was_made() {
    let servers = cluster();
    let host = Host::new(&schedule("ferry-gone", ""));
    let dry = bootstrap(&host, &["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    for line in
        ["Namespace ferry-gone: would be made", "Role cicd/tokenferry.ferry-gone.ferry: would be made", "prod.kubeconfig: would be made"]
    {
        assert!(dry.stdout.contains(line), "no `{line}` in {}", dry.stdout);
    }
    assert!(objects(servers, "ferry-gone").is_empty() && !host.path("prod.kubeconfig").exists() && !host.path("state/own").exists());
    assert_eq!(bootstrap(&host, &[]).code, Some(0));
    servers.kubectl(&["create", "configmap", "somebodys", "-n", "ferry-gone"]);
    let dry = bootstrap(&host, &["--remove", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.stdout.contains("ServiceAccount ferry-gone/ferry: would be removed"), "{dry:?}");
    assert_eq!(objects(servers, "ferry-gone").len(), 6);
    let removed = bootstrap(&host, &["--remove"]);
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(removed.stderr.contains("Namespace ferry-gone: left alone, for there is more in it: configmaps somebodys"), "{removed:?}");
    assert_eq!(objects(servers, "ferry-gone").len(), 1, "the namespace, for somebody's sake");
    assert!(!host.path("prod.kubeconfig").exists() && !host.path("state/own/prod/token").exists());
    servers.kubectl(&["delete", "configmap", "somebodys", "-n", "ferry-gone"]);
    let rest = bootstrap(&host, &["--remove"]);
    assert!(rest.code == Some(0) && rest.stderr.contains("Namespace ferry-gone: removed"), "{rest:?}");
}

#[test]
fn a_person_without_rights_is_told_which_one_is_missing() {
    let host = Host::new(&schedule("ferry-denied", ""));
    let minter = cluster().kube().minter_kubeconfig.display().to_string();
    let ways: [&[&str]; 3] = [&[], &["--dry-run"], &["--remove"]];
    for more in ways {
        let done = host.run(&[&["bootstrap", "prod", "--kubeconfig", &minter][..], more].concat());
        assert_eq!(done.code, Some(4), "{done:?}");
        assert!(done.stderr.contains("you may not ") && done.stderr.contains("tokenferry-minter"), "{done:?}");
    }
    // A right that stops half way: the namespace may be made, Roles may not be written.
    let servers = cluster();
    let verbs = "--verb=get,create,patch";
    servers.kubectl(&["create", "clusterrole", "ferry-half", verbs, "--resource=namespaces,serviceaccounts"]);
    servers.kubectl(&["create", "clusterrolebinding", "ferry-half", "--clusterrole=ferry-half", "--user=minter2"]);
    let minter2 = servers.kube().minter2_kubeconfig.display().to_string();
    let half = |more: &[&str]| host.run(&[&["bootstrap", "prod", "--kubeconfig", &minter2][..], more].concat());
    until("the rights hold", 30, || half(&["--dry-run"]).stdout.contains("Namespace ferry-denied: would be made"));
    let done = half(&[]);
    servers.kubectl(&["delete", "clusterrolebinding", "ferry-half"]);
    assert_eq!(done.code, Some(4), "{done:?}");
    assert!(done.stderr.contains("you may not get roles tokenferry.ferry-denied.ferry"), "{done:?}");
    assert!(!host.path("prod.kubeconfig").exists(), "nothing half done is left on the host");
}

#[test]
fn what_somebody_else_made_under_our_name_is_not_overwritten() {
    let servers = cluster();
    let host = Host::new(&schedule("ferry-foreign", ""));
    host.write("prod.kubeconfig", "apiVersion: v1\nkind: Config\n");
    let done = bootstrap(&host, &[]);
    assert!(done.code == Some(1) && done.stderr.contains("not made by this command: move it away"), "{done:?}");
    assert_eq!(host.read("prod.kubeconfig"), "apiVersion: v1\nkind: Config\n");
    assert!(objects(servers, "ferry-foreign").is_empty(), "what is in the way here is found before anything is made there");
    std::fs::remove_file(host.path("prod.kubeconfig")).unwrap();
    servers.kubectl(&["create", "namespace", "ferry-foreign"]);
    servers.kubectl(&["create", "serviceaccount", "ferry", "-n", "ferry-foreign"]);
    let before = objects(servers, "ferry-foreign");
    let done = bootstrap(&host, &[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(objects(servers, "ferry-foreign"), before);
    let hand_over = done.stderr.split("kubectl ").nth(1).unwrap().trim().to_owned();
    servers.kubectl(&hand_over.split(' ').collect::<Vec<_>>());
    let done = bootstrap(&host, &[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    // Another daemon's account is no business of this one.
    let other = Host::new(&schedule("ferry-foreign", "").replace("ferry-foreign/ferry", "ferry-foreign/ferry2"));
    assert_eq!(bootstrap(&other, &[]).code, Some(0));
    let removed = bootstrap(&other, &["--remove"]);
    assert!(removed.stderr.contains("Namespace ferry-foreign: left alone, for it was there before"), "{removed:?}");
    assert_eq!(objects(servers, "ferry-foreign").len(), 6);
}

#[test]
fn the_schedule_has_to_say_whose_account_it_is() {
    let host = Host::new(&format!("clusters: {{prod: {{kubeconfig: HERE/k}}, trial: {{embedded: {{}}}}}}\n{TARGETS}"));
    let done = bootstrap(&host, &[]);
    assert!(done.code == Some(2) && done.stderr.contains("own: {serviceAccount: tokenferry/tokenferry"), "{done:?}");
    let done = host.run(&["bootstrap", "nowhere", "--kubeconfig", &admin()]);
    assert!(done.code == Some(2) && done.stderr.contains("it has: prod, trial"), "{done:?}");
}

#[test]
fn where_the_daemons_user_exists_its_group_reads_the_kubeconfig_and_it_alone_owns_the_token() {
    const FERRY: u32 = 54_321;
    if !rustix::process::geteuid().is_root() {
        println!("NOT RUN: another /etc/group for one command needs root");
        return;
    }
    let host = Host::new(&schedule("ferry-group", ""));
    let with = |file: &str, line: &str| host.write(file, &(std::fs::read_to_string(format!("/etc/{file}")).unwrap() + line));
    let group = with("group", &format!("tokenferry:x:{FERRY}:\n"));
    let passwd = with("passwd", &format!("tokenferry:x:{FERRY}:{FERRY}::/nonexistent:/usr/sbin/nologin\n"));
    // In a mount namespace of its own: this host has no such user.
    let script = "mount --bind \"$1\" /etc/group && mount --bind \"$2\" /etc/passwd && shift 2 && exec \"$@\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).args([&group, &passwd]);
    command.arg(PROGRAM).arg("--schedule").arg(host.schedule()).args(["bootstrap", "prod", "--kubeconfig", &admin()]);
    let done = finish(command, std::time::Duration::from_secs(120));
    assert_eq!(done.code, Some(0), "{done:?}");
    let seen = |name: &str| {
        let meta = std::fs::metadata(host.path(name)).unwrap();
        (meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
    };
    assert_eq!(seen("prod.kubeconfig"), (0o640, 0, FERRY));
    let (mode, owner, _) = seen("state/own/prod/token");
    assert_eq!((mode, owner), (0o600, FERRY));
}
