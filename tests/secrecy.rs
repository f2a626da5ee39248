//! G8: no token byte reaches logs at any verbosity, records, status, arguments or environment, errors included.

use std::process::Command;

use crate::support::daemon::{Host, tool};
use crate::support::servers::{cluster, servers};
use crate::support::until;

#[test]
fn g8_no_token_shows_in_logs_at_trace_records_status_arguments_or_environment() {
    let (kube, stores) = (cluster().kube(), servers());
    let host = Host::new(&format!(
        "
clusters: {{prod: {{kubeconfig: HERE/own.kubeconfig}}, broken: {{kubeconfig: HERE/broken.kubeconfig}}}}
stores:
  good: {{vault: {{address: '{bao}', caFile: {ca}, auth: {{token: {{file: {root}}}}}}}}}
  bad: {{vault: {{address: '{bao}', caFile: {ca}, auth: {{token: {{file: HERE/bad-token}}}}}}}}
  aws: {{awsSecretsManager: {{region: eu-central-1, endpoint: '{moto}'}}}}
  nobody: {{awsSecretsManager: {{region: eu-central-1, endpoint: 'http://127.0.0.1:9'}}}}
defaults: {{duration: 10m, cluster: prod, serviceAccount: cicd/builder}}
targets:
  - {{name: files, deliver: [{{file: {{path: HERE/out/raw}}}}, {{file: {{path: HERE/out/json, format: json}}}}]}}
  - {{name: vault, deliver: [{{file: {{path: HERE/out/vault}}}}, {{vault: {{store: good, path: secrecy/one}}}}, {{vault: {{store: bad, path: secrecy/two}}}}]}}
  - {{name: aws, deliver: [{{file: {{path: HERE/out/aws}}}}, {{awsSecretsManager: {{store: aws, secretId: secrecy}}}}, {{awsSecretsManager: {{store: nobody, secretId: secrecy}}}}]}}
  - {{name: broken, cluster: broken, deliver: [{{file: {{path: HERE/out/broken}}}}]}}
",
        bao = stores.bao().address,
        ca = stores.bao().ca.display(),
        root = stores.bao().root_token_file.display(),
        moto = stores.moto().endpoint,
    ));
    // Our own credential is a token too, and one of the two clusters refuses it.
    cluster().kubectl(&["-n", "cicd", "create", "role", "secrecy", "--verb=create", "--resource=serviceaccounts/token"]);
    cluster().kubectl(&["-n", "cicd", "create", "rolebinding", "secrecy", "--role=secrecy", "--serviceaccount=cicd:cicd-deployer"]);
    let own = cluster().kubectl(&["-n", "cicd", "create", "token", "cicd-deployer"]).trim().to_owned();
    let refused = format!("{}x", own);
    let config = |token: &str| {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {{tokenFile: {token}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            kube.server,
            kube.ca.display()
        )
    };
    host.write("own-token", &own);
    host.write("refused-token", &refused);
    host.write("bad-token", "s.thisVaultTokenIsNobodysOwnAtAll");
    host.write("own.kubeconfig", &config("own-token"));
    host.write("broken.kubeconfig", &config("refused-token"));
    let log = std::fs::File::create(host.path("daemon.log")).unwrap();
    let mut command = host.command(&["-vv", "--log", "text", "run"]);
    command.env("AWS_ACCESS_KEY_ID", "canaryKeyId").env("AWS_SECRET_ACCESS_KEY", "canarySecretAccessKeyValue").env("RUST_BACKTRACE", "1");
    let mut daemon = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    until("files are delivered and the rest has failed", 60, || {
        host.path("out/raw").exists()
            && host.path("out/vault").exists()
            && host.path("out/aws").exists()
            && host.records().iter().any(|l| l["target"] == "broken")
            && host.records().iter().any(|l| l["target"] == "aws")
            && host.records().iter().any(|l| l["target"] == "vault")
    });
    let rotated = host.run(&["rotate", "--all", "-o", "json"]);
    let status = host.run(&["status", "-o", "json"]);
    let tables = host.run(&["status"]);
    let proc =
        |name: &str| String::from_utf8_lossy(&std::fs::read(format!("/proc/{}/{name}", daemon.id())).unwrap_or_default()).into_owned();
    let (arguments, environment) = (proc("cmdline"), proc("environ"));
    let tokens = ["out/raw", "out/vault", "out/aws"].map(|f| host.read(f));
    tool(Command::new("kill").arg("-TERM").arg(daemon.id().to_string()));
    daemon.wait().unwrap();
    let records: String = host.records().iter().map(ToString::to_string).collect();
    assert!(host.log().contains("rotation failed"), "nothing failed: this test would test little");
    let everything = [
        ("log", host.log()),
        ("records", records),
        ("rotate", rotated.stdout + &rotated.stderr),
        ("status", status.stdout + &status.stderr),
        ("status table", tables.stdout + &tables.stderr),
        ("arguments", arguments),
        ("environment", environment.replace("AWS_SECRET_ACCESS_KEY=canarySecretAccessKeyValue", "")),
    ];
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let mut secrets: Vec<String> = tokens.iter().map(|t| signature(t)).collect();
    secrets.extend([signature(&own), "thisVaultTokenIsNobodysOwnAtAll".into(), "canarySecretAccessKeyValue".into()]);
    secrets.push(std::fs::read_to_string(&stores.bao().root_token_file).unwrap().trim().to_owned());
    for (name, text) in &everything {
        assert!(!text.contains("eyJ"), "token-shaped text in {name}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a secret stands in {name}");
        }
    }
}
