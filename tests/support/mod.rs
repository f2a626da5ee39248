//! What tests stand on: the real servers and the real program.

pub mod daemon;
pub mod servers;
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
