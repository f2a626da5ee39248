//! How often a target was mended in a row.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Rotations that mended something (`repair`, `rejected`), one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mended {
    /// When the last one was recorded.
    pub at: Timestamp,
    /// How many there were without one that lasted.
    pub times: u32,
}

impl Mended {
    /// What lasted that many seconds was mended for good.
    pub const FOR_GOOD: i64 = 3_600;
}
