//! What a place holds now: read without following a link, opening a device or waiting for a pipe.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::account::{self, Wish};
use super::blame::{blame, local, ours};
use super::folder::{self, Folder};
use super::{FileSpec, lane};
use crate::sink::Failure;
use crate::token::Payload;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// Bytes; no format of a token comes near it, and whatever is larger is not ours.
const MOST: u64 = 4 << 20;

/// A published file.
pub struct Held {
    /// Its bytes.
    pub payload: Payload,
    /// Whether owner, group, mode and readers are as wished; where not, a put of the same bytes mends it.
    pub right: bool,
    /// When it was written, seconds since 1970 by the file system's clock.
    pub modified: i64,
}

/// Looks at what is published; `None` where nothing is.
///
/// # Errors
/// `Unavailable` where the file system does not answer in time; `Local` where something else than a file of
/// ours stands at the path, or the folder is not safe.
pub async fn held(spec: &FileSpec, timeout: Duration) -> Result<Option<Held>, Failure> {
    let (parent, name) = super::parts(&spec.path)?;
    let wish = account::wish(spec).await?;
    let at = parent.clone();
    let work = move || match folder::find(&parent)? {
        Some(folder) => read(&folder, &name, &wish),
        None => Ok(None),
    };
    lane::run(timeout, &at, work).await
}

/// What is published, if anything is.
pub(super) fn read(folder: &Folder, name: &OsStr, wish: &Wish) -> Result<Option<Held>, Failure> {
    let Some(file) = open(folder, name, wish)? else { return Ok(None) };
    let mut bytes = file.whole(&folder.path.join(name))?;
    Ok(Some(Held { payload: Payload::new(std::mem::take(&mut *bytes)), right: file.right, modified: file.modified }))
}

/// A published file, open for reading.
pub(super) struct Open {
    pub(super) file: File,
    pub(super) right: bool,
    pub(super) links: u64,
    size: u64,
    pub(super) modified: i64,
}

/// Opens what is published, if anything is.
pub(super) fn open(folder: &Folder, name: &OsStr, wish: &Wish) -> Result<Option<Open>, Failure> {
    if stat(folder, name, wish)?.is_none() { Ok(None) } else { open_seen(folder, name, wish) }
}

/// The same, where [`stat`] has just seen something that may be opened.
pub(super) fn open_seen(folder: &Folder, name: &OsStr, wish: &Wish) -> Result<Option<Open>, Failure> {
    let path = folder.path.join(name);
    let fd = match openat(&folder.fd, name, OPEN, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(blame("open", &path, errno)),
    };
    // Looked at again through the open file: the name may lead elsewhere by now.
    let stat = fstat(&fd).map_err(|errno| blame("look at", &path, errno))?;
    refuse(&stat, folder, name, wish)?;
    let right = stat.st_mode & 0o7777 == wish.acl.shown(wish.mode)
        && wish.owners_match(folder, stat.st_uid, stat.st_gid)
        && wish.acl.stands(&fd, &folder.fd, wish.mode);
    let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    #[allow(clippy::useless_conversion)] // st_nlink is as wide as the platform likes
    Ok(Some(Open { file: fd.into(), right, links: stat.st_nlink.into(), size, modified: stat.st_mtime }))
}

/// The bytes of what is published, if anything is.
pub(super) fn bytes(folder: &Folder, name: &OsStr, wish: &Wish) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    open(folder, name, wish)?.map(|file| file.whole(&folder.path.join(name))).transpose()
}

/// What stands at the published path, if anything does: a regular file of root's, ours or the wished owner's.
pub(super) fn stat(folder: &Folder, name: &OsStr, wish: &Wish) -> Result<Option<Stat>, Failure> {
    match statat(&folder.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(blame("look at", &folder.path.join(name), errno)),
        Ok(stat) => refuse(&stat, folder, name, wish).map(|()| Some(stat)),
    }
}

fn refuse(stat: &Stat, folder: &Folder, name: &OsStr, wish: &Wish) -> Result<(), Failure> {
    let path = folder.path.join(name);
    let path = path.display();
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let known = [Some(0), Some(ours()), wish.uid].contains(&Some(stat.st_uid));
            return if known {
                Ok(())
            } else {
                Err(local(format!(
                    "{path} belongs to user id {}, so it is not ours to replace: remove it, or name its user as `owner`",
                    stat.st_uid
                )))
            };
        }
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        _ => "a device",
    };
    Err(local(format!("{path} is {kind}, not a file: remove it, or choose another path")))
}

impl Open {
    /// Whether the file's bytes are these.
    pub(super) fn holds(&self, bytes: &[u8]) -> bool {
        if self.size != bytes.len() as u64 {
            return false;
        }
        // So many and no more: whether more comes would be one more question.
        let mut read = Zeroizing::new(vec![0; bytes.len()]);
        (&self.file).read_exact(&mut read).is_ok() && *read == *bytes
    }

    /// All its bytes, where they can be those of a token's place.
    pub(super) fn whole(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let bytes = self.read(MOST).map_err(|errno| blame("read", path, errno))?;
        if bytes.len() as u64 > MOST {
            return Err(local(format!("{} is larger than 4 MiB, so it is no token", path.display())));
        }
        Ok(bytes)
    }

    /// Its bytes, one more than `most` at the most.
    fn read(&self, most: u64) -> Result<Zeroizing<Vec<u8>>, Errno> {
        let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let room = usize::try_from(self.size.min(most)).unwrap_or(0) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        (&self.file).take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }
}
