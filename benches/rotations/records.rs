//! Record lines that are durable, and the fold of a long file.

use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokenferry::record::{self, Kind, Line, Options, Outcome, SinkLine};

use super::guard::Folder;
use super::options;
use super::report::{Report, Row, milliseconds};

/// Callers that append at once, as rotations in flight do.
const ABREAST: usize = 128;
/// Lines of one append where only a long file is wanted.
const BULK: usize = 1_000;

/// Measures both.
pub fn run(report: &mut Report, options: &options::Options) {
    let appended = (options.lines / 5).max(ABREAST);
    report.part("records");
    for (folder, place) in [(Folder::in_memory(), "tmpfs"), (Folder::new(&std::env::temp_dir()), "the disk of the temporary folder")] {
        let rate = append(&folder.path().join("records"), appended);
        let row = Row::new(format!("durable lines, {ABREAST} callers that each wait for theirs, {place}"), format!("{rate:.0}/s"));
        report.add(row.reach("≥ 20,000/s", rate >= 20_000.0));
    }
    let folder = Folder::in_memory();
    let directory = folder.path().join("records");
    fill(&directory, options.lines, long());
    let begun = Instant::now();
    let state = record::read(&directory).expect("records that were just written");
    let took = begun.elapsed();
    assert_eq!(state.targets.len(), options.lines.min(BULK), "the fold knows every target");
    let row = Row::new(format!("folding {} lines, one file", options.lines), milliseconds(took));
    report.add(row.reach("≤ 1 s", took <= Duration::from_secs(1)));
    let begun = Instant::now();
    let opened = record::open(&directory, long()).expect("records that were just written");
    report.add(Row::new("… opening them to write, as a start does", milliseconds(begun.elapsed())));
    runtime().block_on(opened.writer.close());
    drop(folder);
    let folder = Folder::in_memory();
    let directory = folder.path().join("records");
    fill(&directory, options.lines, usual());
    let begun = Instant::now();
    let opened = record::open(&directory, usual()).expect("records that were just written");
    let took = begun.elapsed();
    assert_eq!(opened.state.targets.len(), options.lines.min(BULK), "what opens a file knows every target");
    let row = Row::new(format!("opening {} lines, files of the usual size, as a start does", options.lines), milliseconds(took));
    report.add(row.reach("≤ 1 s", took <= Duration::from_secs(1)));
    runtime().block_on(opened.writer.close());
}

/// No roll-over: a file keeps all lines.
fn long() -> Options {
    Options { keep: 400 * 86_400, max_size: u64::MAX }
}

/// As the daemon has it where its schedule says nothing of it.
fn usual() -> Options {
    Options { keep: 400 * 86_400, max_size: 64 << 20 }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Lines per second that are durable, each waited for by its own caller.
fn append(directory: &Path, lines: usize) -> f64 {
    let writer = record::open(directory, usual()).expect("an empty folder").writer;
    let begun = Instant::now();
    runtime().block_on(async {
        let callers: Vec<_> = (0..ABREAST)
            .map(|caller| {
                let writer = writer.clone();
                tokio::spawn(async move {
                    for count in 0..lines / ABREAST {
                        writer.append(vec![rotated(caller, count)]).await;
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("appending never fails");
        }
    });
    let took = begun.elapsed();
    assert_eq!(writer.health().lost, 0);
    // It ends before its folder does.
    runtime().block_on(writer.close());
    (lines / ABREAST * ABREAST) as f64 / took.as_secs_f64()
}

fn fill(directory: &Path, lines: usize, kept: Options) {
    let writer = record::open(directory, kept).expect("an empty folder").writer;
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
