//! A hundred thousand targets of an embedded cluster, a million records: what grows with a fleet.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::de::IgnoredAny;
use tokenferry::record::{self, Kind, Line, Options, Outcome, SinkLine};

use super::daemon::{self, Host};
use super::report::{Report, Row, mib, milliseconds};
use super::{cluster, process};

/// Tasks that append at once, as rotations in flight do.
const ABREAST: usize = 128;
/// Lines that are appended one by one by all of them together.
const APPENDED: usize = 200_000;
/// Lines of one append where only a long file is wanted.
const BULK: usize = 1_000;

/// Measures all of it and prints the table.
pub fn run(targets: usize, lines: usize) {
    let mut report = Report::new(&["what", "tokenferry", "beside it", "ratio", "to reach"]);
    eprintln!("records: {APPENDED} lines in groups, then {lines} lines to fold ...");
    records(&mut report, lines);
    eprintln!("a schedule of {targets} targets ...");
    let host = Host::embedded(targets);
    check(&mut report, &host, targets);
    fleet(&mut report, &host, targets);
    report.print();
}

fn records(report: &mut Report, lines: usize) {
    for (place, where_) in [(cluster::memory(), "tmpfs"), (std::env::temp_dir(), "the disk of the temporary folder")] {
        let folder = tempfile::Builder::new().prefix("tokenferry-bench-").tempdir_in(place).expect("a folder");
        let rate = append(&folder.path().join("records"));
        report.add(
            Row::new(&format!("durable record lines, grouped, on {where_}"), format!("{rate:.0}/s")).reach("≥ 20,000/s", rate >= 20_000.0),
        );
    }
    let folder = tempfile::Builder::new().prefix("tokenferry-bench-").tempdir_in(cluster::memory()).expect("a folder in memory");
    let directory = folder.path().join("records");
    fill(&directory, lines);
    let begun = Instant::now();
    let state = record::read(&directory).expect("records that were just written");
    let took = begun.elapsed();
    assert_eq!(state.targets.len(), lines.min(BULK), "the fold knows every target");
    report.add(
        Row::new(&format!("folding {lines} record lines, one file"), milliseconds(took)).reach("≤ 1 s", took <= Duration::from_secs(1)),
    );
    let begun = Instant::now();
    let opened = record::open(&directory, long()).expect("records that were just written");
    report.add(Row::new("… opening them to write, as a start does", milliseconds(begun.elapsed())));
    drop(opened);
}

/// No roll-over: a file keeps all lines.
fn long() -> Options {
    Options { keep: 400 * 86_400, max_size: u64::MAX }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Lines per second that are durable, each waited for by its own caller.
fn append(directory: &Path) -> f64 {
    let writer = record::open(directory, Options { keep: 400 * 86_400, max_size: 64 << 20 }).expect("an empty folder").writer;
    let begun = Instant::now();
    runtime().block_on(async {
        let tasks: Vec<_> = (0..ABREAST)
            .map(|task| {
                let writer = writer.clone();
                tokio::spawn(async move {
                    for count in 0..APPENDED / ABREAST {
                        writer.append(vec![rotated(task, count)]).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("appending never fails");
        }
    });
    let took = begun.elapsed();
    assert_eq!(writer.health().lost, 0);
    (APPENDED / ABREAST * ABREAST) as f64 / took.as_secs_f64()
}

fn fill(directory: &Path, lines: usize) {
    let writer = record::open(directory, long()).expect("an empty folder").writer;
    runtime().block_on(async {
        for batch in 0..lines / BULK {
            writer.append((0..BULK).map(|target| rotated(target, batch)).collect()).await;
        }
        writer.close().await;
    });
}

/// A line of the size that a rotation of one file has.
fn rotated(target: usize, count: usize) -> Line {
    let now = Timestamp::now();
    let written = SinkLine::new("file", format!("/run/tokenferry/t{target}/token"), Outcome::Written);
    let sink = SinkLine { sha256: Some("0".repeat(64)), attempts: 1, ..written };
    Line {
        target: Some(format!("t{target}")),
        cluster: Some("bench".into()),
        service_account: Some(format!("bench/account-{target}")),
        generation: Some(count as u64),
        jti: Some(format!("00000000-0000-4000-8000-{count:012}")),
        issued_at: Some(now),
        expires_at: Some(now + Duration::from_secs(3600)),
        sinks: vec![sink],
        ..Line::new(Kind::Rotated, now)
    }
}

/// `check`, beside nothing but the parser over the same text.
fn check(report: &mut Report, host: &Host, targets: usize) {
    let text = std::fs::read_to_string(host.schedule()).expect("it was just written");
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_nodes: 200_000_000, max_events: 200_000_000, max_total_scalar_bytes: 1 << 30 },
        with_snippet: false,
    };
    let begun = Instant::now();
    let parsed: Result<IgnoredAny, _> = serde_yaml::from_str_with_options(&text, options);
    let bare = begun.elapsed();
    parsed.expect("the schedule is YAML");
    let begun = Instant::now();
    let mut child = Command::new(daemon::PROGRAM)
        .arg("check")
        .arg(host.schedule())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        // The peak only grows: what is missed is the last few milliseconds.
        peak = process::memory(child.id(), "VmHWM").unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = begun.elapsed();
    assert!(status.success(), "check refuses the generated schedule");
    let ratio = took.as_secs_f64() / bare.as_secs_f64();
    let row = Row::new(&format!("`check` of {targets} targets, beside bare parsing"), milliseconds(took)).beside(milliseconds(bare));
    report.add(row.ratio(format!("{ratio:.2} times")).reach("≤ 1.3 times", ratio <= 1.3));
    report.add(Row::new("… peak resident memory", mib(peak)).reach("≤ 150 MiB", peak <= 150 << 20));
}

/// First tokens for all, then a start with all of them fresh.
fn fleet(report: &mut Report, host: &Host, targets: usize) {
    let begun = Timestamp::now();
    let daemon = host.start();
    let took = daemon::since(begun, host.delivered(targets));
    let cpu = process::cpu(daemon.pid());
    report.add(Row::new(&format!("first delivery of {targets} embedded targets"), format!("{:.0}/s", targets as f64 / took.as_secs_f64())));
    let each = cpu.as_secs_f64() * 1e3 / targets as f64;
    report.add(Row::new("… our CPU per rotation, signature included", format!("{each:.2} ms")));
    let peak = process::memory(daemon.pid(), "VmHWM").unwrap_or(0);
    report.add(Row::new("… peak resident memory", mib(peak)));
    daemon.stop();

    let again = daemon::start_again(host);
    let limit = Duration::from_secs(3);
    report.add(
        Row::new(&format!("start with {targets} fresh targets, until ready"), milliseconds(again.ready))
            .reach("≤ 3 s", again.ready <= limit),
    );
    let none = again.minted + again.written == 0;
    report.add(Row::new("… tokens minted, files written", format!("{}, {}", again.minted, again.written)).reach("0, 0", none));
    report.add(Row::new("… resident memory at rest", mib(again.resting)).reach("≤ 64 MiB", again.resting <= 64 << 20));
    report.add(Row::new("… CPU at rest, of one core", format!("{:.2} %", again.idle * 100.0)).reach("≤ 0.2 %", again.idle <= 0.002));
}
