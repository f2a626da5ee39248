//! `file`: a file on this host, published whole or not at all.
//!
//! The sequence: the folder is opened from `/` down without following links (`folder`), the token is written
//! to a temporary file beside the published one, given its owner and mode, synced, checked and renamed over
//! it (`publish`); many syncs at once are one (`commit`). The work runs on blocking threads that one hung file system cannot use up (`lane`), and an
//! attempt that was given up never publishes afterwards (`turn`).

mod account;
mod acl;
mod blame;
mod commit;
pub mod directory;
mod folder;
mod fresh;
mod held;
mod lane;
mod lock;
mod orphan;
mod probe;
mod publish;
mod remove;
mod survey;
mod turn;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sink::kinds::{Sink, calls};
use crate::sink::{Context, Failure, FailureKind, Put};
use crate::token::Payload;

pub use account::{system_group, system_user};
pub use acl::Reader;
pub use held::{Held, held};
pub use lane::{THREADS, file_system, mount_point, run as apart};
pub use orphan::sweep;
use probe::probe;
use remove::remove;
pub use survey::{Surveyed, look, survey};

/// `file: {path, mode, owner, group, readers}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "File")]
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
    /// Who may read it beside owner and group, by POSIX ACL.
    #[serde(default)]
    pub readers: Vec<Reader>,
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
            _ => Err(serde::de::Error::custom(format_args!(
                "`{text}` is no file mode: write three or four octal digits in quotes, such as \"0640\""
            ))),
        }
    }
}

/// One attempt: the bytes are published and durable when it returns `Written` or `Unchanged`.
///
/// # Errors
/// `Unavailable` where the file system does not answer within `context.timeout`, else `Local`. What was
/// published before stays published, and the temporary file is gone.
pub(super) async fn put(spec: &FileSpec, payload: &Payload, context: Context<'_>) -> Result<Put, Failure> {
    let (parent, name) = parts(&spec.path)?;
    // Both die with this future: an attempt that timed out or was dropped may no longer publish.
    let turn = turn::Turn::take(&spec.path);
    let ticket = turn.ticket();
    let payload = payload.clone();
    let wish = account::wish(spec).await?;
    let at = parent.clone();
    let work = move || {
        let folder = folder::make(&parent)?;
        publish::publish(&folder, &name, &wish, &payload, &ticket)
    };
    lane::run(context.timeout, &at, work).await
}

impl Sink for FileSpec {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    calls!(here self);
}

/// Makes a folder for files, where a put would make it.
///
/// # Errors
/// As a put.
pub fn make_folder(path: &Path) -> Result<(), Failure> {
    folder::make(path).map(drop)
}

/// Folder and name of a published path.
fn parts(path: &Path) -> Result<(PathBuf, OsString), Failure> {
    let whole = path.is_absolute() && !path.components().any(|part| matches!(part, std::path::Component::ParentDir));
    match (path.parent(), path.file_name().map(OsStr::to_owned)) {
        (Some(parent), Some(name)) if whole => Ok((parent.to_owned(), name)),
        _ => Err(Failure::new(FailureKind::Local, format!("`{}` is no absolute path of a file without `..`", path.display()))),
    }
}
