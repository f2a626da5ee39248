//! What an answer, or the lack of one, means. Nothing here quotes a body, a header or a token.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use vaultrs::error::ClientError;

use crate::sink::store::causes;
use crate::sink::vault::client::Answer;
use crate::sink::{Failure, FailureKind};

/// What went wrong, before it is known of which store and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub kind: FailureKind,
    pub why: String,
    pub retry_after: Option<Duration>,
}

impl Verdict {
    fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), retry_after: None }
    }

    /// With the store's name in front.
    pub fn into_failure(self, store: &str) -> Failure {
        Failure { kind: self.kind, message: format!("vault store `{store}`: {}", self.why), retry_after: self.retry_after }
    }
}

/// The errors that Vault sends: `{"errors": […]}`.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// Why an answer with a status of 300 or more is a failure. `doing` says what was asked for, `right` which
/// capabilities that needs.
pub(super) fn of_answer(answer: &Answer, doing: &str, right: &str) -> Verdict {
    let errors = serde_json::from_slice::<Errors>(&answer.body).ok().map(|found| found.errors);
    let mut verdict = of_status(answer.status, errors.as_deref(), doing, right);
    if matches!(verdict.kind, FailureKind::Throttled | FailureKind::Unavailable) {
        verdict.retry_after = answer.retry_after;
    }
    verdict
}

/// Vault's own words decide only between cases of one status; they are never passed on.
fn of_status(status: u16, errors: Option<&[String]>, doing: &str, right: &str) -> Verdict {
    let says = |words: &str| errors.is_some_and(|errors| errors.iter().any(|error| error.contains(words)));
    let verdict = |kind, why: &str| Verdict::new(kind, format!("{doing}: {why} (HTTP {status})"));
    match status {
        _ if status == 413 || says("too large") => verdict(FailureKind::TooLarge, "the secret is larger than the server stores"),
        429 => verdict(FailureKind::Throttled, "the server asks for patience"),
        503 if says("sealed") => verdict(FailureKind::Unavailable, "the server is sealed"),
        408 | 412 | 472 | 473 | 500.. => verdict(FailureKind::Unavailable, "the server cannot answer now"),
        300..=399 => verdict(
            FailureKind::BadAnswer,
            "the server points to another address, which is not followed: name the active server or a load balancer in `address`",
        ),
        _ if errors.is_none() => {
            verdict(FailureKind::BadAnswer, "something else than Vault answered: check `address` and what stands between")
        }
        400 if says("check-and-set") => verdict(FailureKind::Conflict, "somebody else wrote the secret meanwhile"),
        400 if says("pgrading") => verdict(FailureKind::Unavailable, "the KV engine is being upgraded"),
        403 => verdict(FailureKind::Refused, &format!("permission denied: {right}")),
        404 if says("namespace") => verdict(FailureKind::Refused, "there is no such namespace: check the store's `namespace`"),
        404 => verdict(FailureKind::Refused, "nothing answers at that path: check the mount and the store's `namespace`"),
        _ => verdict(FailureKind::Refused, "the server refuses the request"),
    }
}

/// Why a login or renewal through vaultrs failed.
pub(super) fn of_vaultrs(error: &ClientError, doing: &str, way_out: &str) -> Verdict {
    if let ClientError::APIError { code, errors } = error {
        let mut verdict = of_status(*code, Some(errors), doing, way_out);
        if matches!(code, 400 | 404) && verdict.kind == FailureKind::Refused {
            verdict.why = format!("{doing}: refused (HTTP {code}): {way_out}");
        }
        return verdict;
    }
    match causes(error).find_map(|cause| cause.downcast_ref::<reqwest::Error>()) {
        Some(cause) => {
            let Verdict { kind, why, retry_after } = lost(cause);
            Verdict { kind, why: format!("{doing}: {why}"), retry_after }
        }
        None => {
            Verdict::new(FailureKind::BadAnswer, format!("{doing}: the answer is not Vault's: check `address` and what stands between"))
        }
    }
}

/// Why there is no whole answer.
pub(super) fn lost(error: &reqwest::Error) -> Verdict {
    if let Some(tls) = causes(error).find_map(tls) {
        return Verdict::new(FailureKind::Unavailable, certificate(tls));
    }
    let what = match () {
        () if error.is_timeout() && error.is_connect() => "no connection in time".into(),
        () if error.is_timeout() => "no answer in time".into(),
        () if error.is_connect() => format!("no connection: {}", deepest(error)),
        () => format!("the connection broke off: {}", deepest(error)),
    };
    Verdict::new(FailureKind::Unavailable, what)
}

fn certificate(error: &rustls::Error) -> String {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer};
    match error {
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => "its TLS certificate has expired".into(),
        rustls::Error::InvalidCertificate(UnknownIssuer) => {
            "its TLS certificate is signed by nobody that is trusted here: name its CA in `caFile`".into()
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "its TLS certificate is for another name than the one in `address`".into()
        }
        rustls::Error::InvalidCertificate(_) => format!("its TLS certificate is not accepted: {error}"),
        _ => format!("TLS failed: {error}"),
    }
}

/// The last cause in the chain: of a transport error the one that says something, without URL or header.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref::<rustls::Error>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    use super::*;

    fn verdict(status: u16, body: &str) -> Verdict {
        let answer = Answer { status, json: true, retry_after: Some(Duration::from_secs(7)), body: Zeroizing::new(body.into()) };
        of_answer(&answer, "cannot write `secret/data/ci`", "give our policy `update` on `secret/data/ci`")
    }

    #[test]
    fn every_status_of_vault_has_its_kind() {
        let errors = r#"{"errors":["x"]}"#;
        for (status, body, kind) in [
            (400, errors, FailureKind::Refused),
            (400, r#"{"errors":["check-and-set parameter did not match the current version"]}"#, FailureKind::Conflict),
            (400, r#"{"errors":["Upgrading from non-versioned to versioned data"]}"#, FailureKind::Unavailable),
            (403, errors, FailureKind::Refused),
            (404, errors, FailureKind::Refused),
            (405, errors, FailureKind::Refused),
            (412, errors, FailureKind::Unavailable),
            (413, "", FailureKind::TooLarge),
            (429, "<html>", FailureKind::Throttled),
            (473, "", FailureKind::Unavailable),
            (500, errors, FailureKind::Unavailable),
            (500, r#"{"errors":["put failed due to value being too large"]}"#, FailureKind::TooLarge),
            (502, "<html>", FailureKind::Unavailable),
            (503, r#"{"errors":["Vault is sealed"]}"#, FailureKind::Unavailable),
            (307, "", FailureKind::BadAnswer),
            (404, "<html>", FailureKind::BadAnswer),
            (403, r#"{"message":"forbidden"}"#, FailureKind::BadAnswer),
        ] {
            assert_eq!(verdict(status, body).kind, kind, "{status} {body}");
        }
    }

    #[test]
    fn a_refusal_names_the_right_that_is_missing() {
        assert_eq!(
            verdict(403, r#"{"errors":["1 error occurred: permission denied"]}"#).why,
            "cannot write `secret/data/ci`: permission denied: give our policy `update` on `secret/data/ci` (HTTP 403)"
        );
    }

    #[test]
    fn the_wish_for_patience_is_kept_only_where_waiting_helps() {
        assert_eq!(verdict(429, "").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(verdict(503, "").retry_after, Some(Duration::from_secs(7)));
        assert_eq!(verdict(403, r#"{"errors":[]}"#).retry_after, None);
    }

    #[test]
    fn nothing_of_a_body_reaches_a_message() {
        for status in [200, 307, 400, 401, 403, 404, 405, 413, 429, 500, 502, 503] {
            for body in ["canary", r#"{"errors":["canary"]}"#, r#"{"errors":["canary too large sealed namespace"]}"#] {
                assert!(!verdict(status, body).why.contains("canary"), "{status}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_us_panic(status in 300u16..600, body in ".{0,80}") {
            let _ = verdict(status, &body);
        }
    }
}
