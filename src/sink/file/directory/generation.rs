//! One generation of a directory: a folder with all files of one token, made under a name that nobody reads yet.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchmod, fstat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::super::account::Wish;
use super::super::blame::{blame, local, ours};
use super::super::commit;
use super::super::folder::Folder;
use super::super::fresh::Fresh;
use super::super::publish::random;
use crate::sink::Failure;
use crate::token::Payload;
use crate::token::render::hex;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// As the kubelet's: whoever may pass through the folder may list it; each file has its own mode.
const MODE: u32 = 0o755;

/// A generation that is being made.
pub(super) struct Generation<'a> {
    parent: &'a Folder,
    name: OsString,
    own: Folder,
    kept: Cell<bool>,
}

impl<'a> Generation<'a> {
    /// Makes it, empty and private.
    pub(super) fn make(parent: &'a Folder) -> Result<Self, Failure> {
        let name = OsString::from(format!("..{}", hex(&random()?)));
        let failed = |errno| blame("make folder", &parent.path.join(&name), errno);
        mkdirat(&parent.fd, &name, Mode::from_raw_mode(0o700)).map_err(failed)?;
        match open(parent, &name)? {
            Some(own) => Ok(Self { parent, name, own, kept: Cell::new(false) }),
            None => Err(failed(Errno::NOENT)),
        }
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Writes all files, then lets readers in.
    pub(super) fn fill(&self, wish: &Wish, payload: &Payload) -> Result<(), Failure> {
        for part in payload.parts() {
            Fresh::new(&self.own, OsStr::new(&part.name))?.finish(wish, part.expose())?;
        }
        let failed = |errno| blame("finish folder", &self.own.path, errno);
        let stat = fstat(&self.own.fd).map_err(failed)?;
        fchmod(&self.own.fd, Mode::from_raw_mode(MODE | (stat.st_mode & 0o2000))).map_err(failed)?;
        commit::sync(&self.own.fd).map_err(failed)?;
        self.kept.set(true);
        Ok(())
    }

    /// It was filled and is not used after all.
    pub(super) fn discard(&self) {
        self.kept.set(false);
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        if !self.kept.get()
            && let Err(failure) = remove(self.parent, &self.name)
        {
            tracing::warn!(folder = %self.own.path.display(), error = %failure, "a generation that is not used stays behind until the next put");
        }
    }
}

/// Whether a generation of ours is called so: `..` and 16 hex digits.
pub(super) fn is_name(name: &OsStr) -> bool {
    let hex = name.as_bytes().strip_prefix(b"..");
    hex.is_some_and(|hex| hex.len() == 16 && hex.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)))
}

/// Opens a generation, if it is there.
pub(super) fn open(parent: &Folder, name: &OsStr) -> Result<Option<Folder>, Failure> {
    let path = parent.path.join(name);
    let fd = match openat(&parent.fd, name, OPEN, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(blame("open folder", &path, errno)),
    };
    let stat = fstat(&fd).map_err(|errno| blame("look at", &path, errno))?;
    if stat.st_uid != ours() && stat.st_uid != 0 {
        return Err(local(format!("folder {} belongs to user id {}, so it is not ours: remove it", path.display(), stat.st_uid)));
    }
    let gives_group = (stat.st_mode & 0o2000 != 0).then_some(stat.st_gid);
    Ok(Some(Folder { fd, path, gives_group }))
}

/// Has the generation in use, and what stands in it, on the disk.
pub(super) fn sync(parent: &Folder, name: Option<&OsStr>) -> Result<(), Errno> {
    let Some(name) = name else { return Ok(()) };
    let fd = openat(&parent.fd, name, OPEN, Mode::empty())?;
    for entry in list(&fd)? {
        commit::sync(&openat(&fd, &entry, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)?;
    }
    commit::sync(&fd)
}

/// What stands in a folder.
pub(super) fn entries(folder: &Folder) -> Result<Vec<OsString>, Failure> {
    list(&folder.fd).map_err(|errno| blame("list", &folder.path, errno))
}

fn list(fd: impl std::os::fd::AsFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes a generation of ours with its files; whether it was there.
pub(super) fn remove(parent: &Folder, name: &OsStr) -> Result<bool, Failure> {
    let Some(own) = open(parent, name)? else { return Ok(false) };
    for file in entries(&own)? {
        unlinkat(&own.fd, &file, AtFlags::empty()).map_err(|errno| blame("remove", &own.path.join(&file), errno))?;
    }
    unlinkat(&parent.fd, name, AtFlags::REMOVEDIR).map_err(|errno| blame("remove folder", &own.path, errno))?;
    Ok(true)
}
