//! What a line says of a token that others mint.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A monitored file, when its state or its token is another one, and once a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitoredLine {
    /// The file.
    pub path: PathBuf,
    /// How it stands.
    pub state: Verdict,
    /// Oldest that its token may get, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u64>,
}

/// How a monitored file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// A token in date, and young enough.
    Fresh,
    /// No file.
    Missing,
    /// A file that this user cannot read, or that does not answer.
    Unreadable,
    /// A file without a token.
    NoToken,
    /// Its life has not begun.
    NotYetValid,
    /// Its life is over.
    Expired,
    /// Older than its `maxAge`.
    TooOld,
    /// A token that says no end.
    Endless,
}

impl Verdict {
    /// Every one.
    pub const ALL: [Self; 8] =
        [Self::Fresh, Self::Missing, Self::Unreadable, Self::NoToken, Self::NotYetValid, Self::Expired, Self::TooOld, Self::Endless];
}
