//! The binary as it is released.

use std::path::Path;
use std::process::{Command, Stdio};

use super::options::Options;
use super::report::{Report, Row, mib};

/// Builds it where that was asked for.
pub fn run(report: &mut Report, options: &Options) {
    report.part("the program");
    if !options.size {
        return report.add(Row::new("stripped release binary: NOT RUN; `--size` builds it", ""));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--release", "--locked", "--message-format", "json-render-diagnostics"]);
    let out = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(out.status.success(), "cargo build --release: {}", out.status);
    let said = String::from_utf8_lossy(&out.stdout);
    let executable = said.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()).find_map(|message| {
        let ours = message["target"]["kind"][0] == "bin" && message["target"]["name"] == "tokenferry";
        message["executable"].as_str().filter(|_| ours).map(str::to_owned)
    });
    let size = std::fs::metadata(executable.expect("cargo names what it built")).expect("it was just built").len();
    report.add(Row::new("stripped release binary", mib(size)).reach("≤ 20 MiB", size <= 20 << 20));
}
