//! The dialect of Systems Manager: its error codes, where they differ from those of AWS at large.

use crate::sink::FailureKind;
use crate::sink::aws::refusal::{self, Verdict};

/// What an error code means. AWS's own words are never passed on.
pub(super) fn of_code(status: u16, code: &str, said: &str, action: &str) -> Verdict {
    let verdict = |kind, why: &str| Verdict::new(kind, format!("{why} (HTTP {status}, {code})"));
    let at_limit = |why: &str| Verdict { retry_after: Some(refusal::AFTER_LIMIT), ..verdict(FailureKind::Refused, why) };
    match code {
        "ParameterAlreadyExists" => verdict(FailureKind::Conflict, "somebody else made the parameter meanwhile"),
        "TooManyUpdates" => verdict(FailureKind::Conflict, "somebody else changes the parameter at this moment"),
        "ParameterNotFound" | "InvalidResourceId" => verdict(FailureKind::Conflict, "somebody else deleted the parameter meanwhile"),
        "InternalServerError" => verdict(FailureKind::Unavailable, "AWS cannot answer now"),
        "ParameterLimitExceeded" => {
            at_limit("this account has as many parameters in this region as AWS lets it have: delete some, or ask for more")
        }
        "ParameterMaxVersionLimitExceeded" => {
            at_limit("its oldest version has a label and so cannot make room: take it off with `aws ssm unlabel-parameter-version`")
        }
        "TooManyTagsError" => verdict(FailureKind::Refused, "it has no room for our tags: a parameter has 50 at most"),
        "InvalidKeyId" => verdict(
            FailureKind::Refused,
            "its KMS key cannot be used: check `kmsKeyId`, and allow our credentials kms:Encrypt and kms:Decrypt",
        ),
        "HierarchyTypeMismatchException" | "UnsupportedParameterType" => {
            verdict(FailureKind::Refused, "it is a parameter of another type than SecureString: delete it, or name another")
        }
        "HierarchyLevelLimitExceededException" => verdict(FailureKind::Refused, "its name has more than 15 levels: write a shorter one"),
        _ => refusal::of_code(status, code, said, action),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_systems_manager_has_its_kind_and_its_words_are_not_passed_on() {
        for (status, code, kind) in [
            (400, "ThrottlingException", FailureKind::Throttled),
            (429, "", FailureKind::Throttled),
            (400, "TooManyUpdates", FailureKind::Conflict),
            (400, "ParameterAlreadyExists", FailureKind::Conflict),
            (500, "InternalServerError", FailureKind::Unavailable),
            (503, "", FailureKind::Unavailable),
            (400, "ParameterLimitExceeded", FailureKind::Refused),
            (400, "ParameterMaxVersionLimitExceeded", FailureKind::Refused),
            (400, "InvalidKeyId", FailureKind::Refused),
            (400, "AccessDeniedException", FailureKind::Refused),
            (400, "ValidationException", FailureKind::Refused),
            (403, "", FailureKind::BadAnswer),
        ] {
            let verdict = of_code(status, code, "canary", "ssm:PutParameter");
            assert_eq!(verdict.kind, kind, "{status} {code}");
            assert!(!verdict.why.contains("canary") && !verdict.why.contains("Secrets Manager"), "{}", verdict.why);
        }
    }

    #[test]
    fn used_up_quotas_are_asked_again_slowly() {
        for code in ["ParameterLimitExceeded", "ParameterMaxVersionLimitExceeded"] {
            assert_eq!(of_code(400, code, "", "").retry_after, Some(refusal::AFTER_LIMIT), "{code}");
        }
    }
}
