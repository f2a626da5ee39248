//! HTTP as the sinks without a client of their own speak it: rustls with the host's roots or a CA that is named,
//! no redirect (it would carry our token to another host), answers of a bounded size.

use std::error::Error;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, DATE, RETRY_AFTER};
use zeroize::Zeroizing;

use super::store::causes;
use crate::cluster::patience;

/// A server that does not take our connection in this time is called unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed soon: their buffers hold what went through them.
const IDLE: Duration = Duration::from_secs(15);
/// More than any answer that a sink has a use for.
const LARGEST: usize = 1 << 20;

/// What a server answered, whatever its status.
pub(super) struct Answer {
    pub status: u16,
    /// Whether the answer calls itself JSON.
    pub json: bool,
    /// How long it asked us to wait; `Some(None)` where that is garbage.
    pub patience: Option<Option<Duration>>,
    /// `None` for one without end.
    pub body: Option<Zeroizing<Vec<u8>>>,
}

/// A client for addresses of that scheme, which trusts these CAs (PEM) alone where there are any.
///
/// # Errors
/// Why there can be none.
pub(super) fn client(scheme: &str, ca: Option<&[u8]>) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_rustls()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("tokenferry/", env!("CARGO_PKG_VERSION")));
    match ca.map(|pem| reqwest::Certificate::from_pem_bundle(pem).unwrap_or_default()) {
        Some(certificates) if certificates.is_empty() => return Err("it holds no PEM certificate".into()),
        Some(certificates) => builder = builder.tls_certs_only(certificates),
        // reqwest insists on roots even where no TLS is spoken.
        None if scheme == "http" => builder = builder.tls_certs_only(Vec::new()),
        None => {}
    }
    builder.build().map_err(|error| format!("no TLS client can be made: {}", deepest(&error)))
}

/// Sends it, and reads the whole answer.
///
/// # Errors
/// Why there is none.
pub(super) async fn send(request: reqwest::RequestBuilder) -> Result<Answer, String> {
    let mut answer = request.send().await.map_err(|error| deepest(&error.without_url()))?;
    let status = answer.status().as_u16();
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let json = header(CONTENT_TYPE).is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim().ends_with("json")));
    let json = json || header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/x-amz-json"));
    let patience = header(RETRY_AFTER).map(|value| patience::wish(value, header(DATE)));
    let body = body(&mut answer).await?;
    Ok(Answer { status, json, patience, body })
}

/// The rest of the answer; `None` for one without end.
///
/// # Errors
/// Why it ends too soon.
pub(super) async fn body(answer: &mut reqwest::Response) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(|error| deepest(&error.without_url()))? {
        if body.len() + chunk.len() > LARGEST {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The first cause of it, which never quotes an answer.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    crate::token::mask::mask(&cause).chars().take(200).collect()
}
