//! Stores that answer what no store should: a socket with one canned answer stands in their place.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokenferry::sink::aws::AwsSpec;
use tokenferry::sink::vault::{AppRoleAuth, TokenAuth, VaultAuth, VaultSpec, VaultStoreSpec};
use tokenferry::sink::{Context, Failure, FailureKind, Put, SinkSpec, StoreSpec, Stores, put};
use tokenferry::token::Payload;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::aws;
use super::conformance::{attempt, stores};
use crate::support::within;

/// A CA that signed nothing.
pub const OTHER_CA: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBgDCCASegAwIBAgIUJpIu4asQ63UA2QSKlX1VLdDGQL8wCgYIKoZIzj0EAwIw\n\
    FTETMBEGA1UEAwwKYW5vdGhlciBDQTAgFw0yNjExMjkxMjM4NTVaGA8yMTI2MTEw\n\
    NTEyMzg1NVowFTETMBEGA1UEAwwKYW5vdGhlciBDQTBZMBMGByqGSM49AgEGCCqG\n\
    SM49AwEHA0IABG66AdofQ+MLQwcyvMgKuDd/lhXMonmWpFveLd/uBBWGo7pNx+0R\n\
    K96rgNmKg30tbv0/ZiIzwG98VYejhtf6zKWjUzBRMB0GA1UdDgQWBBQRI1vjZ4rK\n\
    j6KjLgnmzwQutm8MrDAfBgNVHSMEGDAWgBQRI1vjZ4rKj6KjLgnmzwQutm8MrDAP\n\
    BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIDNU83tW0PqsGb7N0gJL\n\
    ITuVNd8Z7qFgt/RqJpD2YXqYAiA+zvfWrxk59CWNqgNRSZhCL4vtxVD9ZBKtmNF7\n\
    Txsxtw==\n\
    -----END CERTIFICATE-----";

/// Answers every request on every connection with these bytes, then closes; with none it never answers.
pub async fn canned(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 65_536];
                let _ = connection.read(&mut request).await;
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                let _ = connection.write_all(&answer).await;
                let _ = connection.shutdown().await;
                // Unread bytes at the close would turn the answer into a reset.
                while connection.read(&mut request).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

/// An HTTP answer.
pub fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into()
}

/// What became of a strange answer: a failure of that kind, with the patience in seconds that was asked for, and no word
/// of the answer (`canary`) in its message.
pub fn judged(what: &str, outcome: Result<Put, Failure>, kind: FailureKind, patience: Option<u64>) -> Failure {
    let failure = outcome.expect_err(what);
    assert_eq!(failure.kind, kind, "{what}: {failure}");
    assert!(!failure.message.contains("canary"), "{what}: {failure}");
    assert_eq!(failure.retry_after, patience.map(Duration::from_secs), "{what}: {failure}");
    failure
}

struct Vault {
    spec: SinkSpec,
    stores: Stores,
    _folder: tempfile::TempDir,
}

async fn vault(answer: Vec<u8>, login: bool) -> Vault {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "canary-credential").unwrap();
    let auth = if login {
        VaultAuth::AppRole(AppRoleAuth { mount: None, role_id: "role".into(), secret_id_file: file })
    } else {
        VaultAuth::Token(TokenAuth { file })
    };
    let vault = VaultStoreSpec { address: canned(answer).await, namespace: None, ca_file: None, auth };
    let store = StoreSpec { vault: Some(vault), ..StoreSpec::default() };
    let spec = VaultSpec { store: "vault".into(), mount: "secret".into(), path: "ci".into(), key: "token".into(), ..VaultSpec::default() };
    Vault { spec: SinkSpec::Vault(spec.into()), stores: stores("vault", store), _folder: folder }
}

fn nonsense() -> Vec<(&'static str, Vec<u8>, FailureKind)> {
    let json = "content-type: application/json\r\n";
    let html = "content-type: text/html\r\n";
    let huge = format!("{{\"data\":\"{}\"}}", "x".repeat(3 << 20));
    vec![
        ("a proxy's page", http("200 OK", html, "<html>canary</html>"), FailureKind::BadAnswer),
        ("a proxy's refusal", http("403 Forbidden", html, "<html>canary</html>"), FailureKind::BadAnswer),
        ("a proxy's failure", http("502 Bad Gateway", html, "<html>canary</html>"), FailureKind::Unavailable),
        ("no answer of an upstream", http("504 Gateway Timeout", "", ""), FailureKind::Unavailable),
        ("broken JSON", http("200 OK", json, "{\"data\": {\"canary\""), FailureKind::BadAnswer),
        ("JSON of another shape", http("200 OK", json, "[\"canary\"]"), FailureKind::BadAnswer),
        ("nothing at all", http("200 OK", json, ""), FailureKind::BadAnswer),
        ("a redirect", http("307 Temporary Redirect", "location: http://127.0.0.1:1/canary\r\n", ""), FailureKind::BadAnswer),
        ("an endless answer", http("200 OK", json, &huge), FailureKind::BadAnswer),
        ("an answer cut off", http("200 OK", json, &"x".repeat(100))[..150].to_vec(), FailureKind::Unavailable),
        ("a protocol of its own", b"SSH-2.0-OpenSSH\r\n".to_vec(), FailureKind::Unavailable),
        ("patience", http("429 Too Many Requests", "retry-after: 7\r\n", "canary"), FailureKind::Throttled),
        ("a sealed server", http("503 Service Unavailable", json, "{\"errors\":[\"Vault is sealed\"]}"), FailureKind::Unavailable),
    ]
}

#[tokio::test]
async fn whatever_answers_in_vaults_place_has_its_kind_and_leaves_no_word_in_the_message() {
    within(async {
        for (what, answer, kind) in nonsense() {
            let Vault { spec, stores, _folder } = vault(answer, false).await;
            let patience = (kind == FailureKind::Throttled).then_some(7);
            judged(what, attempt(&spec, &stores, "ey.canary", "1").await, kind, patience);
        }
    })
    .await;
}

#[tokio::test]
async fn a_login_that_is_answered_with_nonsense_is_worth_a_fallback() {
    within(async {
        for (what, answer, _) in nonsense() {
            let Vault { spec, stores, _folder } = vault(answer, true).await;
            let failure = attempt(&spec, &stores, "ey.canary", "1").await.unwrap_err();
            assert!(failure.kind.allows_fallback(), "{what}: {failure:?}");
            assert!(!failure.message.contains("canary"), "{what}: {failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_store_that_never_answers_costs_the_attempts_own_time_and_no_more() {
    within(async {
        let Vault { spec, stores, _folder } = vault(Vec::new(), false).await;
        let began = Instant::now();
        let context = Context {
            target: "ci",
            issue: "1",
            issued_at: 0,
            generation: 1,
            expires_at: 0,
            timeout: Duration::from_millis(300),
            manners: tokenferry::sink::Manners::default(),
        };
        let failure = put(&spec, &Payload::new(b"ey.one".to_vec()), context, &stores).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test]
async fn whatever_answers_in_awss_place_has_its_kind_and_leaves_no_word_in_the_message() {
    let json = "content-type: application/x-amz-json-1.1\r\n";
    let error = |code: &str| format!("{{\"__type\":\"{code}\",\"Message\":\"canary\"}}");
    let denied = http("400 Bad Request", json, &error("AccessDeniedException"));
    let throttled = http("400 Bad Request", &format!("{json}retry-after: 7\r\n"), &error("ThrottlingException"));
    let table = [
        ("a proxy's page", http("200 OK", "content-type: text/html\r\n", "<html>canary</html>"), FailureKind::BadAnswer),
        ("a proxy's refusal", http("403 Forbidden", "content-type: text/html\r\n", "<html>canary</html>"), FailureKind::BadAnswer),
        ("a proxy's failure", http("502 Bad Gateway", "content-type: text/html\r\n", "<html>canary</html>"), FailureKind::Unavailable),
        ("broken JSON", http("200 OK", json, "{\"SecretString\":\"canary"), FailureKind::BadAnswer),
        ("an answer cut off", http("200 OK", json, &"x".repeat(100))[..150].to_vec(), FailureKind::Unavailable),
        ("a protocol of its own", b"SSH-2.0-OpenSSH\r\n".to_vec(), FailureKind::Unavailable),
        ("no right", denied, FailureKind::Refused),
        ("patience", throttled, FailureKind::Throttled),
        ("old credentials", http("400 Bad Request", json, &error("ExpiredTokenException")), FailureKind::Refused),
        ("trouble inside", http("500 Internal Server Error", json, &error("InternalServiceError")), FailureKind::Unavailable),
    ];
    within(async {
        for (what, answer, kind) in table {
            let spec = SinkSpec::AwsSecretsManager(
                AwsSpec { store: "aws".into(), secret_id: "ci".into(), key: None, ..AwsSpec::default() }.into(),
            );
            let stores = stores("aws", aws::store(&canned(answer).await));
            let patience = (kind == FailureKind::Throttled).then_some(7);
            judged(what, attempt(&spec, &stores, "ey.canary", "1").await, kind, patience);
        }
    })
    .await;
}

#[tokio::test]
async fn a_quota_of_aws_that_is_used_up_is_asked_again_slowly() {
    within(async {
        let json = "content-type: application/x-amz-json-1.1\r\n";
        let answer = http("400 Bad Request", json, r#"{"__type":"LimitExceededException","Message":"canary"}"#);
        let spec = SinkSpec::AwsSecretsManager(AwsSpec { store: "aws".into(), secret_id: "ci".into(), ..AwsSpec::default() }.into());
        let stores = stores("aws", aws::store(&canned(answer).await));
        let failure = attempt(&spec, &stores, "ey.canary", "1").await.unwrap_err();
        assert_eq!((failure.kind, failure.retry_after), (FailureKind::Refused, Some(Duration::from_secs(600))), "{failure}");
    })
    .await;
}

/// A request's head, and as much of its body as it says; `None` where it breaks off.
async fn request(connection: &mut tokio::net::TcpStream) -> Option<Vec<u8>> {
    let (mut text, mut bytes) = (Vec::new(), [0; 65_536]);
    loop {
        let Ok(count @ 1..) = connection.read(&mut bytes).await else { return None };
        text.extend_from_slice(&bytes[..count]);
        let all = String::from_utf8_lossy(&text).to_lowercase();
        let Some(head) = all.find("\r\n\r\n") else { continue };
        let length = all.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if text.len() >= head + 4 + length.unwrap_or(0) {
            return Some(text);
        }
    }
}

/// Answers each request by its text, one connection for each.
pub async fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = std::sync::Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let answer = std::sync::Arc::clone(&answer);
            tokio::spawn(async move {
                let Some(text) = request(&mut connection).await else { return };
                let _ = connection.write_all(&answer(&String::from_utf8_lossy(&text))).await;
                let _ = connection.shutdown().await;
                while connection.read(&mut [0; 65_536]).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

/// Brings each request to `server` when `before` has had its way, one connection for each.
pub async fn relaying(server: String, before: impl Fn(&str) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let before = std::sync::Arc::new(before);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let (before, server) = (std::sync::Arc::clone(&before), server.clone());
            tokio::spawn(async move {
                let Some(text) = request(&mut connection).await else { return };
                before(&String::from_utf8_lossy(&text)).await;
                let mut there = tokio::net::TcpStream::connect(server.strip_prefix("http://").unwrap()).await.unwrap();
                // The next request comes by another connection, and so by `before`.
                let (line, rest) = text.split_at(text.windows(2).position(|two| two == b"\r\n").unwrap());
                there.write_all(&[line, b"\r\nconnection: close", rest].concat()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut connection, &mut there).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_vault_that_acknowledges_and_keeps_something_else_has_not_written() {
    within(async {
        let json = "content-type: application/json\r\n";
        for (version, kind, words) in [
            (1, FailureKind::BadAnswer, "acknowledged, and holds something else"),
            (2, FailureKind::Conflict, "somebody else writes there"),
        ] {
            let posted = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let address = answering(move |request| {
                let was = posted.load(std::sync::atomic::Ordering::SeqCst);
                if request.contains("sys/internal/ui/mounts") {
                    http("200 OK", json, r#"{"data":{"type":"kv","path":"secret/","options":{"version":"2"}}}"#)
                } else if request.starts_with("POST") || request.starts_with("PUT") {
                    posted.store(true, std::sync::atomic::Ordering::SeqCst);
                    http("200 OK", json, r#"{"data":{"version":1}}"#)
                } else if was {
                    http("200 OK", json, &format!(r#"{{"data":{{"data":{{"token":"older"}},"metadata":{{"version":{version}}}}}}}"#))
                } else {
                    http("404 Not Found", json, r#"{"errors":[]}"#)
                }
            })
            .await;
            let mut at = vault(Vec::new(), false).await;
            let file = at._folder.path().join("secret");
            let spec = VaultStoreSpec { address, namespace: None, ca_file: None, auth: VaultAuth::Token(TokenAuth { file }) };
            at.stores = stores("vault", StoreSpec { vault: Some(spec), ..StoreSpec::default() });
            let failure = attempt(&at.spec, &at.stores, "payload", "1").await.unwrap_err();
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_aws_whose_current_stage_does_not_have_what_it_acknowledged_has_not_written() {
    within(async {
        let json = "content-type: application/x-amz-json-1.1\r\n";
        let address = answering(move |request| {
            let lower = request.to_lowercase();
            if lower.contains("secretsmanager.putsecretvalue") {
                // The version has the name that the request gave it.
                let token = request.split_once("\"ClientRequestToken\":\"").and_then(|(_, rest)| rest.split_once('"')).expect("a token").0;
                return http("200 OK", json, &format!(r#"{{"Name":"ci","VersionId":"{token}","VersionStages":["AWSCURRENT"]}}"#));
            }
            http("200 OK", json, r#"{"Name":"ci","VersionId":"old","SecretString":"older","VersionStages":["AWSCURRENT"]}"#)
        })
        .await;
        let stores = stores("aws", aws::store(&address));
        let spec = AwsSpec { store: "aws".into(), secret_id: "ci".into(), key: None, adopt: true, ..AwsSpec::default() };
        let failure = attempt(&SinkSpec::AwsSecretsManager(spec.into()), &stores, "payload", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Conflict, "{failure}");
        assert!(failure.message.contains("version old has the stage AWSCURRENT"), "{failure}");
    })
    .await;
}
