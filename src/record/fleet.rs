//! What a line says of the fleet: who joined, and who serves a target now.

use serde::{Deserialize, Serialize};

/// The daemon's place in its fleet (`joined`, `left`), or a hand-over (`takenOver`, `handedOver`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetLine {
    /// `CLUSTER/NAMESPACE/NAME`, where the fleet meets.
    pub lease: String,
    /// The daemon that writes this, as a member.
    pub member: String,
    /// Who served the target before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who serves it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}
