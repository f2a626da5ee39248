//! Group commit: what many threads want on one disk at the same time, one `syncfs` puts there for all of them.
//!
//! Whoever comes first syncs what is its own. Who comes meanwhile waits, and the first of them syncs the file system for
//! all that wait by then. A group is no transaction: each file of it is old or new by itself, and is told so by itself.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{fstat, fstatfs, fsync, syncfs};
use rustix::io::Errno;

/// `f_type` (statfs(2)) of the file systems on which `syncfs` is known to do all that `fsync` does: ext4 and its elders,
/// XFS, Btrfs, F2FS. FUSE does not ask its server, and in memory there is nothing to do.
const KNOWN: [u32; 4] = [0xEF53, 0x5846_5342, 0x9123_683E, 0xF2F5_2010];
/// The kernel that is the first whose `syncfs` tells of failed writes (syncfs(2)).
const TELLS: (u32, u32) = (5, 8);
/// `syncfs` writes what others left to be written too. Where that takes longer, each syncs its own.
const SLOW: Duration = Duration::from_millis(200);
/// Then it is tried again after that.
const APART: Duration = Duration::from_secs(30);

static DISKS: LazyLock<Mutex<HashMap<u64, Arc<Disk>>>> = LazyLock::new(Mutex::default);
static TOLD: LazyLock<bool> = LazyLock::new(|| version(&rustix::system::uname().release().to_string_lossy()).is_some_and(|v| v >= TELLS));

/// Has the file or folder on the disk.
///
/// # Errors
/// As fsync(2). What failed is never tried again: the kernel has forgotten by then what it could not write.
pub(super) fn sync(fd: &impl AsFd) -> Result<(), Errno> {
    let fd = fd.as_fd();
    match disk(fd)? {
        Some(disk) => disk.sync(|| fsync(fd), || syncfs(fd)),
        None => fsync(fd),
    }
}

fn disk(fd: BorrowedFd<'_>) -> Result<Option<Arc<Disk>>, Errno> {
    // A number may be another file system's after an unmount, so that the kind is asked each time.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 32 bits, however wide the field is here
    let kind = fstatfs(fd)?.f_type as u32;
    if !KNOWN.contains(&kind) || !*TOLD {
        return Ok(None);
    }
    let number = fstat(fd)?.st_dev;
    Ok(Some(Arc::clone(DISKS.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default())))
}

/// `MAJOR.MINOR` of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// One disk: what is synced there now, and who waits.
#[derive(Default)]
struct Disk {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether somebody syncs for all.
    busy: bool,
    /// Those that wait for the next sync, and how many they are.
    next: Arc<Group>,
    waiting: usize,
    /// Until when each syncs its own.
    apart: Option<Instant>,
}

/// Those who wait for the same sync.
#[derive(Default)]
struct Group {
    woken: Condvar,
    /// Whether it put everything on the disk.
    synced: OnceLock<bool>,
}

impl Disk {
    fn sync(&self, own: impl Fn() -> Result<(), Errno>, all: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.apart.is_some_and(|until| Instant::now() < until) {
            drop(state);
            return own();
        }
        let group = Arc::clone(&state.next);
        state.waiting += 1;
        while state.busy && group.synced.get().is_none() {
            state = group.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(synced) = group.synced.get() {
            drop(state);
            // It does not say whose write failed.
            return if *synced { Ok(()) } else { own() };
        }
        state.busy = true;
        state.next = Arc::default();
        let alone = std::mem::take(&mut state.waiting) == 1;
        drop(state);
        let begun = Instant::now();
        let result = if alone { own() } else { all() };
        let mut state = self.lock();
        if !alone && begun.elapsed() > SLOW {
            state.apart = Some(Instant::now() + APART);
        }
        group.synced.set(result.is_ok()).expect("who syncs for a group is one of it, and the only one");
        state.busy = false;
        group.woken.notify_all();
        state.next.woken.notify_one();
        drop(state);
        if alone || result.is_ok() { result } else { own() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    /// Begins one sync, lets `others` come while it lasts, and counts syncs of one and of all.
    fn tried(others: usize, all_fails: bool) -> (usize, usize, Vec<Result<(), Errno>>) {
        let (disk, own, all) = (Disk::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let (begun, begins) = channel();
        let (go, went) = channel::<()>();
        let went = Mutex::new(went);
        let results = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let own = || {
                    begun.send(()).unwrap();
                    went.lock().unwrap().recv().unwrap();
                    own.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                };
                disk.sync(own, || panic!("nobody else is there"))
            });
            begins.recv().unwrap();
            let one = |fails: bool| {
                let own = || {
                    own.fetch_add(1, Ordering::SeqCst);
                    if fails { Err(Errno::IO) } else { Ok(()) }
                };
                let all = || {
                    all.fetch_add(1, Ordering::SeqCst);
                    if all_fails { Err(Errno::IO) } else { Ok(()) }
                };
                disk.sync(own, all)
            };
            let others: Vec<_> = (0..others).map(|n| scope.spawn(move || one(n == 0))).collect();
            while disk.lock().waiting < others.len() {
                std::thread::yield_now();
            }
            go.send(()).unwrap();
            let first = first.join().unwrap();
            std::iter::once(first).chain(others.into_iter().map(|other| other.join().unwrap())).collect::<Vec<_>>()
        });
        (own.load(Ordering::SeqCst), all.load(Ordering::SeqCst), results)
    }

    #[test]
    fn who_comes_while_a_sync_lasts_shares_the_next_one() {
        let (own, all, results) = tried(20, false);
        assert_eq!((own, all), (1, 1));
        assert!(results.iter().all(Result::is_ok));
    }

    #[test]
    fn where_the_sync_of_all_fails_each_learns_what_became_of_its_own() {
        let (own, all, results) = tried(20, true);
        assert_eq!((own, all), (21, 1));
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1, "only one could not be written: {results:?}");
        assert_eq!(results[1], Err(Errno::IO));
    }

    #[test]
    fn one_alone_syncs_nothing_of_others() {
        assert_eq!(tried(1, true).1, 0);
    }

    #[test]
    fn a_disk_on_which_all_takes_long_is_synced_by_each_for_itself() {
        let disk = Disk::default();
        disk.lock().apart = Some(Instant::now() + APART);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| disk.sync(|| Ok(()), || panic!("others' data is not ours to wait for")).unwrap());
            }
        });
    }

    #[test]
    fn the_version_of_a_kernel_is_read_off_its_release() {
        assert_eq!(["6.18.0-5-amd64", "5.8", "4.18.0-553.el8", "x"].map(version), [Some((6, 18)), Some((5, 8)), Some((4, 18)), None]);
    }

    #[test]
    fn files_of_every_file_system_are_synced() {
        for place in [std::env::temp_dir(), "/dev/shm".into()] {
            let file = tempfile::tempfile_in(place).unwrap();
            std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(|| sync(&file).unwrap()))));
        }
    }
}
