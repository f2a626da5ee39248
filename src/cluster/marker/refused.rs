//! Why no marker could be had, and the way out.

use super::{MARK, Purpose, RING};
use crate::cluster::{MintFailure, MintFailureKind, Refusal, Trouble};

/// Every name of the ring is taken by somebody else, or by what may not be shared.
pub(super) fn full(purpose: &Purpose<'_>, foreign: &[&str]) -> MintFailure {
    if foreign.is_empty() {
        let message = format!(
            "every marker of the ring is in use (Secrets tokenferry.{0}.0 to .{1} in namespace {2}): one is free again when an older \
             generation ends or is revoked",
            purpose.target,
            RING - 1,
            purpose.namespace
        );
        return MintFailure::new(MintFailureKind::Unavailable, message);
    }
    let message = format!(
        "no marker can be made: Secrets {} in namespace {} are there and not ours (no label {}={}, or another daemon's); delete or \
         rename them, or leave `revocable` out",
        foreign.join(", "),
        purpose.namespace,
        MARK.0,
        MARK.1
    );
    MintFailure::new(MintFailureKind::Refused, message)
}

/// Why no marker could be had, as a failure to mint.
pub(super) fn failure(purpose: &Purpose<'_>, refusal: &Refusal) -> MintFailure {
    let what = format!("the marker Secret in namespace {}: {}", purpose.namespace, refusal.message);
    let (kind, message) = match refusal.trouble {
        Trouble::Unavailable => (MintFailureKind::Unavailable, what),
        Trouble::Throttled => (MintFailureKind::Throttled, "429: the API server asks for less load".to_owned()),
        Trouble::Unauthorized => (MintFailureKind::Unauthorized, what),
        Trouble::BadAnswer => (MintFailureKind::BadAnswer, what),
        Trouble::Forbidden => (
            MintFailureKind::Refused,
            format!(
                "403: we may not make the markers of {0}: grant get, create, patch and delete on secrets with resourceNames \
                 [tokenferry.{0}.0 to .{1}] in namespace {2}; `tokenferry rbac` prints the rule ({3})",
                purpose.target,
                RING - 1,
                purpose.namespace,
                refusal.message
            ),
        ),
        Trouble::NotFound => (
            MintFailureKind::Refused,
            format!("404: there is no namespace {}: make it, or mend the target ({})", purpose.namespace, refusal.message),
        ),
        Trouble::Conflict | Trouble::Owned | Trouble::Invalid => (MintFailureKind::Refused, what),
    };
    MintFailure { retry_after: refusal.retry_after, ..MintFailure::new(kind, message) }
}
