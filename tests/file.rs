//! The file sink on real file systems: whole files or none (G1), durable when acknowledged (G3), no orphans
//! (G4), one hung file system holds up no other (G6), no copy of a token left in memory or in a message (G8).
//!
//! Tests that need root and mounts say NOT RUN, past the capture of the test harness, where they cannot run.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokenferry::sink::file::{FileSpec, Held, Mode, held, look, sweep};
use tokenferry::sink::{Context, Failure, FailureKind, Put, SinkSpec, Stores};
use tokenferry::token::render::KubeconfigFormat;
use tokenferry::token::{Format, Payload, Surroundings, Token, render};

/// Never dropped, so that a thread in a hung file system cannot hold up the end of a test.
static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

const SECOND: Duration = Duration::from_secs(1);
/// Without ext4's own care for programs that rename without syncing: other file systems have none.
const LOOP: &str = "loop,noauto_da_alloc";

/// Fails the test where it is not over in time.
fn within(seconds: u64, test: impl FnOnce() + Send + 'static) {
    let (done, over) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match over.recv_timeout(Duration::from_secs(seconds)) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not over after {seconds} s"),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn not_run(test: &str, why: &str) {
    let _ = std::io::stderr().write_all(format!("\nNOT RUN: {test}: {why}\n").as_bytes());
}

/// A folder that belongs to us alone, on a memory file system where there is one.
fn folder() -> TempDir {
    let fast = Path::new("/dev/shm");
    let base = if fast.is_dir() { fast.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("file-sink-").permissions(Permissions::from_mode(0o755)).tempdir_in(base).unwrap()
}

fn spec(path: impl Into<PathBuf>) -> FileSpec {
    FileSpec { path: path.into(), mode: Mode(0o640), owner: None, group: None, readers: Vec::new() }
}

fn put_within(timeout: Duration, spec: &FileSpec, bytes: &[u8]) -> Result<Put, Failure> {
    let context = Context {
        target: "t",
        issue: "i",
        issued_at: 0,
        generation: 1,
        expires_at: 0,
        timeout,
        manners: tokenferry::sink::Manners::default(),
    };
    let (place, payload) = (SinkSpec::File(spec.clone()), Payload::new(bytes.to_vec()));
    let result = RUNTIME.block_on(tokenferry::sink::put(&place, &payload, context, &Stores::default()));
    if let Err(failure) = &result {
        let secret = String::from_utf8_lossy(bytes);
        assert!(secret.len() < 8 || !failure.message.contains(&*secret), "the message holds the payload: {failure}");
    }
    result
}

fn put(spec: &FileSpec, bytes: &[u8]) -> Result<Put, Failure> {
    put_within(Duration::from_secs(20), spec, bytes)
}

fn see(spec: &FileSpec) -> Result<Option<Held>, Failure> {
    RUNTIME.block_on(held(spec, Duration::from_secs(20)))
}

/// The attempt fails on this host's account, with these words, and leaves no temporary file.
#[track_caller]
fn refused(spec: &FileSpec, words: &str) {
    let failure = put(spec, b"a-new-token").unwrap_err();
    assert_eq!(failure.kind, FailureKind::Local, "{failure}");
    assert!(failure.message.contains(words), "{failure}");
    if let Some(parent) = spec.path.parent().filter(|parent| parent.is_dir()) {
        assert_eq!(temporary(parent), 0);
    }
}

fn temporary(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp")).count()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// A mounted file system, gone again at the end of the test.
struct Mount {
    point: PathBuf,
    _home: TempDir,
}

impl Mount {
    fn tmpfs(options: &str) -> Result<Self, String> {
        Self::new(|point| run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", point]))
    }

    /// ext4 with a journal, on a loop device.
    fn ext4() -> Result<(Self, TempDir), String> {
        let home = tempfile::tempdir().unwrap();
        let image = home.path().join("image");
        File::create(&image).and_then(|file| file.set_len(32 << 20)).unwrap();
        let image = image.to_str().unwrap();
        run("mkfs.ext4", &["-q", "-F", image])?;
        Ok((Self::new(|point| run("mount", &["-o", LOOP, image, point]))?, home))
    }

    fn new(mount: impl FnOnce(&str) -> Result<(), String>) -> Result<Self, String> {
        let home = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let point = home.path().join("mount");
        fs::create_dir(&point).unwrap();
        mount(point.to_str().unwrap())?;
        fs::set_permissions(&point, Permissions::from_mode(0o755)).unwrap();
        Ok(Self { point, _home: home })
    }

    fn path(&self) -> &str {
        self.point.to_str().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", self.path()]);
    }
}

/// Whether this process may mount. Root without that right is a container; root with it has to pass everything.
fn mountable(test: &str) -> bool {
    if !is_root() {
        not_run(test, "needs root");
        return false;
    }
    Mount::tmpfs("size=1m").map_err(|why| not_run(test, &why)).is_ok()
}

/// A payload that tells whether it is whole: a number, filling of a length of its own, the number again.
fn whole(number: usize) -> Vec<u8> {
    let filling = [b'a' + u8::try_from(number % 26).unwrap()].repeat(500 + number % 4000);
    [format!("{number}:").as_bytes(), &filling, format!(":{number}").as_bytes()].concat()
}

fn number_in(bytes: &[u8]) -> usize {
    let text = std::str::from_utf8(bytes).unwrap();
    let number = text.split(':').next().unwrap().parse().expect("a read begins with its number");
    assert!(bytes == whole(number), "torn read of {} bytes", bytes.len());
    number
}

#[test]
fn g1_every_read_is_a_whole_token_while_the_file_is_rewritten() {
    within(120, || {
        let folder = folder();
        let place = spec(folder.path().join("token"));
        put(&place, &whole(0)).unwrap();
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (path, stop, reads) = (place.path.clone(), stop.clone(), reads.clone());
                std::thread::spawn(move || {
                    let mut last = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mut file = File::open(&path).expect("once published it is never missing");
                        let seen = file.metadata().unwrap();
                        assert_eq!((seen.mode() & 0o7777, seen.uid()), (0o640, rustix::process::geteuid().as_raw()));
                        let mut bytes = Vec::new();
                        file.read_to_end(&mut bytes).unwrap();
                        let number = number_in(&bytes);
                        assert!(number >= last, "the file went back from {last} to {number}");
                        last = number;
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for number in 1..=2000 {
            assert_eq!(put(&place, &whole(number)), Ok(Put::Written));
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(reads.load(Ordering::Relaxed) > 1000, "the readers hardly ran");
        assert_eq!(temporary(folder.path()), 0);
    });
}

#[test]
fn g1_a_full_file_system_keeps_the_old_token() {
    within(30, || {
        if !mountable("g1_a_full_file_system_keeps_the_old_token") {
            return;
        }
        let mount = Mount::tmpfs("size=64k").unwrap();
        let place = spec(mount.point.join("token"));
        put(&place, b"the-old-token").unwrap();
        let failure = put(&place, &[b'x'; 200_000]).unwrap_err();
        assert!(failure.kind == FailureKind::Local && failure.message.contains("is full: free blocks or inodes there"), "{failure}");
        assert_eq!((fs::read(&place.path).unwrap(), temporary(&mount.point)), (b"the-old-token".to_vec(), 0));
        assert_eq!(put(&place, b"the-new-token"), Ok(Put::Written), "it works again once there is room");
    });
}

#[test]
fn g1_a_file_system_without_inodes_keeps_the_old_token() {
    within(30, || {
        if !mountable("g1_a_file_system_without_inodes_keeps_the_old_token") {
            return;
        }
        let mount = Mount::tmpfs("size=1m,nr_inodes=2").unwrap();
        let place = spec(mount.point.join("token"));
        put(&place, b"the-old-token").unwrap();
        refused(&place, "is full: free blocks or inodes there");
        assert_eq!(fs::read(&place.path).unwrap(), b"the-old-token");
    });
}

#[test]
fn g1_a_read_only_file_system_keeps_the_old_token_and_is_seen_beforehand() {
    within(30, || {
        if !mountable("g1_a_read_only_file_system_keeps_the_old_token_and_is_seen_beforehand") {
            return;
        }
        let mount = Mount::tmpfs("size=1m").unwrap();
        let place = spec(mount.point.join("token"));
        put(&place, b"the-old-token").unwrap();
        run("mount", &["-o", "remount,ro", mount.path()]).unwrap();
        refused(&place, "is read-only here: mount it writable, or name it in ReadWritePaths=");
        let problems = RUNTIME.block_on(look(&place, SECOND * 20));
        assert!(problems.len() == 1 && problems[0].contains("is read-only here"), "{problems:?}");
        assert_eq!(fs::read(&place.path).unwrap(), b"the-old-token");
    });
}

#[test]
#[allow(unsafe_code)] // the ioctl that cuts a file system's power
fn g3_what_was_acknowledged_is_there_after_a_power_cut() {
    /// `EXT4_IOC_SHUTDOWN`, `_IOR('X', 125, u32)`, and its flag for "do not write the journal out".
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
    const JOURNAL_LOST: u32 = 2;
    within(60, || {
        let test = "g3_what_was_acknowledged_is_there_after_a_power_cut";
        if !mountable(test) {
            return;
        }
        let (mount, image) = match Mount::ext4() {
            Ok(made) => made,
            Err(why) => return not_run(test, &why),
        };
        for number in 0..20 {
            let made = mount.point.join(format!("made-{number}"));
            fs::create_dir(&made).unwrap();
            put(&spec(made.join("token")), &whole(number)).unwrap();
            put(&spec(made.join("token")), &whole(number + 100)).unwrap();
        }
        // The control: the same without any sync, which a power cut has to take.
        fs::write(mount.point.join("unsynced.tmp"), b"x").unwrap();
        fs::rename(mount.point.join("unsynced.tmp"), mount.point.join("unsynced")).unwrap();
        let root = File::open(&mount.point).unwrap();
        // SAFETY: the call reads one u32 and closes the file system down, which is ours.
        unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(JOURNAL_LOST)) }.unwrap();
        drop(root);
        run("umount", &[mount.path()]).unwrap();
        run("mount", &["-o", LOOP, image.path().join("image").to_str().unwrap(), mount.path()]).unwrap();
        assert!(!mount.point.join("unsynced").exists(), "the power cut lost nothing, so this test proves nothing");
        for number in 0..20 {
            let bytes = fs::read(mount.point.join(format!("made-{number}/token"))).unwrap();
            assert_eq!(number_in(&bytes), number + 100);
        }
    });
}

#[test]
fn g4_orphans_are_swept_and_nothing_else() {
    within(30, || {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        let place = spec(at("token"));
        put(&place, b"the-token").unwrap();
        let kept = [
            ".token.tmp",
            ".token.0123456789abcde.tmp",
            ".other.0123456789abcdef.tmp",
            "token.0123456789abcdef.tmp",
            ".token.linked0123456.tmp",
        ];
        for name in kept.iter().copied().chain([".token.0123456789abcdef.tmp", ".token.00000000000000ff.tmp"]) {
            fs::write(at(name), b"x").unwrap();
        }
        fs::create_dir(at(".token.1111111111111111.tmp")).unwrap();
        symlink("token", at(".token.2222222222222222.tmp")).unwrap();
        fs::write(at("two-names"), b"x").unwrap();
        fs::hard_link(at("two-names"), at(".token.3333333333333333.tmp")).unwrap();
        let paths = [place.path.clone(), at("missing/token"), "relative".into()];
        assert_eq!(RUNTIME.block_on(sweep(paths, SECOND * 20)), 2);
        for name in kept.iter().copied().chain([
            ".token.1111111111111111.tmp",
            ".token.2222222222222222.tmp",
            ".token.3333333333333333.tmp",
            "token",
        ]) {
            assert!(at(name).symlink_metadata().is_ok(), "{name} is gone");
        }
    });
}

#[test]
fn g6_a_hung_file_system_holds_up_no_other_and_publishes_nothing_afterwards() {
    struct Frozen<'a>(&'a Mount);
    impl Drop for Frozen<'_> {
        fn drop(&mut self) {
            let _ = run("fsfreeze", &["-u", self.0.path()]);
        }
    }
    within(90, || {
        let test = "g6_a_hung_file_system_holds_up_no_other_and_publishes_nothing_afterwards";
        if !mountable(test) {
            return;
        }
        let (mount, _image) = match Mount::ext4() {
            Ok(made) => made,
            Err(why) => return not_run(test, &why),
        };
        let (hung, other) = (spec(mount.point.join("token")), folder());
        put(&hung, b"before-the-hang").unwrap();
        run("fsfreeze", &["-f", mount.path()]).unwrap();
        let frozen = Frozen(&mount);
        // More attempts than the file system has threads.
        let places: Vec<_> = (0..80).map(|n| spec(mount.point.join(format!("token-{n}")))).chain([hung.clone()]).collect();
        let attempts: Vec<_> = places
            .into_iter()
            .map(|place| std::thread::spawn(move || put_within(SECOND, &place, b"minted-in-the-hang").unwrap_err()))
            .collect();
        std::thread::sleep(Duration::from_millis(200)); // a head start, so that the lane is full
        let start = Instant::now();
        assert_eq!(put(&spec(other.path().join("token")), b"a-token"), Ok(Put::Written));
        assert!(start.elapsed() < SECOND, "held up for {:?}", start.elapsed());
        for attempt in attempts {
            let failure = attempt.join().unwrap();
            assert!(failure.kind == FailureKind::Unavailable && failure.message.contains("does not answer within 1 s"), "{failure}");
        }
        drop(frozen);
        assert_eq!(put(&spec(mount.point.join("last")), b"after-the-hang"), Ok(Put::Written));
        let end = Instant::now() + SECOND * 30;
        while temporary(&mount.point) > 0 {
            assert!(Instant::now() < end, "temporary files of abandoned attempts stay");
            std::thread::yield_now();
        }
        assert_eq!(fs::read(&hung.path).unwrap(), b"before-the-hang");
        assert!(!mount.point.join("token-0").exists(), "an attempt that was given up published");
    });
}

/// Copies of `key`, whose bytes are all flipped, in this process's writable memory, outside of `skip`.
fn copies(key: &[u8], buffer: &mut [u8]) -> usize {
    let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
    let mut memory = File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    for line in fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        while at < to {
            let room = usize::try_from(to - at).unwrap().min(buffer.len());
            if memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read_exact(&mut buffer[..room])).is_err() {
                break;
            }
            for hit in
                buffer[..room].windows(key.len()).enumerate().filter(|(_, w)| w[0] == !key[0] && w.iter().zip(key).all(|(a, b)| *a == !*b))
            {
                found += usize::from(!own.contains(&(usize::try_from(at).unwrap() + hit.0)));
            }
            at += if room < buffer.len() { room } else { room - key.len() } as u64;
        }
    }
    found
}

#[test]
fn g8_a_delivered_token_leaves_no_copy_in_memory() {
    within(120, || {
        let folder = folder();
        let place = spec(folder.path().join("token"));
        // The needle itself is only ever in memory with all its bits flipped.
        let key: Vec<u8> = b"KeFxAeVyNaHpLoRtWdBmSgUcQjIzTkPf".iter().map(|b| !b).collect();
        let mut buffer = vec![0; 1 << 20];
        let token = || {
            let mut text = String::from("eyJhbGciOiJFUzI1NiJ9.eyJpYXQiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMH0.c2ln");
            text.extend(key.iter().map(|b| char::from(!*b)));
            text.push_str("c2ln");
            Token::new(text)
        };
        let alive = token();
        assert!(copies(&key, &mut buffer) >= 1, "the search finds nothing, so this test proves nothing");
        let surroundings = Surroundings { server: Some("https://s".into()), ..Surroundings::default() };
        let kubeconfig = |merge| Format::Kubeconfig(Box::new(KubeconfigFormat { merge, ..KubeconfigFormat::default() }));
        let template = Format::Template("x {{ token }} {{ token | b64encode }}".into());
        for format in
            [Format::Raw, Format::Json, Format::Env("T".into()), Format::ExecCredential, kubeconfig(false), kubeconfig(true), template]
        {
            let payload = render(&alive, &alive.claims().unwrap(), &format, &surroundings).unwrap();
            let context = Context {
                target: "t",
                issue: "i",
                issued_at: 0,
                generation: 1,
                expires_at: 0,
                timeout: SECOND * 20,
                manners: tokenferry::sink::Manners::default(),
            };
            let sink = SinkSpec::File(place.clone());
            RUNTIME.block_on(tokenferry::sink::put(&sink, &payload, context, &Stores::default())).unwrap();
            let found = tokenferry::token::extract(see(&place).unwrap().unwrap().payload.expose()).unwrap();
            assert!(found.expose() == alive.expose());
            drop(tokenferry::token::mask::mask(&format!("sent {}", alive.expose())).into_owned());
        }
        drop(alive);
        assert_eq!(copies(&key, &mut buffer), 0);
    });
}

#[test]
fn g8_a_hardened_process_has_closed_itself() {
    const CHILD: &str = "FILE_TEST_HARDENED";
    let name = "g8_a_hardened_process_has_closed_itself";
    if std::env::var_os(CHILD).is_none() {
        // In a process of its own: it cannot be undone.
        let own = std::env::current_exe().unwrap();
        let output = Command::new(own).args([format!("file::{name}").as_str(), "--exact"]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    tokenferry::token::wipe::harden().unwrap();
    let read = |path: &str| fs::read_to_string(path).unwrap();
    assert!(read("/proc/self/status").contains("Umask:\t0077"));
    let limits = read("/proc/self/limits");
    let core: Vec<_> = limits.lines().find(|line| line.starts_with("Max core")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    assert!(rustix::process::dumpable_behavior().unwrap() == rustix::process::DumpableBehavior::NotDumpable);
    let folder = folder();
    let place = FileSpec { mode: Mode(0o644), ..spec(folder.path().join("made/token")) };
    put(&place, b"the-token").unwrap();
    let modes = ["made", "made/token"].map(|made| fs::metadata(folder.path().join(made)).unwrap().mode() & 0o7777);
    assert_eq!(modes, [0o711, 0o644], "the umask takes nothing from what was asked for");
}

#[test]
fn a_file_that_we_may_not_read_is_published_anew() {
    within(30, || {
        let folder = folder();
        let place = FileSpec { mode: Mode(0o200), ..spec(folder.path().join("token")) };
        put(&place, b"the-token").unwrap();
        let expected = if is_root() { Put::Unchanged } else { Put::Written };
        assert_eq!(put(&place, b"the-token"), Ok(expected));
    });
}

#[test]
fn equal_bytes_are_left_alone() {
    within(30, || {
        let folder = folder();
        let place = spec(folder.path().join("token"));
        assert_eq!(put(&place, b"the-token"), Ok(Put::Written));
        let before = fs::metadata(&place.path).unwrap();
        let written = fs::metadata(folder.path()).unwrap();
        assert_eq!(put(&place, b"the-token"), Ok(Put::Unchanged));
        let after = fs::metadata(&place.path).unwrap();
        assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
        assert_eq!(written.mtime_nsec(), fs::metadata(folder.path()).unwrap().mtime_nsec(), "something was made in the folder");
    });
}

#[test]
fn a_wrong_mode_is_mended_by_publishing_again() {
    within(30, || {
        let folder = folder();
        let place = spec(folder.path().join("token"));
        put(&place, b"the-token").unwrap();
        fs::set_permissions(&place.path, Permissions::from_mode(0o644)).unwrap();
        assert!(!see(&place).unwrap().unwrap().right);
        let before = fs::metadata(&place.path).unwrap().ino();
        assert_eq!(put(&place, b"the-token"), Ok(Put::Written));
        let after = fs::metadata(&place.path).unwrap();
        assert!(after.ino() != before && after.mode() & 0o7777 == 0o640);
        assert!(see(&place).unwrap().unwrap().right);
    });
}

#[test]
fn owner_and_group_are_set_before_the_name_is_public() {
    within(30, || {
        if !is_root() {
            return not_run("owner_and_group_are_set_before_the_name_is_public", "needs root");
        }
        let folder = folder();
        let place = FileSpec { owner: Some("4321".into()), group: Some("1234".into()), ..spec(folder.path().join("token")) };
        for change in [None, Some((0, 1234)), Some((4321, 0))] {
            if let Some((uid, gid)) = change {
                chown(&place.path, Some(uid), Some(gid)).unwrap();
            }
            assert_eq!(put(&place, b"the-token"), Ok(Put::Written));
            let seen = fs::metadata(&place.path).unwrap();
            assert_eq!((seen.uid(), seen.gid(), seen.mode() & 0o7777), (4321, 1234, 0o640));
        }
        assert_eq!(put(&place, b"the-token"), Ok(Put::Unchanged));
    });
}

#[test]
fn a_setgid_folder_gives_its_group() {
    within(30, || {
        if !is_root() {
            return not_run("a_setgid_folder_gives_its_group", "needs root");
        }
        let folder = folder();
        chown(folder.path(), None, Some(1234)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o2750)).unwrap();
        let place = spec(folder.path().join("token"));
        put(&place, b"the-token").unwrap();
        assert_eq!(fs::metadata(&place.path).unwrap().gid(), 1234);
        assert_eq!(put(&place, b"the-token"), Ok(Put::Unchanged));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o2770)).unwrap();
        refused(&place, "chmod 2750");
    });
}

#[test]
fn what_is_no_file_of_ours_is_never_replaced_or_waited_for() {
    within(30, || {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), b"untouched").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        run("mkfifo", &[at("pipe").to_str().unwrap()]).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        if is_root() {
            // As /dev/zero: what reads it reads for ever.
            run("mknod", &[at("device").to_str().unwrap(), "c", "1", "5"]).unwrap();
        } else {
            not_run("a device at the published path", "needs root");
        }
        for (name, words) in [
            ("link", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("folder", "is a folder"),
            ("pipe", "is a named pipe"),
            ("socket", "is a socket"),
            ("device", "is a device"),
        ]
        .into_iter()
        .filter(|(name, _)| *name != "device" || is_root())
        {
            refused(&spec(at(name)), words);
            assert!(see(&spec(at(name))).err().unwrap().message.contains(words));
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"untouched");
        assert!(!at("nowhere").exists());
    });
}

#[test]
fn g1_a_token_that_somebody_replaces_at_once_was_not_delivered() {
    within(60, || {
        let folder = folder();
        let place = spec(folder.path().join("token"));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (theirs, published, over) = (folder.path().join("theirs"), &place.path, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    fs::write(&theirs, b"theirs").unwrap();
                    fs::rename(&theirs, published).unwrap();
                }
            });
            let told = (0..30_000).filter_map(|n| put(&place, format!("token-{n}").as_bytes()).err()).take(3).collect::<Vec<_>>();
            over.store(true, Ordering::Relaxed);
            assert_eq!(told.len(), 3, "thirty thousand tokens were replaced, and each counted as delivered: {told:?}");
            assert!(told.iter().all(|failure| failure.message.contains("token")), "{told:?}");
        });
    });
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    within(30, || {
        if !is_root() {
            return not_run("a_file_of_somebody_else_is_refused", "needs root");
        }
        let folder = folder();
        let place = spec(folder.path().join("token"));
        fs::write(&place.path, b"theirs").unwrap();
        chown(&place.path, Some(4321), None).unwrap();
        refused(&place, "belongs to user id 4321");
        assert_eq!(fs::read(&place.path).unwrap(), b"theirs");
        let theirs = FileSpec { owner: Some("4321".into()), ..place };
        assert_eq!(put(&theirs, b"the-token"), Ok(Put::Written), "the wished owner's file is replaced");
    });
}

#[test]
fn a_folder_that_others_could_swap_is_refused() {
    within(30, || {
        let folder = folder();
        let inner = folder.path().join("inner");
        fs::create_dir_all(inner.join("deep")).unwrap();
        let place = spec(inner.join("deep/token"));
        for (mode, words) in [(0o777, "chmod go-w"), (0o775, "chmod go-w"), (0o2770, "chmod 2750")] {
            fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
            refused(&place, words);
            assert!(RUNTIME.block_on(look(&place, SECOND * 20)).iter().any(|problem| problem.contains(words)));
        }
        fs::set_permissions(&inner, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(put(&place, b"the-token"), Ok(Put::Written), "sticky folders such as /tmp are sound ancestors");
        if is_root() {
            chown(&inner, Some(4321), None).unwrap();
            refused(&place, "belongs to user id 4321, who could swap what is in it");
        }
    });
}

#[test]
fn a_link_among_the_folders_is_followed_only_where_root_made_it() {
    within(30, || {
        let folder = folder();
        fs::create_dir(folder.path().join("real")).unwrap();
        let link = folder.path().join("link");
        symlink("../link-is-relative/real", &link).unwrap();
        fs::remove_file(&link).unwrap();
        symlink(format!("../{}/real", folder.path().file_name().unwrap().to_str().unwrap()), &link).unwrap();
        let place = spec(link.join("token"));
        if is_root() {
            put(&place, b"by-root").unwrap();
            assert_eq!(fs::read(folder.path().join("real/token")).unwrap(), b"by-root");
            lchown(&link, Some(4321), None).unwrap();
        }
        refused(&place, "is a symbolic link, and links are not followed");
        fs::remove_file(&link).unwrap();
        symlink("link", &link).unwrap();
        refused(&place, "symbolic link");
    });
}

#[test]
fn a_folder_that_was_replaced_gets_the_next_token() {
    within(30, || {
        let folder = folder();
        let (now, away) = (folder.path().join("now"), folder.path().join("away"));
        let place = spec(now.join("token"));
        put(&place, b"the-first").unwrap();
        fs::rename(&now, &away).unwrap();
        assert_eq!(put(&place, b"the-second"), Ok(Put::Written), "the folder is made anew");
        assert_eq!(
            (fs::read(&place.path).unwrap(), fs::read(away.join("token")).unwrap()),
            (b"the-second".to_vec(), b"the-first".to_vec())
        );
    });
}

#[test]
fn missing_folders_are_made_only_below_our_own() {
    within(30, || {
        let folder = folder();
        let place = spec(folder.path().join("a/b/token"));
        assert!(RUNTIME.block_on(look(&place, SECOND * 20)).is_empty(), "what can be made is no problem");
        assert!(see(&place).unwrap().is_none() && !folder.path().join("a").exists(), "looking makes nothing");
        put(&place, b"the-token").unwrap();
        for made in ["a", "a/b"] {
            assert_eq!(fs::metadata(folder.path().join(made)).unwrap().mode() & 0o7777, 0o711);
        }
        let slip = spec("/usr/tokenferry-no-such-folder/token");
        refused(&slip, "folder /usr/tokenferry-no-such-folder does not exist: make it (install -d");
        assert!(!slip.path.parent().unwrap().exists());
    });
}

#[test]
fn problems_are_said_together() {
    within(30, || {
        let folder = folder();
        fs::create_dir(folder.path().join("token")).unwrap();
        let place = FileSpec { owner: Some("no-such-user-here".into()), ..spec(folder.path().join("token")) };
        let problems = RUNTIME.block_on(look(&place, SECOND * 10));
        assert!(problems.len() == 2 && problems[0].contains("no-such-user-here") && problems[1].contains("is a folder"), "{problems:?}");
        for path in ["token", "/run/../token", "/"] {
            refused(&spec(path), "is no absolute path of a file");
        }
    });
}

#[test]
fn what_is_held_is_what_was_put() {
    within(30, || {
        let folder = folder();
        let place = spec(folder.path().join("token"));
        assert!(see(&place).unwrap().is_none());
        put(&place, b"the-token").unwrap();
        let found = see(&place).unwrap().unwrap();
        assert!(found.right && found.payload.expose() == b"the-token" && found.modified > 1_700_000_000);
        fs::write(&place.path, vec![b'x'; (4 << 20) + 1]).unwrap();
        assert!(see(&place).err().unwrap().message.contains("larger than 4 MiB"));
        assert_eq!(put(&place, b"the-token"), Ok(Put::Written), "a huge file in its place is no obstacle");
    });
}

#[test]
fn a_name_too_long_for_its_temporary_file_says_so() {
    within(30, || {
        let folder = folder();
        refused(&spec(folder.path().join("n".repeat(240))), "the name is too long (a temporary name needs 22 bytes more)");
    });
}
