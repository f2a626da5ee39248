//! A new file: made private, given its owner, mode and readers, filled, and looked at before anybody is led to it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use rustix::fs::{Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, openat};
use rustix::io::Errno;

use super::account::Wish;
use super::blame::{blame, local};
use super::commit;
use super::folder::Folder;
use crate::sink::Failure;

const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::RDWR).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A file under a name that nobody reads yet.
pub(super) struct Fresh<'a> {
    pub(super) folder: &'a Folder,
    pub(super) name: OsString,
    /// Until it is finished.
    file: Option<File>,
}

impl<'a> Fresh<'a> {
    /// Makes it, empty.
    pub(super) fn new(folder: &'a Folder, name: &OsStr) -> Result<Self, Failure> {
        let failed = |errno| blame("create", &folder.path.join(name), errno);
        let fd = openat(&folder.fd, name, NEW, Mode::from_raw_mode(0o600)).map_err(failed)?;
        Ok(Self { folder, name: name.to_owned(), file: Some(fd.into()) })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    /// Dresses it, fills it, checks it, has it on the disk, and closes it: what is closed after it was published would tell
    /// all who watch the folder that somebody wrote to the published file.
    pub(super) fn finish(&mut self, wish: &Wish, bytes: &[u8]) -> Result<Stat, Failure> {
        self.dress(wish)?;
        self.fill(bytes)?;
        let stat = self.check(wish, bytes.len())?;
        commit::sync(self.file()).map_err(|errno| blame("sync", &self.path(), errno))?;
        self.file = None;
        Ok(stat)
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("it is open until it is finished")
    }

    fn fill(&self, bytes: &[u8]) -> Result<(), Failure> {
        let failed = |error: std::io::Error| blame("write", &self.path(), Errno::from_io_error(&error).unwrap_or(Errno::NOSPC));
        self.file().write_all(bytes).map_err(failed)
    }

    /// Owner first, then the mode, then the readers: it widens only for the right owner, and a later change of the
    /// mode would change the readers' mask. Neither owner nor group is touched where it is right already, so that a
    /// folder with the setgid bit gives the group without any right of ours to change it.
    fn dress(&self, wish: &Wish) -> Result<(), Failure> {
        let stat = fstat(self.file()).map_err(|errno| blame("look at", &self.path(), errno))?;
        let owner = wish.uid.filter(|uid| *uid != stat.st_uid);
        let group = wish.gid.filter(|gid| *gid != stat.st_gid);
        if owner.is_some() || group.is_some() {
            fchown(self.file(), owner.map(Uid::from_raw), group.map(Gid::from_raw)).map_err(|errno| self.denied(wish, owner, errno))?;
        }
        // On some kernels and file systems a change of owner clears bits. Where it is right from the start whoever watches the
        // folder is spared an event.
        if owner.is_some() || group.is_some() || stat.st_mode & 0o7777 != wish.mode {
            fchmod(self.file(), Mode::from_raw_mode(wish.mode)).map_err(|errno| blame("set the mode of", &self.path(), errno))?;
        }
        wish.acl.set(self.file(), wish.mode).map_err(|errno| match errno {
            Errno::NOTSUP => local(format!(
                "the file system of {} keeps no ACLs, so `readers` cannot be set there: mount it with them, or let a `group` read",
                self.folder.path.display()
            )),
            Errno::INVAL => self.denied(wish, None, errno),
            errno => blame("set the readers of", &self.path(), errno),
        })
    }

    fn denied(&self, wish: &Wish, owner: Option<u32>, errno: Errno) -> Failure {
        let path = self.folder.path.display();
        match (errno, owner, wish.gid) {
            (Errno::PERM, Some(owner), _) => local(format!(
                "cannot give the file in {path} to user id {owner}: that takes CAP_CHOWN; leave `owner` out and let a group read it"
            )),
            (Errno::PERM, None, Some(group)) => local(format!(
                "cannot give the file in {path} to group id {group}: let the folder give it (chgrp {group} {path} && chmod 2750 {path}), or make the daemon's user a member"
            )),
            // No such number in this user namespace.
            (Errno::INVAL, ..) => local(format!(
                "cannot give the file in {path} to others: the unit's PrivateUsers=yes hides them; `tokenferry host --apply` writes the drop-in that turns it off"
            )),
            _ => blame("change the owner of", &self.path(), errno),
        }
    }

    /// What is about to be published is what was meant.
    fn check(&self, wish: &Wish, size: usize) -> Result<Stat, Failure> {
        let stat = fstat(self.file()).map_err(|errno| blame("look at", &self.path(), errno))?;
        let wrong = if u64::try_from(stat.st_size) != Ok(size as u64) {
            Some("size")
        } else if stat.st_mode & 0o7777 != wish.acl.shown(wish.mode) {
            Some("mode")
        } else if !wish.owners_match(self.folder, stat.st_uid, stat.st_gid) {
            Some("owner or group")
        } else if !wish.acl.stands(self.file(), &self.folder.fd, wish.mode) {
            Some("readers")
        } else if stat.st_nlink != 1 {
            Some("number of names")
        } else {
            None
        };
        wrong.map_or(Ok(stat), |what| {
            Err(local(format!(
                "the file system of {} did not keep the {what} of a file just written: choose a folder on another one",
                self.folder.path.display()
            )))
        })
    }
}
