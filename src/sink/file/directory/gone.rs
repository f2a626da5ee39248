//! A directory is taken back: its links, its generations, then the folder itself where nothing else stands in it.

use std::time::Duration;

use rustix::fs::{AtFlags, readlinkat, unlinkat};
use rustix::io::Errno;

use super::super::blame::blame;
use super::super::commit;
use super::super::folder::{self, Folder};
use super::super::lane;
use super::{DATA, DirectorySpec, held, target_of, tidy};
use crate::sink::{Failure, Ours, Removal};

/// Removes it, durably, where it is ours.
///
/// # Errors
/// As for a put.
pub(in crate::sink) async fn remove(spec: &DirectorySpec, ours: Ours<'_>, timeout: Duration) -> Result<Removal, Failure> {
    let seen = held(spec, timeout).await?;
    if seen.as_ref().is_some_and(|seen| !(ours.0)(&seen.payload)) {
        return Ok(Removal::Left);
    }
    let path = &spec.files_as.path;
    let (at, names) = (path.clone(), spec.files.keys().cloned().collect::<Vec<_>>());
    let work = move || {
        let Some(folder) = folder::find(&at)? else { return Ok(Removal::Nothing) };
        // Where a removal was cut short nobody reads any of it, and the rest goes now.
        let rest = take_down(&folder, &names)?;
        if seen.is_none() && rest == 0 {
            return Ok(Removal::Nothing);
        }
        rmdir(&at)?;
        Ok(Removal::Gone)
    };
    lane::run(timeout, path, work).await
}

/// Readers lose all files at once: the link that all of them pass through goes first. How much more there was.
fn take_down(folder: &Folder, names: &[String]) -> Result<usize, Failure> {
    unlink(folder, DATA)?;
    for name in names {
        if readlinkat(&folder.fd, name.as_str(), Vec::new()).is_ok_and(|to| to.as_bytes() == target_of(name).as_bytes()) {
            unlink(folder, name)?;
        }
    }
    let rest = tidy(folder, &[], Some(&[]))?;
    commit::sync(&folder.fd).map_err(|errno| blame("sync", &folder.path, errno))?;
    Ok(rest)
}

fn unlink(folder: &Folder, name: &str) -> Result<(), Failure> {
    match unlinkat(&folder.fd, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(blame("remove", &folder.path.join(name), errno)),
    }
}

/// What others put into the folder keeps it.
fn rmdir(path: &std::path::Path) -> Result<(), Failure> {
    let (parent, name) = super::super::parts(path)?;
    let Some(parent) = folder::find(&parent)? else { return Ok(()) };
    match unlinkat(&parent.fd, &name, AtFlags::REMOVEDIR) {
        Ok(()) => commit::sync(&parent.fd).map_err(|errno| blame("sync the folder of", path, errno)),
        // Where the folder above is not ours, an empty one stays.
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::BUSY) => Ok(()),
        Err(errno) => Err(blame("remove folder", path, errno)),
    }
}
