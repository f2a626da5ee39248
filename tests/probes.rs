//! T10: what is thrown at everything that reads what others wrote, and what has to hold then. The property tests of
//! `fuzz.rs` and the libFuzzer targets under `fuzz/` share these; a panic is a finding, so is a hang.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use tokenferry::cluster::patience::{self, LONGEST};
use tokenferry::daemon::{ask::Ask, control};
use tokenferry::record::query::{self, Query};
use tokenferry::record::{Appended, Kind, Line, Options, chain, line::Actor, open, read};
use tokenferry::schedule::cron::CronRule;
use tokenferry::schedule::{Severity, Sources, check, plan};
use tokenferry::token::signature::Keys;
use tokenferry::token::{Token, claims, extract, mask};

/// No answer takes longer on the slowest machine; a hang does.
const LIMIT: Duration = Duration::from_secs(20);

/// A schedule is planned, or refused with places that lie in it.
pub fn schedule(bytes: &[u8]) {
    let path = Path::new("/etc/tokenferry/schedule.yaml");
    let problems = match std::str::from_utf8(bytes) {
        Err(_) => vec![check::not_utf8(path, bytes)],
        Ok(text) => {
            let sources = Sources { path: path.into(), text: text.into(), includes: Vec::new() };
            let variables = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), "/run/credentials/a".to_owned())]);
            check::include_patterns(text);
            match plan(&sources, &variables) {
                Ok(plan) => {
                    assert!(plan.warnings.iter().all(|problem| problem.severity == Severity::Warning));
                    plan.warnings
                }
                Err(problems) => {
                    assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "refused for nothing");
                    problems
                }
            }
        }
    };
    // YAML 1.2 also ends lines by a carriage return alone.
    let lines = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
    for problem in problems {
        assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem} in {lines} lines");
    }
}

/// A cron expression is refused, or fires after now and before.
pub fn cron(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for zone in ["UTC", "Europe/Berlin"] {
        let Ok(rule) = CronRule::new(text, jiff::tz::TimeZone::get(zone).unwrap()) else { continue };
        let now = jiff::Timestamp::from_second(1_790_000_000).unwrap();
        assert!(rule.gap() >= 60, "two times of {text:?} are {} s apart", rule.gap());
        assert!(rule.next(now).is_none_or(|next| next > now), "{text:?}");
        assert!(rule.previous(now).is_none_or(|previous| previous < now), "{text:?}");
    }
}

/// A token, a payload that holds one, a key set, a log line: read or refused, and never shown after masking.
pub fn jwt(bytes: &[u8]) {
    let _ = Keys::of(bytes);
    let _ = extract(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let keys = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}"#;
    if let Ok(keys) = Keys::of(keys) {
        assert!(keys.check(text).is_err(), "a signature fits a key that is no point of the curve");
    }
    let header = claims::Header::of(text);
    if let Ok(claims) = Token::new(text.to_owned()).claims() {
        let _ = claims.lifetime();
        let masked = mask::mask(text);
        assert!(header.is_err() || !text.starts_with("eyJ") || !masked.contains(text.trim()), "a token is not masked");
    }
    let _ = mask::mask(text);
}

/// `Retry-After`, and on a second line the `Date` beside it: never more than the longest wait.
pub fn retry_after(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (wish, date) = text.split_once('\n').map_or((text, None), |(wish, date)| (wish, Some(date)));
    assert!(patience::wish(wish, date).is_none_or(|wait| wait <= LONGEST));
}

/// A records file is read, verified, or refused; what is opened for writing takes a line and holds it afterwards.
pub fn records(bytes: &[u8]) {
    let folder = folder();
    std::fs::write(folder.path().join("records-000000000001.jsonl"), bytes).unwrap();
    let _ = read(folder.path());
    let _ = chain::verify(folder.path(), None);
    let all = || query::lines(folder.path(), Query::default()).unwrap();
    for line in all() {
        if line.is_err() {
            break;
        }
    }
    let Ok(opened) = open(folder.path(), Options { keep: 400 * 86_400, max_size: 64 << 20 }) else { return };
    let line = Line { jti: Some("after".into()), ..Line::new(Kind::Stopped, jiff::Timestamp::now()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let append = tokio::time::timeout(LIMIT, opened.writer.append(vec![line]));
        assert_eq!(append.await.expect("the writer answers"), Appended::Durable, "{:?}", opened.writer.health());
        opened.writer.close().await;
    });
    let last = Query { jti: Some("after".into()), ..Query::default() };
    // Damage before it ends a plain reading; the state knows all the same.
    let readable = all().all(|line| line.is_ok());
    assert!(!readable || query::lines(folder.path(), last).unwrap().flatten().count() >= 1, "an acknowledged line is gone");
    read(folder.path()).expect("what was opened for writing can be read");
}

/// Bytes on the control socket get an answer or an end, in time; the daemon's side stays whole.
pub fn control(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = folder();
        let socket = folder.path().join("control.sock");
        let listener = control::bind(&socket).unwrap();
        let (asks, mut asked) = tokio::sync::mpsc::channel(4);
        let server = tokio::spawn(control::serve(listener, asks, std::sync::Arc::new(|_| Box::pin(async { Default::default() }))));
        // The loop's place: it judges each choice as the loop would, and is about to stop.
        let judge = tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                if let Ask::Rotate(_, Actor { command, .. }, ..) = ask {
                    assert!(command.chars().count() <= 500);
                }
            }
        });
        tokio::time::timeout(LIMIT, talk(&socket, bytes)).await.expect("an answer or an end in time");
        // The next caller is served as if nothing had been.
        let answer =
            tokio::time::timeout(LIMIT, talk(&socket, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")).await.expect("the next caller is served");
        assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
        server.abort();
        judge.abort();
    });
}

async fn talk(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    // A server that has heard enough may close before everything is sent.
    let sent = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    };
    let mut answer = Vec::new();
    match sent.await {
        Ok(()) => {}
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected), "{error}")
        }
    }
    match stream.read_to_end(&mut answer).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    answer
}

/// A folder in memory where there is one: a disk's fsync would be all that is measured.
fn folder() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("tokenferry-fuzz-").tempdir_in(base).unwrap()
}
