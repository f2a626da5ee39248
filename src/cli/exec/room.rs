//! A private folder in memory for one command's token: made for us alone, gone when we are, swept by the next
//! run where we were killed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

const PREFIX: &str = "tokenferry-exec-";
/// The file of a room that outlives it: what has to be revoked yet.
pub const NOTE: &str = "marker";
/// statfs(2).
const TMPFS: i64 = 0x0102_1994;
/// statfs(2).
const RAMFS: i64 = 0x8584_58f6;

/// The folder. Its name carries our process id and start time; a lock on it says that we live, across process
/// id namespaces too.
pub struct Room {
    path: PathBuf,
    _lock: File,
}

impl Room {
    /// Makes one in the first place that is memory and ours to write, and sweeps what killed runs left.
    ///
    /// # Errors
    /// Where it was tried, and why none did.
    pub fn make() -> Result<Self, String> {
        let uid = rustix::process::geteuid().as_raw();
        let mut tried = Vec::new();
        for base in bases(uid) {
            sweep(&base, uid);
            match Self::make_in(&base, uid) {
                Ok(room) => return Ok(room),
                Err(error) => tried.push(format!("{}: {error}", base.display())),
            }
        }
        Err(format!("no place in memory for a token ({}); set XDG_RUNTIME_DIR to a folder of yours on a tmpfs", tried.join("; ")))
    }

    fn make_in(base: &Path, uid: u32) -> io::Result<Self> {
        #[allow(clippy::unnecessary_cast)] // narrower on 32 bits
        let kind = rustix::fs::statfs(base)?.f_type as i64;
        if ![TMPFS, RAMFS].contains(&kind) {
            return Err(io::Error::other("not in memory (no tmpfs)"));
        }
        let pid = std::process::id();
        let path = base.join(format!("{PREFIX}{uid}-{pid}-{}", started(pid).unwrap_or(0)));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where a file of it stands.
    pub fn place(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes all files but the note.
    pub fn clear(&self) {
        clear(&self.path);
    }

    /// Removes the note: nothing is owed any more.
    pub fn forget(&self) {
        // Where it cannot be removed the next run finds that nothing is owed.
        let _ = fs::remove_file(self.place(NOTE));
    }

    /// Rooms of ours in which nothing is left but a note, of runs that are over.
    pub fn left() -> Vec<PathBuf> {
        let uid = rustix::process::geteuid().as_raw();
        let dead = bases(uid).into_iter().flat_map(|base| dead(&base, uid));
        dead.filter(|room| room.join(NOTE).is_file()).collect()
    }

    /// Writes a file whole: a reader sees the old bytes or the new ones.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!(".{name}.new"));
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, self.place(name))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.place(NOTE).exists() {
            return self.clear();
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            crate::cli::print::talk(&format!(
                "tokenferry: {} could not be removed: {error}; the next run tries again",
                self.path.display()
            ));
        }
    }
}

/// The user's own folders in memory, then the one that all share.
fn bases(uid: u32) -> Vec<PathBuf> {
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    own.into_iter().chain([PathBuf::from(format!("/run/user/{uid}")), PathBuf::from("/dev/shm")]).collect()
}

/// Removes rooms of ours whose process is gone; of those that hold a note everything else.
fn sweep(base: &Path, uid: u32) {
    for room in dead(base, uid) {
        if room.join(NOTE).exists() {
            clear(&room);
        } else {
            remove(&room);
        }
    }
}

/// Removes a room.
pub fn remove(room: &Path) {
    // What cannot be removed now is swept by the next run.
    let _ = fs::remove_dir_all(room);
}

fn clear(room: &Path) {
    for file in fs::read_dir(room).into_iter().flatten().flatten().filter(|file| file.file_name() != NOTE) {
        if let Err(error) = fs::remove_file(file.path()) {
            crate::cli::print::talk(&format!("tokenferry: {} could not be removed: {error}", file.path().display()));
        }
    }
}

/// Rooms of ours whose process is gone.
fn dead(base: &Path, uid: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(rest) = name.strip_prefix(&format!("{PREFIX}{uid}-")) else { continue };
        let owner = rest.split_once('-').and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
        let Some((pid, begun)) = owner else { continue };
        let ours = fs::symlink_metadata(entry.path()).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
        if ours && started(pid) != Some(begun) && is_unlocked(&entry.path()) {
            found.push(entry.path());
        }
    }
    found
}

fn is_unlocked(path: &Path) -> bool {
    File::open(path).is_ok_and(|folder| rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5), field 22).
fn started(pid: u32) -> Option<u64> {
    field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, 22)?.parse().ok()
}

/// A field of proc_pid_stat(5), counted from 1; those after the name, which may hold spaces and brackets.
pub(super) fn field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shm() -> PathBuf {
        PathBuf::from("/dev/shm")
    }

    #[test]
    fn a_room_is_private_and_goes_with_its_owner() {
        let uid = rustix::process::geteuid().as_raw();
        let room = Room::make_in(&shm(), uid).unwrap();
        room.put("token", b"a").unwrap();
        room.put("token", b"b").unwrap();
        let path = room.path.clone();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("token")), fs::read(path.join("token")).unwrap()), (0o700, 0o600, b"b".to_vec()));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        sweep(&shm(), uid);
        assert!(path.exists(), "a living process was swept away");
        drop(room);
        assert!(!path.exists());
    }

    #[test]
    fn only_rooms_of_processes_that_are_gone_are_swept() {
        let uid = rustix::process::geteuid().as_raw();
        let base = tempfile::tempdir_in(shm()).unwrap();
        let make = |name: String| {
            let path = base.path().join(name);
            DirBuilder::new().mode(0o700).create(&path).unwrap();
            fs::write(path.join("token"), "t").unwrap();
            path
        };
        // No process has that number (the kernel's largest is 2^22), and ours started at another time.
        let dead = make(format!("{PREFIX}{uid}-4194999-1"));
        let recycled = make(format!("{PREFIX}{uid}-{}-1", std::process::id()));
        let elsewhere = make(format!("{PREFIX}{uid}-4194998-1"));
        let lock = File::open(&elsewhere).unwrap();
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let others = make(format!("{PREFIX}{}-4194999-1", uid + 1));
        let odd = make(format!("{PREFIX}{uid}-x"));
        sweep(base.path(), uid);
        assert_eq!([&dead, &recycled, &elsewhere, &others, &odd].map(|p| p.exists()), [false, false, true, true, true]);
    }

    #[test]
    fn a_disk_is_no_place_for_a_token() {
        let error = Room::make_in(Path::new("/proc"), 0).err().expect("/proc holds no folder of ours");
        assert!(error.to_string().contains("not in memory"), "{error}");
    }

    #[test]
    fn names_with_brackets_do_not_move_the_fields() {
        assert_eq!(field("7 (a) b) S 1 2 3", 4), Some("1"));
        assert!(started(std::process::id()).is_some());
    }
}
