//! What a refusal of the API server means for a Secret, with the way out.

use super::{LARGEST, MANAGER, SecretSpec};
use crate::cluster::{Refusal, Trouble};
use crate::sink::{Failure, FailureKind};

/// `verb` is what we tried.
pub(super) fn failure(spec: &SecretSpec, refusal: &Refusal, verb: &str) -> Failure {
    let words = &refusal.message;
    let (kind, what) = match refusal.trouble {
        Trouble::Unavailable => (FailureKind::Unavailable, words.clone()),
        Trouble::Throttled => (FailureKind::Throttled, "the API server asks for less load".to_owned()),
        Trouble::BadAnswer => (FailureKind::BadAnswer, words.clone()),
        Trouble::Unauthorized => {
            (FailureKind::Refused, "the API server refuses our own credential; renew the one that the kubeconfig names".into())
        }
        Trouble::Forbidden => (
            FailureKind::Refused,
            format!(
                "we may not {verb} it: grant get, create{} patch on secrets with resourceNames [{}] in namespace {} ({words})",
                if verb == "delete" { ", delete and" } else { " and" },
                spec.name,
                spec.namespace
            ),
        ),
        Trouble::NotFound => {
            (FailureKind::Refused, format!("there is no namespace {}: make it, or mend the place ({words})", spec.namespace))
        }
        Trouble::Conflict => (FailureKind::Conflict, format!("somebody else wrote it meanwhile ({words})")),
        Trouble::Owned => (
            FailureKind::Refused,
            format!(
                "somebody else set a field of ours and owns it now; nothing was overwritten ({words}). To give it back to {MANAGER}: \
                 kubectl -n {} patch secret {} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/data/{}\"}}]'",
                spec.namespace,
                spec.name,
                spec.key.replace('~', "~0").replace('/', "~1")
            ),
        ),
        Trouble::Invalid if words.contains("Too long") || words.starts_with("413") => {
            (FailureKind::TooLarge, format!("with its other keys it is larger than the {LARGEST} bytes that a Secret holds ({words})"))
        }
        Trouble::Invalid => (FailureKind::Refused, words.clone()),
    };
    Failure { retry_after: refusal.retry_after, ..spec.refuse(kind, what) }
}
