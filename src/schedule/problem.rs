//! What is wrong with a schedule, and where.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One problem of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// File in which it stands.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// How bad it is.
    pub severity: Severity,
    /// The target that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The key, as a path: `targets[3].rotate.cron`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Whether a problem stops the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The schedule is refused.
    Error,
    /// It smells.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}: ", self.file.display(), self.line, self.column)?;
        if let Some(target) = &self.target {
            write!(f, "target {target}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
