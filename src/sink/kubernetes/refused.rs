//! What a refusal of the API server means for a Secret, with the way out.

use super::{LARGEST, SecretSpec};
use crate::cluster::object::MANAGER;
use crate::cluster::{Refusal, Trouble};
use crate::sink::{Failure, FailureKind};

/// The class of a failure at a store that the API server is.
pub(in crate::sink) fn kind(trouble: Trouble) -> FailureKind {
    match trouble {
        Trouble::Unavailable => FailureKind::Unavailable,
        Trouble::Throttled => FailureKind::Throttled,
        Trouble::BadAnswer => FailureKind::BadAnswer,
        Trouble::Conflict => FailureKind::Conflict,
        Trouble::Unauthorized | Trouble::Forbidden | Trouble::NotFound | Trouble::Owned | Trouble::Invalid => FailureKind::Refused,
    }
}

/// `verb` is what we tried.
pub(super) fn failure(spec: &SecretSpec, refusal: &Refusal, verb: &str) -> Failure {
    let words = &refusal.message;
    let too_large = refusal.trouble == Trouble::Invalid && (words.contains("Too long") || words.starts_with("413"));
    let what = match refusal.trouble {
        Trouble::Throttled => "the API server asks for less load".to_owned(),
        Trouble::Unauthorized => "the API server refuses our own credential; renew the one that the kubeconfig names".into(),
        Trouble::Forbidden => format!(
            "we may not {verb} it: grant get, create{} patch on secrets with resourceNames [{}] in namespace {} ({words})",
            if verb == "delete" { ", delete and" } else { " and" },
            spec.name,
            spec.namespace
        ),
        Trouble::NotFound => format!("there is no namespace {}: make it, or mend the place ({words})", spec.namespace),
        Trouble::Conflict => format!("somebody else wrote it meanwhile ({words})"),
        Trouble::Owned => format!(
            "somebody else set a field of ours and owns it now; nothing was overwritten ({words}). To give it back to {MANAGER}: \
             kubectl -n {} patch secret {} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/data/{}\"}}]'",
            spec.namespace,
            spec.name,
            spec.key.replace('~', "~0").replace('/', "~1")
        ),
        Trouble::Invalid if too_large => format!("with its other keys it is larger than the {LARGEST} bytes that a Secret holds ({words})"),
        Trouble::Unavailable | Trouble::BadAnswer | Trouble::Invalid => words.clone(),
    };
    let kind = if too_large { FailureKind::TooLarge } else { kind(refusal.trouble) };
    Failure { retry_after: refusal.retry_after, ..spec.refuse(kind, what) }
}
