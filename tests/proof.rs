//! Delivered tokens stay proven: what is refused, removed or overwritten is noticed and mended at once, and never
//! in a mint loop.

use std::time::{Duration, Instant};

use crate::support::daemon::Host;
use crate::support::servers::{cluster, servers};
use crate::support::until;

#[test]
fn g2_an_account_that_is_made_anew_has_its_refused_token_replaced() {
    let servers = cluster();
    servers.kubectl(&["-n", "apps", "create", "serviceaccount", "remade"]);
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
targets:
  - {{name: one, cluster: prod, serviceAccount: apps/remade, duration: 1h, prove: {{every: 2s}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        servers.kube().minter_kubeconfig.display()
    ));
    host.start();
    until("it is delivered", 30, || host.path("out/one").exists());
    let old = host.read("out/one");
    let proven = host.target("one")["provenAt"].clone();
    until("it is proven again", 20, || host.target("one")["provenAt"] != proven);
    assert_eq!(host.records_of("rotated", "one").len(), 1);
    servers.kubectl(&["-n", "apps", "delete", "serviceaccount", "remade"]);
    servers.kubectl(&["-n", "apps", "create", "serviceaccount", "remade"]);
    until("the refused token is replaced", 60, || host.read("out/one") != old);
    until("it is recorded", 10, || host.records_of("rotated", "one").len() == 2);
    assert_eq!(host.records_of("rejected", "one").len(), 1);
    assert_eq!(host.records_of("rotated", "one")[1]["reason"], "rejected");
    until("one is fresh", 20, || host.target("one")["state"] == "fresh");
}

#[test]
fn g2_an_account_that_is_gone_leaves_its_target_rejected_and_status_says_so() {
    let servers = cluster();
    servers.kubectl(&["-n", "apps", "create", "serviceaccount", "gone"]);
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
targets:
  - {{name: one, cluster: prod, serviceAccount: apps/gone, duration: 1h, prove: {{every: 2s}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        servers.kube().minter_kubeconfig.display()
    ));
    host.start();
    until("it is delivered", 30, || host.path("out/one").exists());
    servers.kubectl(&["-n", "apps", "delete", "serviceaccount", "gone"]);
    until("it is rejected", 60, || host.target("one")["state"] == "rejected");
    assert_eq!(host.run(&["status"]).code, Some(1));
    assert!(host.path("out/one").exists(), "the last token is left: its claims tell the truth");
    assert!(host.records_of("failed", "one").len() < 10, "a mint loop");
}

const TRIAL: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
  - name: pair
    serviceAccount: ci/pair
    deliver: [{file: {path: HERE/out/a}}, {file: {path: HERE/out/b}}]
  - name: single
    serviceAccount: ci/single
    deliver: [{file: {path: HERE/out/single}}]
";

#[test]
fn g1_a_removed_or_overwritten_file_is_put_right_at_once_without_a_mint_where_a_copy_is_left() {
    let mut host = Host::new(TRIAL);
    host.start();
    until("both are delivered", 20, || host.path("out/b").exists() && host.path("out/single").exists());
    std::thread::sleep(Duration::from_millis(1500));
    let token = host.read("out/a");
    for spoil in [true, false] {
        let begun = Instant::now();
        if spoil {
            host.write("out/a", "nonsense");
        } else {
            std::fs::remove_file(host.path("out/a")).unwrap();
        }
        until("it is put right", 10, || std::fs::read_to_string(host.path("out/a")).is_ok_and(|t| t == token));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        until("nothing is owed", 10, || host.target("pair")["state"] == "fresh");
        std::thread::sleep(Duration::from_millis(1500));
    }
    assert_eq!(host.records_of("rotated", "pair").len(), 1, "a copy was at hand, and it was minted anew");
    std::fs::remove_file(host.path("out/single")).unwrap();
    until("the only copy is minted anew", 10, || host.path("out/single").exists() && host.records_of("rotated", "single").len() == 2);
    assert_eq!(host.records_of("rotated", "single")[1]["reason"], "repair");
}

#[test]
fn a_file_that_is_overwritten_again_and_again_never_becomes_a_mint_loop() {
    let mut host = Host::new(TRIAL);
    host.start();
    until("it is delivered", 20, || host.path("out/single").exists());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(20) {
        host.write("out/single", "nonsense");
        std::thread::sleep(Duration::from_millis(300));
    }
    let minted = host.records_of("rotated", "single").len();
    assert!((2..=4).contains(&minted), "{minted} mints in 20 s");
}

#[test]
fn a_store_that_somebody_overwrote_is_put_right_on_the_beat() {
    let (kube, bao) = (cluster().kube(), servers().bao());
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
stores: {{vault: {{vault: {{address: '{}', caFile: {}, auth: {{token: {{file: {root}}}}}}}}}}}
targets:
  - name: one
    cluster: prod
    serviceAccount: cicd/builder
    duration: 1h
    prove: {{every: 2s}}
    deliver: [{{file: {{path: HERE/out/one}}}}, {{vault: {{store: vault, path: proof/one}}}}]
",
        kube.minter_kubeconfig.display(),
        bao.address,
        bao.ca.display(),
        root = bao.root_token_file.display(),
    ));
    host.start();
    until("it is delivered", 30, || host.records_of("rotated", "one").len() == 1);
    let config =
        host.write("curl", &format!("header = \"X-Vault-Token: {}\"\n", std::fs::read_to_string(&bao.root_token_file).unwrap().trim()));
    let ask = |arguments: &[&str]| {
        let url = format!("{}/v1/secret/data/proof/one", bao.address);
        crate::support::daemon::tool(
            std::process::Command::new("curl").args(["-sS", "--config"]).arg(&config).arg("--cacert").arg(&bao.ca).args(arguments).arg(url),
        )
    };
    ask(&["-d", r#"{"data":{"token":"somebody else's"}}"#]);
    until("Vault has the token again", 30, || ask(&[]).contains(&host.read("out/one")));
    assert_eq!(host.records_of("rotated", "one").len(), 1, "a copy was at hand, and it was minted anew");
}
