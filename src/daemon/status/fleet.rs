//! The fleet, as `status` shows it.

use serde::Serialize;

/// The fleet that the daemon is one of.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetStatus {
    /// Where it meets: `CLUSTER/NAMESPACE/NAME`.
    pub lease: String,
    /// This daemon, as a member.
    pub member: String,
    /// Whether it is one.
    pub joined: bool,
    /// Why it is none, or cannot tell how others do.
    pub error: Option<String>,
    /// Every member that is known, this one first.
    pub members: Vec<MemberStatus>,
    /// Targets that this one has taken over from others since its start.
    pub taken_over: u64,
    /// Targets that it has handed over to others.
    pub handed_over: u64,
}

/// One member.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Whether its Lease holds.
    pub alive: bool,
    /// How many of our schedule's targets it owns.
    pub targets: usize,
    /// Its version.
    pub version: String,
    /// SHA-256 of its schedule.
    pub schedule: String,
    /// What a person should mend.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
