//! Clusters of the clouds, on a real API server: EKS by an address that is signed in this process and judged by an
//! authenticator of the tests; GKE and AKS by their plugins, which are slow, fail, flood, or need a home.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::shipped::root;
use crate::support::daemon::{Done, Host, finish};
use crate::support::eks::{Authenticator, KEY, USER};
use crate::support::servers::{Servers, cluster, kubeconfig};
use crate::support::until;

/// An API server that asks the authenticator, and STS.
fn eks() -> &'static (Servers, Authenticator) {
    static EKS: OnceLock<(Servers, Authenticator)> = OnceLock::new();
    EKS.get_or_init(|| {
        let authenticator = Authenticator::start();
        let folder = std::env::temp_dir().join(format!("tokenferry-eks-hook-{}", std::process::id()));
        std::fs::write(&folder, &authenticator.kubeconfig).unwrap();
        let servers = Servers::start_with("eks", &["etcd", "kube", "moto"], &["--token-webhook", folder.to_str().unwrap()]);
        std::fs::remove_file(&folder).unwrap();
        (*authenticator.sts.lock().unwrap()).clone_from(&servers.moto().endpoint);
        for who in
            [USER, "arn:aws:sts::123456789012:assumed-role/tokens/tokenferry", "arn:aws:sts::123456789012:assumed-role/login/tokenferry"]
        {
            let name = format!("m{}", who.len());
            servers.kubectl(&["create", "clusterrolebinding", &name, "--clusterrole=tokenferry-minter", &format!("--user={who}")]);
        }
        (servers, authenticator)
    })
}

/// A schedule of one target on EKS; `settings` are those of `eks`.
fn on_eks(settings: &str, more: &str) -> Host {
    let (servers, _) = eks();
    let host = Host::new(&format!(
        "
clusters:
  trial: {{embedded: {{}}}}
  prod: {{kubeconfig: HERE/eks.kubeconfig, eks: {settings}}}
defaults: {{cluster: prod, duration: 1h, prove: false}}
targets:
  - {{name: one, serviceAccount: cicd/builder, deliver: [{{file: {{path: HERE/out/one}}}}]}}
{more}"
    ));
    // As `aws eks update-kubeconfig` writes it; the plugin would leave a trace.
    let touched = host.path("plugin-ran").display().to_string();
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "touch", "args": [touched]}});
    host.write("eks.kubeconfig", &kubeconfig(&servers.kube().server, &servers.kube().ca, user));
    host
}

fn once(host: &Host, key: Option<(&str, &str)>) -> Done {
    let mut command = host.command(&["-vv", "once"]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"] {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT_URL_STS", &eks().0.moto().endpoint).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_CONFIG_FILE", "/nonexistent").env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    if let Some((id, secret)) = key {
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
    }
    let done = finish(command, Duration::from_secs(120));
    let all = format!("{}{}", done.stdout, done.stderr);
    assert!(!all.contains("aHR0cHM6Ly9zdHM") && !all.contains("X-Amz-Signature") && !all.contains(KEY.1), "a secret was shown: {done:?}");
    assert!(!host.path("plugin-ran").exists(), "the kubeconfig's plugin was run");
    done
}

fn judged() -> Result<String, String> {
    eks().1.verdicts.lock().unwrap().last().cloned().unwrap_or_else(|| Err("nobody asked".into()))
}

const PROD: &str = "name: prod, region: eu-central-1";

#[test]
fn an_address_that_is_signed_here_logs_in_to_eks_without_any_program_of_aws() {
    let host = on_eks(&format!("{{{PROD}}}"), "");
    let done = once(&host, Some(KEY));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(host.records_of("rotated", "one").len(), 1);
    assert!(eks().1.verdicts.lock().unwrap().contains(&Ok(USER.into())));
}

#[test]
fn another_key_another_cluster_and_no_credentials_are_told_with_what_eks_looks_at() {
    let failed = |host: &Host, key| {
        let done = once(host, key);
        assert_eq!(done.code, Some(1), "{done:?}");
        host.records_of("failed", "one").pop().unwrap()["error"].as_str().unwrap().to_owned()
    };
    let told = failed(&on_eks(&format!("{{{PROD}}}"), ""), Some((KEY.0, "another-secret")));
    assert!(told.contains("401: EKS cluster prod does not take our AWS identity (that of the normal AWS chain)"), "{told}");
    assert_eq!(judged(), Err("the signature is another one".into()));
    let told = failed(&on_eks("{name: staging, region: eu-central-1}", ""), Some(KEY));
    assert!(told.contains("401: EKS cluster staging does not take"), "{told}");
    let told = failed(&on_eks(&format!("{{{PROD}}}"), ""), None);
    assert!(told.contains("EKS cluster prod: no AWS credentials found"), "{told}");
}

#[test]
fn a_role_is_taken_over_before_and_a_token_of_another_cluster_logs_in_to_aws() {
    let host = on_eks(&format!("{{{PROD}, roleArn: 'arn:aws:iam::123456789012:role/tokens'}}"), "");
    let done = once(&host, Some(KEY));
    assert_eq!(done.code, Some(0), "{done:?}");
    let login = "  - {name: aws-login, cluster: trial, serviceAccount: a/b, audiences: [sts.amazonaws.com], deliver: [{file: {path: HERE/out/login}}]}\n";
    let web = "webIdentity: {roleArn: 'arn:aws:iam::123456789012:role/login', target: aws-login}";
    // No credential at all, and the login's token does not stand there when the first mint wants it.
    for more in ["", ", roleArn: 'arn:aws:iam::123456789012:role/tokens'"] {
        let host = on_eks(&format!("{{{PROD}, {web}{more}}}"), login);
        let done = once(&host, None);
        assert_eq!(done.code, Some(0), "{more}: {done:?}");
        assert_eq!(host.records_of("rotated", "one").len(), 1);
        assert!(host.records_of("failed", "one").is_empty(), "{more}: it waits for its login");
        let role = if more.is_empty() { "login" } else { "tokens" };
        let wanted = Ok(format!("arn:aws:sts::123456789012:assumed-role/{role}/tokenferry"));
        assert!(eks().1.verdicts.lock().unwrap().contains(&wanted), "{role}");
    }
}

/// A host with the kubeconfig of an example whose plugin is that script.
fn plugged(example: &str, program: &str, script: &str) -> Host {
    let kube = cluster().kube();
    let host = Host::new(
        "clusters: {cloud: {kubeconfig: HERE/cloud.kubeconfig}}\ntargets: [{name: one, cluster: cloud, serviceAccount: cicd/builder, duration: 1h, prove: false, deliver: [{file: {path: HERE/out/one}}]}]\n",
    );
    let text = std::fs::read_to_string(root().join("examples/managed").join(example)).unwrap();
    let text = text.replace("https://kubernetes.example.com", &kube.server).replace("ca.crt", &kube.ca.display().to_string());
    host.write("cloud.kubeconfig", &text);
    std::fs::create_dir(host.path("bin")).unwrap();
    let account = format!("cloud-{}", host.folder.path().file_name().unwrap().to_string_lossy().to_lowercase().replace('_', "-"));
    let account = account.trim_end_matches('-').to_owned();
    cluster().kubectl(&["create", "serviceaccount", &account, "-n", "cicd"]);
    let binding = format!("--serviceaccount=cicd:{account}");
    cluster().kubectl(&["create", "clusterrolebinding", &account, "--clusterrole=tokenferry-minter", &binding]);
    let token = cluster().kubectl(&["create", "token", &account, "-n", "cicd", "--duration", "10m"]);
    let answer = json!({"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": {"token": token.trim()}});
    let answer = host.write("answer", &answer.to_string());
    let file = host.write(&format!("bin/{program}"), &format!("#!/bin/sh\nanswer() {{ cat {}; }}\n{script}\n", answer.display()));
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o700)).unwrap();
    host
}

fn with_plugin(host: &Host, home: Option<&str>) -> (Done, Duration) {
    let mut command: Command = host.command(&["once"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", host.path("bin").display())).env_remove("HOME").envs(home.map(|home| ("HOME", home)));
    let begun = Instant::now();
    (finish(command, Duration::from_secs(120)), begun.elapsed())
}

fn error(host: &Host) -> String {
    host.records_of("failed", "one").pop().unwrap()["error"].as_str().unwrap().to_owned()
}

#[test]
fn the_plugins_of_gke_and_aks_log_in_though_slow() {
    let host = plugged("gke.kubeconfig", "gke-gcloud-auth-plugin", "sleep 3; answer");
    let (done, _) = with_plugin(&host, None);
    assert_eq!(done.code, Some(0), "{done:?}");
    // It is told what client-go tells it, and nothing waits at its standard input.
    let script = r#"test "$1" = get-token || exit 9; read -r line && exit 8; echo "$KUBERNETES_EXEC_INFO" | grep -q '"kind":"ExecCredential"' || exit 7; answer"#;
    let host = plugged("aks.kubeconfig", "kubelogin", script);
    let (done, _) = with_plugin(&host, None);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn a_plugin_that_fails_says_why_and_one_that_needs_a_home_says_what_gives_it_one() {
    let script = r#"test -d "$HOME/.config/gcloud" || { echo "ERROR: (gcloud.config) cannot find a home: $HOME" >&2; exit 1; }; answer"#;
    let host = plugged("gke.kubeconfig", "gke-gcloud-auth-plugin", script);
    let (done, _) = with_plugin(&host, None);
    assert_eq!(done.code, Some(1), "{done:?}");
    let told = error(&host);
    assert!(told.contains("gke-gcloud-auth-plugin failed (exit status: 1): ERROR: (gcloud.config) cannot find a home"), "{told}");
    assert!(told.contains("HOME is not set: the drop-in `plugins.conf` gives the daemon one"), "{told}");
    std::fs::create_dir_all(host.path("home/.config/gcloud")).unwrap();
    let (done, _) = with_plugin(&host, Some(host.path("home").to_str().unwrap()));
    assert_eq!(done.code, Some(0), "{done:?}");
    let host = plugged("aks.kubeconfig", "another", "answer");
    assert_eq!(with_plugin(&host, None).0.code, Some(1));
    let told = error(&host);
    assert!(told.contains("kubelogin cannot be started: No such file") && told.contains("install-kubelogin"), "{told}");
}

#[test]
fn a_plugin_that_floods_or_never_ends_is_ended_and_delays_nothing_else() {
    let host = plugged("gke.kubeconfig", "gke-gcloud-auth-plugin", "exec yes");
    let (done, took) = with_plugin(&host, None);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(error(&host).contains("gave more than 1 MiB and was killed"), "{}", error(&host));
    assert!(took < Duration::from_secs(60), "{took:?}");
    // It hangs with a child of its own, in a daemon that serves another cluster meanwhile.
    let mut host = plugged("aks.kubeconfig", "kubelogin", "sleep 7777 & wait");
    host.write_schedule(
        "clusters: {cloud: {kubeconfig: HERE/cloud.kubeconfig}, trial: {embedded: {}}}
targets:
- {name: one, cluster: cloud, serviceAccount: cicd/builder, duration: 1h, prove: false, deliver: [{file: {path: HERE/out/one}}]}
- {name: other, cluster: trial, serviceAccount: a/b, duration: 1h, deliver: [{file: {path: HERE/out/other}}]}
",
    );
    let path = format!("{}:/usr/bin:/bin", host.path("bin").display());
    host.start_with(&[("PATH", &path)]);
    until("the other one is served", 20, || host.path("out/other").exists());
    until("the plugin is given up", 90, || {
        host.records_of("failed", "one").iter().any(|l| l["error"].as_str().unwrap().contains("did not end within 25 s"))
    });
}
