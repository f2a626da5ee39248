//! Blocking file work, kept off the threads of the runtime: each file system has a lane of so many threads,
//! so that one that hangs holds up nobody but itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::blame::local;
use crate::cluster::upstream::while_others_end;
use crate::sink::{Failure, FailureKind};

/// Threads of one file system: those that wait for the disk share its syncs, so that many are few syncs; few enough that
/// eight hung ones leave room for others.
const WIDTH: usize = 256;
/// Threads for blocking work that a process may have: eight file systems that hang, and room for all else.
pub const THREADS: usize = 9 * WIDTH;
/// File systems in memory: nothing there waits for a disk, so that more threads than cores only take turns.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// The mount table is as fresh as that: each of a thousand rotations asks where its files lie.
const ASK_EVERY: Duration = Duration::from_millis(20);

static LANES: LazyLock<Mutex<HashMap<String, Arc<Lane>>>> = LazyLock::new(Mutex::default);
/// It reads files to be told.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, WIDTH)));
static MOUNTS: LazyLock<Mutex<Mounts>> = LazyLock::new(Mutex::default);

/// One file system's turns.
struct Lane {
    turns: Arc<Semaphore>,
    /// How many pieces of work have ended there.
    ended: AtomicU64,
}

/// The right to one thread there.
struct Turn {
    lane: Arc<Lane>,
    _permit: OwnedSemaphorePermit,
}

impl Lane {
    fn new(width: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(width)), ended: AtomicU64::new(0) }
    }

    /// Waits for a turn for as long as others end theirs: a file system with much to do is not one that hangs. `None`
    /// where for `patience` none ended.
    async fn turn(self: Arc<Self>, patience: Duration) -> Option<Turn> {
        let turn = self.turns.clone().acquire_owned();
        // Nobody closes it.
        let permit = while_others_end(|| self.ended.load(Ordering::Relaxed), patience, turn).await?.ok()?;
        Some(Turn { _permit: permit, lane: self })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lane.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `work` in the lane of the file system that `path` stands on. The time that it may take begins with its turn.
///
/// # Errors
/// What the work gives; `Unavailable` where it takes longer than `timeout`, or nothing ended there for so long while it
/// waited.
pub async fn run<T: Send + 'static>(
    timeout: Duration,
    path: &Path,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let Some(turn) = lane(path).turn(timeout).await else { return Err(silent(timeout, path)) };
    // Given back with what came of it, whoever waits for that: a hung thread holds it for as long as it hangs.
    let job = tokio::task::spawn_blocking(move || (work(), turn));
    match tokio::time::timeout(timeout, job).await {
        Ok(Ok((done, _turn))) => done,
        Ok(Err(_)) => Err(local("file work broke off: the runtime is shutting down".into())),
        Err(_) => Err(silent(timeout, path)),
    }
}

fn silent(timeout: Duration, path: &Path) -> Failure {
    let (path, seconds) = (path.display(), timeout.as_secs_f64());
    let message = format!("the file system of {path} does not answer within {seconds} s: see whether its server or disk is alive");
    Failure::new(FailureKind::Unavailable, message)
}

/// Names the file system that a path lies on, without touching it.
pub fn file_system(path: &Path) -> String {
    mounted(path).device
}

fn mounted(path: &Path) -> Mount {
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner).of(path)
}

fn lane(path: &Path) -> Arc<Lane> {
    let Mount { device, in_memory } = mounted(path);
    let width = if in_memory { *CORES } else { WIDTH };
    let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
    lanes.entry(device).or_insert_with(|| Arc::new(Lane::new(width))).clone()
}

/// The mount table, read from the kernel without touching any of the file systems in it.
#[derive(Default)]
struct Mounts {
    source: Option<File>,
    /// When the kernel was asked last whether the table changed.
    asked: Option<Instant>,
    /// By mount point, the deepest first, and of two at one point the later one, which hides the earlier.
    table: Vec<(PathBuf, Mount)>,
}

/// A mount; nothing is known of it where the table cannot be read, so that all share one lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mount {
    /// `MAJOR:MINOR`.
    device: String,
    in_memory: bool,
}

impl Mounts {
    /// The mount that a path lies on.
    fn of(&mut self, path: &Path) -> Mount {
        self.refresh();
        mount(&self.table, path).unwrap_or_default()
    }

    /// Reads the table again if it changed: the kernel marks the open file then (proc(5)).
    fn refresh(&mut self) {
        if self.source.is_none() {
            self.source = File::open("/proc/self/mountinfo").ok();
            self.table.clear();
        }
        let Some(source) = &mut self.source else { return };
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY) {
            return;
        }
        self.asked = Some(Instant::now());
        let mut polled = [PollFd::new(source, PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let changed = poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0);
        if !changed && !self.table.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        if source.rewind().and_then(|()| source.read_to_end(&mut bytes)).is_ok() {
            self.table = table(&String::from_utf8_lossy(&bytes));
        }
    }
}

fn mount(table: &[(PathBuf, Mount)], path: &Path) -> Option<Mount> {
    // Bytes, not components: each rotation asks.
    let path = path.as_os_str().as_bytes();
    let above = |point: &Path| {
        let point = point.as_os_str().as_bytes();
        path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || point == b"/")
    };
    table.iter().find(|(point, _)| above(point)).map(|(_, mount)| mount.clone())
}

/// `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT … - TYPE …` (proc(5)), white space in names written as octal.
fn table(text: &str) -> Vec<(PathBuf, Mount)> {
    let row = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        let point = mount_point(fields.nth(1)?);
        let in_memory = fields.skip_while(|field| *field != "-").nth(1).is_some_and(|kind| IN_MEMORY.contains(&kind));
        Some((point, Mount { device, in_memory }))
    };
    let mut table: Vec<(PathBuf, Mount)> = text.lines().filter_map(row).collect();
    table.reverse();
    table.sort_by_key(|(point, _)| std::cmp::Reverse(point.as_os_str().len()));
    table
}

/// A mount point as the kernel writes it (proc_pid_mountinfo(5)).
pub fn mount_point(field: &str) -> PathBuf {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:20 / /run rw - tmpfs t rw\n3 1 0:30 / /mnt/a\\040b rw - nfs n rw\n\
                         4 2 0:40 / /run rw - tmpfs t rw\n";

    #[test]
    fn a_path_lies_on_the_deepest_and_latest_mount_above_it() {
        let table = table(TABLE);
        let found = ["/run/x", "/running", "/mnt/a b/c"].map(|path| mount(&table, Path::new(path)).unwrap());
        assert_eq!(found.each_ref().map(|mount| &*mount.device), ["0:40", "8:1", "0:30"]);
        assert_eq!(found.map(|mount| mount.in_memory), [true, false, false]);
    }

    #[tokio::test]
    async fn a_full_lane_does_not_hold_up_another_file_system() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let hung: Vec<_> = (0..WIDTH + 3)
            .map(|_| {
                let wait = wait.clone();
                tokio::spawn(async move {
                    run(Duration::from_secs(60), Path::new("/proc"), move || {
                        drop(wait.lock().map(|end| end.recv()));
                        Ok(())
                    })
                    .await
                })
            })
            .collect();
        let free = run(Duration::from_secs(20), Path::new("/sys"), || Ok(7)).await;
        drop(stop);
        for task in hung {
            task.await.unwrap().unwrap();
        }
        assert_eq!(free.expect("the other lane is free"), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_turn_is_patient_while_others_end_theirs_and_no_longer() {
        let (lane, patience) = (Arc::new(Lane::new(WIDTH)), Duration::from_secs(5));
        let mut held = Vec::new();
        for _ in 0..WIDTH {
            held.push(Arc::clone(&lane).turn(patience).await.expect("it is free"));
        }
        let waiting: Vec<_> = (0..WIDTH * 2).map(|_| tokio::spawn(Arc::clone(&lane).turn(patience))).collect();
        let (kept, begun) = (held.split_off(56), tokio::time::Instant::now());
        for turn in held {
            tokio::time::sleep(Duration::from_secs(4)).await;
            drop(turn);
        }
        tokio::task::yield_now().await;
        assert!(begun.elapsed() > patience * 40, "far longer than one piece of work may take");
        assert_eq!(waiting.iter().filter(|one| one.is_finished()).count(), 56, "each turn went to one, and nobody gave up");
        let (mut turns, end) = (Vec::new(), tokio::time::Instant::now());
        for one in waiting {
            turns.push(one.await.unwrap());
        }
        assert_eq!(turns.iter().filter(|turn| turn.is_none()).count(), WIDTH * 2 - 56, "nothing ends there any more");
        assert!(end.elapsed() <= patience * 2, "{:?}", end.elapsed());
        drop(kept);
    }

    #[tokio::test]
    async fn work_that_takes_too_long_is_unavailable_and_names_the_path() {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let work = move || {
            let _ = wait.recv();
            Ok(())
        };
        let failure = run(Duration::from_millis(500), Path::new("/dev/token"), work).await.unwrap_err();
        drop(stop);
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.message.contains("/dev/token does not answer within 0.5 s"), "{}", failure.message);
    }
}
