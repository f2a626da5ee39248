//! What the tests of this binary share.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokenferry::record::query::{self, Query};
use tokenferry::record::{Appended, Kind, Line, Opened, Options, Outcome, SinkLine, Writer, open};

pub const DEADLINE: Duration = Duration::from_secs(30);
pub const ROOMY: Options = Options { keep: 400 * 86_400, max_size: 64 << 20 };

/// A rotation of that target with that jti.
pub fn rotated(target: &str, jti: &str) -> Line {
    let now = Timestamp::now();
    let written = SinkLine::new("file", format!("/run/tokens/{target}"), Outcome::Written);
    let sink = SinkLine { sha256: Some("0".repeat(64)), attempts: 1, ..written };
    Line {
        target: Some(target.to_owned()),
        jti: Some(jti.to_owned()),
        issued_at: Some(now),
        expires_at: Some(now + Duration::from_secs(3600)),
        sinks: vec![sink],
        ..Line::new(Kind::Rotated, now)
    }
}

/// Runs on a runtime of its own, never longer than the deadline.
pub fn within<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, work).await.expect("answered in time") })
}

pub fn opened(directory: &Path, options: Options) -> Opened {
    open(directory, options).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string)))
}

pub async fn durable(writer: &Writer, lines: Vec<Line>) {
    assert_eq!(writer.append(lines).await, Appended::Durable, "{:?}", writer.health());
}

/// How often each jti was recorded as rotated, over the whole folder.
pub fn rotations(directory: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in query::lines(directory, Query { kinds: vec![Kind::Rotated], ..Query::default() }).unwrap() {
        *counts.entry(line.unwrap().jti.unwrap()).or_default() += 1;
    }
    counts
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a child; kills it at the deadline.
pub fn finished(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("a child did not end within {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this process is root; says loudly that the test did not run where it is not.
pub fn root_or_not_run(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT RUN: {test} needs root");
    }
    root
}
