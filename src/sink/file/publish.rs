//! Bytes become a published file: temporary file beside it, owner, mode, sync, check, rename, sync of the folder.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::account::Wish;
use super::blame::{blame, local};
use super::folder::Folder;
use super::held;
use super::turn::Ticket;
use crate::sink::{Failure, Put};
use crate::token::render::hex;

const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Published files that could not be synced with their folder: what is there may not be on the disk, so that
/// equal bytes prove nothing. A sync is never tried again: it would succeed with the data lost.
static UNSURE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// Publishes `bytes` under `name`, or finds them published as wished.
pub(super) fn publish(folder: &Folder, name: &OsStr, wish: Wish, bytes: &[u8], ticket: &Ticket) -> Result<Put, Failure> {
    let path = folder.path.join(name);
    let unsure = UNSURE.lock().unwrap_or_else(PoisonError::into_inner).contains(&path);
    held::stat(folder, name, wish)?;
    // One that we may not read is published anew: only its reader could say whether it is the same.
    if !unsure && let Ok(Some(file)) = held::open(folder, name, wish) {
        if file.right && file.holds(bytes) {
            // Whoever wrote it may have died before it was durable.
            return durable(path, fsync(&file.fd).and_then(|()| fsync(&folder.fd))).map(|()| Put::Unchanged);
        }
        if file.links > 1 {
            tracing::warn!(path = %path.display(), "the published file has a second name, which keeps the old token");
        }
    }
    let temporary = Temporary::new(folder, name)?;
    temporary.fill(bytes)?;
    temporary.dress(folder, wish)?;
    temporary.check(folder, wish, bytes.len())?;
    fsync(&temporary.fd).map_err(|errno| blame("sync", &temporary.path(), errno))?;
    ticket.alone(|| {
        // Looked at again: between the first look and this one somebody may have put something else there.
        held::stat(folder, name, wish)?;
        renameat(&folder.fd, &temporary.name, &folder.fd, name).map_err(|errno| blame("publish", &path, errno))?;
        Ok(())
    })?;
    temporary.published();
    durable(path, fsync(&folder.fd)).map(|()| Put::Written)
}

/// Keeps in mind whether what is published is surely on the disk.
fn durable(path: PathBuf, synced: Result<(), Errno>) -> Result<(), Failure> {
    let mut unsure = UNSURE.lock().unwrap_or_else(PoisonError::into_inner);
    match synced {
        Ok(()) => {
            unsure.remove(&path);
            Ok(())
        }
        Err(errno) => {
            let failure = blame("sync what was published at", &path, errno);
            unsure.insert(path);
            Err(failure)
        }
    }
}

/// Temporary files of attempts under way, which no sweep takes.
static LIVE: LazyLock<Mutex<HashSet<OsString>>> = LazyLock::new(Mutex::default);

/// Whether an attempt of this process is writing the temporary file of that name.
pub(super) fn is_live(name: &OsStr) -> bool {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
}

/// The name of a temporary file beside `name`: `.NAME.<16 hex>.tmp`.
fn temporary_name(name: &OsStr, random: [u8; 8]) -> OsString {
    let mut whole = OsString::from(".");
    whole.push(name);
    whole.push(format!(".{}.tmp", hex(&random)));
    whole
}

/// Whether `candidate` is the name of a temporary file beside `name`.
pub(super) fn is_temporary(candidate: &[u8], name: &OsStr) -> bool {
    let middle = candidate.strip_prefix(b".").and_then(|rest| rest.strip_prefix(name.as_bytes()));
    let random = middle.and_then(|rest| rest.strip_prefix(b".")).and_then(|rest| rest.strip_suffix(b".tmp"));
    random.is_some_and(|hex| hex.len() == 16 && hex.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)))
}

/// A temporary file, gone again when dropped unless it was published.
struct Temporary<'a> {
    folder: &'a Folder,
    name: OsString,
    fd: OwnedFd,
    keep: bool,
}

impl<'a> Temporary<'a> {
    fn new(folder: &'a Folder, published: &OsStr) -> Result<Self, Failure> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| local("the kernel gives no random bytes".into()))?;
        let name = temporary_name(published, random);
        let failed = |errno| blame("create the temporary file beside", &folder.path.join(published), errno);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        let fd = openat(&folder.fd, &name, NEW, Mode::from_raw_mode(0o600)).map_err(|errno| {
            LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            failed(errno)
        })?;
        Ok(Self { folder, name, fd, keep: false })
    }

    fn path(&self) -> PathBuf {
        self.folder.path.join(&self.name)
    }

    fn fill(&self, bytes: &[u8]) -> Result<(), Failure> {
        let failed = |error: std::io::Error| blame("write", &self.path(), Errno::from_io_error(&error).unwrap_or(Errno::NOSPC));
        let duplicate = self.fd.try_clone().map_err(failed)?;
        File::from(duplicate).write_all(bytes).map_err(failed)
    }

    /// Owner first, then the mode: it widens only for the right owner. Neither is touched where it is right
    /// already, so that a folder with the setgid bit gives the group without any right of ours to change it.
    fn dress(&self, folder: &Folder, wish: Wish) -> Result<(), Failure> {
        let stat = fstat(&self.fd).map_err(|errno| blame("look at", &self.path(), errno))?;
        let owner = wish.uid.filter(|uid| *uid != stat.st_uid);
        let group = wish.gid.filter(|gid| *gid != stat.st_gid);
        if owner.is_some() || group.is_some() {
            fchown(&self.fd, owner.map(Uid::from_raw), group.map(Gid::from_raw))
                .map_err(|errno| self.denied(folder, wish, owner, errno))?;
        }
        // Always: on some kernels and file systems a change of owner clears bits.
        fchmod(&self.fd, Mode::from_raw_mode(wish.mode)).map_err(|errno| blame("set the mode of", &self.path(), errno))
    }

    fn denied(&self, folder: &Folder, wish: Wish, owner: Option<u32>, errno: Errno) -> Failure {
        let path = folder.path.display();
        match (errno, owner, wish.gid) {
            (Errno::PERM, Some(owner), _) => local(format!(
                "cannot give the file in {path} to user id {owner}: that takes CAP_CHOWN; leave `owner` out and let a group read it"
            )),
            (Errno::PERM, None, Some(group)) => local(format!(
                "cannot give the file in {path} to group id {group}: let the folder give it (chgrp {group} {path} && chmod 2750 {path}), or make the daemon's user a member"
            )),
            _ => blame("change the owner of", &self.path(), errno),
        }
    }

    /// What is about to be published is what was meant.
    fn check(&self, folder: &Folder, wish: Wish, size: usize) -> Result<(), Failure> {
        let stat = fstat(&self.fd).map_err(|errno| blame("look at", &self.path(), errno))?;
        let wrong = if u64::try_from(stat.st_size) != Ok(size as u64) {
            Some("size")
        } else if stat.st_mode & 0o7777 != wish.mode {
            Some("mode")
        } else if !wish.owners_match(folder, stat.st_uid, stat.st_gid) {
            Some("owner or group")
        } else if stat.st_nlink != 1 {
            Some("number of names")
        } else {
            None
        };
        wrong.map_or(Ok(()), |what| {
            Err(local(format!(
                "the file system of {} did not keep the {what} of a file just written: choose a folder on another one",
                folder.path.display()
            )))
        })
    }

    fn published(mut self) {
        self.keep = true;
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.keep
            && let Err(errno) = unlinkat(&self.folder.fd, &self.name, AtFlags::empty())
        {
            tracing::warn!(path = %self.path().display(), error = %errno, "a temporary file stays behind until the next start");
        }
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_temporary_name_belongs_to_its_file_and_to_no_other(name in "[a-z.]{1,12}", other in "[a-z.]{1,12}", random: [u8; 8]) {
            let temporary = temporary_name(OsStr::new(&name), random);
            prop_assert!(is_temporary(temporary.as_bytes(), OsStr::new(&name)));
            prop_assert_eq!(is_temporary(temporary.as_bytes(), OsStr::new(&other)), name == other);
        }
    }

    #[test]
    fn names_that_only_resemble_a_temporary_file_are_left_alone() {
        for name in [
            ".token.tmp",
            ".token.0123456789abcde.tmp",
            ".token.0123456789ABCDEF.tmp",
            "token.0123456789abcdef.tmp",
            ".token.0123456789abcdef.tmp~",
        ] {
            assert!(!is_temporary(name.as_bytes(), OsStr::new("token")), "{name}");
        }
    }
}
