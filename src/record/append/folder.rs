//! The records folder: made, owned and locked by one process; every file in it is reached through it.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::OpenError;

const LOCK: &str = "lock";

/// A records folder that this process holds.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked too: it still holds where somebody removed the lock file, or where none could be made.
    directory: OwnedFd,
    lock: Option<File>,
    /// To whom new files are given: root writes in another user's folder.
    owner: Option<(Uid, Gid)>,
}

impl Folder {
    /// Makes the folder where it is missing, and takes it.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |action| move |error: Errno| OpenError::Folder { action, path: path.to_owned(), source: error.into() };
        let directory = match open_directory(path) {
            Err(Errno::NOENT) => make(path).map_err(|source| OpenError::Folder { action: "make folder", path: path.to_owned(), source })?,
            other => other.map_err(failed("open folder"))?,
        };
        let whole = match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(busy(path, &directory)),
            // Some network file systems lock only what is open for writing; the lock file will do there.
            other => other.is_ok(),
        };
        let stat = rustix::fs::fstat(&directory).map_err(failed("look at folder"))?;
        let owner = foreign(stat.st_uid, stat.st_gid);
        let lock = match lock_file(&directory, owner) {
            Ok(lock) => Some(lock),
            Err(Errno::WOULDBLOCK) => return Err(busy(path, &directory)),
            Err(Errno::ROFS | Errno::NOSPC | Errno::DQUOT) if whole => None,
            Err(error) => return Err(failed("lock folder")(error)),
        };
        Ok(Self { path: path.to_owned(), directory, lock, owner })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the folder that was taken; an error where that cannot be told.
    pub fn stands(&self) -> io::Result<bool> {
        let taken = looked_at(rustix::fs::fstat(&self.directory))?;
        match rustix::fs::stat(&self.path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            there => Ok(there.map(|there| (taken.st_dev, taken.st_ino) == (there.st_dev, there.st_ino))?),
        }
    }

    /// Makes a file that was not there, mode 0600.
    pub fn create(&self, name: &str) -> io::Result<File> {
        create(&self.directory, name, self.owner, OFlags::WRONLY | OFlags::EXCL).map(File::from).map_err(io::Error::from)
    }

    /// Appends a line to a file that is made where it is missing. What a crash cut off before stays a line of its own.
    pub fn append(&self, name: &str, line: &str) -> io::Result<()> {
        let file = File::from(create(&self.directory, name, self.owner, OFlags::RDWR | OFlags::APPEND)?);
        let (length, mut last) = (file.metadata()?.len(), [b'\n']);
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        let torn = if last == [b'\n'] { "" } else { "\n" };
        (&file).write_all(format!("{torn}{line}").as_bytes())
    }

    /// Opens a file for appending.
    pub fn reopen(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?))
    }

    /// Whether that name still leads to that file, with that many bytes in it; an error where that cannot be told.
    pub fn holds(&self, name: &str, file: &File, length: u64) -> io::Result<bool> {
        let open = looked_at(rustix::fs::fstat(file))?;
        match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(false),
            there => Ok(there
                .map(|there| (open.st_dev, open.st_ino) == (there.st_dev, there.st_ino) && u64::try_from(there.st_size) == Ok(length))?),
        }
    }

    fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives a file another name, never over an existing one.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.directory, from, &self.directory, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) if !self.has(to) => {
                // A file system without that flag; nobody else writes here while we hold the lock.
                rustix::fs::renameat(&self.directory, from, &self.directory, to)?;
            }
            other => other?,
        }
        Ok(())
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// Makes names durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

impl Drop for Folder {
    /// Unlocks by name: closing alone would wait for a child that is between fork and exec just now.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
        if let Some(lock) = &self.lock {
            let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
        }
    }
}

/// What is open is there: whatever else a look at it says is a failure, never its absence.
fn looked_at(stat: Result<rustix::fs::Stat, Errno>) -> io::Result<rustix::fs::Stat> {
    stat.map_err(|errno| io::Error::other(io::Error::from(errno)))
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes the folder 0700 for the owner of the folder around it, and that one 0711 where it is missing too.
pub(super) fn make(path: &Path) -> io::Result<OwnedFd> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let around = open_directory(parent)?;
    let stat = rustix::fs::fstat(&around)?;
    let directory = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if let Some((uid, gid)) = foreign(stat.st_uid, stat.st_gid) {
        rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
    }
    rustix::fs::fsync(&around)?;
    Ok(directory)
}

fn foreign(uid: u32, gid: u32) -> Option<(Uid, Gid)> {
    let root = rustix::process::geteuid().is_root();
    (root && uid != 0).then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))
}

fn create(directory: &OwnedFd, name: &str, owner: Option<(Uid, Gid)>, how: OFlags) -> Result<OwnedFd, Errno> {
    let flags = how | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(&file, Some(uid), Some(gid))?;
    }
    Ok(file)
}

/// Takes the lock file and writes our process id into it, for whoever finds it taken.
fn lock_file(directory: &OwnedFd, owner: Option<(Uid, Gid)>) -> Result<File, Errno> {
    let file = match create(directory, LOCK, owner, OFlags::RDWR) {
        Err(Errno::ROFS) => rustix::fs::openat(directory, LOCK, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|_| Errno::ROFS)?,
        other => other?,
    };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    let file = File::from(file);
    let pid = format!("{}\n", std::process::id());
    // The lock is what counts; on a full disk the number may be missing.
    if file.write_all_at(pid.as_bytes(), 0).is_ok() {
        let _ = file.set_len(pid.len() as u64);
    }
    Ok(file)
}

fn busy(path: &Path, directory: &OwnedFd) -> OpenError {
    let mut text = [0; 16];
    let file = rustix::fs::openat(directory, LOCK, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let read = file.map_or(0, |file| File::from(file).read_at(&mut text, 0).unwrap_or(0));
    let pid = std::str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse().ok());
    OpenError::Busy { directory: path.to_owned(), pid }
}
