//! The HTTP client of one Vault server: requests with bounded answers, and the client that vaultrs uses.
//!
//! KV requests are sent here and not through vaultrs, which shows neither `Retry-After` nor content type
//! and reads answers of any size.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Url};
use vaultrs::client::{VaultClient, VaultClientSettingsBuilder};
use zeroize::Zeroizing;

use crate::cluster::patience;
use crate::sink::vault::own::{self, Stamp};
use crate::sink::vault::{VaultStore, refusal};
use crate::sink::{Failure, FailureKind};

/// A server that does not take our connection in this time is called unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections are closed soon: their buffers hold what went through them.
const IDLE: Duration = Duration::from_secs(15);

/// Twice what a KV secret can have.
const LARGEST_ANSWER: usize = 2 << 20;

/// A connection pool to one server, trusting what the store's settings say.
#[derive(Clone)]
pub(super) struct Wire {
    http: reqwest::Client,
    address: Url,
    ca: Option<Stamp>,
}

/// What a server answered, whatever its status.
pub(super) struct Answer {
    pub status: u16,
    /// Whether the answer calls itself JSON.
    pub json: bool,
    pub retry_after: Option<Duration>,
    pub body: Zeroizing<Vec<u8>>,
}

/// One request: a path below `/v1/` in segments, and a JSON body.
pub(super) struct Request<'a> {
    pub method: Method,
    pub path: &'a str,
    pub body: Option<Zeroizing<Vec<u8>>>,
}

impl VaultStore {
    /// The pool; made anew when the CA file changed.
    ///
    /// # Errors
    /// `Refused` for an address that cannot be used, `Local` for a CA file that cannot.
    pub(super) async fn wire(&self) -> Result<Wire, Failure> {
        let mut kept = self.wire.lock().await;
        let ca = match &self.spec.ca_file {
            Some(path) => own::stamp(path).await,
            None => None,
        };
        if let Some(wire) = kept.as_ref().filter(|wire| wire.ca == ca || ca.is_none()) {
            return Ok(wire.clone());
        }
        Ok(kept.insert(self.new_wire().await?).clone())
    }

    async fn new_wire(&self) -> Result<Wire, Failure> {
        let address = address(&self.spec.address)
            .map_err(|why| self.failure(FailureKind::Refused, format_args!("its address `{}` {why}", self.spec.address)))?;
        let mut builder = reqwest::Client::builder()
            .tls_backend_rustls()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            // A redirect would carry our token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        let mut ca = None;
        if let Some(path) = &self.spec.ca_file {
            let (pem, stamp) = own::read(path).await?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                let what = format!("{} holds no PEM certificate: `caFile` needs the CA that signed the server's", path.display());
                return Err(self.failure(FailureKind::Local, what));
            }
            builder = builder.tls_certs_only(certificates);
            ca = Some(stamp);
        } else if address.scheme() == "http" {
            // reqwest insists on roots even where no TLS is spoken.
            builder = builder.tls_certs_only(Vec::new());
        }
        let http = builder.build().map_err(|e| {
            let what = format!("no TLS client can be made ({}): name the server's CA in `caFile`", refusal::deepest(&e));
            self.failure(FailureKind::Local, what)
        })?;
        Ok(Wire { http, address, ca })
    }

    /// The client for vaultrs' calls. Every setting is given, so that no `VAULT_*` variable is read.
    pub(super) fn vaultrs(&self, wire: &Wire, token: &str) -> Result<VaultClient, Failure> {
        let unusable = || self.failure(FailureKind::Local, "its client cannot be made");
        let settings = VaultClientSettingsBuilder::default()
            // For a plain address vaultrs makes its own client without the host's roots, which may be missing;
            // ours takes that client's place at once.
            .address("http://127.0.0.1")
            .ca_certs(Vec::new())
            .identity(None)
            .timeout(None)
            .token(token)
            .verify(true)
            .version(1)
            .wrapping(false)
            .namespace(self.spec.namespace.clone())
            .build()
            .map_err(|_| unusable())?;
        let mut client = VaultClient::new(settings).map_err(|_| unusable())?;
        client.http.http = wire.http.clone();
        client.http.base = wire.address.to_string();
        client.settings.address = wire.address.clone();
        Ok(client)
    }

    /// Sends one request with one token.
    ///
    /// # Errors
    /// Only where there is no whole answer: `Unavailable`; `BadAnswer` for one without end.
    pub(super) async fn send(&self, wire: &Wire, request: &Request<'_>, token: &str) -> Result<Answer, Failure> {
        let url = url(&wire.address, request.path)
            .ok_or_else(|| self.failure(FailureKind::Refused, format_args!("`{}` has a part that is empty, `.` or `..`", request.path)))?;
        let mut asked = wire.http.request(request.method.clone(), url).headers(self.headers(token)?);
        if let Some(body) = &request.body {
            let body = Bytes::from_owner(body.clone());
            asked = asked.header(CONTENT_TYPE, "application/json").body(body);
        }
        let lost = |e: &reqwest::Error| refusal::lost(e).into_failure(&self.name);
        let mut answer = asked.send().await.map_err(|e| lost(&e))?;
        let json = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let header = |name: HeaderName| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let wish = header(RETRY_AFTER).map(|wish| patience::wish(wish, header(DATE)));
        if wish == Some(None) {
            self.upstream.note_garbled();
        }
        let retry_after = wish.flatten();
        let status = answer.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(|e| lost(&e))? {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                return Err(self.failure(FailureKind::BadAnswer, "its answer is longer than any that Vault gives"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, json, retry_after, body })
    }

    fn headers(&self, token: &str) -> Result<HeaderMap, Failure> {
        let value = |text: &str, what: &str| {
            let value = HeaderValue::from_str(text);
            value.map_err(|_| self.failure(FailureKind::Refused, format_args!("its {what} has characters that no header may carry")))
        };
        let mut headers = HeaderMap::new();
        let mut secret = value(token, "token")?;
        secret.set_sensitive(true);
        headers.insert("x-vault-token", secret);
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = &self.spec.namespace {
            headers.insert("x-vault-namespace", value(namespace, "namespace")?);
        }
        Ok(headers)
    }
}

fn address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL: write https://HOST:PORT")?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none_or(str::is_empty) {
        return Err("is no web address: write https://HOST:PORT");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("has a path: write https://HOST:PORT alone");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user in it: name the login in `auth`");
    }
    Ok(url)
}

/// The URL of a path below `/v1/`; its segments are escaped, never resolved.
fn url(address: &Url, path: &str) -> Option<Url> {
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return None;
    }
    let mut url = address.clone();
    url.path_segments_mut().ok()?.clear().push("v1").extend(path.split('/'));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_and_a_host_with_nothing_behind_it() {
        assert!(address("https://vault.example.com:8200").is_ok());
        assert!(address("https://vault.example.com/").is_ok());
        for wrong in ["vault.example.com:8200", "https://", "ftp://host", "https://host/prefix", "https://user@host", "https://host?x"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_character_of_a_path_reaches_the_server_as_itself() {
        let address = address("https://host:8200").unwrap();
        let url = |path| url(&address, path).map(|url| url.path().to_owned());
        assert_eq!(url("secret/data/a b/ü?#%2e"), Some("/v1/secret/data/a%20b/%C3%BC%3F%23%252e".into()));
        assert_eq!(url("secret/data/../x"), None);
        assert_eq!(url("secret/data//x"), None);
        assert_eq!(url("secret/data/x/"), None);
    }
}
