//! `check` of a large schedule, beside nothing but the YAML parser over the same text.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::IgnoredAny;

use super::guard::{Bound, Folder};
use super::options::Options;
use super::report::{Report, Row, mib, milliseconds};
use super::schedule::Wanted;
use super::{daemon, process};

/// How often each side has its turn; the middle one counts.
const TURNS: usize = 3;

/// Measures both.
pub fn run(report: &mut Report, options: &Options) {
    report.part(&format!("`check` of {} targets", options.fleet));
    let folder = Folder::in_memory();
    Wanted::embedded(folder.path(), options.fleet).write(folder.path(), 0);
    let file = folder.path().join("schedule.yaml");
    let text = std::fs::read_to_string(&file).expect("it was just written");
    let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS {
        theirs.push(bare(&text));
        let (took, memory) = check(&file);
        ours.push(took);
        peak = peak.max(memory);
    }
    let (ours, theirs) = (middle(ours), middle(theirs));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let row =
        Row::new(format!("time, {}", mib(text.len() as u64)), milliseconds(ours)).beside(format!("bare parsing {}", milliseconds(theirs)));
    report.add(row.ratio(format!("{ratio:.2} times")).reach("≤ 1.3 times", ratio <= 1.3));
    report.add(Row::new("peak resident memory", mib(peak)).reach("≤ 150 MiB", peak <= 150 << 20));
}

fn bare(text: &str) -> Duration {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_nodes: 200_000_000, max_events: 200_000_000, max_total_scalar_bytes: 1 << 30 },
        with_snippet: false,
    };
    let begun = Instant::now();
    let parsed: Result<IgnoredAny, _> = serde_yaml::from_str_with_options(text, options);
    let took = begun.elapsed();
    parsed.expect("the schedule is YAML");
    took
}

fn check(file: &std::path::Path) -> (Duration, u64) {
    let begun = Instant::now();
    let mut check = Command::new(daemon::PROGRAM);
    check.arg("check").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Bound(check.spawn().expect("the program starts"));
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.0.try_wait().expect("it is our child") {
            break status;
        }
        // The peak only grows: what is missed is the last few milliseconds.
        peak = process::memory(child.0.id(), "VmHWM").unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = begun.elapsed();
    assert!(status.success(), "check refuses the generated schedule");
    (took, peak)
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
