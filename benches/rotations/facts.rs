//! What the figures depend on: the machine, versions, the day, the command. No names of hosts.

use std::path::Path;
use std::process::Command;

use super::Options;

/// Prints them.
pub fn print(options: &Options) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let kernel =
        format!("{} {} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy(), system.machine().to_string_lossy());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|m| m.trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kib| kib >> 20);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    println!("date      {}", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC"));
    println!("machine   {cores} cores ({processor}), {memory} GiB, {kernel}; load before the start {load}");
    println!("versions  tokenferry {}, {}, kube-apiserver and kubectl {}", env!("CARGO_PKG_VERSION"), rustc(), kubernetes());
    println!(
        "command   cargo bench --bench rotations -- --targets {} --kubectl {} --rounds {} --fleet {} --lines {}{}",
        options.targets,
        options.kubectl,
        options.rounds,
        options.fleet,
        options.lines,
        if options.p256 { " --p256" } else { "" }
    );
    println!("tokens    {}, 1 h, proof off, files and records on tmpfs", if options.p256 { "ES256" } else { "RS256" });
    println!();
}

fn field(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| Some(l.strip_prefix(key)?.trim_start_matches(['\t', ' ', ':']).trim().to_owned()))
}

fn rustc() -> String {
    let said = Command::new("rustc").arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    said.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// As the script that installs it says.
fn kubernetes() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/servers");
    let text = std::fs::read_to_string(script).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("readonly KUBE_VERSION=")).unwrap_or("unknown").to_owned()
}
