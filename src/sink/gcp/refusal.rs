//! What an error of Google's client means. Nothing here quotes an answer or a credential.

use std::time::Duration;

use google_cloud_gax::error::rpc::{Code, Status, StatusDetails};
use google_cloud_gax::error::{CredentialsError, Error};

use super::federation::Redirected;
use crate::cluster::patience;
use crate::sink::FailureKind;
use crate::sink::store::causes;

/// A used up quota is not asked again sooner.
const AFTER_LIMIT: Duration = Duration::from_secs(600);

/// What went wrong, before it is known in which store.
#[derive(Debug)]
pub(super) struct Verdict {
    pub kind: FailureKind,
    pub why: String,
    pub retry_after: Option<Duration>,
    /// It asked for patience in a way that makes no sense.
    pub garbled: bool,
}

impl Verdict {
    pub fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), retry_after: None, garbled: false }
    }
}

/// Whether there is nothing of that name.
pub(super) fn is_missing(error: &Error) -> bool {
    error.status().is_some_and(|status| status.code == Code::NotFound)
}

/// Whether it is not in a state for this: a version that was disabled or destroyed.
pub(super) fn is_out_of_use(error: &Error) -> bool {
    error.status().is_some_and(|status| status.code == Code::FailedPrecondition)
}

/// Why a call failed. `doing` says what was asked for, `right` which permission that needs.
pub(super) fn of(error: &Error, doing: &str, right: &str) -> Verdict {
    let mut verdict = match (error.status(), error.http_status_code()) {
        (Some(said), _) if is_standing_quota(said, error) => {
            let why = "a quota of Secret Manager is used up: destroy versions or secrets that nobody needs, or ask for more";
            Verdict { retry_after: Some(AFTER_LIMIT), ..Verdict::new(FailureKind::Refused, why) }
        }
        (Some(said), status) => of_code(said.code, status, right),
        (None, Some(status)) => of_status(status),
        (None, None) => of_way(error),
    };
    if matches!(verdict.kind, FailureKind::Throttled | FailureKind::Unavailable)
        && let Some(headers) = error.http_headers()
    {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let wish = text("retry-after").map(|value| patience::wish(value, text("date")));
        (verdict.retry_after, verdict.garbled) = (wish.flatten(), wish == Some(None));
    }
    verdict.why = format!("{doing}: {}", verdict.why);
    verdict
}

/// Whether what is used up comes back by no waiting: Google says of a rate that it is one, and often how long to wait.
fn is_standing_quota(said: &Status, error: &Error) -> bool {
    let is_rate = said.details.iter().any(|detail| match detail {
        StatusDetails::ErrorInfo(info) => info.reason == "RATE_LIMIT_EXCEEDED",
        StatusDetails::RetryInfo(_) => true,
        _ => false,
    });
    let waits = error.http_headers().is_some_and(|headers| headers.contains_key("retry-after"));
    said.code == Code::ResourceExhausted && !is_rate && !waits
}

fn of_code(code: Code, status: Option<u16>, right: &str) -> Verdict {
    let verdict = |kind, why: &str| {
        let status = status.map(|status| format!(", HTTP {status}")).unwrap_or_default();
        Verdict::new(kind, format!("{why} ({code:?}{status})"))
    };
    match code {
        Code::ResourceExhausted => verdict(FailureKind::Throttled, "Google asks for patience: this project asks Secret Manager too often"),
        Code::Unavailable | Code::Internal | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
            verdict(FailureKind::Unavailable, "Google cannot answer now")
        }
        Code::PermissionDenied => {
            verdict(FailureKind::Refused, &format!("not allowed: our credentials need {right}, and the project its Secret Manager API"))
        }
        Code::Unauthenticated => verdict(FailureKind::Refused, "Google does not know our credentials: check them, and the clock"),
        Code::NotFound => verdict(FailureKind::Refused, "there is no such secret or project"),
        Code::AlreadyExists | Code::Aborted => verdict(FailureKind::Conflict, "somebody else changed the secret meanwhile"),
        Code::FailedPrecondition => {
            verdict(FailureKind::Refused, "the secret is not in a state for it: it was changed meanwhile, or its key is out of use")
        }
        _ => verdict(FailureKind::Refused, "Google refuses the request"),
    }
}

/// An answer that is not in Google's words.
fn of_status(status: u16) -> Verdict {
    let verdict = |kind, why: &str| Verdict::new(kind, format!("{why} (HTTP {status})"));
    match status {
        429 => verdict(FailureKind::Throttled, "it asks for patience"),
        408 | 500.. => verdict(FailureKind::Unavailable, "it cannot answer now"),
        300..=399 => verdict(FailureKind::BadAnswer, "it redirects us, and a token is not carried on: check `endpoint`"),
        _ => verdict(FailureKind::BadAnswer, "the answer is not of Google Secret Manager: check `endpoint`"),
    }
}

/// No answer, or one that cannot be read.
fn of_way(error: &Error) -> Verdict {
    if error.is_authentication() {
        if causes(error).any(|cause| cause.is::<Redirected>()) {
            let why = "the token exchange redirects us, and a token is not carried on: check `tokenUrl`";
            return Verdict::new(FailureKind::BadAnswer, why);
        }
        let passing = causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()).is_some_and(CredentialsError::is_transient);
        if passing {
            return Verdict::new(FailureKind::Unavailable, "no Google credentials now: their source cannot answer");
        }
        let lasting = "Google's credentials are refused: revoked, or the federation does not trust the token any more; check \
            `credentialsFile`, or where the normal chain finds them";
        return Verdict::new(FailureKind::Refused, lasting);
    }
    if error.is_deserialization() {
        return Verdict::new(FailureKind::BadAnswer, "the answer is not of Google Secret Manager: check `endpoint`");
    }
    if error.is_timeout() {
        return Verdict::new(FailureKind::Unavailable, "no answer in time");
    }
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    Verdict::new(
        FailureKind::Unavailable,
        format!("no whole answer: {}", crate::token::mask::mask(&cause).chars().take(200).collect::<String>()),
    )
}
