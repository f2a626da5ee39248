//! What an error of Microsoft's client means. Nothing here quotes an answer or a credential.

use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use serde::Deserialize;

use crate::cluster::patience;
use crate::sink::store::causes;
use crate::sink::{Failure, FailureKind};

/// Our own words for an answer that does not end.
pub(super) const ENDLESS: &str = "the answer has no end";
/// Our own words for a vault that asks for somebody else's login.
pub(super) const ANOTHER: &str = "it asks for the login of another service";

/// The code within a 403 of a version that was disabled.
const DISABLED: &str = "SecretDisabled";
/// An answer that is not in Azure's words.
pub(super) const NOT_AZURE: &str = "the answer is not of Azure Key Vault: check `address`";

/// What went wrong, before it is known in which store.
#[derive(Debug)]
pub(super) struct Verdict {
    pub kind: FailureKind,
    pub why: String,
    pub retry_after: Option<Duration>,
    /// Our login was refused: a new one may do.
    pub login: bool,
    /// It asked for patience in a way that makes no sense.
    pub garbled: bool,
}

impl Verdict {
    pub fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), retry_after: None, login: false, garbled: false }
    }

    /// With what the server asked for in the answer's head.
    fn with_wish(mut self, answer: Option<&RawResponse>) -> Self {
        let Some(headers) = answer.map(RawResponse::headers) else { return self };
        if matches!(self.kind, FailureKind::Throttled | FailureKind::Unavailable) {
            let text = |name: &'static str| headers.get_optional_str(&HeaderName::from_static(name));
            let wish = text("retry-after").map(|value| patience::wish(value, text("date")));
            (self.retry_after, self.garbled) = (wish.flatten(), wish == Some(None));
        }
        self
    }
}

/// An error in Key Vault's words.
#[derive(Default, Deserialize)]
struct Words {
    error: Code,
}

#[derive(Default, Deserialize)]
struct Code {
    #[serde(default)]
    code: String,
    #[serde(rename = "innererror")]
    inner: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

/// Status and codes of an answer, the inner one after the outer; empty where they are not Key Vault's.
fn said(error: &Error) -> Option<(u16, String, String, Option<&RawResponse>)> {
    let ErrorKind::HttpResponse { status, raw_response, .. } = error.kind() else { return None };
    let answer = raw_response.as_deref();
    let words: Option<Words> = answer.and_then(|answer| serde_json::from_slice(answer.body().as_ref()).ok());
    let Code { code, inner } = words.unwrap_or_default().error;
    Some((u16::from(*status), code, inner.unwrap_or_default().code, answer))
}

/// Whether there is no secret of that name.
pub(super) fn is_missing(error: &Error) -> bool {
    said(error).is_some_and(|(status, code, ..)| status == 404 && code == "SecretNotFound")
}

/// Whether the version in use was disabled.
pub(super) fn is_disabled(error: &Error) -> bool {
    said(error).is_some_and(|(status, _, inner, _)| status == 403 && inner == DISABLED)
}

/// Why a call failed. `doing` says what was asked for, `name` of which secret, `right` which data action that needs.
pub(super) fn of(error: &Error, doing: &str, name: &str, right: &str) -> Verdict {
    let mut verdict = match said(error) {
        Some((status, code, inner, answer)) => of_code(status, &code, &inner, name, right).with_wish(answer),
        None => of_way(error),
    };
    verdict.why = format!("{doing}: {}", verdict.why);
    verdict
}

fn of_code(status: u16, code: &str, inner: &str, name: &str, right: &str) -> Verdict {
    let shown = [code, inner].into_iter().filter(|code| is_word(code)).fold(String::new(), |all, code| format!("{all}, {code}"));
    let verdict = |kind, why: &str| Verdict::new(kind, format!("{why} (HTTP {status}{shown})"));
    match (status, inner) {
        (429, _) => verdict(FailureKind::Throttled, "Key Vault asks for patience: this vault, or its subscription, is asked too often"),
        (408 | 500.., _) => verdict(FailureKind::Unavailable, "Key Vault cannot answer now"),
        (300..=399, _) => verdict(FailureKind::BadAnswer, "it redirects us, and a token is not carried on: check `address`"),
        (413, _) => verdict(FailureKind::TooLarge, "it takes no secret of that size"),
        _ if code.is_empty() && status != 401 => verdict(FailureKind::BadAnswer, NOT_AZURE),
        (401, _) => {
            Verdict { login: true, ..verdict(FailureKind::Refused, "the vault does not take our login: is it of the same tenant?") }
        }
        (403, "ForbiddenByFirewall") => verdict(FailureKind::Refused, "the vault's firewall does not let this host through"),
        (403, DISABLED) => verdict(FailureKind::Refused, "the version in use was disabled, and cannot be read"),
        (403, _) => verdict(FailureKind::Refused, &format!("not allowed: our login needs {right} on the secret")),
        (409, "ObjectIsDeletedButRecoverable") => {
            let ways =
                format!("az keyvault secret recover --name {name}`, or end it for good with `az keyvault secret purge --name {name}");
            verdict(
                FailureKind::Refused,
                &format!("a deleted secret still has this name: bring it back with `{ways}` (both with --vault-name)"),
            )
        }
        (409, "ObjectIsBeingDeleted" | "ObjectIsBeingRecovered") => {
            verdict(FailureKind::Conflict, "the secret is being deleted or brought back at this moment")
        }
        (409, _) => verdict(FailureKind::Conflict, "somebody else changed the secret meanwhile"),
        (404, _) => verdict(FailureKind::Refused, "there is no such secret"),
        _ => verdict(FailureKind::Refused, "Key Vault refuses the request"),
    }
}

/// Whether a code is one, and so fit for a message.
fn is_word(code: &str) -> bool {
    (1..=40).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// No answer, or one that cannot be read. Texts of [`ErrorKind::Io`] are our own.
fn of_way(error: &Error) -> Verdict {
    match error.kind() {
        ErrorKind::Io | ErrorKind::Connection => Verdict::new(FailureKind::Unavailable, format!("no whole answer: {error}")),
        ErrorKind::Credential if causes(error).any(|cause| cause.to_string() == ANOTHER) => {
            let why = format!("{ANOTHER} than this vault's, which it does not get: check `address`, or write `resource`");
            Verdict::new(FailureKind::Refused, why)
        }
        ErrorKind::Credential => of_login(error, "check `auth`"),
        _ => Verdict::new(FailureKind::BadAnswer, NOT_AZURE),
    }
}

/// Why there is no login. Entra ID's own words are never passed on, its numbers are.
pub(super) fn of_login(error: &Error, way_out: &str) -> Verdict {
    const DOING: &str = "cannot log in";
    if let Some(failure) = causes(error).find_map(|cause| cause.downcast_ref::<Failure>()) {
        return Verdict::new(failure.kind, format!("{DOING}: {}", failure.message));
    }
    let errors = || causes(error).filter_map(|cause| cause.downcast_ref::<Error>());
    let answered = errors().find_map(|error| match error.kind() {
        ErrorKind::HttpResponse { status, error_code, raw_response } => {
            Some((u16::from(*status), error_code.as_deref().unwrap_or_default(), raw_response.as_deref()))
        }
        _ => None,
    });
    if let Some((status, codes, answer)) = answered {
        return of_entra(status, codes, way_out).with_wish(answer);
    }
    let lost = errors().find(|error| matches!(error.kind(), ErrorKind::Io | ErrorKind::Connection));
    match lost {
        Some(lost) => Verdict::new(FailureKind::Unavailable, format!("{DOING}: no whole answer: {lost}")),
        None => Verdict::new(FailureKind::BadAnswer, format!("{DOING}: the answer is not of Entra ID: check `authority`")),
    }
}

/// By the numbers of its errors, `AADSTS…`, with commas between.
fn of_entra(status: u16, codes: &str, way_out: &str) -> Verdict {
    let numbers: Vec<&str> = codes.split(',').filter(|code| !code.is_empty() && code.bytes().all(|b| b.is_ascii_digit())).collect();
    let shown = numbers.first().map(|number| format!(", AADSTS{number}")).unwrap_or_default();
    let verdict = |kind, why: &str| Verdict::new(kind, format!("cannot log in: {why} (HTTP {status}{shown})"));
    let said = |some: &[&str]| numbers.iter().any(|number| some.contains(number));
    match status {
        429 => verdict(FailureKind::Throttled, "Entra ID asks for patience"),
        408 | 500.. => verdict(FailureKind::Unavailable, "Entra ID, or the machine's identity service, cannot answer now"),
        300..=399 => verdict(FailureKind::BadAnswer, "it redirects us, and a login is not carried on: check `authority`"),
        _ if said(&["70021", "700211", "700212", "700213"]) => verdict(
            FailureKind::Refused,
            "the application has no federated credential for this token, or lost it: its issuer, subject and audience have to stand there",
        ),
        _ if said(&["700024", "700027", "50027"]) => {
            verdict(FailureKind::Refused, "Entra ID does not take the token: it has ended, or its issuer's keys are others")
        }
        _ if said(&["7000222"]) => verdict(FailureKind::Refused, "the application's secret has ended: make a new one"),
        _ if said(&["7000112", "700016"]) => {
            verdict(FailureKind::Refused, "there is no such application in this tenant, or it was disabled")
        }
        _ => verdict(FailureKind::Refused, &format!("it is refused: {way_out}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_key_vault_has_its_kind() {
        for (status, code, inner, kind) in [
            (400, "BadParameter", "", FailureKind::Refused),
            (401, "Unauthorized", "", FailureKind::Refused),
            (401, "", "", FailureKind::Refused),
            (403, "Forbidden", "ForbiddenByRbac", FailureKind::Refused),
            (403, "", "", FailureKind::BadAnswer),
            (404, "SecretNotFound", "", FailureKind::Refused),
            (409, "Conflict", "ObjectIsDeletedButRecoverable", FailureKind::Refused),
            (409, "Conflict", "ObjectIsBeingDeleted", FailureKind::Conflict),
            (409, "Conflict", "", FailureKind::Conflict),
            (413, "", "", FailureKind::TooLarge),
            (429, "Throttled", "", FailureKind::Throttled),
            (307, "", "", FailureKind::BadAnswer),
            (503, "", "", FailureKind::Unavailable),
        ] {
            assert_eq!(of_code(status, code, inner, "ci", "x").kind, kind, "{status} {code} {inner}");
        }
    }

    #[test]
    fn a_deleted_name_comes_with_both_ways_out_and_a_code_that_is_none_is_not_repeated() {
        let deleted = of_code(409, "Conflict", "ObjectIsDeletedButRecoverable", "ci-deployer", "x").why;
        for way in ["az keyvault secret recover --name ci-deployer", "az keyvault secret purge --name ci-deployer"] {
            assert!(deleted.contains(way), "{deleted}");
        }
        let odd = of_code(400, "a canary with spaces", "", "ci", "x").why;
        assert!(!odd.contains("canary"), "{odd}");
    }

    #[test]
    fn a_revoked_federation_is_told_from_a_token_that_ended_and_a_secret_that_ended() {
        for (codes, words) in [
            ("700213", "no federated credential"),
            ("1,70021", "no federated credential"),
            ("700024", "does not take the token"),
            ("7000222", "secret has ended"),
            ("700016", "no such application"),
            ("90002", "look here"),
            ("", "look here"),
        ] {
            let verdict = of_entra(401, codes, "look here");
            assert_eq!(verdict.kind, FailureKind::Refused, "{codes}");
            assert!(verdict.why.contains(words), "{codes}: {}", verdict.why);
        }
        assert_eq!(of_entra(429, "", "x").kind, FailureKind::Throttled);
        assert!(!of_entra(400, "canary", "x").why.contains("canary"));
    }
}
