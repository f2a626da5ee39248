//! `awsParameterStore` against moto, spoken to by plain requests; and its signature, which moto does not look at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokenferry::sink::aws::parameter::{ParameterSpec, ParameterStoreSpec, Tier, held};
use tokenferry::sink::{self, FailureKind, Put, SinkSpec, StoreSpec};

use super::conformance::{Elsewhere, Marks, Outside, Place, attempt, fresh, stores};
use super::conformance::{put_issued, unsigned};
use super::{aws, wire};
use crate::support::servers::servers;
use crate::support::within;

/// A place in the shared moto.
pub async fn place() -> Place {
    let moto = tokio::task::spawn_blocking(|| servers().moto()).await.unwrap();
    let spec = ParameterSpec { store: "aws".into(), name: format!("/ci/{}", fresh("deployer")), ..ParameterSpec::default() };
    let other = Moto { endpoint: moto.endpoint.clone(), spec: spec.clone() };
    Place {
        spec: SinkSpec::AwsParameterStore(spec.into()),
        stores: stores("aws", store(&moto.endpoint)),
        limit: Some(4_096),
        outside: Outside::Other(Box::new(other)),
    }
}

fn store(endpoint: &str) -> StoreSpec {
    let login = aws::store(endpoint).aws_secrets_manager.map(ParameterStoreSpec);
    StoreSpec { aws_parameter_store: login, ..StoreSpec::default() }
}

struct Moto {
    endpoint: String,
    spec: ParameterSpec,
}

impl Moto {
    async fn call(&self, operation: &str, body: Value) -> (u16, Value) {
        let who = "AWS4-HMAC-SHA256 Credential=AKIAOTHER/20260101/eu-central-1/ssm/aws4_request, SignedHeaders=host, Signature=x";
        let client = reqwest::Client::builder().tls_certs_only(Vec::new()).build().unwrap();
        let request = client.post(&self.endpoint).header("authorization", who).header("x-amz-target", format!("AmazonSSM.{operation}"));
        let answer = request.header("content-type", "application/x-amz-json-1.1").body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn done(&self, operation: &str, body: Value) -> Value {
        let (status, answer) = self.call(operation, body).await;
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    async fn set(&self, value: &str, kind: &str) {
        self.done("PutParameter", json!({"Name": self.spec.name, "Value": value, "Type": kind, "Overwrite": true})).await;
    }
}

impl Elsewhere for Moto {
    fn look(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async {
            let (status, found) = self.call("GetParameter", json!({"Name": self.spec.name, "WithDecryption": true})).await;
            let found = &found["Parameter"];
            assert!(status != 200 || found["Type"] == "SecureString", "{found}");
            Some(found["Value"].as_str()?.to_owned())
        })
    }

    fn spoil<'a>(&'a self, text: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.set(text, "SecureString"))
    }

    fn marks(&self) -> Option<&dyn Marks> {
        Some(self)
    }
}

impl Marks for Moto {
    fn make<'a>(&'a self, value: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.set(value, "SecureString"))
    }

    fn said(&self) -> BoxFuture<'_, BTreeMap<String, String>> {
        Box::pin(async {
            let found = self.done("ListTagsForResource", json!({"ResourceType": "Parameter", "ResourceId": self.spec.name})).await;
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            found["TagList"].as_array().unwrap().iter().map(|tag| (text(&tag["Key"]), text(&tag["Value"]))).collect()
        })
    }

    fn spoil(&self) -> BoxFuture<'_, ()> {
        let tags = json!([{"Key": "tokenferry/expires-at", "Value": "2020-01-01T00:00:00Z"}, {"Key": "team", "Value": "b"}]);
        Box::pin(async move {
            self.done("AddTagsToResource", json!({"ResourceType": "Parameter", "ResourceId": self.spec.name, "Tags": tags})).await;
        })
    }

    fn adopting(&self) -> SinkSpec {
        SinkSpec::AwsParameterStore(ParameterSpec { adopt: true, ..self.spec.clone() }.into())
    }

    fn owner(&self) -> &'static str {
        "payments _team_"
    }
}

/// What is known of a place beside its sink.
fn parts(place: &Place) -> (Moto, &ParameterSpec) {
    let SinkSpec::AwsParameterStore(spec) = &place.spec else { panic!("a parameter") };
    (Moto { endpoint: servers().moto().endpoint.clone(), spec: (**spec).clone() }, spec)
}

#[tokio::test]
async fn a_parameter_of_another_type_is_refused_even_where_it_may_be_taken_over() {
    within(async {
        let place = place().await;
        let (moto, spec) = parts(&place);
        moto.set("hunter2", "String").await;
        for adopt in [false, true] {
            let spec = SinkSpec::AwsParameterStore(ParameterSpec { adopt, ..spec.clone() }.into());
            let failure = attempt(&spec, &place.stores, "ey.one", "1").await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
            assert!(failure.message.contains("SecureString") && !failure.message.contains("hunter2"), "{failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_parameter_gets_no_new_version_and_an_advanced_one_holds_more() {
    within(async {
        let place = place().await;
        let (moto, spec) = parts(&place);
        for text in ["a", "a", "b", "b", "a"] {
            place.put(text).await.unwrap();
        }
        let found = moto.done("GetParameter", json!({"Name": spec.name})).await;
        assert_eq!(found["Parameter"]["Version"], 3);
        let large = "x".repeat(5_000);
        let failure = place.put(&large).await.unwrap_err();
        assert!(failure.kind == FailureKind::TooLarge && failure.message.contains("tier: advanced"), "{failure}");
        let advanced = SinkSpec::AwsParameterStore(ParameterSpec { tier: Tier::Advanced, ..spec.clone() }.into());
        assert_eq!(attempt(&advanced, &place.stores, &large, "1").await, Ok(Put::Written));
        assert_eq!(attempt(&advanced, &place.stores, &"x".repeat(8_193), "1").await.unwrap_err().kind, FailureKind::TooLarge);
        assert_eq!(held(spec, &place.stores, Duration::from_secs(20)).await.unwrap().unwrap().expose(), large.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn a_probe_writes_nothing_and_says_whose_the_parameter_is() {
    within(async {
        let place = place().await;
        let (moto, _) = parts(&place);
        let context = sink::Context {
            target: "ci",
            issue: "1",
            issued_at: 0,
            expires_at: 0,
            generation: 1,
            timeout: Duration::from_secs(20),
            manners: sink::Manners::default(),
        };
        let payload = tokenferry::token::Payload::new(b"ey.no".to_vec());
        let probe = async || sink::probe(&place.spec, &payload, context, &place.stores).await;
        assert!(probe().await.unwrap().contains("is not there yet"));
        assert_eq!(place.look().await, None);
        place.put("ey.one").await.unwrap();
        assert!(probe().await.unwrap().contains("is there and ours"));
        moto.done("RemoveTagsFromResource", json!({"ResourceType": "Parameter", "ResourceId": moto.spec.name, "TagKeys": ["managed-by"]}))
            .await;
        assert_eq!(probe().await.unwrap_err().kind, FailureKind::Refused);
        assert_eq!(place.look().await.as_deref(), Some("ey.one"));
    })
    .await;
}

#[tokio::test]
async fn whatever_answers_in_its_place_has_its_kind_and_leaves_no_word_in_the_message() {
    let json = "content-type: application/x-amz-json-1.1\r\n";
    let error = |code: &str| format!("{{\"__type\":\"com.amazonaws.ssm#{code}\",\"message\":\"canary\"}}");
    let throttled = wire::http("400 Bad Request", &format!("{json}retry-after: 7\r\n"), &error("ThrottlingException"));
    let table = [
        ("a proxy's page", wire::http("200 OK", "content-type: text/html\r\n", "<html>canary</html>"), FailureKind::BadAnswer),
        ("a proxy's refusal", wire::http("403 Forbidden", "content-type: text/html\r\n", "canary"), FailureKind::BadAnswer),
        ("a proxy's failure", wire::http("502 Bad Gateway", "content-type: text/html\r\n", "canary"), FailureKind::Unavailable),
        ("a redirect", wire::http("307 Temporary Redirect", "location: http://127.0.0.1:1/canary\r\n", ""), FailureKind::BadAnswer),
        ("broken JSON", wire::http("200 OK", json, "{\"Parameter\":\"canary"), FailureKind::BadAnswer),
        ("JSON of another shape", wire::http("200 OK", json, "{\"canary\":1}"), FailureKind::BadAnswer),
        ("an endless answer", wire::http("200 OK", json, &format!("\"{}\"", "x".repeat(2 << 20))), FailureKind::BadAnswer),
        ("an answer cut off", wire::http("200 OK", json, &"x".repeat(100))[..150].to_vec(), FailureKind::Unavailable),
        ("a protocol of its own", b"SSH-2.0-OpenSSH\r\n".to_vec(), FailureKind::Unavailable),
        ("no right", wire::http("400 Bad Request", json, &error("AccessDeniedException")), FailureKind::Refused),
        ("patience", throttled, FailureKind::Throttled),
        ("two at once", wire::http("400 Bad Request", json, &error("TooManyUpdates")), FailureKind::Conflict),
        ("old credentials", wire::http("400 Bad Request", json, &error("ExpiredTokenException")), FailureKind::Refused),
        ("trouble inside", wire::http("500 Internal Server Error", json, &error("InternalServerError")), FailureKind::Unavailable),
    ];
    within(async {
        for (what, answer, kind) in table {
            let spec =
                SinkSpec::AwsParameterStore(ParameterSpec { store: "aws".into(), name: "/ci".into(), ..ParameterSpec::default() }.into());
            let stores = stores("aws", store(&wire::canned(answer).await));
            let patience = (kind == FailureKind::Throttled).then_some(7);
            wire::judged(what, attempt(&spec, &stores, "ey.canary", "1").await, kind, patience);
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_and_is_not_read_back_was_not_written() {
    within(async {
        let json = "content-type: application/x-amz-json-1.1\r\n";
        for (version, kind, words) in [
            (6, FailureKind::Conflict, "somebody else wrote version 6 over it"),
            (5, FailureKind::BadAnswer, "holds something else"),
            (4, FailureKind::BadAnswer, "version 4 is still read"),
        ] {
            let address = wire::answering(move |request| {
                let answer = if request.contains("AmazonSSM.PutParameter") {
                    r#"{"Version":5,"Tier":"Standard"}"#.to_owned()
                } else if request.contains("AmazonSSM.ListTags") {
                    r#"{"TagList":[{"Key":"managed-by","Value":"tokenferry"}]}"#.to_owned()
                } else {
                    format!(r#"{{"Parameter":{{"Type":"SecureString","Value":"older","Version":{version}}}}}"#)
                };
                wire::http("200 OK", json, &answer)
            })
            .await;
            let spec =
                SinkSpec::AwsParameterStore(ParameterSpec { store: "aws".into(), name: "/ci".into(), ..ParameterSpec::default() }.into());
            let failure = attempt(&spec, &stores("aws", store(&address)), "payload", "1").await.unwrap_err();
            assert!(failure.kind == kind && failure.message.contains(words), "{failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_older_token_never_goes_over_a_newer_one() {
    within(async {
        let place = place().await;
        assert_eq!(put_issued(&place.spec, &place.stores, 2_000).await, Ok(Put::Written));
        let failure = put_issued(&place.spec, &place.stores, 1_000).await.unwrap_err();
        assert!(failure.kind == FailureKind::Superseded && failure.message.contains("issued after this one"), "{failure}");
        assert_eq!(place.look().await, Some(unsigned(2_000)));
        assert_eq!(put_issued(&place.spec, &place.stores, 3_000).await, Ok(Put::Written));
        assert_eq!(place.look().await, Some(unsigned(3_000)));
    })
    .await;
}

#[tokio::test]
async fn a_newer_token_that_came_between_the_look_and_the_write_is_put_back() {
    within(async {
        let place = place().await;
        let (moto, spec) = parts(&place);
        assert_eq!(put_issued(&place.spec, &place.stores, 1_000).await, Ok(Put::Written));
        // A way to moto on which somebody else's newer token always comes just before our write.
        let (other, name) = (moto.endpoint.clone(), spec.name.clone());
        let address = wire::relaying(moto.endpoint.clone(), move |request| {
            let ours = request.contains("AmazonSSM.PutParameter") && request.contains(&unsigned(1_500));
            let theirs = Moto { endpoint: other.clone(), spec: ParameterSpec { name: name.clone(), ..ParameterSpec::default() } };
            Box::pin(async move {
                if ours {
                    let body = json!({"Name": theirs.spec.name, "Value": unsigned(2_000), "Type": "SecureString", "Overwrite": true});
                    theirs.done("PutParameter", body).await;
                }
            })
        })
        .await;
        let failure = put_issued(&place.spec, &stores("aws", store(&address)), 1_500).await.unwrap_err();
        assert!(failure.kind == FailureKind::Superseded && failure.message.contains("put back"), "{failure}");
        assert_eq!(place.look().await, Some(unsigned(2_000)));
    })
    .await;
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(text: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

/// The signature that the request should have, by AWS's description of it (Signature Version 4), for the secret `test`.
fn signature(request: &str) -> (String, String) {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let headers: BTreeMap<String, String> =
        head.lines().skip(1).map(|l| l.split_once(':').unwrap()).map(|(n, v)| (n.to_lowercase(), v.trim().to_owned())).collect();
    let said = &headers["authorization"];
    let part = |name: &str| said.split(name).nth(1).unwrap().split([',', ' ']).next().unwrap().to_owned();
    let (signed, scope) = (part("SignedHeaders="), part("Credential="));
    let scope = scope.split_once('/').unwrap().1;
    let lines: String = signed.split(';').map(|name| format!("{name}:{}\n", headers[name])).collect();
    for needed in ["content-type", "host", "x-amz-date", "x-amz-target"] {
        assert!(signed.split(';').any(|name| name == needed), "{needed} is not signed: {signed}");
    }
    let canonical = format!("POST\n/\n\n{lines}\n{signed}\n{}", sha256(body));
    let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", headers["x-amz-date"], sha256(&canonical));
    let key = scope.split('/').fold(b"AWS4test".to_vec(), |key, part| hmac(&key, part));
    assert!(scope.ends_with("/eu-central-1/ssm/aws4_request"), "{scope}");
    (part("Signature="), hex(&hmac(&key, &to_sign)))
}

#[tokio::test]
async fn every_request_has_the_signature_that_aws_describes() {
    within(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let address = wire::answering(move |request| {
            noted.lock().unwrap().push(request.to_owned());
            wire::http("400 Bad Request", "content-type: application/x-amz-json-1.1\r\n", r#"{"__type":"ParameterNotFound"}"#)
        })
        .await;
        let spec =
            SinkSpec::AwsParameterStore(ParameterSpec { store: "aws".into(), name: "/ci".into(), ..ParameterSpec::default() }.into());
        assert!(attempt(&spec, &stores("aws", store(&address)), "ey.one", "1").await.is_err());
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2, "one reads, one writes: {seen:?}");
        for request in seen.iter() {
            let (said, right) = signature(request);
            assert_eq!(said, right, "{request}");
        }
    })
    .await;
}
