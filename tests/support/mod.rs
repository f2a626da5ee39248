//! What tests stand on: the real servers and the real program.

pub mod daemon;
pub mod disks;
pub mod eks;
pub mod faults;
pub mod issuer;
pub mod mute;
pub mod reader;
pub mod rights;
pub mod servers;
pub mod system;
pub mod tools;
pub mod trace;

use std::time::Duration;

/// A hard end for every test.
pub async fn within<T>(test: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends within two minutes")
}

/// Waits until something holds, looking again every 50 ms.
pub fn until(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The library that moves the clock of one program.
pub fn faketime() -> std::path::PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    libraries.into_iter().find(|path| path.exists()).expect("libfaketime is missing: apt-get install libfaketime")
}

/// Whether the long form of the tests is asked for (`TOKENFERRY_LONG=1`).
pub fn long() -> bool {
    std::env::var_os("TOKENFERRY_LONG").is_some_and(|value| value == "1")
}

/// How many of something a test does: the variable's number where it is set, else that of the form asked for.
pub fn count(variable: &str, short: usize, long_form: usize) -> usize {
    let set = std::env::var(variable).ok().map(|n| n.parse().unwrap_or_else(|e| panic!("{variable}={n}: {e}")));
    set.unwrap_or(if long() { long_form } else { short })
}

/// Whether a test that mounts things can run here; says so past the harness's capture where it cannot, so that it is
/// never taken for one that passed.
pub fn can_mount(test: &str, devices: &[&str]) -> bool {
    use std::io::Write;
    let root = (!rustix::process::geteuid().is_root()).then_some("root".to_owned());
    let missing = root.or_else(|| devices.iter().find(|d| !std::path::Path::new(d).exists()).map(|d| (*d).to_owned()));
    let Some(missing) = missing else { return true };
    // Nobody to tell where standard error is closed.
    let _ = std::io::stderr().write_all(format!("\nNOT RUN: {test}: needs {missing}\n").as_bytes());
    false
}
