//! Every sink against its real server: one conformance suite for all, then what each kind has of its own.

#[path = "support/servers.rs"]
mod servers;

mod stores {
    pub mod aws;
    pub mod bao;
    pub mod conformance;
    pub mod wire;
}

use std::time::Duration;

/// A hard end for every test.
pub async fn within<T>(test: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends within two minutes")
}
