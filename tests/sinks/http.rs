//! `http` against a server of ours that keeps what is sent to each path, for those who bring its key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokenferry::sink::http::{Body, HttpSpec, ReadBack, Verb};
use tokenferry::sink::{self, FailureKind, Manners, Ours, Put, SinkSpec, Stores};
use tokenferry::token::Payload;

use super::conformance::{Elsewhere, Outside, Place, attempt, attempt_as, fresh, put_issued, unsigned};
use super::wire;
use crate::support::within;

type Kept = Arc<Mutex<BTreeMap<String, String>>>;

/// One that needs `x-key: k-1`; GET, PUT, POST and PATCH. Answers `/json/…` as `{"value": …}`.
async fn server(kept: Kept) -> String {
    wire::answering(move |request| {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut words = head.split(' ');
        let (verb, path) = (words.next().unwrap(), words.next().unwrap().to_owned());
        if !head.to_lowercase().contains("\r\nx-key: k-1") {
            return wire::http("401 Unauthorized", "", "canary");
        }
        let mut kept = kept.lock().unwrap();
        match (verb, kept.get(&path)) {
            ("GET", None) => wire::http("404 Not Found", "", "canary"),
            ("GET", Some(found)) if path.starts_with("/json/") => {
                wire::http("200 OK", "content-type: application/json\r\n", &serde_json::json!({"value": found}).to_string())
            }
            ("GET", Some(found)) => wire::http("200 OK", "", found),
            _ => {
                kept.insert(path, body.to_owned());
                wire::http("204 No Content", "", "")
            }
        }
    })
    .await
}

struct Keeper {
    kept: Kept,
    path: String,
    _folder: tempfile::TempDir,
}

impl Elsewhere for Keeper {
    fn look(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { self.kept.lock().unwrap().get(&self.path).cloned() })
    }

    fn spoil<'a>(&'a self, text: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async { drop(self.kept.lock().unwrap().insert(self.path.clone(), text.to_owned())) })
    }
}

fn key(folder: &Path) -> PathBuf {
    let path = folder.join("headers");
    std::fs::write(&path, "X-Key: k-1\n\nX-Other: a: b\n").unwrap();
    path
}

/// A place that can be read back, and that takes whatever stands there for its own.
pub async fn place() -> Place {
    place_under("/variables").await
}

async fn place_under(path: &str) -> Place {
    let (kept, folder) = (Kept::default(), tempfile::tempdir().unwrap());
    let path = format!("{path}/{}", fresh("token"));
    let spec = HttpSpec {
        url: format!("{}{path}", server(Arc::clone(&kept)).await),
        headers_file: Some(key(folder.path())),
        content_type: "text/plain".into(),
        expect: vec![204],
        read_back: Some(ReadBack::default()),
        adopt: true,
        ..HttpSpec::default()
    };
    let outside = Outside::Other(Box::new(Keeper { kept, path, _folder: folder }));
    Place { spec: SinkSpec::Http(spec.into()), stores: Stores::default(), limit: None, outside }
}

fn spec_of(place: &Place) -> HttpSpec {
    let SinkSpec::Http(spec) = &place.spec else { panic!("a place of http") };
    (**spec).clone()
}

fn at(url: String) -> HttpSpec {
    HttpSpec { url, content_type: "text/plain".into(), expect: vec![200, 204], ..HttpSpec::default() }
}

#[tokio::test]
async fn what_is_no_token_of_the_target_stays_until_the_schedule_says_adopt() {
    within(async {
        let ours = |found: &Payload| found.expose().starts_with(b"ey.ours");
        let manners = Manners { ours: Ours(&ours), ..Manners::default() };
        let place = place().await;
        let guarded = SinkSpec::Http(HttpSpec { adopt: false, ..spec_of(&place) }.into());
        place.spoil("theirs").await;
        let failure = attempt_as(&guarded, &place.stores, "ey.ours.2", "1", manners).await.unwrap_err();
        assert!(failure.kind == FailureKind::Refused && failure.message.contains("adopt: true"), "{failure}");
        assert!(!failure.message.contains("theirs"), "{failure}");
        assert_eq!(place.look().await.as_deref(), Some("theirs"));
        place.spoil("ey.ours.1").await;
        assert_eq!(attempt_as(&guarded, &place.stores, "ey.ours.2", "1", manners).await, Ok(Put::Written));
        assert_eq!(place.look().await.as_deref(), Some("ey.ours.2"));
    })
    .await;
}

#[tokio::test]
async fn an_older_token_never_goes_over_a_newer_one_that_can_be_read_back() {
    within(async {
        let place = place().await;
        place.spoil(&unsigned(2_000)).await;
        let at = async |issued_at: i64| put_issued(&place.spec, &place.stores, issued_at).await;
        let failure = at(1_000).await.unwrap_err();
        assert!(failure.kind == FailureKind::Superseded && failure.message.contains("issued after this one"), "{failure}");
        assert_eq!(place.look().await, Some(unsigned(2_000)));
        assert_eq!(at(3_000).await, Ok(Put::Written));
    })
    .await;
}

#[tokio::test]
async fn a_pointer_finds_the_token_within_what_was_sent() {
    within(async {
        let place = place_under("/json").await;
        let way = ReadBack { pointer: Some("/value".into()), url: None };
        let spec = SinkSpec::Http(HttpSpec { read_back: Some(way), ..spec_of(&place) }.into());
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        let body = format!("{{\"value\":\"{token}\"}}");
        assert_eq!(attempt(&spec, &place.stores, &body, "1").await, Ok(Put::Written));
        // Most servers keep the token alone of what they are sent.
        place.spoil(token).await;
        assert_eq!(attempt(&spec, &place.stores, &body, "1").await, Ok(Put::Unchanged));
        // A word of the body that is no token is not mistaken for one.
        place.spoil("value").await;
        assert_eq!(attempt(&spec, &place.stores, &body, "1").await, Ok(Put::Written));
        let held = sink::held(&spec, &place.stores, Duration::from_secs(20)).await.unwrap().unwrap();
        assert_eq!(held.expose(), body.as_bytes());
    })
    .await;
}

#[tokio::test]
async fn verb_kind_of_content_and_body_are_as_written_and_without_a_way_back_each_put_is_sent() {
    within(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        for (verb, word) in [(Verb::Put, "PUT /x?a=1 "), (Verb::Post, "POST /x?a=1 "), (Verb::Patch, "PATCH /x?a=1 ")] {
            let noted = Arc::clone(&seen);
            let address = wire::answering(move |request| {
                noted.lock().unwrap().push(request.to_owned());
                wire::http("200 OK", "", "")
            })
            .await;
            let spec = HttpSpec { method: verb, content_type: "application/json".into(), ..at(format!("{address}/x?a=1")) };
            for _ in 0..2 {
                assert_eq!(attempt(&SinkSpec::Http(spec.clone().into()), &Stores::default(), "{\"v\":1}", "1").await, Ok(Put::Written));
            }
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            assert_eq!(seen.len(), 2, "{seen:?}");
            let whole = seen[0].to_lowercase();
            assert!(seen[0].starts_with(word) && seen[0].ends_with("\r\n\r\n{\"v\":1}"), "{seen:?}");
            assert!(whole.contains("\r\ncontent-type: application/json\r\n") && whole.contains("\r\nuser-agent: tokenferry/"), "{seen:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn each_answer_has_its_kind_and_leaves_no_word_in_the_message() {
    within(async {
        for (what, answer, kind) in [
            ("a redirect", wire::http("307 Temporary Redirect", "location: http://127.0.0.1:1/canary\r\n", ""), FailureKind::BadAnswer),
            ("another code of success", wire::http("202 Accepted", "", "canary"), FailureKind::BadAnswer),
            ("no key", wire::http("401 Unauthorized", "", "canary"), FailureKind::Refused),
            ("nothing there", wire::http("404 Not Found", "", "canary"), FailureKind::Refused),
            ("a conflict", wire::http("409 Conflict", "", "canary"), FailureKind::Conflict),
            ("too much", wire::http("413 Content Too Large", "", "canary"), FailureKind::TooLarge),
            ("nonsense", wire::http("422 Unprocessable Content", "", "canary"), FailureKind::Refused),
            ("patience", wire::http("429 Too Many Requests", "retry-after: 7\r\n", "canary"), FailureKind::Throttled),
            ("trouble", wire::http("503 Service Unavailable", "", "canary"), FailureKind::Unavailable),
            ("a protocol of its own", b"SSH-2.0-OpenSSH\r\n".to_vec(), FailureKind::Unavailable),
        ] {
            let spec = at(format!("{}/hook?key=canary", wire::canned(answer).await));
            let failure = attempt(&SinkSpec::Http(spec.into()), &Stores::default(), "ey.canary", "1").await.unwrap_err();
            assert_eq!(failure.kind, kind, "{what}: {failure}");
            assert!(!failure.message.contains("canary"), "{what}: {failure}");
            let patience = (kind == FailureKind::Throttled).then_some(Duration::from_secs(7));
            assert_eq!(failure.retry_after, patience, "{what}");
        }
        let failure = attempt(&SinkSpec::Http(at("http://127.0.0.1:1/x".into()).into()), &Stores::default(), "ey", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
    })
    .await;
}

#[tokio::test]
async fn headers_that_cannot_be_used_are_our_own_fault_and_are_not_quoted() {
    use std::os::unix::fs::PermissionsExt;
    within(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        let spec = HttpSpec { headers_file: Some(path.clone()), ..at(format!("{}/x", server(Kept::default()).await)) };
        let put = async || attempt(&SinkSpec::Http(spec.clone().into()), &Stores::default(), "ey", "1").await;
        assert_eq!(put().await.unwrap_err().kind, FailureKind::Local);
        for text in ["canary", "X Y: canary", "X-A: one\nHost: canary", "X-A: can\u{7f}ary", "content-type: canary"] {
            std::fs::write(&path, text).unwrap();
            let failure = put().await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Local, "{text}: {failure}");
            assert!(failure.message.contains("line ") && !failure.message.contains("canary"), "{text}: {failure}");
        }
        std::fs::write(&path, "X-Key: k-1").unwrap();
        assert_eq!(put().await, Ok(Put::Written));
        // A file that anyone may write to is no way to say who we are.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o606)).unwrap();
        assert_eq!(put().await.unwrap_err().kind, FailureKind::Local);
    })
    .await;
}

#[tokio::test]
async fn a_probe_sends_no_token_and_without_a_way_back_nothing_at_all() {
    within(async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let address = wire::answering(move |request| {
            noted.lock().unwrap().push(request.to_owned());
            wire::http("404 Not Found", "", "")
        })
        .await;
        let context = sink::Context {
            target: "ci",
            issue: "1",
            issued_at: 0,
            expires_at: 0,
            generation: 1,
            timeout: Duration::from_secs(20),
            manners: Manners::default(),
        };
        let payload = Payload::new(b"ey.canary".to_vec());
        let probe = async |spec: HttpSpec| sink::probe(&SinkSpec::Http(spec.into()), &payload, context, &Stores::default()).await;
        assert!(probe(at(format!("{address}/x"))).await.unwrap().contains("no request was sent"));
        assert!(seen.lock().unwrap().is_empty());
        let readable = HttpSpec { read_back: Some(ReadBack::default()), ..at(format!("{address}/x")) };
        assert!(probe(readable).await.unwrap().contains("nothing is there yet"));
        let seen = seen.lock().unwrap();
        assert!(seen.len() == 1 && seen[0].starts_with("GET /x ") && !seen[0].contains("canary"), "{seen:?}");
    })
    .await;
}

#[test]
fn a_body_takes_the_place_of_the_format() {
    let spec = HttpSpec { body: Some(Body { text: "{\"v\": {{ token|tojson }}}".into() }), ..at("https://h/x".into()) };
    let format = SinkSpec::Http(spec.into()).kind_of().format();
    assert_eq!(format, Some(tokenferry::token::Format::Template("{\"v\": {{ token|tojson }}}".into())));
}
