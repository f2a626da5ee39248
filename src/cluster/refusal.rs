//! How the API server refuses to mint, and what that means for the next try.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::mint::{MintFailure, MintFailureKind};
use super::{Ask, patience};

/// A refusal as a `Status` object, or as much of one as there is: flow control answers in plain text,
/// and a `?timeout` answer lacks kind and apiVersion.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    message: String,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    kind: String,
    retry_after_seconds: Option<u64>,
}

/// The failure that an answer other than a token is.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap, bytes: &[u8], ask: &Ask) -> MintFailure {
    let account = format!("{}/{}", ask.namespace, ask.service_account);
    let said: Status = serde_json::from_slice(bytes).unwrap_or_default();
    let retry_after = retry_after(headers).or(said.details.as_ref().and_then(|d| d.retry_after_seconds).map(Duration::from_secs));
    let words = crate::token::mask::mask(&said.message).chars().take(400).collect::<String>();
    let (kind, message) = match status.as_u16() {
        401 => (
            MintFailureKind::Unauthorized,
            "401: the API server refuses our own credential; renew the one that the kubeconfig names".to_owned(),
        ),
        403 => (
            MintFailureKind::Refused,
            format!(
                "403: we may not create tokens for {account}: grant `create` on `serviceaccounts/token` with resourceNames [{}] in namespace {} ({words})",
                ask.service_account, ask.namespace
            ),
        ),
        404 => {
            let (what, name) = said.details.map_or(("serviceaccounts".into(), account.clone()), |d| (d.kind, d.name));
            (MintFailureKind::Refused, format!("404: {what} `{name}` does not exist; make it, or mend the target"))
        }
        409 => (
            MintFailureKind::Refused,
            format!("409: {account}, or what its token is bound to, was made anew meanwhile; it is tried again ({words})"),
        ),
        429 => (MintFailureKind::Throttled, "429: the API server asks for less load".to_owned()),
        code if code >= 500 => (MintFailureKind::Unavailable, format!("{code}: the API server cannot serve now ({words})")),
        400..=499 => {
            let code = status.as_u16();
            (MintFailureKind::Refused, format!("{code}: the API server gives no such token for {account}; mend the target ({words})"))
        }
        code => (MintFailureKind::BadAnswer, format!("{code}: no answer that an API server gives when it is asked for a token")),
    };
    MintFailure { kind, message, retry_after, audit_id: None }
}

/// What `Retry-After` asks for; garbage is ignored.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    patience::wish(&text(headers, "retry-after")?, text(headers, "date").as_deref())
}

/// A header as text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask { namespace: "ci".into(), service_account: "bot".into(), duration: 600, audiences: Vec::new(), bound_to: None }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    fn refused(code: u16, body: &str, pairs: &[(&'static str, &str)]) -> MintFailure {
        refusal(StatusCode::from_u16(code).unwrap(), &headers(pairs), body.as_bytes(), &ask())
    }

    #[test]
    fn a_plain_text_429_is_throttling_with_its_delay() {
        let failure = refused(429, "Too many requests, please try again later.\n", &[("retry-after", "7")]);
        assert_eq!((failure.kind, failure.retry_after), (MintFailureKind::Throttled, Some(Duration::from_secs(7))));
    }

    #[test]
    fn a_half_formed_504_is_unavailability() {
        let failure = refused(504, r#"{"metadata":{},"status":"Failure","message":"Timeout: request did not complete","code":504}"#, &[]);
        assert_eq!(failure.kind, MintFailureKind::Unavailable);
    }

    #[test]
    fn a_404_names_what_is_missing() {
        let failure = refused(404, r#"{"details":{"name":"ci-x","kind":"secrets"},"code":404}"#, &[]);
        assert!(failure.message.contains("secrets `ci-x` does not exist"), "{}", failure.message);
        assert_eq!(failure.kind, MintFailureKind::Refused);
    }

    #[test]
    fn retry_after_takes_both_forms_and_ignores_garbage() {
        assert_eq!(retry_after(&headers(&[("retry-after", "3")])), Some(Duration::from_secs(3)));
        assert_eq!(retry_after(&headers(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")])), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after(&headers(&[("retry-after", "-5")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }
}
