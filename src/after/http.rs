//! `http`: a request that says in JSON whose token is fresh; 2xx means that it was taken.

use std::time::Duration;

use super::{Failure, News, Said};

/// `http: {url, method, timeout}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSpec {
    /// Where.
    pub url: String,
    /// The verb.
    pub method: String,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl HttpSpec {
    /// The address without its query: some carry a key in it.
    pub(super) fn shown(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }

    /// Its server alone: the addresses that receive alerts and heartbeats often have a key in their path.
    pub fn server(&self) -> &str {
        let from = self.url.find("://").map_or(0, |at| at + 3);
        let end = self.url[from..].find(['/', '?', '#']).map_or(self.url.len(), |at| from + at);
        &self.url[..end]
    }
}

pub(super) async fn request(spec: &HttpSpec, news: &[News]) -> Result<Said, Failure> {
    // Not shared: there is one.
    let Some(news) = news.first() else { return Ok(None) };
    let body = serde_json::json!({
        "target": news.target, "generation": news.generation, "issue": news.issue,
        "expiresAt": news.expires_at, "path": news.path,
    });
    send(spec, spec.shown(), &body).await
}

/// One request with that body, where the verb has one. Failures call the server by that name.
pub(super) async fn send(spec: &HttpSpec, name: &str, body: &serde_json::Value) -> Result<Said, Failure> {
    let failed = |what: String| Failure(format!("{name}: {what}"));
    let mut builder = reqwest::Client::builder()
        .tls_backend_rustls()
        .timeout(spec.timeout)
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    if spec.url.starts_with("http:") {
        // reqwest insists on roots even where no TLS is spoken.
        builder = builder.tls_certs_only(Vec::new());
    }
    let client = builder.build().map_err(|_| failed("no TLS client can be made: this host has no CA certificates".into()))?;
    let method: reqwest::Method = spec.method.parse().map_err(|_| failed(format!("{} is no method", spec.method)))?;
    let mut request = client.request(method.clone(), &spec.url).header("user-agent", concat!("tokenferry/", env!("CARGO_PKG_VERSION")));
    if method != reqwest::Method::GET && method != reqwest::Method::HEAD {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    // Neither the answer's body nor the query goes into the message.
    let answer = request.send().await.map_err(|error| failed(words(&error.without_url(), spec.timeout)))?;
    let status = answer.status();
    if status.is_success() { Ok(None) } else { Err(failed(format!("it answered {}", status.as_u16()))) }
}

fn words(error: &reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", timeout.as_secs_f32());
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    crate::token::mask::mask(&deepest.to_string()).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_without_path_and_query() {
        for (url, server) in [
            ("https://hooks.example.com/services/T0/B0/key", "https://hooks.example.com"),
            ("http://127.0.0.1:80?key=1", "http://127.0.0.1:80"),
            ("https://h#x", "https://h"),
            ("https://h", "https://h"),
        ] {
            let spec = HttpSpec { url: url.into(), method: "POST".into(), timeout: Duration::from_secs(1) };
            assert_eq!(spec.server(), server);
        }
    }
}
