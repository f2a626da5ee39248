//! What a line says of markers: the Secret to which a generation's token is bound.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One marker. In a line about a token (`rotated`, `failed`, `adopted`) it is the one that this token is bound to;
/// `revoking` and `revoked` say that it is to be deleted, and that it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MarkerLine {
    /// Its cluster.
    pub cluster: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a token is bound to this object and to no later one of that name.
    pub uid: String,
    /// For `revoking`: what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// For `revoked`: what showed that its tokens are dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// The first generation that is bound to it, where that is not the line's (`revoking`, `revoked`, checkpoints).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// The last one (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// `jti` of the last token that is bound to it (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Its `exp` (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Why it could not be deleted yet (checkpoints only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a person wants of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Asked {
    /// Once a newer token stands everywhere.
    Delivered,
    /// At once.
    Now,
}

/// What showed that a token is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verified {
    /// The API server accepted it before and refuses it now.
    Refused,
    /// Its marker is gone; the token itself could not be tried.
    Gone,
}
