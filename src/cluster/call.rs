//! One request to the API server with our own credential, for what is no TokenRequest: objects that sinks and hooks
//! read and write. Answers are bounded, refusals classified; whoever calls has entered the upstream's gate before.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use kube::client::Body;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::client::{ApiServer, Clients};
use super::mint::send;
use super::refusal::{retry_after, text};
use super::{Cluster, Issuer, MintFailureKind, Verdict};
use crate::token::mask;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The verb of HTTP.
    pub method: &'a Method,
    /// Path and query.
    pub path: &'a str,
    /// `Content-Type` of the body.
    pub content: &'a str,
    /// The body; it may hold a secret, so nothing prints it.
    pub body: &'a [u8],
    /// `Accept`.
    pub accept: &'a str,
    /// How long it may take.
    pub within: Duration,
}

impl<'a> Call<'a> {
    /// Reads that path as JSON.
    pub fn get(path: &'a str, within: Duration) -> Self {
        Self { method: &Method::GET, path, content: "application/json", body: b"", accept: "application/json", within }
    }

    /// Deletes the object at that path, as `options` (`DeleteOptions`) say.
    pub fn delete(path: &'a str, options: &'a [u8], within: Duration) -> Self {
        Self { method: &Method::DELETE, path, content: "application/json", body: options, accept: "application/json", within }
    }

    /// Server-side apply: `body` is what is wanted, at a path of [`object::applied`](super::object::applied).
    pub fn apply(path: &'a str, body: &'a [u8], within: Duration) -> Self {
        // JSON is YAML too.
        Self::patch(path, "application/apply-patch+yaml", body, within)
    }

    /// Makes the object in `body` in the collection at that path.
    pub fn post(path: &'a str, body: &'a [u8], within: Duration) -> Self {
        Self { method: &Method::POST, path, content: "application/json", body, accept: "application/json", within }
    }

    /// Sends a patch of that type.
    pub fn patch(path: &'a str, content: &'a str, body: &'a [u8], within: Duration) -> Self {
        Self { method: &Method::PATCH, path, content, body, accept: "application/json", within }
    }
}

/// Why a call has no result, in the classes that decide what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No answer, or 5xx.
    Unavailable,
    /// 429.
    Throttled,
    /// 401: our own credential is refused.
    Unauthorized,
    /// 403: a right is missing.
    Forbidden,
    /// 404: the object, or its namespace, is not there.
    NotFound,
    /// 409: somebody else wrote meanwhile.
    Conflict,
    /// 409 of a server-side apply: somebody else owns a field that we set.
    Owned,
    /// Any other refusal of this request: 400, 413, 422.
    Invalid,
    /// An answer that no API server gives.
    BadAnswer,
}

/// A call that has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which class.
    pub trouble: Trouble,
    /// The server's words, bounded and masked, or what broke on the way.
    pub message: String,
    /// How long the server asked us to wait.
    pub retry_after: Option<Duration>,
    /// What the answer's `details` name as missing or refused: kind and name, such as `namespaces` and `ci`.
    pub subject: Option<(String, String)>,
}

impl Refusal {
    fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into(), retry_after: None, subject: None }
    }

    /// What it shows of the API server's health.
    pub fn verdict(&self) -> Verdict {
        match self.trouble {
            Trouble::Unavailable | Trouble::BadAnswer => Verdict::Failed,
            Trouble::Throttled => Verdict::Overloaded(self.retry_after),
            _ => Verdict::Healthy,
        }
    }
}

impl Cluster {
    /// Asks the API server, in a turn that the caller holds. A refusal of our own credential makes it read anew, once.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn call(&self, call: Call<'_>) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let api = match &self.issuer {
            Issuer::Api(api) => api,
            Issuer::Embedded(_) => return Err(Refusal::new(Trouble::Invalid, "an embedded cluster has no API server")),
        };
        let answered = self.once(api, call).await;
        if answered.as_ref().is_err_and(|refusal| refusal.trouble == Trouble::Unauthorized) {
            api.reload();
            return self.once(api, call).await;
        }
        answered
    }

    async fn once(&self, api: &ApiServer, call: Call<'_>) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let clients = api.clients().await.map_err(|e| Refusal::new(Trouble::Unavailable, e.0))?;
        let (index, url) = (clients.best().0, clients.best().1.url.clone());
        let late = || Refusal::new(Trouble::Unavailable, format!("{url}: no answer within {} s", call.within.as_secs_f32()));
        let answered = tokio::time::timeout(call.within, self.ask_for(&clients, index, call)).await.unwrap_or_else(|_| Err(late()));
        if answered.as_ref().is_err_and(|refusal| refusal.trouble == Trouble::Unavailable) {
            clients.failed(index);
        }
        answered
    }

    async fn ask_for(&self, clients: &Clients, index: usize, call: Call<'_>) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let endpoint = &clients.endpoints[index];
        let request = http::Request::builder()
            .method(call.method)
            .uri(call.path)
            .header(http::header::CONTENT_TYPE, call.content)
            .header(http::header::ACCEPT, call.accept)
            .body(Body::from(call.body.to_vec()))
            .map_err(|_| Refusal::new(Trouble::Invalid, format!("{} is no path of the API", call.path)))?;
        let (status, headers, body) = send(endpoint, &endpoint.own, &self.upstream, request).await.map_err(|failure| {
            let unauthorized = failure.kind == MintFailureKind::Unauthorized;
            Refusal::new(if unauthorized { Trouble::Unauthorized } else { Trouble::Unavailable }, failure.message)
        })?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &headers, &body)) }
    }
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    kind: String,
    name: String,
    retry_after_seconds: Option<u64>,
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
}

pub(super) fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let said: Status = serde_json::from_slice(body).unwrap_or_default();
    let details = said.details.unwrap_or_default();
    let owned = details.causes.iter().any(|cause| cause.reason == "FieldManagerConflict");
    let trouble = match status.as_u16() {
        401 => Trouble::Unauthorized,
        403 => Trouble::Forbidden,
        404 => Trouble::NotFound,
        409 if owned => Trouble::Owned,
        409 => Trouble::Conflict,
        429 => Trouble::Throttled,
        400..=499 => Trouble::Invalid,
        500.. => Trouble::Unavailable,
        _ => Trouble::BadAnswer,
    };
    let words: String = mask::mask(&said.message).split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect();
    let words =
        if words.is_empty() { text(headers, "content-type").map(|t| format!("an answer of type {t}")).unwrap_or_default() } else { words };
    Refusal {
        trouble,
        message: format!("{}: {words}", status.as_u16()),
        retry_after: retry_after(headers).or(details.retry_after_seconds.map(Duration::from_secs)),
        subject: (!details.name.is_empty()).then_some((details.kind, details.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, body: &str) -> Refusal {
        refusal(StatusCode::from_u16(code).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn the_two_conflicts_of_an_apply_are_told_apart() {
        let owned = r#"{"message":"Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.token","details":{"causes":[{"reason":"FieldManagerConflict"}]}}"#;
        assert_eq!(refused(409, owned).trouble, Trouble::Owned);
        assert!(refused(409, owned).message.contains("kubectl-edit"));
        assert_eq!(refused(409, r#"{"message":"the object has been modified"}"#).trouble, Trouble::Conflict);
    }

    #[test]
    fn a_refusal_quotes_no_token_and_no_page() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        assert!(!refused(422, &format!(r#"{{"message":"bad value {jwt}"}}"#)).message.contains("c2lnbmF0dXJl"));
        assert!(!refused(502, "<html>secret</html>").message.contains("secret"));
        assert_eq!(refused(502, "<html>").trouble, Trouble::Unavailable);
    }
}
