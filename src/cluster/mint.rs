//! Minting through the TokenRequest API (`authentication.k8s.io/v1`). No other file calls it.
//!
//! The raw request is sent and the answer parsed here: kube's typed calls lose the `Warning`,
//! `Retry-After`, `Date` and `Audit-Id` headers, and log a whole body that they cannot parse.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::client::{Clients, Endpoint, chain};
use super::refusal::{refusal, retry_after, text};
use super::upstream::{Upstream, Verdict};
use super::{Ask, Binding};
use crate::token::{Claims, Token};

/// Largest answer that we read: a token of 20 kB with its frame is far below.
pub(super) const LARGEST_ANSWER: usize = 2 << 20;
/// How the message of an answer begins that did not come whole, or would be larger than that.
pub(super) const BROKE_OFF: &str = "its answer broke off";
/// Longest that one call may take; the server is asked to stop a second before.
const CALL_WITHIN: Duration = Duration::from_secs(15);

/// A fresh token with what its answer said.
pub struct Minted {
    /// The token.
    pub token: Token,
    /// What it says of itself, checked against what was asked.
    pub claims: Claims,
    /// `Audit-Id` of the request: joins our records with the API server's audit log.
    pub audit_id: Option<String>,
    /// What the server warned of, such as a shortened lifetime.
    pub warnings: Vec<String>,
    /// Whether the spare credential was used, for our own had died.
    pub through_spare: bool,
}

impl Minted {
    /// The TokenRequest as the API server answers it and kubectl prints it, for machines that read that.
    /// It holds the token.
    pub fn as_answer(&self, ask: &Ask, bound_uid: Option<&str>) -> serde_json::Value {
        let bound = ask.bound_to.as_deref().map(|binding| {
            let mut object = reference(binding);
            object["uid"] = json!(bound_uid);
            object
        });
        let ends = self.claims.exp.and_then(|exp| jiff::Timestamp::from_second(exp).ok());
        json!({
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": ask.service_account, "namespace": ask.namespace},
            "spec": {"audiences": self.claims.aud, "expirationSeconds": self.claims.lifetime(), "boundObjectRef": bound},
            "status": {"token": self.token.expose(), "expirationTimestamp": ends},
        })
    }
}

/// Why no token was minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MintFailure {
    /// What sort of failure.
    pub kind: MintFailureKind,
    /// For people: what failed and the way out.
    pub message: String,
    /// How long the server asked us to wait.
    pub retry_after: Option<Duration>,
    /// `Audit-Id` of the refused request.
    pub audit_id: Option<String>,
}

/// The classes that decide what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MintFailureKind {
    /// No answer, or 5xx: tried again soon.
    Unavailable,
    /// 429: tried again when the server said.
    Throttled,
    /// 401: our own credential is refused.
    Unauthorized,
    /// 403, 404, 409, 422, 400: this target's own fault; tried again slowly, roles and accounts appear late.
    Refused,
    /// An answer that no API server gives, or a token that is not what was asked for.
    BadAnswer,
}

impl MintFailure {
    pub(super) fn new(kind: MintFailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, audit_id: None }
    }

    /// Whether RBAC says no: the caller lacks a right, which the message names.
    pub fn is_forbidden(&self) -> bool {
        self.kind == MintFailureKind::Refused && self.message.starts_with("403: ")
    }

    /// What it shows of the API server's health.
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            MintFailureKind::Unavailable if self.retry_after.is_some() => Verdict::Overloaded(self.retry_after),
            MintFailureKind::Unavailable | MintFailureKind::BadAnswer => Verdict::Failed,
            MintFailureKind::Throttled => Verdict::Overloaded(self.retry_after),
            MintFailureKind::Unauthorized | MintFailureKind::Refused => Verdict::Healthy,
        }
    }
}

/// What an answer shows of the API server's health.
pub(super) fn verdict(result: &Result<Minted, MintFailure>) -> Verdict {
    result.as_ref().map_or_else(MintFailure::verdict, |_| Verdict::Healthy)
}

/// The right that minting for the account needs: the name is in the request's path, so `resourceNames` holds.
pub fn right(ask: &Ask) -> super::rights::Right {
    super::rights::Right::named(&ask.namespace, "", "serviceaccounts/token", &ask.service_account, &["create"])
}

/// Asks the API server for a token.
///
/// # Errors
/// [`MintFailure`], classified; never with a byte of a token in it.
pub(super) async fn mint(clients: &Clients, upstream: &Upstream, ask: &Ask) -> Result<Minted, MintFailure> {
    let (index, endpoint) = clients.best();
    let answer = tokio::time::timeout(CALL_WITHIN, call(endpoint, upstream, ask)).await;
    let result = answer.unwrap_or_else(|_| {
        Err(MintFailure::new(MintFailureKind::Unavailable, format!("{}: no answer within {} s", endpoint.url, CALL_WITHIN.as_secs())))
    });
    if result.as_ref().is_err_and(|e| e.kind == MintFailureKind::Unavailable) {
        clients.failed(index);
    }
    result
}

async fn call(endpoint: &Endpoint, upstream: &Upstream, ask: &Ask) -> Result<Minted, MintFailure> {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": ask.audiences,
            "expirationSeconds": ask.duration,
            "boundObjectRef": ask.bound_to.as_deref().map(reference),
        },
    });
    let path = format!(
        "/api/v1/namespaces/{}/serviceaccounts/{}/token?timeout={}s",
        ask.namespace,
        ask.service_account,
        CALL_WITHIN.as_secs() - 1
    );
    let request =
        http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string().into_bytes()));
    let request = request.map_err(|_| MintFailure::new(MintFailureKind::Refused, format!("{} is no account name", ask.service_account)))?;
    let (status, headers, bytes) = send(endpoint, &endpoint.own, upstream, request).await?;
    let audit_id = text(&headers, "audit-id");
    if status != StatusCode::CREATED && status != StatusCode::OK {
        return Err(MintFailure { audit_id, ..refusal(status, &headers, &bytes, ask) });
    }
    let minted = read(&bytes, &headers, ask).map_err(|message| MintFailure {
        audit_id: audit_id.clone(),
        ..MintFailure::new(MintFailureKind::BadAnswer, format!("{}: {message}", endpoint.url))
    })?;
    Ok(Minted { audit_id, ..minted })
}

/// Sends a request and reads its whole answer, bounded.
pub(super) async fn send(
    endpoint: &Endpoint,
    client: &kube::Client,
    upstream: &Upstream,
    request: http::Request<Body>,
) -> Result<(StatusCode, HeaderMap, Zeroizing<Vec<u8>>), MintFailure> {
    let unavailable = |text: String| MintFailure::new(MintFailureKind::Unavailable, format!("{}: {text}", endpoint.url));
    let response = client.send(request).await.map_err(|e| match &e {
        kube::Error::Auth(_) => MintFailure::new(MintFailureKind::Unauthorized, format!("our own credential: {}", chain(&e))),
        _ => unavailable(transport(&e)),
    })?;
    let (parts, body) = response.into_parts();
    note_time(upstream, &parts.headers);
    if parts.headers.contains_key(http::header::RETRY_AFTER) && retry_after(&parts.headers).is_none() {
        upstream.note_garbled();
    }
    let collected = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|e| unavailable(format!("{BROKE_OFF} ({})", short(&*e))))?;
    Ok((parts.status, parts.headers, Zeroizing::new(collected.to_bytes().to_vec())))
}

/// A request without a credential, for the time that its answer shows; a refusal is an answer too.
pub(super) async fn ask_time(clients: &Clients, upstream: &Upstream) -> bool {
    let (_, endpoint) = clients.best();
    let Ok(request) = http::Request::get("/version").body(Body::empty()) else { return false };
    tokio::time::timeout(CALL_WITHIN, send(endpoint, &endpoint.bare, upstream, request)).await.is_ok_and(|answer| answer.is_ok())
}

fn note_time(upstream: &Upstream, headers: &HeaderMap) {
    let Some(date) = text(headers, "date") else { return };
    if let Ok(at) = jiff::fmt::rfc2822::parse(&date) {
        #[allow(clippy::cast_precision_loss)] // seconds of this era are exact
        // The header has whole seconds, cut: half a second is the mean of what was cut off.
        upstream.note_time(at.timestamp().as_second() as f64 + 0.5, jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
    }
}

fn reference(binding: &Binding) -> serde_json::Value {
    let (kind, name) = match binding {
        Binding::Secret(name) => ("Secret", name),
        Binding::Pod(name) => ("Pod", name),
        Binding::Node(name) => ("Node", name),
        Binding::Marker(marker) => return json!({"apiVersion": "v1", "kind": "Secret", "name": marker.name, "uid": marker.uid}),
    };
    json!({"apiVersion": "v1", "kind": kind, "name": name})
}

#[derive(Deserialize)]
struct Answer {
    status: AnswerStatus,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct AnswerStatus {
    token: String,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    uid: String,
}

fn read(bytes: &[u8], headers: &HeaderMap, ask: &Ask) -> Result<Minted, String> {
    let answer: Answer = serde_json::from_slice(bytes)
        .map_err(|e| format!("the answer to TokenRequest is not the JSON it should be (line {}, column {})", e.line(), e.column()))?;
    let token = Token::new(answer.status.token);
    let claims = token.claims().map_err(|e| format!("the token cannot be read: {e}"))?;
    check(&claims, ask)?;
    let uid = &claims.kubernetes.serviceaccount.uid;
    if !answer.metadata.uid.is_empty() && !uid.is_empty() && *uid != answer.metadata.uid {
        return Err("the token is of another ServiceAccount object than the answer names".into());
    }
    let warnings = headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).map(warning).collect();
    Ok(Minted { token, claims, audit_id: None, warnings, through_spare: false })
}

/// Whether a token is the one that was asked for: subject, audiences, binding, a life that lies ahead.
///
/// # Errors
/// The first difference, in words.
pub fn check(claims: &Claims, ask: &Ask) -> Result<(), String> {
    let subject = format!("system:serviceaccount:{}:{}", ask.namespace, ask.service_account);
    if claims.sub != subject {
        return Err(format!("the token is for `{}`, not for `{subject}`", claims.sub));
    }
    let mut given = claims.aud.clone();
    let mut asked = ask.audiences.clone();
    given.sort_unstable();
    asked.sort_unstable();
    if !asked.is_empty() && given != asked {
        return Err(format!("the token has the audiences {given:?}, not {asked:?}"));
    }
    let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
        return Err("the token does not say when it was issued and when it ends".into());
    };
    if exp <= iat {
        return Err("the token ends before it begins".into());
    }
    let found = &claims.kubernetes;
    let bound = match ask.bound_to.as_deref() {
        None => true,
        Some(Binding::Secret(name)) => found.secret.as_ref().is_some_and(|o| o.name == *name),
        Some(Binding::Pod(name)) => found.pod.as_ref().is_some_and(|o| o.name == *name),
        Some(Binding::Node(name)) => found.node.as_ref().is_some_and(|o| o.name == *name),
        Some(Binding::Marker(marker)) => found.secret.as_ref().is_some_and(|o| o.name == marker.name && o.uid == marker.uid),
    };
    if bound { Ok(()) } else { Err("the token is not bound to the object that was asked for".into()) }
}

/// The words of `Warning: 299 - "…"` (RFC 7234 §5.5).
fn warning(header: &str) -> String {
    let words = header.splitn(3, ' ').nth(2).unwrap_or(header);
    words.trim_matches('"').chars().take(300).collect()
}

/// What went wrong on the way, without what was on its way.
pub(super) fn transport(error: &kube::Error) -> String {
    let text = chain(error);
    let known = [
        ("refused", "connection refused"),
        ("timed out", "timed out"),
        ("deadline has elapsed", "no connection in time"),
        ("reset", "connection reset"),
        ("dns", "its name cannot be resolved"),
    ];
    if text.contains("certificate") {
        return format!("its TLS certificate is not accepted ({})", text.chars().take(300).collect::<String>());
    }
    known
        .iter()
        .find(|(sign, _)| text.to_lowercase().contains(sign))
        .map_or_else(|| text.chars().take(300).collect(), |(_, words)| (*words).to_owned())
}

fn short(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask { namespace: "ci".into(), service_account: "bot".into(), duration: 600, audiences: Vec::new(), bound_to: None }
    }

    #[test]
    fn a_token_of_somebody_else_is_no_answer() {
        let claims = Claims::of(&forged("system:serviceaccount:ci:other")).unwrap();
        assert!(check(&claims, &ask()).unwrap_err().contains("is for `system:serviceaccount:ci:other`"));
        assert!(check(&Claims::of(&forged("system:serviceaccount:ci:bot")).unwrap(), &ask()).is_ok());
    }

    #[test]
    fn other_audiences_and_a_missing_binding_are_noticed() {
        let claims = Claims::of(&forged("system:serviceaccount:ci:bot")).unwrap();
        let other = Ask { audiences: vec!["vault".into()], ..ask() };
        assert!(check(&claims, &other).unwrap_err().contains("audiences"));
        let bound = Ask { bound_to: Some(Box::new(Binding::Secret("s".into()))), ..ask() };
        assert!(check(&claims, &bound).unwrap_err().contains("not bound"));
    }

    #[test]
    fn a_broken_answer_is_never_quoted() {
        let body = br#"{"status":{"token":"eyJhbGciOiJFUzI1NiJ9.secret.secret""#;
        let Err(message) = read(body, &HeaderMap::new(), &ask()) else { panic!("read") };
        assert!(message.contains("line 1") && !message.contains("secret"), "{message}");
    }

    #[test]
    fn the_words_of_a_warning_header_are_kept() {
        assert_eq!(warning("299 - \"requested expiration of 9000 seconds shortened\""), "requested expiration of 9000 seconds shortened");
    }

    fn forged(subject: &str) -> String {
        use base64::Engine;
        let part = |v: serde_json::Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(v.to_string());
        format!("{}.{}.c2ln", part(json!({"alg": "ES256"})), part(json!({"sub": subject, "aud": ["api"], "iat": 1, "exp": 601})))
    }
}
