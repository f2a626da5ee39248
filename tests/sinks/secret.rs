//! `kubernetesSecret` against a real kube-apiserver with RBAC.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tokenferry::cluster::{ClusterSpec, Clusters};
use tokenferry::sink::kubernetes::{SecretSpec, held};
use tokenferry::sink::{Failure, FailureKind, Put, SinkSpec, Stores};

use super::conformance::{Outside, Place, attempt, fresh};
use crate::support::daemon::finish;
use crate::support::servers::{Kube, cluster};
use crate::support::within;

/// A namespace of these tests.
pub fn namespace() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        cluster().kubectl(&["create", "namespace", "secrets"]);
    });
    "secrets"
}

/// Stores with one cluster, reached by that kubeconfig.
pub fn reached_by(kubeconfig: &Path) -> Stores {
    let spec: ClusterSpec = serde_json::from_value(json!({"kubeconfig": kubeconfig})).unwrap();
    let specs = BTreeMap::from([("prod".to_owned(), Arc::new(spec))]);
    Stores::default().with_clusters(&Clusters::new(&specs, Path::new("/nonexistent"), None))
}

fn spec(name: &str) -> SecretSpec {
    SecretSpec { cluster: "prod".into(), namespace: "secrets".into(), name: name.into(), key: "token".into(), adopt: false }
}

/// A place for the conformance suite.
pub async fn place() -> Place {
    let kubeconfig = tokio::task::spawn_blocking(|| {
        namespace();
        cluster().kube().admin_kubeconfig.clone()
    });
    let stores = reached_by(&kubeconfig.await.unwrap());
    Place { spec: SinkSpec::KubernetesSecret(spec(&fresh("conform")).into()), stores, limit: Some(1 << 20), outside: Outside::Kube }
}

/// The Secret as the administrator sees it; null where there is none.
pub fn look(name: &str) -> Value {
    let text = cluster().kubectl(&["-n", namespace(), "get", "secret", name, "--ignore-not-found", "-o", "json", "--show-managed-fields"]);
    if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
}

/// One value of it as text.
pub fn value(secret: &Value, key: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(secret["data"][key].as_str()?).unwrap();
    Some(String::from_utf8(bytes).unwrap())
}

/// Somebody with kubectl changes one key.
pub fn spoil(name: &str, key: &str, text: &str) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    patch(name, &json!({"data": {key: encoded}}));
}

fn patch(name: &str, patch: &Value) {
    cluster().kubectl(&["-n", namespace(), "patch", "secret", name, "--type=merge", "-p", &patch.to_string()]);
}

/// Something of ours and the way to it.
struct Here {
    name: String,
    stores: Stores,
}

impl Here {
    async fn new(what: &str) -> Self {
        let Place { stores, .. } = place().await;
        Self { name: fresh(what), stores }
    }

    async fn put(&self, text: &str) -> Result<Put, Failure> {
        attempt(&SinkSpec::KubernetesSecret(spec(&self.name).into()), &self.stores, text, text).await
    }
}

fn create(arguments: &[&str]) {
    cluster().kubectl(&[&["-n", namespace(), "create"], arguments].concat());
}

const OURS: &str = "app.kubernetes.io/managed-by=tokenferry";

#[tokio::test]
async fn a_secret_is_made_with_our_mark_and_says_whose_token_it_holds_and_until_when() {
    within(async {
        let here = Here::new("made").await;
        assert_eq!(here.put("ey.first").await, Ok(Put::Written));
        let secret = look(&here.name);
        assert_eq!((value(&secret, "token").as_deref(), secret["type"].as_str()), (Some("ey.first"), Some("Opaque")));
        assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "tokenferry");
        let said = &secret["metadata"]["annotations"];
        assert_eq!(
            (&said["tokenferry/target"], &said["tokenferry/issue"], &said["tokenferry/generation"]),
            (&json!("ci"), &json!("ey.first"), &json!("1"))
        );
        assert_eq!(said["tokenferry/expires-at"], "2033-05-18T03:33:20Z");
        let managers: Vec<&str> =
            secret["metadata"]["managedFields"].as_array().unwrap().iter().map(|m| m["manager"].as_str().unwrap()).collect();
        assert_eq!(managers, ["tokenferry"]);
        let version = secret["metadata"]["resourceVersion"].clone();
        assert_eq!(here.put("ey.first").await, Ok(Put::Unchanged));
        assert_eq!(look(&here.name)["metadata"]["resourceVersion"], version);
        let held = held(&spec(&here.name), &here.stores, Duration::from_secs(20)).await.unwrap().unwrap();
        assert_eq!(held.expose(), b"ey.first");
        assert!(tokenferry::sink::kubernetes::held(&spec("nobody"), &here.stores, Duration::from_secs(20)).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn beside_something_encrypted_a_secret_says_its_times_and_not_whose_it_is() {
    within(async {
        let here = Here::new("sealed").await;
        let put = async |sealed: bool, text: &str| {
            let manners = tokenferry::sink::Manners { owner: Some("team"), sealed, ..tokenferry::sink::Manners::default() };
            let context = tokenferry::sink::Context {
                target: "ci",
                issue: text,
                issued_at: 0,
                generation: 7,
                expires_at: 2_000_000_000,
                timeout: Duration::from_secs(20),
                manners,
            };
            let payload = tokenferry::token::Payload::new(text.as_bytes().to_vec());
            tokenferry::sink::put(&SinkSpec::KubernetesSecret(spec(&here.name).into()), &payload, context, &here.stores).await
        };
        let said = || {
            let annotations = look(&here.name)["metadata"]["annotations"].clone();
            annotations.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(put(false, "ey.plain").await, Ok(Put::Written));
        assert!(said().contains(&"tokenferry/target".to_owned()) && said().contains(&"tokenferry/owner".to_owned()), "{:?}", said());
        // What was said before it was encrypted is not said any more.
        assert_eq!(put(true, "sealed").await, Ok(Put::Written));
        assert_eq!(said(), ["tokenferry/expires-at", "tokenferry/issued-at"]);
        assert_eq!(put(true, "sealed").await, Ok(Put::Unchanged));
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_left_as_it_is_until_it_is_handed_over() {
    within(async {
        let here = Here::new("foreign").await;
        create(&["secret", "generic", &here.name, "--from-literal=password=theirs"]);
        let before = look(&here.name);
        let failure = here.put("ey.ours").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("not ours") && failure.message.contains("kubectl -n secrets label secret"), "{failure}");
        assert_eq!(look(&here.name), before);
        let read = held(&spec(&here.name), &here.stores, Duration::from_secs(20)).await;
        assert!(read.is_err_and(|e| e.kind == FailureKind::Refused));
        cluster().kubectl(&["-n", namespace(), "label", "secret", &here.name, OURS]);
        assert_eq!(here.put("ey.ours").await, Ok(Put::Written));
        let after = look(&here.name);
        assert_eq!((value(&after, "token").as_deref(), value(&after, "password").as_deref()), (Some("ey.ours"), Some("theirs")));
    })
    .await;
}

#[tokio::test]
async fn what_others_add_beside_our_fields_stays() {
    within(async {
        let here = Here::new("shared").await;
        here.put("ey.first").await.unwrap();
        spoil(&here.name, "other", "theirs");
        patch(&here.name, &json!({"metadata": {"labels": {"team": "payments"}}}));
        assert_eq!(here.put("ey.second").await, Ok(Put::Written));
        let secret = look(&here.name);
        assert_eq!((value(&secret, "token").as_deref(), value(&secret, "other").as_deref()), (Some("ey.second"), Some("theirs")));
        assert_eq!(secret["metadata"]["labels"]["team"], "payments");
    })
    .await;
}

#[tokio::test]
async fn an_edit_of_our_key_is_told_with_its_writer_and_written_over_by_nobody_until_it_is_given_back() {
    within(async {
        let here = Here::new("edited").await;
        here.put("ey.first").await.unwrap();
        spoil(&here.name, "token", "theirs");
        let failure = here.put("ey.second").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("kubectl-patch") && failure.message.contains(".data.token"), "{failure}");
        assert_eq!(value(&look(&here.name), "token").as_deref(), Some("theirs"));
        // The way out that the message shows.
        let words = failure.message.split("To give it back to tokenferry: ").nth(1).unwrap();
        let arguments: Vec<String> =
            words.trim_start_matches("kubectl ").split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
        cluster().kubectl(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(here.put("ey.second").await, Ok(Put::Written));
        assert_eq!(value(&look(&here.name), "token").as_deref(), Some("ey.second"));
    })
    .await;
}

/// A kubeconfig of an account that may do these verbs on secrets of this name, and nothing else.
fn limited(folder: &Path, account: &str, verbs: &str, name: &str) -> PathBuf {
    let servers = cluster();
    let kube: &Kube = servers.kube();
    servers.kubectl(&["-n", namespace(), "create", "serviceaccount", account]);
    servers.kubectl(&[
        "-n",
        namespace(),
        "create",
        "role",
        account,
        &format!("--verb={verbs}"),
        "--resource=secrets",
        &format!("--resource-name={name}"),
    ]);
    let subject = format!("--serviceaccount={}:{account}", namespace());
    servers.kubectl(&["-n", namespace(), "create", "rolebinding", account, &format!("--role={account}"), &subject]);
    let token = servers.kubectl(&["-n", namespace(), "create", "token", account]);
    let path = folder.join(account);
    let config = kube.kubeconfig(json!({"token": token.trim()}));
    std::fs::write(&path, config).unwrap();
    path
}

#[tokio::test]
async fn rights_on_one_name_suffice_and_a_missing_right_is_named() {
    within(async {
        let here = Here::new("rights").await;
        let folder = tempfile::tempdir().unwrap();
        let own = Here { stores: reached_by(&limited(folder.path(), "writer", "get,create,patch", &here.name)), name: here.name.clone() };
        assert_eq!(own.put("ey.first").await, Ok(Put::Written));
        assert_eq!(own.put("ey.second").await, Ok(Put::Written));
        assert!(held(&spec(&own.name), &own.stores, Duration::from_secs(20)).await.unwrap().is_some());
        let other = Here { name: fresh("other"), stores: own.stores };
        let failure = other.put("ey.x").await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("resourceNames"), "{failure}");
        let reader = Here { stores: reached_by(&limited(folder.path(), "reader", "get", &here.name)), name: here.name.clone() };
        let failure = reader.put("ey.third").await.unwrap_err();
        assert!(failure.message.contains("we may not patch it: grant get, create and patch on secrets"), "{failure}");
        assert_eq!(value(&look(&here.name), "token").as_deref(), Some("ey.second"));
    })
    .await;
}

/// What the sink rests on: with resourceVersion 1 an apply makes an object, and changes none that is there.
#[test]
fn an_apply_at_revision_one_makes_a_secret_and_changes_none() {
    let servers = cluster();
    let (absent, there) = (fresh("absent"), fresh("there"));
    create(&["secret", "generic", &there, "--from-literal=password=theirs"]);
    let apply = |name: &str| {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace(), "resourceVersion": "1"}, "data": {"token": "eA=="}});
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.json");
        std::fs::write(&file, object.to_string()).unwrap();
        let mut command = Command::new(&servers.kube().kubectl);
        command
            .arg("--kubeconfig")
            .arg(&servers.kube().admin_kubeconfig)
            .args(["apply", "--server-side", "--field-manager=x", "-f"])
            .arg(&file);
        finish(command, Duration::from_secs(60))
    };
    assert_eq!(apply(&absent).code, Some(0));
    let refused = apply(&there);
    assert!(refused.code == Some(1) && refused.stderr.contains("has been modified"), "{refused:?}");
    assert_eq!(value(&look(&there), "token"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_the_secret_whole_at_every_moment_and_never_gone() {
    within(async {
        let here = Here::new("watched").await;
        here.put("ey.0.end").await.unwrap();
        let kube = cluster().kube();
        let path = format!("/api/v1/namespaces/{}/secrets?watch=true&fieldSelector=metadata.name={}", namespace(), here.name);
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let mut watcher = Command::new(&kube.kubectl)
            .arg("--kubeconfig")
            .arg(&kube.admin_kubeconfig)
            .args(["get", "--raw", &path])
            .stdout(std::fs::File::create(&seen).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let events = || -> Vec<Value> {
            let text = std::fs::read_to_string(&seen).unwrap();
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
        };
        wait_for("the watch has begun", || !events().is_empty()).await;
        for n in 1..=30 {
            assert_eq!(here.put(&format!("ey.{n}.end")).await, Ok(Put::Written));
        }
        wait_for("the last put is seen", || events().last().is_some_and(|e| value(&e["object"], "token").as_deref() == Some("ey.30.end")))
            .await;
        watcher.kill().unwrap();
        watcher.wait().unwrap();
        let events = events();
        assert!(events.len() >= 31, "{}", events.len());
        for (n, event) in events.iter().enumerate() {
            assert_eq!(event["type"], if n == 0 { "ADDED" } else { "MODIFIED" });
            let token = value(&event["object"], "token").unwrap();
            assert!(token.starts_with("ey.") && token.ends_with(".end"), "{token}");
            assert_eq!(event["object"]["metadata"]["annotations"]["tokenferry/issue"], token, "token and marks change as one");
        }
    })
    .await;
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within a minute: {what}");
}

#[tokio::test]
async fn a_secret_of_another_type_and_an_immutable_one_are_refused_with_the_way_out() {
    within(async {
        let other = Here::new("typed").await;
        create(&["secret", "generic", &other.name, "--type=example.com/other"]);
        cluster().kubectl(&["-n", namespace(), "label", "secret", &other.name, OURS]);
        let failure = other.put("ey.x").await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("its type is example.com/other"), "{failure}");
        let fixed = Here::new("fixed").await;
        fixed.put("ey.first").await.unwrap();
        patch(&fixed.name, &json!({"immutable": true}));
        let failure = fixed.put("ey.second").await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("immutable"), "{failure}");
        assert_eq!(value(&look(&fixed.name), "token").as_deref(), Some("ey.first"));
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_others_fill_up_is_too_large_for_the_next_token_and_keeps_the_one_before() {
    within(async {
        let here = Here::new("full").await;
        here.put("ey.first").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("o.json");
        let filler = base64::engine::general_purpose::STANDARD.encode(vec![b'x'; (1 << 20) - 100]);
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": here.name, "namespace": namespace()}, "data": {"filler": filler}});
        std::fs::write(&file, object.to_string()).unwrap();
        cluster().kubectl(&["apply", "--server-side", "--field-manager=other", "-f", file.to_str().unwrap()]);
        let failure = here.put(&"x".repeat(500)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
        assert_eq!(value(&look(&here.name), "token").as_deref(), Some("ey.first"));
    })
    .await;
}

#[tokio::test]
async fn a_missing_namespace_and_a_dead_api_server_are_told_apart() {
    within(async {
        let here = Here::new("away").await;
        let missing = SecretSpec { namespace: "nowhere".into(), ..spec(&here.name) };
        let failure = attempt(&SinkSpec::KubernetesSecret(missing.into()), &here.stores, "ey.x", "x").await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("there is no namespace nowhere"), "{failure}");
        let folder = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(&cluster().kube().admin_kubeconfig).unwrap();
        let dead = folder.path().join("dead");
        std::fs::write(&dead, text.replace(&cluster().kube().server, "https://127.0.0.1:1")).unwrap();
        let here = Here { stores: reached_by(&dead), ..here };
        let failure = here.put("ey.x").await.unwrap_err();
        assert!(failure.kind == FailureKind::Unavailable && failure.message.contains("refused"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_payload_of_several_parts_makes_the_type_the_keys_and_the_labels() {
    use tokenferry::token::Payload;
    use tokenferry::token::payload::{Dress, Part};
    within(async {
        let here = Here::new("parts").await;
        let dress = Dress { kind: Some("example.com/cluster"), labels: &[("argocd.argoproj.io/secret-type", "cluster")] };
        let parts = |token: &str| vec![Part::new("server", b"https://a".to_vec()), Part::new("config", token.as_bytes().to_vec())];
        let put = async |token: &str| {
            let context = tokenferry::sink::Context {
                target: "ci",
                issue: token,
                issued_at: 0,
                generation: 1,
                expires_at: 0,
                timeout: Duration::from_secs(20),
                manners: tokenferry::sink::Manners::default(),
            };
            tokenferry::sink::put(
                &SinkSpec::KubernetesSecret(spec(&here.name).into()),
                &Payload::of(parts(token), dress),
                context,
                &here.stores,
            )
            .await
        };
        assert_eq!(put("ey.first").await, Ok(Put::Written));
        assert_eq!(put("ey.second").await, Ok(Put::Written));
        assert_eq!(put("ey.second").await, Ok(Put::Unchanged));
        let secret = look(&here.name);
        assert_eq!((value(&secret, "server").as_deref(), value(&secret, "config").as_deref()), (Some("https://a"), Some("ey.second")));
        assert_eq!((&secret["type"], secret["data"].as_object().unwrap().len()), (&json!("example.com/cluster"), 2));
        assert_eq!(secret["metadata"]["labels"]["argocd.argoproj.io/secret-type"], "cluster");
        let read = held(&spec(&here.name), &here.stores, Duration::from_secs(20)).await.unwrap().unwrap();
        assert_eq!(read.sha256(), Payload::of(parts("ey.second"), dress).sha256());
    })
    .await;
}
