//! `file`: a file on this host, published whole or not at all.

use std::path::PathBuf;

use serde::Deserialize;

use crate::sink::{Context, Failure, Put};
use crate::token::Payload;

/// `file: {path, mode, owner, group}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSpec {
    /// Absolute path (a relative one counts from the schedule's folder).
    pub path: PathBuf,
    /// Octal mode as text in quotes; `"0600"` when absent.
    #[serde(default)]
    pub mode: Mode,
    /// User name or id; ours when absent.
    pub owner: Option<String>,
    /// Group name or id; the folder's (setgid) or ours when absent.
    pub group: Option<String>,
}

/// Permission bits, from octal text in quotes (`"0640"`): a bare 640 would mean three different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digits = text.strip_prefix("0o").unwrap_or(&text);
        let known = (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        match u32::from_str_radix(digits, 8) {
            Ok(bits) if known && bits <= 0o777 => Ok(Self(bits)),
            _ => Err(serde::de::Error::custom(format_args!("`{text}` is no file mode: write three or four octal digits in quotes, such as \"0640\""))),
        }
    }
}

/// One attempt.
pub(super) async fn put(_spec: &FileSpec, _payload: &Payload, _context: Context<'_>) -> Result<Put, Failure> {
    Err(Failure::new(crate::sink::FailureKind::Local, "not built yet"))
}
