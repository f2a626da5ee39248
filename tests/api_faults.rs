//! T6, the API server's side: every way in which an answer to TokenRequest can go wrong. The old token stays, the
//! record says why, nobody else is disturbed, and the next good answer is taken. A stand-in answers, because a
//! real server cannot be made to show most of these.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::daemon::Host;
use crate::support::until;

/// What the stand-in does with the next requests.
#[derive(Clone)]
enum Answer {
    Good,
    /// Status line, further headers, body.
    Whole(&'static str, &'static str, String),
    /// Raw bytes, then the connection ends.
    Raw(Vec<u8>),
    /// Nothing, for ever.
    Silence,
    /// One byte each 200 ms.
    Trickle,
    /// The connection ends at once.
    HangUp,
    /// 401 once, then good.
    RefuseOnce,
}

fn token(subject: &str, life: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let part = |v: serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let jti = format!("{:x}", Instant::now().elapsed().as_nanos() + u128::from(std::process::id()) + now.unsigned_abs() as u128);
    let claims = json!({"sub": subject, "aud": ["api"], "iat": now, "exp": now + life, "jti": jti, "iss": "https://stand.in"});
    format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "ES256"})), part(claims))
}

fn good(subject: &str) -> String {
    json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": {"token": token(subject, 3600)}}).to_string()
}

fn whole(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

fn serve(mut stream: TcpStream, answer: &Mutex<Answer>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse::<usize>().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let ours = good("system:serviceaccount:ci:one");
        let answer = {
            let mut held = answer.lock().unwrap();
            let now = held.clone();
            if matches!(now, Answer::RefuseOnce) {
                *held = Answer::Good;
            }
            now
        };
        let json = "content-type: application/json\r\n";
        let bytes = match answer {
            Answer::Good => whole("201 Created", json, &ours),
            Answer::Whole(status, headers, body) => whole(status, headers, &body),
            Answer::RefuseOnce => whole("401 Unauthorized", json, r#"{"kind":"Status","code":401}"#),
            Answer::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Answer::HangUp => return,
            Answer::Silence => {
                std::thread::sleep(Duration::from_secs(40));
                return;
            }
            Answer::Trickle => {
                for byte in whole("201 Created", json, &ours) {
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
                return;
            }
        };
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn stand_in() -> (u16, Arc<Mutex<Answer>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(Mutex::new(Answer::Good));
    let shared = Arc::clone(&answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || serve(stream, &shared));
        }
    });
    (port, answer)
}

fn host(port: u16) -> Host {
    let host = Host::new(
        "
clusters: {odd: {kubeconfig: HERE/odd.kubeconfig}, trial: {embedded: {}}}
targets:
  - {name: one, cluster: odd, serviceAccount: ci/one, duration: 1h, prove: false, deliver: [{file: {path: HERE/out/one}}]}
  - {name: other, cluster: trial, serviceAccount: ci/other, duration: 1h, deliver: [{file: {path: HERE/out/other}}]}
",
    );
    host.write(
        "odd.kubeconfig",
        &format!("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{token: own}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"),
    );
    host
}

#[test]
fn g1_every_kind_of_bad_answer_keeps_the_old_token_and_is_told_in_the_record() {
    let (port, answer) = stand_in();
    let mut host = host(port);
    host.start();
    until("both are served", 30, || host.path("out/one").exists() && host.path("out/other").exists());
    let ours = good("system:serviceaccount:ci:one");
    let json = "content-type: application/json\r\n";
    let cut = whole("201 Created", json, &ours);
    let status = |code: u16, message: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}).to_string()
    };
    let plain = "content-type: text/plain\r\n";
    let kinds: Vec<(&str, Answer, &str)> = vec![
        ("hang up", Answer::HangUp, "127.0.0.1"),
        ("cut in the body", Answer::Raw(cut[..cut.len() - 40].to_vec()), "broke off"),
        ("garbage instead of HTTP", Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "127.0.0.1"),
        ("truncated JSON", Answer::Whole("201 Created", json, ours[..ours.len() / 2].to_owned()), "not the JSON"),
        ("other JSON", Answer::Whole("201 Created", json, "{\"status\":{}}".into()), "not the JSON"),
        ("HTML of a proxy", Answer::Whole("200 OK", "content-type: text/html\r\n", "<html>welcome</html>".into()), "not the JSON"),
        ("huge", Answer::Whole("201 Created", json, format!("{{\"x\":\"{}\"}}", "y".repeat(3 << 20))), "broke off"),
        (
            "somebody else's token",
            Answer::Whole("201 Created", json, good("system:serviceaccount:ci:other")),
            "is for `system:serviceaccount:ci:other`",
        ),
        ("no token", Answer::Whole("201 Created", json, "{\"status\":{\"token\":\"abc\"}}".into()), "cannot be read"),
        ("401", Answer::Whole("401 Unauthorized", json, status(401, "Unauthorized")), "401"),
        ("403", Answer::Whole("403 Forbidden", json, status(403, "forbidden")), "403: we may not create tokens for ci/one"),
        ("404", Answer::Whole("404 Not Found", json, status(404, "not found")), "404"),
        ("409", Answer::Whole("409 Conflict", json, status(409, "uid")), "409"),
        ("422", Answer::Whole("422 Unprocessable Entity", json, status(422, "denied by policy")), "denied by policy"),
        (
            "429 in plain text",
            Answer::Whole("429 Too Many Requests", "content-type: text/plain\r\nretry-after: 1\r\n", "Too many requests".into()),
            "429",
        ),
        ("429 with a date", Answer::Whole("429 Too Many Requests", "retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n", String::new()), "429"),
        ("429 with garbage", Answer::Whole("429 Too Many Requests", "retry-after: soon\r\n", String::new()), "429"),
        ("429 with a negative delay", Answer::Whole("429 Too Many Requests", "retry-after: -7\r\n", String::new()), "429"),
        ("500", Answer::Whole("500 Internal Server Error", json, status(500, "signer")), "500"),
        ("503", Answer::Whole("503 Service Unavailable", plain, "starting".into()), "503"),
        ("half-formed 504", Answer::Whole("504 Gateway Timeout", plain, "{\"message\":\"Timeout\",\"code\":504}".into()), "504"),
        ("a redirect", Answer::Whole("302 Found", "location: http://127.0.0.1:9/\r\n", String::new()), "302"),
    ];
    for (name, fault, words) in kinds {
        let old = host.read("out/one");
        let failed = host.records_of("failed", "one").len();
        *answer.lock().unwrap() = fault;
        let asked = host.run(&["rotate", "one", "--timeout", "60s"]);
        assert_eq!(asked.code, Some(1), "{name}: {asked:?}");
        let lines = host.records_of("failed", "one");
        assert!(lines.len() > failed, "{name}: nothing was recorded");
        let error = lines[failed]["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "{name}: `{error}` does not say `{words}`");
        assert!(!error.contains("eyJ"), "{name}: a token stands in the record");
        assert_eq!(host.read("out/one"), old, "{name}: the old token is gone");
        *answer.lock().unwrap() = Answer::Good;
        let asked = host.run(&["rotate", "one", "--timeout", "60s"]);
        assert_eq!(asked.code, Some(0), "{name}: the next good answer was not taken: {asked:?}");
    }
    assert_eq!(host.records_of("rotated", "other").len(), 1, "the other target was disturbed");
    until("other is fresh", 20, || host.target("other")["state"] == "fresh");
}

#[test]
fn a_refused_credential_is_read_again_once_before_it_is_a_failure() {
    let (port, answer) = stand_in();
    let mut host = host(port);
    host.start();
    until("it is served", 30, || host.path("out/one").exists());
    *answer.lock().unwrap() = Answer::RefuseOnce;
    assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    assert!(host.records_of("failed", "one").is_empty());
}

#[test]
fn g6_a_silent_and_a_trickling_server_are_given_up_in_time_and_hold_up_nobody() {
    let (port, answer) = stand_in();
    let mut host = host(port);
    host.start();
    until("both are served", 30, || host.path("out/one").exists() && host.path("out/other").exists());
    for fault in [Answer::Silence, Answer::Trickle] {
        *answer.lock().unwrap() = fault;
        let mut slow = host.command(&["rotate", "one", "--timeout", "60s"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        assert_eq!(host.run(&["rotate", "other"]).code, Some(0));
        assert!(begun.elapsed() < Duration::from_secs(2), "the other target waited for {:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(slow.wait().unwrap().code(), Some(1));
        assert!(begun.elapsed() < Duration::from_secs(25), "given up after {:?}", begun.elapsed());
        *answer.lock().unwrap() = Answer::Good;
        assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    }
}

#[test]
fn g7_a_wish_for_patience_is_heeded_by_every_target_of_the_cluster() {
    let (port, answer) = stand_in();
    let mut host = host(port);
    host.start();
    until("it is served", 30, || host.path("out/one").exists());
    *answer.lock().unwrap() = Answer::Whole("429 Too Many Requests", "retry-after: 4\r\n", String::new());
    let begun = Instant::now();
    assert_eq!(host.run(&["rotate", "one"]).code, Some(1));
    *answer.lock().unwrap() = Answer::Good;
    assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    assert!(begun.elapsed() >= Duration::from_secs(4), "asked again after {:?}", begun.elapsed());
}
