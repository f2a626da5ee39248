//! A lifetime that the server shortens is noticed, recorded and scheduled by.

use crate::support::daemon::Host;
use crate::support::servers::{Servers, script};
use crate::support::until;

#[test]
fn a_shortened_lifetime_is_recorded_and_the_next_rotation_counts_from_what_was_given() {
    let servers = Servers::start("clamp", &["etcd", "kube"]);
    script("restart", &servers.folder, &["kube", "--max-token-expiration", "1h"]);
    let mut host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: {}}}}}
targets:
  - {{name: one, cluster: prod, serviceAccount: cicd/builder, duration: 36h, rotate: {{at: 50%, splay: 0s}}, deliver: [{{file: {{path: HERE/out/one}}}}]}}
",
        servers.kube().minter_kubeconfig.display()
    ));
    host.start();
    until("it is delivered", 60, || !host.records_of("rotated", "one").is_empty());
    let line = host.records_of("rotated", "one").pop().unwrap();
    assert_eq!((&line["requested"], &line["granted"]), (&129_600.into(), &3_600.into()), "{line}");
    let time = |value: &serde_json::Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let target = host.target("one");
    let after = time(&target["nextRotation"]) - time(&target["issuedAt"]);
    assert_eq!(after, 1_800, "{target}");
    assert!(host.log().contains("shortened"), "the server's warning is not in the log");
}
