//! Temporary files that a killed process left behind.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::fs::{AtFlags, Dir, FileType, statat, unlinkat};

use super::blame::{blame, ours};
use super::{folder, lane, publish};
use crate::sink::Failure;

/// Removes the temporary files beside these published paths and returns how many there were. Those of attempts
/// under way in this process are left alone.
///
/// Only what looks exactly like a temporary file of that published name, is a regular file, belongs to us and
/// has no second name is removed. A folder that is missing or unsafe is left to the put, which says so.
pub async fn sweep(paths: impl IntoIterator<Item = PathBuf>, timeout: Duration) -> usize {
    let mut folders = BTreeMap::<PathBuf, Vec<OsString>>::new();
    for (parent, name) in paths.into_iter().filter_map(|path| super::parts(&path).ok()) {
        folders.entry(parent).or_default().push(name);
    }
    let sweeps = folders.into_iter().map(|(parent, names)| async move {
        let at = parent.clone();
        lane::run(timeout, &at, move || one(&parent, &names)).await.unwrap_or_else(|failure| {
            tracing::warn!(folder = %at.display(), error = %failure, "temporary files were not looked for");
            0
        })
    });
    join_all(sweeps).await.into_iter().sum()
}

fn one(parent: &Path, names: &[OsString]) -> Result<usize, Failure> {
    let Some(folder) = folder::find(parent)? else { return Ok(0) };
    let names: HashSet<&OsStr> = names.iter().map(OsString::as_os_str).collect();
    let failed = |errno| blame("list", &folder.path, errno);
    let mut removed = 0;
    for entry in Dir::read_from(&folder.fd).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let found = OsStr::from_bytes(entry.file_name().to_bytes());
        if publish::published_name(found.as_bytes()).is_none_or(|name| !names.contains(name)) || publish::is_live(found) {
            continue;
        }
        let Ok(stat) = statat(&folder.fd, found, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if regular && stat.st_uid == ours() && stat.st_nlink == 1 && unlinkat(&folder.fd, found, AtFlags::empty()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}
