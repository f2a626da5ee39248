//! The binary as it is released: `cargo bench` builds it with the same settings.

use super::daemon::PROGRAM;
use super::report::{Report, Row, mib};

/// Looks at it.
pub fn run(report: &mut Report) {
    report.part("the program");
    let size = std::fs::metadata(PROGRAM).expect("it was just built").len();
    report.add(Row::new("stripped release binary", mib(size)).reach("≤ 20 MiB", size <= 20 << 20));
}
