//! How the API server refuses to mint, and what that means for the next try.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::Ask;
use super::mint::{MintFailure, MintFailureKind};
use super::patience::{LONGEST_WAIT, retry_after};

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
    let told = text(headers, "retry-after").and_then(|wish| retry_after(&wish, text(headers, "date").as_deref()));
    let retry_after = told.or(said.details.as_ref().and_then(|d| d.retry_after_seconds).map(|s| Duration::from_secs(s).min(LONGEST_WAIT)));
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
        409 => (MintFailureKind::Refused, format!("409: the account or the bound object was made anew meanwhile ({words})")),
        429 => (MintFailureKind::Throttled, "429: the API server asks for less load".to_owned()),
        code if code >= 500 => (MintFailureKind::Unavailable, format!("{code}: the API server cannot serve now ({words})")),
        400..=499 => (MintFailureKind::Refused, format!("{}: {words}", status.as_u16())),
        code => (MintFailureKind::BadAnswer, format!("{code}: no answer that an API server gives when it is asked for a token")),
    };
    MintFailure { kind, message, retry_after, audit_id: None }
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
    fn a_wish_for_patience_is_bounded_and_its_date_counts_from_the_servers_own() {
        let wait = |body: &str, pairs: &[(&'static str, &str)]| refused(503, body, pairs).retry_after.map(|d| d.as_secs());
        let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(wait("", &[("retry-after", "Wed, 21 Oct 2015 07:28:09 GMT"), date]), Some(9));
        assert_eq!(wait("", &[("retry-after", "18446744073709551615")]), Some(600));
        assert_eq!(wait(r#"{"details":{"retryAfterSeconds":18446744073709551615}}"#, &[("retry-after", "soon"), date]), Some(600));
        assert_eq!(wait("", &[("retry-after", "soon"), date]), None);
    }
}
