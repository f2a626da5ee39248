//! What an error of the AWS SDK means. Nothing here quotes a body, a header or a credential.

use std::error::Error;
use std::time::Duration;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

use crate::cluster::{Upstream, patience};
use crate::sink::store::causes;
use crate::sink::{Failure, FailureKind};

/// Where credentials may come from.
pub(super) const NO_CREDENTIALS: &str = "no AWS credentials found: give the daemon's user a profile (`profile`, AWS_SHARED_CREDENTIALS_FILE), \
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity, or an instance role";

/// A used up quota is not asked again sooner.
pub(super) const AFTER_LIMIT: Duration = Duration::from_secs(600);

/// What went wrong, before it is known in which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub kind: FailureKind,
    pub why: String,
    pub retry_after: Option<Duration>,
    /// Our credentials were refused: others may have been put in their place.
    pub credentials: bool,
    /// It asked for patience in a way that makes no sense.
    pub garbled: bool,
}

impl Verdict {
    pub fn new(kind: FailureKind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), retry_after: None, credentials: false, garbled: false }
    }

    /// The same, and its upstream learns what makes no sense.
    pub fn told(self, store: &str, upstream: &Upstream) -> Failure {
        if self.garbled {
            upstream.note_garbled();
        }
        self.into_failure(store)
    }

    /// With the store's name in front.
    pub fn into_failure(self, store: &str) -> Failure {
        Failure { kind: self.kind, message: format!("AWS store `{store}`: {}", self.why), retry_after: self.retry_after }
    }
}

/// Why a call failed. `doing` says what was asked for, `action` which IAM action that is.
pub(super) fn of<E: ProvideErrorMetadata + Error + 'static>(error: &SdkError<E, HttpResponse>, doing: &str, action: &str) -> Verdict {
    let mut verdict = match error {
        SdkError::ServiceError(refused) => {
            let (status, meta) = (refused.raw().status().as_u16(), refused.err().meta());
            of_code(status, meta.code().unwrap_or_default(), meta.message().unwrap_or_default(), action)
        }
        SdkError::ResponseError(_) if causes(error).any(|cause| cause.is::<hyper::Error>()) => lost(error),
        SdkError::ResponseError(answer) => of_code(answer.raw().status().as_u16(), "", "", action),
        SdkError::TimeoutError(_) => Verdict::new(FailureKind::Unavailable, "no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => lost(error),
        other => of_credentials(other).unwrap_or_else(|| lost(other)),
    };
    if matches!(verdict.kind, FailureKind::Throttled | FailureKind::Unavailable) {
        let wish = error.raw_response().and_then(|answer| asked(|name| answer.headers().get(name)));
        (verdict.retry_after, verdict.garbled) = (wish.flatten(), wish == Some(None));
    }
    verdict.why = format!("{doing}: {}", verdict.why);
    verdict
}

/// AWS's own words decide only between cases of one code; they are never passed on.
pub(super) fn of_code(status: u16, code: &str, words: &str, action: &str) -> Verdict {
    let verdict = |kind, why: &str| Verdict::new(kind, format!("{why} (HTTP {status}{}{code})", if code.is_empty() { "" } else { ", " }));
    let by_credentials = |why: &str| Verdict { credentials: true, ..verdict(FailureKind::Refused, why) };
    match code {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" | "RequestThrottled" | "SlowDown" => {
            verdict(FailureKind::Throttled, "AWS asks for patience")
        }
        "InternalServiceError" | "InternalServiceErrorException" | "InternalFailure" | "ServiceUnavailable" => {
            verdict(FailureKind::Unavailable, "AWS cannot answer now")
        }
        "AccessDeniedException" | "AccessDenied" => verdict(FailureKind::Refused, &format!("not allowed: our credentials need {action}")),
        "ExpiredTokenException" | "ExpiredToken" => by_credentials("our AWS credentials have expired: renew them"),
        "RequestExpired" | "RequestTimeTooSkewed" => verdict(FailureKind::Refused, "AWS does not accept our clock: set it right"),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => by_credentials("AWS does not know our credentials: check them, and the clock"),
        "InvalidRequestException" if words.contains("deletion") || words.contains("deleted") => {
            verdict(FailureKind::Refused, "the secret is scheduled for deletion: bring it back with `aws secretsmanager restore-secret`")
        }
        "ResourceExistsException" => verdict(FailureKind::Conflict, "somebody else wrote the secret meanwhile"),
        "ResourceNotFoundException" => verdict(FailureKind::Refused, "there is no such secret"),
        "DecryptionFailure" | "EncryptionFailure" => {
            verdict(FailureKind::Refused, "its KMS key cannot be used: our credentials need kms:GenerateDataKey and kms:Decrypt on it")
        }
        "LimitExceededException" => {
            let why = "a quota of Secrets Manager is used up (secrets, or versions of this one: one put in ten minutes is what it takes)";
            Verdict { retry_after: Some(AFTER_LIMIT), ..verdict(FailureKind::Refused, why) }
        }
        _ => of_status(status, code, verdict),
    }
}

fn of_status(status: u16, code: &str, verdict: impl Fn(FailureKind, &str) -> Verdict) -> Verdict {
    match status {
        429 => verdict(FailureKind::Throttled, "AWS asks for patience"),
        408 | 500.. => verdict(FailureKind::Unavailable, "AWS cannot answer now"),
        _ if code.is_empty() => verdict(FailureKind::BadAnswer, "the answer is not of AWS: check `endpoint`"),
        200..=299 => verdict(FailureKind::BadAnswer, "the answer cannot be read"),
        _ => verdict(FailureKind::Refused, "AWS refuses the request"),
    }
}

/// Why credentials could not be had, where that is the error. The SDK's own type for it cannot be named
/// here, its fixed texts can.
pub(super) fn of_credentials(error: &(dyn Error + 'static)) -> Option<Verdict> {
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    let says = |words: &str| texts.iter().any(|text| text.starts_with(words));
    // A metadata service that forbids us is one that is not meant for us: the last of the chain.
    if says("the credential provider was not enabled") || says("request forbidden: IMDS is disabled") {
        return Some(no_credentials());
    }
    if says("an error occurred while loading credentials") && says("unhandled error (AccessDenied") {
        let why = "AWS does not let us take over the role: allow sts:AssumeRole on it, and our account in its trust policy";
        return Some(Verdict { credentials: true, ..Verdict::new(FailureKind::Refused, why) });
    }
    if ["InvalidIdentityToken", "ExpiredToken", "IDPRejectedClaim"].iter().any(|code| says(code)) {
        let why = "AWS does not take the token that we log in with: it has ended, or its issuer is no identity provider of the account \
            (any more), or the role's trust policy names another subject or audience";
        return Some(Verdict { credentials: true, ..Verdict::new(FailureKind::Refused, why) });
    }
    if says("the credentials provider was not properly configured") {
        let why = "the AWS profile cannot be used: check `profile`, `assumeRole` and the shared AWS files";
        return Some(Verdict { credentials: true, ..Verdict::new(FailureKind::Refused, why) });
    }
    if says("credentials provider timed out") || says("an error occurred while loading credentials") || says("unexpected credentials error")
    {
        return Some(Verdict::new(FailureKind::Unavailable, "no AWS credentials now: their source (STS, metadata service, process) fails"));
    }
    None
}

/// The verdict where no source has credentials.
pub(super) fn no_credentials() -> Verdict {
    Verdict { credentials: true, ..Verdict::new(FailureKind::Refused, NO_CREDENTIALS) }
}

pub(super) fn lost(error: &(dyn Error + 'static)) -> Verdict {
    let cause = causes(error).last().map(ToString::to_string).unwrap_or_default();
    Verdict::new(FailureKind::Unavailable, format!("no whole answer: {cause}"))
}

/// What `x-amz-retry-after` (milliseconds) or `Retry-After` asks for, `Some(None)` where that is garbage.
pub(super) fn asked<'a>(header: impl Fn(&'static str) -> Option<&'a str>) -> Option<Option<Duration>> {
    if let Some(value) = header("x-amz-retry-after") {
        return Some(value.trim().parse().ok().map(Duration::from_millis).map(|wish| wish.min(patience::LONGEST)));
    }
    header("retry-after").map(|value| patience::wish(value, header("date")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_aws_has_its_kind() {
        for (status, code, kind) in [
            (400, "ThrottlingException", FailureKind::Throttled),
            (429, "", FailureKind::Throttled),
            (500, "InternalServiceError", FailureKind::Unavailable),
            (503, "", FailureKind::Unavailable),
            (400, "AccessDeniedException", FailureKind::Refused),
            (400, "UnrecognizedClientException", FailureKind::Refused),
            (400, "ResourceExistsException", FailureKind::Conflict),
            (400, "InvalidParameterException", FailureKind::Refused),
            (404, "", FailureKind::BadAnswer),
            (200, "", FailureKind::BadAnswer),
        ] {
            assert_eq!(of_code(status, code, "", "secretsmanager:PutSecretValue").kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_names_the_action_and_a_deleted_secret_the_way_back() {
        let denied = of_code(400, "AccessDeniedException", "User x is not authorized", "secretsmanager:PutSecretValue");
        assert_eq!(denied.why, "not allowed: our credentials need secretsmanager:PutSecretValue (HTTP 400, AccessDeniedException)");
        assert!(!denied.credentials);
        let gone = of_code(
            400,
            "InvalidRequestException",
            "You can't perform this operation on the secret because it was marked for deletion.",
            "x",
        );
        assert!(gone.why.contains("restore-secret"), "{}", gone.why);
    }

    #[test]
    fn refused_credentials_are_read_anew() {
        for code in ["ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"] {
            assert!(of_code(400, code, "", "x").credentials, "{code}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Cause(&'static str, #[source] Option<Box<Cause>>);

    fn nested(texts: &[&'static str]) -> Cause {
        texts.iter().rev().fold(None, |inner, text| Some(Cause(text, inner.map(Box::new)))).unwrap()
    }

    #[test]
    fn missing_credentials_are_refused_with_the_way_out_and_a_source_that_fails_is_unavailable() {
        let of = |texts: &[&'static str]| of_credentials(&nested(texts)).unwrap();
        let loading = "an error occurred while loading credentials";
        assert_eq!(of(&["dispatch failure", "the credential provider was not enabled"]).why, NO_CREDENTIALS);
        assert_eq!(of(&[loading, "service error", "request forbidden: IMDS is disabled or the caller"]).why, NO_CREDENTIALS);
        assert!(of(&[loading, "service error", "unhandled error (AccessDenied)"]).why.contains("sts:AssumeRole"));
        let revoked = of(&[loading, "service error", "InvalidIdentityTokenException: canary"]);
        assert!(revoked.kind == FailureKind::Refused && revoked.credentials && !revoked.why.contains("canary"), "{}", revoked.why);
        assert_eq!(of(&[loading, "dispatch failure", "canary"]).kind, FailureKind::Unavailable);
        assert!(!of(&[loading, "Stderr: canary"]).why.contains("canary"));
        assert!(of_credentials(&nested(&["dispatch failure", "io error"])).is_none());
    }

    #[test]
    fn patience_is_asked_for_in_milliseconds_or_seconds_and_at_most_ten_minutes() {
        let only = |name: &'static str, value: &'static str| move |asked: &'static str| (asked == name).then_some(value);
        assert_eq!(asked(only("x-amz-retry-after", "1500")), Some(Some(Duration::from_millis(1500))));
        assert_eq!(asked(only("retry-after", "7")), Some(Some(Duration::from_secs(7))));
        assert_eq!(asked(only("retry-after", "999999")), Some(Some(patience::LONGEST)));
        assert_eq!(asked(only("retry-after", "soon")), Some(None));
        assert_eq!(asked(only("date", "x")), None);
    }
}
