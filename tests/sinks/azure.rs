//! `azureKeyVault` against a server of ours that holds requests to the documented API (`tests/servers/azure.py`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use tokenferry::sink::azure::{AzureAuth, AzureSpec, AzureStoreSpec, ClientSecret, ManagedIdentity, WorkloadIdentity};
use tokenferry::sink::{Context, Failure, FailureKind, Leftover, Manners, Ours, Put, Removal, SinkSpec, StoreSpec, held, put};
use tokenferry::token::Payload;

use super::conformance::{Elsewhere, Marks, Outside, Place, attempt, fresh, newer_than, stores, unsigned};
use super::wire;
use crate::support::servers::python;
use crate::support::{until, within};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const CLIENT: &str = "66666666-7777-8888-9999-000000000000";

/// The server, which dies with its standard input: with us.
pub struct Azure {
    pub address: String,
    folder: tempfile::TempDir,
    _child: Child,
}

impl Azure {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/azure.py");
        let child = Command::new(python()).arg(script).arg(folder.path()).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let address = folder.path().join("address");
        until("Azure's stand-in serves", 120, || address.exists());
        Self { address: std::fs::read_to_string(address).unwrap(), folder, _child: child }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let ca = reqwest::Certificate::from_pem_bundle(&std::fs::read(self.file("ca.pem")).unwrap()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only(ca).build().unwrap();
        let answer = client.request(method, format!("{}/test/{path}", self.address)).body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn store(&self, auth: AzureAuth) -> StoreSpec {
        let azure = AzureStoreSpec {
            address: self.address.clone(),
            auth,
            authority: Some(self.address.clone()),
            resource: Some("https://vault.test".into()),
            ca_file: Some(self.file("ca.pem")),
        };
        StoreSpec { azure_key_vault: Some(azure), ..StoreSpec::default() }
    }

    fn federated(&self, file: &str) -> StoreSpec {
        self.store(AzureAuth::WorkloadIdentity(identity(&self.file(file))))
    }

    fn with_secret(&self, file: &Path) -> StoreSpec {
        let auth = ClientSecret { tenant_id: TENANT.into(), client_id: CLIENT.into(), secret_file: file.to_owned() };
        self.store(AzureAuth::ClientSecret(auth))
    }
}

fn identity(file: &Path) -> WorkloadIdentity {
    WorkloadIdentity { tenant_id: TENANT.into(), client_id: CLIENT.into(), token_file: file.to_owned(), target: None }
}

/// The one that all tests share which change nothing about logins.
static AZURE: OnceLock<Azure> = OnceLock::new();

async fn azure() -> &'static Azure {
    tokio::task::spawn_blocking(|| AZURE.get_or_init(Azure::start)).await.unwrap()
}

/// One of a test's own.
async fn own() -> Azure {
    tokio::task::spawn_blocking(Azure::start).await.unwrap()
}

fn spec(name: &str) -> AzureSpec {
    AzureSpec { store: "azure".into(), name: name.into(), ..AzureSpec::default() }
}

/// A place in the shared vault.
pub async fn place() -> Place {
    let azure = azure().await;
    let spec = spec(&fresh("ci-deployer"));
    let outside = Outside::Other(Box::new(Secret { azure, spec: spec.clone() }));
    Place {
        spec: SinkSpec::AzureKeyVault(spec.into()),
        stores: stores("azure", azure.federated("assertion")),
        limit: Some(25_000),
        outside,
    }
}

#[derive(Clone)]
struct Secret {
    azure: &'static Azure,
    spec: AzureSpec,
}

impl Secret {
    fn of(place: &Place) -> Self {
        let SinkSpec::AzureKeyVault(spec) = &place.spec else { panic!("a place at Azure") };
        Self { azure: AZURE.get().expect("a place was made there"), spec: (**spec).clone() }
    }

    async fn call(&self, method: Method, kind: &str, body: Value) -> Value {
        self.azure.call(method, &format!("{kind}/{}", self.spec.name), body).await
    }

    async fn whole(&self) -> Value {
        self.call(Method::GET, "secrets", json!({})).await
    }

    async fn set(&self, body: Value) {
        self.call(Method::PUT, "secrets", body).await;
    }
}

impl Elsewhere for Secret {
    fn look(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { Some(self.whole().await["text"].as_str()?.to_owned()) })
    }

    fn spoil<'a>(&'a self, text: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.set(json!({"text": text})))
    }

    /// Tags belong to a version, and a version to who made it.
    fn is_guarded(&self) -> bool {
        true
    }

    fn forget(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { drop(self.call(Method::DELETE, "secrets", json!({})).await) })
    }

    fn marks(&self) -> Option<&dyn Marks> {
        Some(self)
    }
}

impl Marks for Secret {
    fn make<'a>(&'a self, value: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.set(json!({"text": value})))
    }

    fn said(&self) -> BoxFuture<'_, BTreeMap<String, String>> {
        Box::pin(async {
            let whole = self.whole().await;
            let pairs = whole["tags"].as_object().unwrap().clone();
            pairs.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
        })
    }

    fn spoil(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.set(json!({"tags": {"tokenferry/expires-at": "2020-01-01T00:00:00Z", "team": "b"}, "attributes": {"exp": 7}})))
    }

    fn adopting(&self) -> SinkSpec {
        SinkSpec::AzureKeyVault(AzureSpec { adopt: true, ..self.spec.clone() }.into())
    }

    fn owner(&self) -> &'static str {
        "payments <team>"
    }
}

fn ours(found: &Payload) -> bool {
    found.expose().starts_with(b"ey")
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A put of a token that was issued so many seconds from now.
async fn put_at(place: &Place, spec: &SinkSpec, text: &str, later: i64, overlap: u64) -> Result<Put, Failure> {
    let (issued_at, timeout) = (now() + later, Duration::from_secs(20));
    let newer = newer_than(issued_at);
    let manners = Manners { overlap: Duration::from_secs(overlap), ours: Ours(&ours), newer: Ours(&newer), ..Manners::default() };
    let context = Context { target: "ci", issue: text, issued_at, expires_at: 2_000_000_000, generation: 1, timeout, manners };
    put(spec, &Payload::new(text.into()), context, &place.stores).await
}

#[tokio::test]
async fn a_secret_ends_when_its_token_does() {
    within(async {
        let place = place().await;
        let secret = Secret::of(&place);
        let end = async || secret.whole().await["attributes"]["exp"].clone();
        place.put("ey.ours.1").await.unwrap();
        assert_eq!(end().await, json!(2_000_000_000));
        secret.set(json!({"attributes": {"exp": 2_100_000_000}})).await;
        assert_eq!(place.put("ey.ours.1").await, Ok(Put::Unchanged));
        assert_eq!(end().await, json!(2_000_000_000), "somebody else had put it off");
    })
    .await;
}

#[tokio::test]
async fn a_version_is_disabled_after_the_overlap_and_the_one_in_use_never() {
    within(async {
        let place = place().await;
        let secret = Secret::of(&place);
        let enabled = async || secret.whole().await["enabled"].clone();
        for n in 0..3 {
            assert_eq!(put_at(&place, &place.spec, &format!("ey.ours.{n}"), 0, 600).await, Ok(Put::Written));
        }
        assert_eq!(enabled().await, json!([true, true, true]), "each was in use a moment ago");
        put_at(&place, &place.spec, "ey.ours.3", 700, 600).await.unwrap();
        assert_eq!(enabled().await, json!([false, false, true, true]), "the third was in use until now");
        put_at(&place, &place.spec, "ey.ours.4", 1400, 600).await.unwrap();
        assert_eq!(enabled().await, json!([false, false, false, true, true]));
        put_at(&place, &place.spec, "ey.ours.5", 0, 0).await.unwrap();
        assert_eq!(enabled().await, json!([false, false, false, false, true, true]), "without any overlap too");
    })
    .await;
}

#[tokio::test]
async fn kept_versions_stay_and_so_do_those_that_others_made_before_us() {
    within(async {
        let place = place().await;
        let secret = Secret::of(&place);
        secret.set(json!({"text": "theirs"})).await;
        let keeping = SinkSpec::AzureKeyVault(AzureSpec { adopt: true, keep_versions: Some(3), ..secret.spec.clone() }.into());
        for n in 0..6 {
            put_at(&place, &keeping, &format!("ey.ours.{n}"), 700 * n, 600).await.unwrap();
        }
        assert_eq!(secret.whole().await["enabled"], json!([true, false, false, false, true, true, true]));
        // No more than the tags have room for, however long the overlap.
        for n in 6..12 {
            put_at(&place, &keeping, &format!("ey.ours.{n}"), 0, 1_000_000).await.unwrap();
        }
        let enabled = secret.whole().await["enabled"].as_array().unwrap().iter().filter(|enabled| **enabled == json!(true)).count();
        assert_eq!(enabled, 7, "six of ours and theirs");
    })
    .await;
}

#[tokio::test]
async fn a_version_in_use_that_was_disabled_holds_nothing_and_is_followed_by_a_new_one_where_it_is_ours() {
    within(async {
        let place = place().await;
        let secret = Secret::of(&place);
        for n in 0..30 {
            place.put(&format!("ey.ours.{n}")).await.unwrap();
        }
        secret.set(json!({"attributes": {"enabled": false, "created": now() + 60}})).await;
        assert!(held(&place.spec, &place.stores, Duration::from_secs(20)).await.unwrap().is_none());
        assert_eq!(place.put("ey.ours.29").await, Ok(Put::Written), "its mark was found among more versions than one page has");
        assert_eq!(place.look().await.as_deref(), Some("ey.ours.29"));
        secret.set(json!({"text": "theirs"})).await;
        secret.set(json!({"attributes": {"enabled": false, "created": now() + 120}})).await;
        let failure = place.put("ey.ours.30").await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("adopt: true"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_name_is_refused_with_both_ways_out_until_somebody_takes_one() {
    within(async {
        let place = place().await;
        let name = Secret::of(&place).spec.name;
        place.put("ey.ours.1").await.unwrap();
        let leftover = Leftover::AzureKeyVault(spec(&name));
        assert_eq!(leftover.remove(Ours(&ours), &place.stores, Duration::from_secs(20)).await, Ok(Removal::Gone));
        let failure = place.put("ey.ours.2").await.unwrap_err();
        assert_eq!((failure.kind, failure.retry_after), (FailureKind::Refused, None), "{failure}");
        for way in [format!("secret recover --name {name}"), format!("secret purge --name {name}")] {
            assert!(failure.message.contains(&way), "{failure}");
        }
        place.forget().await;
        assert_eq!(place.put("ey.ours.2").await, Ok(Put::Written));
    })
    .await;
}

#[tokio::test]
async fn an_older_token_never_goes_over_a_newer_one() {
    within(async {
        let place = place().await;
        let at = async |later: i64| put_at(&place, &place.spec, &unsigned(now() + later), later, 600).await;
        assert_eq!(at(100).await, Ok(Put::Written));
        let failure = at(50).await.unwrap_err();
        assert!(failure.kind == FailureKind::Superseded && failure.message.contains("issued after this one"), "{failure}");
        assert_eq!(at(150).await, Ok(Put::Written));
    })
    .await;
}

#[tokio::test]
async fn names_in_great_and_small_letters_are_one_place() {
    let (great, small) = (SinkSpec::AzureKeyVault(spec("Ci-Deployer").into()), SinkSpec::AzureKeyVault(spec("ci-deployer").into()));
    assert_eq!(great.place(), small.place());
}

async fn outcome(store: StoreSpec) -> Result<Put, Failure> {
    attempt(&SinkSpec::AzureKeyVault(spec(&fresh("login")).into()), &stores("azure", store), "ey.one", "1").await
}

#[tokio::test]
async fn a_file_with_a_clusters_token_or_with_an_applications_secret_logs_in_and_once_is_enough() {
    within(async {
        let azure = own().await;
        let other = azure.file("other");
        std::fs::write(&other, "wrong").unwrap();
        for (store, file) in [(azure.federated("assertion"), "assertion"), (azure.with_secret(&azure.file("secret")), "secret")] {
            let before = azure.call(Method::GET, "entra", json!({})).await["logins"].as_i64().unwrap();
            let stores = stores("azure", store);
            for n in 0..3 {
                let spec = SinkSpec::AzureKeyVault(spec(&fresh("login")).into());
                assert_eq!(attempt(&spec, &stores, &format!("ey.{n}"), "1").await, Ok(Put::Written), "{file}");
            }
            let after = azure.call(Method::GET, "entra", json!({})).await["logins"].as_i64().unwrap();
            assert_eq!(after - before, 1, "{file}");
        }
        let failure = outcome(azure.with_secret(&other)).await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("AADSTS7000215"), "{failure}");
        // The secret that is put in the place of the wrong one is taken at once.
        let stores = stores("azure", azure.with_secret(&other));
        let spec = SinkSpec::AzureKeyVault(spec(&fresh("login")).into());
        assert!(attempt(&spec, &stores, "ey.one", "1").await.is_err());
        std::fs::copy(azure.file("secret"), azure.file("next")).unwrap();
        std::fs::rename(azure.file("next"), &other).unwrap();
        assert_eq!(attempt(&spec, &stores, "ey.one", "1").await, Ok(Put::Written));
    })
    .await;
}

#[tokio::test]
async fn a_login_that_was_ended_early_is_made_anew_within_the_same_attempt() {
    within(async {
        let azure = own().await;
        let (stores, spec) = (stores("azure", azure.federated("assertion")), SinkSpec::AzureKeyVault(spec(&fresh("login")).into()));
        assert_eq!(attempt(&spec, &stores, "ey.one", "1").await, Ok(Put::Written));
        azure.call(Method::PUT, "entra", json!({"forget": true})).await;
        assert_eq!(attempt(&spec, &stores, "ey.two", "1").await, Ok(Put::Written));
        assert_eq!(azure.call(Method::GET, "entra", json!({})).await["logins"], 2);
    })
    .await;
}

#[tokio::test]
async fn a_federation_that_is_revoked_a_token_that_ended_and_a_file_that_is_missing_are_told_apart() {
    within(async {
        let azure = own().await;
        assert_eq!(outcome(azure.federated("assertion")).await, Ok(Put::Written));
        let ended = outcome(azure.federated("ended")).await.unwrap_err();
        assert!(ended.kind == FailureKind::Refused && ended.message.contains("it has ended"), "{ended}");
        let missing = outcome(azure.federated("missing")).await.unwrap_err();
        assert!(missing.kind == FailureKind::Local && missing.message.contains("missing"), "{missing}");
        azure.call(Method::PUT, "entra", json!({"federated": false})).await;
        let revoked = outcome(azure.federated("assertion")).await.unwrap_err();
        assert!(revoked.kind == FailureKind::Refused && revoked.message.contains("no federated credential"), "{revoked}");
        for failure in [ended, missing, revoked] {
            assert!(!failure.message.contains("canary"), "{failure}");
        }
        azure.call(Method::PUT, "entra", json!({"federated": true})).await;
        assert_eq!(outcome(azure.federated("assertion")).await, Ok(Put::Written));
    })
    .await;
}

#[tokio::test]
async fn a_token_of_our_own_that_is_refused_is_waited_for_until_its_target_has_brought_another() {
    within(async {
        let azure = own().await;
        let file = azure.file("target");
        std::fs::copy(azure.file("ended"), &file).unwrap();
        let login = WorkloadIdentity { target: Some("azure-login".into()), ..identity(&file) };
        let (from, to, next) = (azure.file("assertion"), file.clone(), azure.file("next"));
        let bring = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            std::fs::copy(from, &next).unwrap();
            std::fs::rename(next, to).unwrap();
        });
        assert_eq!(outcome(azure.store(AzureAuth::WorkloadIdentity(login))).await, Ok(Put::Written));
        bring.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_entra_that_is_busy_or_down_is_waited_for_and_a_vault_that_asks_for_another_services_login_does_not_get_it() {
    within(async {
        let azure = own().await;
        for (status, kind) in [(429, FailureKind::Throttled), (503, FailureKind::Unavailable)] {
            azure.call(Method::PUT, "entra", json!({"error": [status, 90_000]})).await;
            let failure = outcome(azure.federated("assertion")).await.unwrap_err();
            assert_eq!(failure.kind, kind, "{failure}");
        }
        azure.call(Method::PUT, "entra", json!({"error": null, "resource": "https://management.azure.com"})).await;
        let failure = outcome(azure.federated("assertion")).await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("another service"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn whatever_answers_in_azures_place_has_its_kind_and_leaves_no_word_in_the_message() {
    let error = |code: &str, inner: &str| json!({"error": {"code": code, "message": "canary", "innererror": {"code": inner}}}).to_string();
    let html = "<html>canary</html>".to_owned();
    let elsewhere = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    within(async {
        let azure = azure().await;
        let seen = std::sync::Arc::clone(&elsewhere);
        let other = wire::answering(move |_| {
            seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            wire::http("200 OK", "", "")
        })
        .await;
        let table = [
            ("a proxy's page", 200, html.clone(), FailureKind::BadAnswer, ""),
            ("a proxy's refusal", 403, html.clone(), FailureKind::BadAnswer, ""),
            ("a proxy's failure", 502, html, FailureKind::Unavailable, ""),
            ("broken JSON", 200, "{\"value\": \"canary".into(), FailureKind::BadAnswer, ""),
            ("JSON of another shape", 200, "{\"value\": \"canary\"}".into(), FailureKind::BadAnswer, ""),
            ("an endless answer", 200, "x".repeat(3 << 20), FailureKind::BadAnswer, ""),
            ("a redirect", 307, String::new(), FailureKind::BadAnswer, "redirects us"),
            ("no right", 403, error("Forbidden", "ForbiddenByRbac"), FailureKind::Refused, "secrets/getSecret/action"),
            ("a firewall", 403, error("Forbidden", "ForbiddenByFirewall"), FailureKind::Refused, "firewall"),
            ("no login", 401, error("Unauthorized", ""), FailureKind::Refused, "same tenant"),
            ("patience", 429, error("Throttled", ""), FailureKind::Throttled, "asks for patience"),
            ("trouble inside", 500, error("InternalError", ""), FailureKind::Unavailable, ""),
            ("a deletion on its way", 409, error("Conflict", "ObjectIsBeingDeleted"), FailureKind::Conflict, "being deleted"),
        ];
        for (what, status, body, kind, words) in table {
            let name = fresh("odd");
            let head = if kind == FailureKind::Throttled { json!({"retry-after": "7"}) } else { json!({"location": other, "x": "canary"}) };
            let answer = json!({"status": status, "headers": head, "body": body});
            azure.call(Method::PUT, &format!("answers/{name}"), answer).await;
            let stores = stores("azure", azure.federated("assertion"));
            let outcome = attempt(&SinkSpec::AzureKeyVault(spec(&name).into()), &stores, "ey.canary", "1").await;
            let failure = wire::judged(what, outcome, kind, (kind == FailureKind::Throttled).then_some(7));
            assert!(failure.message.contains(words), "{what}: {failure}");
        }
        assert_eq!(elsewhere.load(std::sync::atomic::Ordering::SeqCst), 0, "a redirect was followed");
    })
    .await;
}

#[tokio::test]
async fn a_vault_behind_a_certificate_of_another_ca_is_unavailable_and_one_that_is_gone_too() {
    within(async {
        let azure = azure().await;
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, wire::OTHER_CA).unwrap();
        let mut store = azure.federated("assertion");
        store.azure_key_vault.as_mut().unwrap().ca_file = Some(ca);
        let failure = outcome(store).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
        let mut store = azure.federated("assertion");
        store.azure_key_vault.as_mut().unwrap().address = "https://127.0.0.1:1".into();
        let failure = outcome(store).await.unwrap_err();
        assert!(failure.kind == FailureKind::Unavailable && failure.message.contains("refused"), "{failure}");
        let mut store = azure.store(AzureAuth::ManagedIdentity(ManagedIdentity::default()));
        store.azure_key_vault.as_mut().unwrap().ca_file = Some(azure.file("none.pem"));
        assert_eq!(outcome(store).await.unwrap_err().kind, FailureKind::Local);
    })
    .await;
}

#[tokio::test]
async fn a_probe_writes_nothing_and_says_whose_the_secret_is() {
    within(async {
        let place = place().await;
        let timeout = Duration::from_secs(20);
        let manners = Manners::default();
        let context = Context { target: "ci", issue: "1", issued_at: 0, expires_at: 0, generation: 1, timeout, manners };
        let payload = Payload::new(b"ey.no".to_vec());
        let probe = async || tokenferry::sink::probe(&place.spec, &payload, context, &place.stores).await;
        assert!(probe().await.unwrap().contains("is not there yet"));
        assert_eq!(place.look().await, None);
        place.put("ey.one").await.unwrap();
        assert!(probe().await.unwrap().contains("is there and ours"));
        place.spoil("theirs").await;
        assert_eq!(probe().await.unwrap_err().kind, FailureKind::Refused);
        assert_eq!(place.look().await.as_deref(), Some("theirs"));
    })
    .await;
}

#[test]
fn the_rights_for_azure_are_commands_that_a_shell_runs_as_they_stand() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let az = folder.path().join("az");
    std::fs::write(
        &az,
        "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done >> \"$CALLS\"; [ \"$1\" = keyvault ] && echo /vaults/tokens\nexit 0\n",
    )
    .unwrap();
    std::fs::set_permissions(&az, std::fs::Permissions::from_mode(0o755)).unwrap();
    let example = crate::shipped::root().join("examples/azure.yaml");
    let mut rbac = Command::new(crate::support::daemon::PROGRAM);
    let printed = rbac.arg("rbac").arg(example).args(["--for", "azure", "--withdraw"]).output().unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let calls = folder.path().join("calls");
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c"]).arg(String::from_utf8(printed.stdout).unwrap());
    shell.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display())).env("CALLS", &calls);
    let done = shell.env("SUBSCRIPTION", "sub-1").env("ASSIGNEE", "me").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let words: Vec<String> = std::fs::read_to_string(calls).unwrap().lines().map(str::to_owned).collect();
    let role: Value = serde_json::from_str(words.iter().find(|word| word.starts_with('{')).unwrap()).unwrap();
    assert_eq!(role["AssignableScopes"], json!(["/subscriptions/sub-1"]));
    let actions = ["getSecret/action", "readMetadata/action", "setSecret/action", "update/action", "delete"];
    assert_eq!(role["DataActions"], json!(actions.map(|action| format!("Microsoft.KeyVault/vaults/secrets/{action}"))));
    assert!(words.contains(&"/vaults/tokens/secrets/ci-deployer".to_owned()), "{words:?}");
}
