//! The way back from a fallback: the place is paid once its store is there again, and the copy goes when the place has
//! held for a while, each step recorded.

use crate::support::daemon::Host;
use crate::support::servers::Servers;
use crate::support::until;

#[test]
fn g2_a_fallen_place_is_paid_and_its_copy_goes_only_then_or_stays_where_the_schedule_says_so() {
    let servers = Servers::start("failback", &["bao", "moto"]);
    let bao = servers.bao();
    let mut host = Host::new(&format!(
        "
clusters: {{trial: {{embedded: {{}}}}}}
stores:
  vault: {{vault: {{address: '{}', caFile: {}, auth: {{token: {{file: {}}}}}}}}}
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{}'}}}}
defaults: {{cluster: trial, duration: 100s}}
targets:
  - name: goes
    serviceAccount: ci/goes
    deliver:
      - vault: {{store: vault, path: back/goes}}
        fallback: [{{file: {{path: HERE/out/goes}}}}]
  - name: stays
    serviceAccount: ci/stays
    deliver:
      - vault: {{store: vault, path: back/stays}}
        fallback: [{{file: {{path: HERE/out/stays}}}}]
        whenPaid: keep
  - name: stored
    serviceAccount: ci/stored
    deliver:
      - vault: {{store: vault, path: back/stored}}
        fallback: [{{awsSecretsManager: {{store: aws, secretId: stored}}}}]
",
        bao.address,
        bao.ca.display(),
        bao.root_token_file.display(),
        servers.moto().endpoint,
    ));
    host.start_with(&[("AWS_ACCESS_KEY_ID", "AKIATEST"), ("AWS_SECRET_ACCESS_KEY", "test")]);
    until("all are delivered", 60, || ["goes", "stays", "stored"].iter().all(|t| host.records_of("rotated", t).len() == 1));
    servers.kill("bao");
    assert_eq!(host.run(&["rotate", "--all", "--timeout", "60s"]).code, Some(0), "a fallback serves");
    for target in ["goes", "stays"] {
        let line = host.records_of("rotated", target).pop().unwrap();
        assert_eq!(line["sinks"][0]["outcome"], "fellBack", "{line}");
        assert!(host.path("out").join(target).exists());
    }
    assert_eq!(host.records_of("rotated", "stored").pop().unwrap()["sinks"][0]["outcome"], "fellBack");
    servers.restart("bao");
    until("both are paid", 60, || ["goes", "stays"].iter().all(|t| !host.records_of("paid", t).is_empty()));
    assert!(host.path("out/goes").exists(), "the copy goes only when the place has held for a while");
    until("the copy is gone", 60, || !host.path("out/goes").exists());
    until("it is recorded", 10, || host.records_of("cleared", "goes").len() == 1);
    let kinds: Vec<String> = host
        .records()
        .into_iter()
        .filter(|l| l["target"] == "goes")
        .map(|l| format!("{} {}", l["kind"].as_str().unwrap(), l["sinks"][0]["outcome"].as_str().unwrap()))
        .collect();
    let steps: Vec<&str> = kinds.iter().map(String::as_str).filter(|k| *k != "rotated written").collect();
    assert_eq!(steps, ["rotated fellBack", "paid written", "cleared unchanged"], "{kinds:?}");
    assert_eq!(host.records_of("cleared", "goes")[0]["sinks"][0]["fallback"], host.path("out/goes").to_str().unwrap());
    // A copy in a store goes, too.
    until("the stored copy is gone", 60, || host.records_of("cleared", "stored").len() == 1);
    assert_eq!(host.records_of("cleared", "stored")[0]["sinks"][0]["fallback"], "aws/stored");
    assert!(host.path("out/stays").exists() && host.records_of("cleared", "stays").is_empty());
}
