//! Figures, never verdicts of a test: what tokenferry does, beside what users would take instead and beside the
//! servers' own ceilings, in one run. `cargo bench` runs it; README.md beside this folder says what each row is.
//!
//! Parts of the table: `mint`, `kubectl`, `agent`, `fleet` (with `pulse`), `check`, `disk`, `records`, `stores`,
//! `size`. `soak` is for itself. What they share: `servers` (the real ones), `bao` (its API), `daemon` (the program under measurement, with
//! `schedule` and `tail`, its records), `wrk`, `process` (what the kernel counts), `guard` (what ends with this
//! process), `facts` (what the figures depend on), `report` (the table).

#![allow(clippy::print_stdout, clippy::print_stderr)] // figures are what it is for
#![allow(clippy::cast_precision_loss)] // counts far below 2^52

mod agent;
mod bao;
mod check;
mod daemon;
mod disk;
mod facts;
mod fleet;
mod guard;
mod kubectl;
mod mint;
mod options;
mod process;
mod pulse;
mod records;
mod report;
mod schedule;
mod servers;
mod size;
mod soak;
mod stores;
mod tail;
mod wrk;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use options::{Options, Part};
use report::{Report, Row};

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    facts::print(options.p256);
    let mut report = Report::default();
    if let Some(minutes) = options.soak {
        soak::run(&mut report, minutes, options.soaked);
        report.print();
        return ExitCode::SUCCESS;
    }
    let mut broken = false;
    for part in &options.parts {
        // One part that cannot be measured takes none of the others with it.
        let ran = catch_unwind(AssertUnwindSafe(|| measure(*part, &mut report, &options)));
        if ran.is_err() {
            broken = true;
            report.add(Row::new("BROKE OFF: why stands above the table", ""));
        }
    }
    report.print();
    if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn measure(part: Part, report: &mut Report, options: &Options) {
    match part {
        Part::Mint => mint::run(report, options),
        Part::Kubectl => kubectl::run(report, options),
        Part::Agent => agent::run(report, options),
        Part::Fleet => fleet::run(report, options),
        Part::Check => check::run(report, options),
        Part::Disk => disk::run(report, options),
        Part::Records => records::run(report, options),
        Part::Stores => stores::run(report, options),
        Part::Size => size::run(report),
    }
}
