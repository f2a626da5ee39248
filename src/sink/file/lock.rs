//! The lock of a kubeconfig that others change too: `FILE.lock`, which kubectl makes before it writes and removes
//! afterwards (client-go, `clientcmd.ModifyConfig`). Whoever finds it does not write.
//!
//! kubectl's own stays for ever where kubectl is killed. Ours says that it is ours and is held by `flock`, so that
//! one whose process died is known and taken away.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, openat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::blame::blame;
use super::folder::Folder;
use super::publish::{random, temporary_name};
use crate::sink::{Failure, FailureKind};

const MARK: &[u8] = b"tokenferry\n";
const NEW: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The lock of one file, given back when dropped.
pub(super) struct Lock<'a> {
    folder: &'a Folder,
    name: OsString,
    _held: OwnedFd,
}

impl<'a> Lock<'a> {
    /// Takes the lock of `file`.
    ///
    /// # Errors
    /// `Conflict` where somebody else holds it: worth another try soon.
    pub(super) fn take(folder: &'a Folder, file: &OsStr) -> Result<Self, Failure> {
        let mut name = file.to_owned();
        name.push(".lock");
        // Marked and held before it has its name, so that it is never taken for kubectl's.
        let temporary = temporary_name(file, random()?);
        let failed = |errno| blame("make the lock", &folder.path.join(&name), errno);
        let held = openat(&folder.fd, &temporary, NEW, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let given = rustix::io::write(&held, MARK)
            .and_then(|_| flock(&held, FlockOperation::NonBlockingLockExclusive))
            .map_err(failed)
            .and_then(|()| Self::name(folder, &temporary, &name));
        if let Err(failure) = given {
            // A killed process leaves it behind as well; the next start takes it away.
            let _ = unlinkat(&folder.fd, &temporary, AtFlags::empty());
            return Err(failure);
        }
        Ok(Self { folder, name, _held: held })
    }

    fn name(folder: &Folder, temporary: &OsStr, name: &OsStr) -> Result<(), Failure> {
        let path = folder.path.join(name);
        let mut forgiven = false;
        loop {
            match renameat_with(&folder.fd, temporary, &folder.fd, name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) if !forgiven && abandoned(folder, name) => forgiven = true,
                Err(Errno::EXIST) => {
                    return Err(Failure::new(
                        FailureKind::Conflict,
                        format!(
                            "{} stands there: somebody changes the kubeconfig, or a kubectl was killed while it did (then remove it)",
                            path.display()
                        ),
                    ));
                }
                Err(errno) => return Err(blame("take the lock", &path, errno)),
            }
        }
    }
}

/// Takes a lock of ours away whose process is gone.
fn abandoned(folder: &Folder, name: &OsStr) -> bool {
    let Ok(fd) = openat(&folder.fd, name, READ, Mode::empty()) else { return false };
    let mut text = [0; MARK.len()];
    if rustix::io::read(&fd, &mut text[..]) != Ok(MARK.len()) || text != *MARK {
        return false;
    }
    if flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
        return false;
    }
    // Still the one that was looked at: another of us may have taken it away and made its own.
    let same = fstat(&fd).and_then(|ours| Ok((ours.st_ino, statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)));
    same.is_ok_and(|(ours, there)| ours == there) && unlinkat(&folder.fd, name, AtFlags::empty()).is_ok()
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        if let Err(errno) = unlinkat(&self.folder.fd, &self.name, AtFlags::empty()) {
            tracing::warn!(path = %self.folder.path.join(&self.name).display(), error = %errno, "the lock of a kubeconfig stays behind");
        }
    }
}
