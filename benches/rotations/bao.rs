//! OpenBao's HTTP API, as far as it is made ready for a measurement.

use serde_json::Value;

use super::servers::Servers;

/// The server with its root token.
pub struct Bao {
    http: reqwest::Client,
    address: String,
    token: String,
    runtime: tokio::runtime::Runtime,
}

impl Bao {
    /// The one of these servers.
    pub fn new(servers: &Servers) -> Self {
        // Where one is set already it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = std::fs::read(servers.text("/bao/ca")).expect("the servers have a CA");
        let ca = reqwest::Certificate::from_pem(&ca).expect("it is PEM");
        let http = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().expect("a client with one CA");
        let token = std::fs::read_to_string(servers.text("/bao/rootTokenFile")).expect("the servers have a root token");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { http, address: servers.text("/bao/address").to_owned(), token: token.trim().to_owned(), runtime }
    }

    /// The root token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Writes there.
    pub fn write(&self, path: &str, body: &Value) {
        let request = self.http.post(format!("{}/v1/{path}", self.address)).header("x-vault-token", &self.token);
        let sent = self.runtime.block_on(async {
            let answer = request.header("content-type", "application/json").body(body.to_string()).send().await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.text().await?))
        });
        let (status, text) = sent.unwrap_or_else(|e| panic!("OpenBao, {path}: {e:?}"));
        assert!(status.is_success(), "OpenBao, {path}: {status} {text}");
    }
}
