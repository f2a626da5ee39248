//! `gcpSecretManager` against a server of ours on Google's own messages (`tests/servers/gcp.py`).

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokenferry::sink::gcp::{GcpSpec, GcpStoreSpec, WorkloadIdentity};
use tokenferry::sink::{Context, FailureKind, Manners, Ours, Put, SinkSpec, StoreSpec, held, put};
use tokenferry::token::Payload;

use super::conformance::{Elsewhere, Marks, Outside, Place, attempt, fresh, put_issued, stores, unsigned};
use super::wire;
use crate::support::daemon::{Host, tool};
use crate::support::servers::python;
use crate::support::{until, within};

/// The server, which dies with its standard input: with us.
struct Google {
    address: String,
    credentials: PathBuf,
    _folder: tempfile::TempDir,
    _child: Child,
}

fn google() -> &'static Google {
    static GOOGLE: OnceLock<Google> = OnceLock::new();
    GOOGLE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/servers/gcp.py");
        let child = Command::new(python()).arg(script).arg(folder.path()).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let address = folder.path().join("address");
        until("Google's stand-in serves", 120, || address.exists());
        let (address, credentials) = (std::fs::read_to_string(address).unwrap(), folder.path().join("credentials.json"));
        Google { address, credentials, _folder: folder, _child: child }
    })
}

/// A place at the server.
pub async fn place() -> Place {
    let google = tokio::task::spawn_blocking(google).await.unwrap();
    let spec = GcpSpec { store: "gcp".into(), secret_id: fresh("ci-deployer"), ..GcpSpec::default() };
    let outside = Outside::Other(Box::new(Secret { spec: spec.clone() }));
    Place { spec: SinkSpec::GcpSecretManager(spec.into()), stores: stores("gcp", store(&google.address)), limit: Some(65_536), outside }
}

fn project(endpoint: &str) -> GcpStoreSpec {
    GcpStoreSpec {
        project: "tokens-1".into(),
        locations: Vec::new(),
        credentials_file: Some(google().credentials.clone()),
        workload_identity: None,
        endpoint: Some(endpoint.into()),
    }
}

fn store(endpoint: &str) -> StoreSpec {
    StoreSpec { gcp_secret_manager: Some(project(endpoint)), ..StoreSpec::default() }
}

struct Secret {
    spec: GcpSpec,
}

impl Secret {
    async fn call(&self, method: reqwest::Method, end: &str, body: Value) -> Value {
        let client = reqwest::Client::builder().tls_certs_only(Vec::new()).build().unwrap();
        let url = format!("{}/test/{}{end}", google().address, self.spec.secret_id);
        let answer = client.request(method, url).body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn whole(&self) -> Value {
        self.call(reqwest::Method::GET, "", json!({})).await
    }

    async fn set(&self, body: Value) {
        self.call(reqwest::Method::PUT, "", body).await;
    }
}

impl Elsewhere for Secret {
    fn look(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { Some(self.whole().await["text"].as_str()?.to_owned()) })
    }

    fn spoil<'a>(&'a self, text: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.set(json!({"text": text})))
    }

    fn marks(&self) -> Option<&dyn Marks> {
        Some(self)
    }
}

impl Marks for Secret {
    fn make<'a>(&'a self, value: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.set(json!({"text": value})))
    }

    /// With Google's dots as slashes.
    fn said(&self) -> BoxFuture<'_, BTreeMap<String, String>> {
        Box::pin(async {
            let whole = self.whole().await;
            let pairs = ["labels", "annotations"].into_iter().flat_map(|part| whole[part].as_object().unwrap().clone());
            pairs.map(|(key, value)| (key.replace('.', "/"), value.as_str().unwrap().to_owned())).collect()
        })
    }

    fn spoil(&self) -> BoxFuture<'_, ()> {
        let said = json!({"tokenferry.expires-at": "2020-01-01T00:00:00Z", "team": "b"});
        Box::pin(self.set(json!({"annotations": said})))
    }

    fn adopting(&self) -> SinkSpec {
        SinkSpec::GcpSecretManager(GcpSpec { adopt: true, ..self.spec.clone() }.into())
    }

    fn owner(&self) -> &'static str {
        "payments <team>"
    }
}

fn secret(place: &Place) -> Secret {
    let SinkSpec::GcpSecretManager(spec) = &place.spec else { panic!("a place at Google") };
    Secret { spec: (**spec).clone() }
}

async fn put_with(place: &Place, spec: &SinkSpec, text: &str, overlap: u64) -> Result<Put, tokenferry::sink::Failure> {
    let ours = |found: &Payload| found.expose().starts_with(b"ey.ours");
    let manners = Manners { overlap: Duration::from_secs(overlap), ours: Ours(&ours), ..Manners::default() };
    let timeout = Duration::from_secs(20);
    let context = Context { target: "ci", issue: text, issued_at: 0, expires_at: 2_000_000_000, generation: 1, timeout, manners };
    put(spec, &Payload::new(text.into()), context, &place.stores).await
}

#[tokio::test]
async fn a_version_is_disabled_after_the_overlap_and_destroyed_at_the_delivery_after_that() {
    within(async {
        let place = place().await;
        let secret = secret(&place);
        let states = async || secret.whole().await["states"].clone();
        for n in 0..3 {
            assert_eq!(put_with(&place, &place.spec, &format!("ey.ours.{n}"), 600).await, Ok(Put::Written));
        }
        assert_eq!(states().await, json!([1, 1, 1]), "each was in use a moment ago");
        secret.call(reqwest::Method::POST, "/age", json!({"seconds": 700})).await;
        put_with(&place, &place.spec, "ey.ours.3", 600).await.unwrap();
        assert_eq!(states().await, json!([2, 2, 1, 1]), "the third was replaced just now");
        put_with(&place, &place.spec, "ey.ours.4", 600).await.unwrap();
        assert_eq!(states().await, json!([3, 3, 1, 1, 1]));
        let sums = secret.whole().await["sums"].clone();
        assert_eq!(sums, json!([true, true, true, true, true]), "each was sent with its checksum");
        assert_eq!(place.look().await.as_deref(), Some("ey.ours.4"));
    })
    .await;
}

#[tokio::test]
async fn kept_versions_stay_and_so_do_those_that_others_made_before_us() {
    within(async {
        let place = place().await;
        let secret = secret(&place);
        secret.set(json!({"text": "theirs"})).await;
        secret.set(json!({"text": "theirs too"})).await;
        let keeping = SinkSpec::GcpSecretManager(GcpSpec { adopt: true, keep_versions: Some(2), ..secret.spec.clone() }.into());
        for n in 0..4 {
            put_with(&place, &keeping, &format!("ey.ours.{n}"), 0).await.unwrap();
        }
        assert_eq!(secret.whole().await["states"], json!([1, 1, 3, 2, 1, 1]));
    })
    .await;
}

#[tokio::test]
async fn a_latest_version_that_was_disabled_holds_nothing_and_is_followed_by_a_new_one_where_the_secret_is_ours() {
    within(async {
        let place = place().await;
        let secret = secret(&place);
        place.put("ey.one").await.unwrap();
        secret.set(json!({"disable": true})).await;
        assert!(held(&place.spec, &place.stores, Duration::from_secs(20)).await.unwrap().is_none());
        assert_eq!(place.put("ey.one").await, Ok(Put::Written));
        assert_eq!(place.look().await.as_deref(), Some("ey.one"));
    })
    .await;
}

#[tokio::test]
async fn a_secret_is_made_where_the_store_says() {
    within(async {
        let place = place().await;
        let mut spec = store(&google().address);
        spec.gcp_secret_manager.as_mut().unwrap().locations = vec!["europe-west3".into(), "europe-west4".into()];
        assert_eq!(attempt(&place.spec, &stores("gcp", spec), "ey.one", "1").await, Ok(Put::Written));
        let replicas = json!([{"location": "europe-west3"}, {"location": "europe-west4"}]);
        assert_eq!(secret(&place).whole().await["replication"], json!({"userManaged": {"replicas": replicas}}));
    })
    .await;
}

#[tokio::test]
async fn an_older_token_never_goes_over_a_newer_one() {
    within(async {
        let place = place().await;
        let at = async |issued_at: i64| put_issued(&place.spec, &place.stores, issued_at).await;
        assert_eq!(at(2_000).await, Ok(Put::Written));
        let failure = at(1_000).await.unwrap_err();
        assert!(failure.kind == FailureKind::Superseded && failure.message.contains("issued after this one"), "{failure}");
        assert_eq!(place.look().await, Some(unsigned(2_000)));
        assert_eq!(at(3_000).await, Ok(Put::Written));
    })
    .await;
}

#[tokio::test]
async fn a_redirect_carries_neither_the_token_nor_our_login_anywhere() {
    within(async {
        tokio::task::spawn_blocking(google).await.unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let other = wire::answering(move |request| {
            noted.lock().unwrap().push(request.to_owned());
            wire::http("200 OK", "content-type: application/json\r\n", "{}")
        })
        .await;
        // Nothing is there, and what writes is sent on.
        let address = wire::answering(move |request| {
            let json = "content-type: application/json\r\n";
            if request.starts_with("POST") {
                return wire::http("307 Temporary Redirect", &format!("location: {other}/canary\r\n"), "");
            }
            wire::http("404 Not Found", json, r#"{"error":{"code":404,"message":"canary","status":"NOT_FOUND"}}"#)
        })
        .await;
        let spec = SinkSpec::GcpSecretManager(GcpSpec { store: "gcp".into(), secret_id: "ci".into(), ..GcpSpec::default() }.into());
        let failure = attempt(&spec, &stores("gcp", store(&address)), "ey.canary", "1").await.unwrap_err();
        assert!(failure.kind == FailureKind::BadAnswer && failure.message.contains("redirects us"), "{failure}");
        assert!(!failure.message.contains("canary"), "{failure}");
        assert_eq!(*seen.lock().unwrap(), [""; 0], "the redirect was followed");
    })
    .await;
}

#[tokio::test]
async fn what_was_damaged_on_its_way_is_no_answer() {
    within(async {
        tokio::task::spawn_blocking(google).await.unwrap();
        // `ey.one`, with its CRC32C and with another.
        for (sum, is_good) in [("1", false), ("1885782809", true)] {
            let payload = format!(r#"{{"data":"ZXkub25l","dataCrc32c":"{sum}"}}"#);
            let body = format!(r#"{{"name":"projects/1/secrets/ci/versions/1","payload":{payload}}}"#);
            let address = wire::canned(wire::http("200 OK", "content-type: application/json\r\n", &body)).await;
            let spec = SinkSpec::GcpSecretManager(GcpSpec { store: "gcp".into(), secret_id: "ci".into(), ..GcpSpec::default() }.into());
            let read = held(&spec, &stores("gcp", store(&address)), Duration::from_secs(20)).await;
            match read {
                Ok(found) => assert!(is_good && found.unwrap().expose() == b"ey.one", "{sum} was taken"),
                Err(failure) => {
                    let told = failure.kind == FailureKind::BadAnswer && failure.message.contains("checksum");
                    assert!(!is_good && told, "{failure}");
                }
            }
        }
    })
    .await;
}

/// What Google says of a rate.
const RATE: &str = r#"{"error":{"code":429,"message":"canary","status":"RESOURCE_EXHAUSTED","details":[
    {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com","metadata":{}}]}}"#;

#[tokio::test]
async fn a_federation_that_is_revoked_is_refused_and_one_that_cannot_answer_is_waited_for() {
    within(async {
        tokio::task::spawn_blocking(google).await.unwrap();
        let json = "content-type: application/json\r\n";
        for (status, body, kind, words) in [
            (
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"canary"}"#,
                FailureKind::Refused,
                "does not trust the token",
            ),
            ("503 Service Unavailable", "canary", FailureKind::Unavailable, "cannot answer"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("token"), "ey.login").unwrap();
            let federation = json!({
                "type": "external_account",
                "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": wire::canned(wire::http(status, json, body)).await,
                "credential_source": {"file": folder.path().join("token")},
            });
            let file = folder.path().join("federation.json");
            std::fs::write(&file, federation.to_string()).unwrap();
            let mut store = store(&google().address);
            store.gcp_secret_manager.as_mut().unwrap().credentials_file = Some(file);
            let spec = SinkSpec::GcpSecretManager(GcpSpec { store: "gcp".into(), secret_id: "ci".into(), ..GcpSpec::default() }.into());
            let failure = attempt(&spec, &stores("gcp", store), "ey.one", "1").await.unwrap_err();
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.message.contains(words) && !failure.message.contains("canary"), "{failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_exchange_that_redirects_gets_no_token_and_neither_does_where_it_leads() {
    within(async {
        tokio::task::spawn_blocking(google).await.unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = seen.clone();
        let other = wire::answering(move |request| {
            noted.lock().unwrap().push(request.to_owned());
            wire::http("200 OK", "content-type: application/json\r\n", "{}")
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let (token, file) = (folder.path().join("token"), folder.path().join("federation.json"));
        std::fs::write(&token, "ey.canary").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        let audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q";
        let led = |status: &str| wire::http(status, &format!("location: {other}/canary\r\n"), "");
        // Where it is exchanged, and where the login acts as somebody: either may lead elsewhere.
        for acting in [false, true] {
            for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
                let login = r#"{"access_token":"canary","issued_token_type":"t","token_type":"Bearer","expires_in":3600}"#;
                let token_url = match acting {
                    true => wire::canned(wire::http("200 OK", "content-type: application/json\r\n", login)).await,
                    false => wire::canned(led(status)).await,
                };
                let mut federation = json!({
                    "type": "external_account",
                    "audience": audience,
                    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                    "token_url": token_url,
                    "credential_source": {"file": token},
                });
                if acting {
                    federation["service_account_impersonation_url"] = wire::canned(led(status)).await.into();
                }
                std::fs::write(&file, federation.to_string()).unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
                let by_file = GcpStoreSpec { credentials_file: Some(file.clone()), ..project(&google().address) };
                let identity = WorkloadIdentity {
                    audience: audience.into(),
                    token_file: token.clone(),
                    token_url: Some(token_url),
                    ..WorkloadIdentity::default()
                };
                let by_schedule = GcpStoreSpec { workload_identity: Some(identity), credentials_file: None, ..project(&google().address) };
                let ways = if acting { vec![by_file] } else { vec![by_file, by_schedule] };
                for way in ways {
                    let store = StoreSpec { gcp_secret_manager: Some(way), ..StoreSpec::default() };
                    let spec =
                        SinkSpec::GcpSecretManager(GcpSpec { store: "gcp".into(), secret_id: "ci".into(), ..GcpSpec::default() }.into());
                    let failure = attempt(&spec, &stores("gcp", store), "ey.one", "1").await.unwrap_err();
                    assert_eq!(*seen.lock().unwrap(), [""; 0], "the redirect was followed");
                    assert!(failure.kind == FailureKind::BadAnswer && failure.message.contains("redirects us"), "{failure}");
                    assert!(!failure.message.contains("canary"), "{failure}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn whatever_answers_in_googles_place_has_its_kind_and_leaves_no_word_in_the_message() {
    let json = "content-type: application/json\r\n";
    let error = |code: u16, status: &str| format!(r#"{{"error":{{"code":{code},"message":"canary","status":"{status}"}}}}"#);
    let table = [
        ("a proxy's page", wire::http("200 OK", "content-type: text/html\r\n", "<html>canary</html>"), FailureKind::BadAnswer),
        ("a proxy's failure", wire::http("502 Bad Gateway", "content-type: text/html\r\n", "canary"), FailureKind::Unavailable),
        ("a protocol of its own", b"SSH-2.0-OpenSSH\r\n".to_vec(), FailureKind::Unavailable),
        ("no right", wire::http("403 Forbidden", json, &error(403, "PERMISSION_DENIED")), FailureKind::Refused),
        ("no login", wire::http("401 Unauthorized", json, &error(401, "UNAUTHENTICATED")), FailureKind::Refused),
        ("a redirect", wire::http("307 Temporary Redirect", "location: http://127.0.0.1:1/canary\r\n", ""), FailureKind::BadAnswer),
        ("an endless answer", wire::http("200 OK", json, &"x".repeat(2 << 20)), FailureKind::BadAnswer),
        ("a version quota", wire::http("429 Too Many Requests", json, &error(429, "RESOURCE_EXHAUSTED")), FailureKind::Refused),
        ("a rate", wire::http("429 Too Many Requests", json, RATE), FailureKind::Throttled),
        (
            "a quota with its wait",
            wire::http("429 Too Many Requests", &format!("{json}retry-after: 7\r\n"), &error(429, "RESOURCE_EXHAUSTED")),
            FailureKind::Throttled,
        ),
        ("trouble inside", wire::http("503 Service Unavailable", json, &error(503, "UNAVAILABLE")), FailureKind::Unavailable),
    ];
    within(async {
        tokio::task::spawn_blocking(google).await.unwrap();
        for (what, answer, kind) in table {
            let spec = SinkSpec::GcpSecretManager(GcpSpec { store: "gcp".into(), secret_id: "ci".into(), ..GcpSpec::default() }.into());
            let stores = stores("gcp", store(&wire::canned(answer).await));
            let patience = match what {
                "a version quota" => Some(600),
                "a quota with its wait" => Some(7),
                _ => None,
            };
            wire::judged(what, attempt(&spec, &stores, "ey.canary", "1").await, kind, patience);
        }
    })
    .await;
}

#[test]
fn a_token_that_we_mint_ourselves_logs_in_to_google_without_any_key() {
    let google = google();
    let provider = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/cluster";
    let name = fresh("federated");
    let schedule = |audience: &str| {
        format!(
            "
clusters: {{trial: {{embedded: {{}}}}}}
stores:
  google:
    gcpSecretManager:
      project: tokens-1
      endpoint: {0}
      workloadIdentity: {{audience: '{provider}', target: gcp-login, tokenUrl: '{0}/sts/v1/token'}}
defaults: {{cluster: trial, duration: 1h}}
targets:
  - {{name: one, serviceAccount: ci/one, deliver: [{{gcpSecretManager: {{store: google, secretId: {name}}}}}]}}
  - {{name: gcp-login, serviceAccount: tokenferry/gcp-login, audiences: ['{audience}'], deliver: [{{file: {{path: HERE/out/login}}}}]}}
",
            google.address
        )
    };
    let host = Host::new(&schedule(&format!("https:{provider}")));
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(host.records_of("failed", "one").is_empty(), "its store waits for its login");
    let held = tool(Command::new("curl").args(["-sf", "--noproxy", "*", &format!("{}/test/{name}", google.address)]));
    assert!(held.contains("eyJ"), "{held}");
    // What the pool does not take is told.
    let host = Host::new(&schedule("somebody-else"));
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let line = host.records_of("failed", "one").pop().unwrap();
    let why = line["sinks"][0]["error"].as_str().unwrap();
    assert!(!why.contains("canary") && why.contains("google"), "{why}");
}
