//! T8 with the real daemon: hundreds of targets at once, and the load as the API server sees it. A stand-in answers,
//! because a real server does not count what reaches it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::support::daemon::Host;
use crate::support::until;

const TARGETS: usize = 300;
const IN_FLIGHT: usize = 20;
const PER_SECOND: usize = 100;

/// What reached the stand-in.
#[derive(Default)]
struct Seen {
    under_way: usize,
    most: usize,
    /// When each TokenRequest came, and its token's number.
    begun: Vec<Instant>,
}

fn token(subject: &str, number: usize) -> String {
    let now = jiff::Timestamp::now().as_second();
    let part = |v: serde_json::Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let claims =
        json!({"sub": subject, "aud": ["api"], "iat": now, "exp": now + 3600, "jti": format!("n{number}"), "iss": "https://stand.in"});
    format!("{}.{}.c2lnbmF0dXJl", part(json!({"alg": "ES256"})), part(claims))
}

fn serve(mut stream: TcpStream, seen: &Mutex<Seen>) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(120)));
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
        let account = text.split("/serviceaccounts/").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.under_way += 1;
            seen.most = seen.most.max(seen.under_way);
            if text.starts_with("post /api/v1/namespaces/ci/serviceaccounts/") {
                seen.begun.push(Instant::now());
            }
            seen.begun.len()
        };
        std::thread::sleep(Duration::from_millis(20));
        let token = token(&format!("system:serviceaccount:ci:{account}"), number);
        let answer = json!({"kind": "TokenRequest", "metadata": {}, "spec": {}, "status": {"token": token}}).to_string();
        let whole = format!("HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        seen.lock().unwrap().under_way -= 1;
        if stream.write_all(whole.as_bytes()).is_err() {
            return;
        }
    }
}

fn stand_in() -> (u16, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&shared);
            std::thread::spawn(move || serve(stream, &seen));
        }
    });
    (port, seen)
}

/// Most requests that began within a second of each other; those that the network bunched count too.
fn busiest(begun: &[Instant]) -> usize {
    let within = |from: &Instant| begun.iter().filter(|at| **at >= *from && at.duration_since(*from) < Duration::from_secs(1)).count();
    begun.iter().map(within).max().unwrap_or(0)
}

#[test]
fn t8_g5_g7_hundreds_of_targets_reach_the_api_server_within_its_limits_at_start_on_demand_and_not_at_all_on_restart() {
    let (port, seen) = stand_in();
    let mut schedule = format!(
        "clusters: {{prod: {{kubeconfig: HERE/stand-in.kubeconfig, limits: {{inFlight: {IN_FLIGHT}, perSecond: {PER_SECOND}}}}}}}\ndefaults: {{cluster: prod, duration: 1h, prove: false}}\ntargets:\n"
    );
    for n in 0..TARGETS {
        writeln!(schedule, "  - {{name: t{n}, serviceAccount: ci/t{n}, deliver: [{{file: {{path: HERE/out/t{n}}}}}]}}").unwrap();
    }
    let mut host = Host::new(&schedule);
    host.write(
        "stand-in.kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\nusers: [{{name: u, user: {{token: x}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    );
    let served = |host: &Host| (0..TARGETS).filter(|n| host.path(&format!("out/t{n}")).exists()).count() == TARGETS;
    let begun = Instant::now();
    host.start();
    until("all are served", 60, || served(&host));
    let cold = begun.elapsed();
    until("all is recorded", 30, || host.records().iter().filter(|l| l["kind"] == "rotated").count() == TARGETS);
    assert_eq!(seen.lock().unwrap().begun.len(), TARGETS, "a cold start minted a token twice");
    host.kill();
    host.start();
    until("it runs again", 30, || host.json(&["status"])["daemon"].is_object());
    until("all are fresh", 30, || host.json(&["status"])["targets"].as_array().is_some_and(|t| t.iter().all(|t| t["state"] == "fresh")));
    assert_eq!(seen.lock().unwrap().begun.len(), TARGETS, "G5: a restart minted fresh tokens anew");
    let done = host.run(&["rotate", "--all"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.begun.len(), 2 * TARGETS, "not every target was rotated once");
    assert!(seen.most <= IN_FLIGHT, "{} requests at once", seen.most);
    // Sockets may bunch up a few that the daemon sent further apart.
    let busiest = busiest(&seen.begun);
    assert!(busiest <= PER_SECOND * 5 / 4, "{busiest} requests within a second");
    println!(
        "figures: T8: real daemon, {TARGETS} targets, cold start {:.1} s, at most {} at once and {busiest} a second, 0 minted twice",
        cold.as_secs_f64(),
        seen.most
    );
}
