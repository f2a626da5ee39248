//! Bytes become a published file: temporary file beside it, owner, mode, readers, check, sync, rename, sync of the folder.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, Stat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::account::Wish;
use super::blame::{blame, local};
use super::commit;
use super::folder::Folder;
use super::fresh::Fresh;
use super::held;
use super::lock::Lock;
use super::turn::Ticket;
use crate::sink::{Failure, Put};
use crate::token::Payload;
use crate::token::render::hex;

/// Published places that could not be synced with their folder: what is there may not be on the disk, so that
/// equal bytes prove nothing. A sync is never tried again: it would succeed with the data lost.
static UNSURE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

/// Publishes a payload under `name`, or finds it published as wished. What is to be merged is merged under the lock
/// that others of the file heed.
pub(super) fn publish(folder: &Folder, name: &OsStr, wish: &Wish, payload: &Payload, ticket: &Ticket) -> Result<Put, Failure> {
    let path = folder.path.join(name);
    let seen = held::stat(folder, name, wish)?;
    let _lock = if payload.merges() { Some(Lock::take(folder, name)?) } else { None };
    let held = if payload.merges() { held::bytes(folder, name, wish)? } else { None };
    let merged = payload.onto(held.as_deref().map(Vec::as_slice));
    let bytes = merged.map_err(|why| local(format!("cannot merge into {}, which is left as it is: {why}", path.display())))?;
    let unsure = is_unsure(&path);
    // One that we may not read is published anew: only its reader could say whether it is the same.
    if !unsure
        && seen.is_some()
        && let Ok(Some(file)) = held::open_seen(folder, name, wish)
    {
        if file.right && file.holds(&bytes) {
            // Whoever wrote it may have died before it was durable.
            return durable(path, commit::sync(&file.file).and_then(|()| commit::sync(&folder.fd))).map(|()| Put::Unchanged);
        }
        if file.links > 1 {
            tracing::warn!(path = %path.display(), "the published file has a second name, which keeps the old token");
        }
    }
    let mut temporary = Temporary::new(folder, name)?;
    let written = temporary.file.finish(wish, &bytes)?;
    ticket.alone(|| {
        // Looked at again: between the first look and this one somebody may have put something else there.
        held::stat(folder, name, wish)?;
        renameat(&folder.fd, &temporary.file.name, &folder.fd, name).map_err(|errno| blame("publish", &path, errno))?;
        temporary.keep = true;
        temporary.read_back(name, wish, &bytes, &written)
    })?;
    durable(path, commit::sync(&folder.fd)).map(|()| Put::Written)
}

/// Makes a file beside `name` as one that is to be published, and removes it again.
pub(super) fn rehearse(folder: &Folder, name: &OsStr, wish: &Wish, bytes: &[u8]) -> Result<(), Failure> {
    Temporary::new(folder, name)?.file.finish(wish, bytes).map(drop)
}

/// Keeps in mind whether what is published is surely on the disk.
pub(super) fn durable(path: PathBuf, synced: Result<(), Errno>) -> Result<(), Failure> {
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
pub(super) fn temporary_name(name: &OsStr, random: [u8; 8]) -> OsString {
    let mut whole = OsString::from(".");
    whole.push(name);
    whole.push(format!(".{}.tmp", hex(&random)));
    whole
}

/// The name beside which a file of that name would be a temporary one; `None` for names of another form.
pub(super) fn published_name(temporary: &[u8]) -> Option<&OsStr> {
    let rest = temporary.strip_prefix(b".").and_then(|rest| rest.strip_suffix(b".tmp"))?;
    let (name, random) = rest.split_at_checked(rest.len().checked_sub(17)?)?;
    let is_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    (random[0] == b'.' && random[1..].iter().all(is_hex)).then(|| OsStr::from_bytes(name))
}

/// Whether what stands at a path may not be on the disk.
pub(super) fn is_unsure(path: &Path) -> bool {
    UNSURE.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
}

/// Eight random bytes for a name.
pub(super) fn random() -> Result<[u8; 8], Failure> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| local("the kernel gives no random bytes".into()))?;
    Ok(random)
}

/// A temporary file, gone again when dropped unless it was published.
struct Temporary<'a> {
    file: Fresh<'a>,
    keep: bool,
}

impl<'a> Temporary<'a> {
    fn new(folder: &'a Folder, published: &OsStr) -> Result<Self, Failure> {
        let name = temporary_name(published, random()?);
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        match Fresh::new(folder, &name) {
            Ok(file) => Ok(Self { file, keep: false }),
            Err(failure) => {
                LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                Err(failure)
            }
        }
    }

    /// What stands at the published name now is what was written, and in the file system's own words.
    fn read_back(&self, published: &OsStr, wish: &Wish, bytes: &[u8], ours: &Stat) -> Result<(), Failure> {
        let path = self.file.folder.path.join(published);
        let wrong = |what: &str| Err(local(format!("{} {what} as soon as it was published: somebody else writes there", path.display())));
        match held::open(self.file.folder, published, wish) {
            Ok(Some(file)) if !file.right => wrong("has another owner, group or mode"),
            Ok(Some(file)) if !file.holds(bytes) => wrong("holds other bytes"),
            Ok(Some(_)) => Ok(()),
            Ok(None) => wrong("was removed"),
            // Only its reader may read it: then it has to be the very file that was written.
            Err(failure) => match statat(&self.file.folder.fd, published, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if is_the_same(&there, ours) => Ok(()),
                _ => Err(failure),
            },
        }
    }
}

/// Whether both are of one file, unchanged: a number alone may be another file's by now, once ours was removed.
fn is_the_same(one: &Stat, other: &Stat) -> bool {
    let of = |stat: &Stat| {
        let file = (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_uid, stat.st_gid);
        (file, stat.st_size, stat.st_mtime, stat.st_mtime_nsec)
    };
    of(one) == of(other)
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.keep
            && let Err(errno) = unlinkat(&self.file.folder.fd, &self.file.name, AtFlags::empty())
        {
            tracing::warn!(path = %self.file.path().display(), error = %errno, "a temporary file stays behind until the next start");
        }
        LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.file.name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_temporary_name_belongs_to_its_file_and_to_no_other(name in "[a-f0-9.]{1,40}", random: [u8; 8]) {
            let temporary = temporary_name(OsStr::new(&name), random);
            prop_assert_eq!(published_name(temporary.as_bytes()), Some(OsStr::new(&name)));
        }
    }

    #[test]
    fn what_is_not_as_it_was_published_is_no_success() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let folder = super::super::folder::find(&place.path().canonicalize().unwrap()).unwrap().unwrap();
        let (name, wish, path) =
            (OsStr::new("token"), Wish { mode: 0o600, uid: None, gid: None, acl: Default::default() }, place.path().join("token"));
        let publish = || {
            let mut temporary = Temporary::new(&folder, name).unwrap();
            let written = temporary.file.finish(&wish, b"new").unwrap();
            renameat(&folder.fd, &temporary.file.name, &folder.fd, name).unwrap();
            temporary.keep = true;
            (temporary, written)
        };
        let (good, written) = publish();
        let read_back = |good: &Temporary<'_>| good.read_back(name, &wish, b"new", &written);
        assert!(read_back(&good).is_ok());
        std::fs::write(&path, "old").unwrap();
        assert!(read_back(&good).unwrap_err().message.contains("holds other bytes"));
        let (good, _) = publish();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read_back(&good).unwrap_err().message.contains("mode"));
        let (good, _) = publish();
        std::fs::remove_file(&path).unwrap();
        assert!(read_back(&good).unwrap_err().message.contains("was removed"));
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read_back(&good).unwrap_err().message.contains("symbolic link"));
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
            assert_ne!(published_name(name.as_bytes()), Some(OsStr::new("token")), "{name}");
        }
    }
}
