//! The client of one vault: Microsoft's, over our own HTTP, without hidden retries.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body, ClientOptions, HttpClient, Request, RetryOptions, Transport};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};

use super::login::Login;
use super::refusal::{self, Verdict};
use super::{AzureAuth, AzureStoreSpec};
use crate::sink::vault::own::{self, Stamp};
use crate::sink::wire;
use crate::sink::{Failure, FailureKind};

/// A client with its login, and the files that both were made from.
pub(super) struct Wire {
    pub client: SecretClient,
    login: Arc<Login>,
    stamps: Vec<Option<Stamp>>,
}

impl Wire {
    /// One for that vault. Nothing is sent yet.
    ///
    /// # Errors
    /// `Local` for a file that cannot be used, or where this host trusts no CA.
    pub async fn new(spec: &AzureStoreSpec) -> Result<Self, Failure> {
        let stamps = stamps(spec).await;
        let ca = match &spec.ca_file {
            Some(path) => Some(own::read(path).await?.0),
            None => None,
        };
        let unmade = |why| Failure::new(FailureKind::Local, format!("{why}: name the vault's CA in `caFile`"));
        let http = wire::client("https", ca.as_ref().map(|pem| pem.as_slice())).map_err(unmade)?;
        let options = || ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(Http(http.clone())))),
            ..ClientOptions::default()
        };
        let login = Arc::new(Login::new(spec, options()).await?);
        // Whose login a vault asks for is looked at by `Login`, more strictly than here.
        let settings = SecretClientOptions { client_options: options(), verify_challenge_resource: Some(false), ..Default::default() };
        let unusable = |_| Failure::new(FailureKind::Refused, "`address` is no address of a vault");
        let credential = Arc::clone(&login) as Arc<dyn azure_core::credentials::TokenCredential>;
        let client = SecretClient::new(&spec.address, credential, Some(settings)).map_err(unusable)?;
        Ok(Self { client, login, stamps })
    }

    /// Whether the files that it was made from are still the same.
    pub async fn is_current(&self, spec: &AzureStoreSpec) -> bool {
        // One that is gone for a moment is no other one.
        let now = stamps(spec).await;
        self.stamps.iter().zip(now).all(|(before, now)| now.is_none() || *before == now)
    }

    /// Logs in, where that is due.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn log_in(&self) -> Result<(), Verdict> {
        self.login.ready().await
    }
}

async fn stamps(spec: &AzureStoreSpec) -> Vec<Option<Stamp>> {
    let secret: Option<&PathBuf> = if let AzureAuth::ClientSecret(auth) = &spec.auth { Some(&auth.secret_file) } else { None };
    let mut found = Vec::new();
    for path in spec.ca_file.iter().chain(secret) {
        found.push(own::stamp(path).await);
    }
    found
}

/// The HTTP of the other sinks, as Microsoft's crates take it: it follows no redirect.
struct Http(reqwest::Client);

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl Http {
    async fn send(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let unknown = |_| Error::with_message(ErrorKind::Other, "a method that HTTP does not have");
        let method = reqwest::Method::from_bytes(request.method().as_str().as_bytes()).map_err(unknown)?;
        let Body::Bytes(bytes) = request.body() else {
            return Err(Error::with_message(ErrorKind::Other, "a body that comes in pieces is never sent"));
        };
        let mut outgoing = self.0.request(method, request.url().as_str()).body(bytes.clone());
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let lost = |why: String| Error::with_message(ErrorKind::Io, why);
        let mut answer = outgoing.send().await.map_err(|error| lost(wire::deepest(&error.without_url())))?;
        let text = |value: &reqwest::header::HeaderValue| value.to_str().ok().map(ToOwned::to_owned);
        let pairs = answer.headers().iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.insert(HeaderName::from(name), HeaderValue::from(value));
        }
        let status = answer.status().as_u16();
        let body = wire::body(&mut answer).await.map_err(lost)?;
        let body = body.ok_or_else(|| Error::with_message(ErrorKind::DataConversion, refusal::ENDLESS))?;
        Ok(AsyncRawResponse::from_bytes(status.into(), headers, body.to_vec()))
    }
}

impl HttpClient for Http {
    fn execute_request<'a, 'b, 'c>(
        &'a self,
        request: &'b Request,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AsyncRawResponse>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.send(request))
    }
}
