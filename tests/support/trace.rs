//! Runs the program under ptrace, numbers its file system calls over all threads, and at the one that was asked for
//! kills it or lets the call fail. strace counts for each thread by itself, so that a second thread's third call can
//! never be the point.
//!
//! Counted from when the program has made its memory private (the first thing that it does), or from when the test
//! says so: what a loader does is no business of ours.

use std::collections::HashMap;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::daemon::Done;

/// Errors that a file system call is made to fail with, by their number in Linux.
pub const ERRORS: [(&str, i64); 8] =
    [("ENOSPC", 28), ("EIO", 5), ("EROFS", 30), ("EDQUOT", 122), ("EACCES", 13), ("EINTR", 4), ("EMFILE", 24), ("ENOENT", 2)];

/// An interrupted call that is begun anew is interrupted so often; no kernel does it for good.
const INTERRUPTIONS: u32 = 200;

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL before the call is done.
    Kill,
    /// The call fails with that error.
    Fail(i64),
    /// It fails, and so does every later one of the same name.
    FailForGood(i64),
}

/// Which call, counted from 1, and what happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Counted from 1.
    pub nth: usize,
    /// What happens.
    pub act: Act,
}

/// What became of a traced run.
#[derive(Debug)]
pub struct Traced {
    /// Its end.
    pub done: Done,
    /// Names of the counted calls, in order.
    pub calls: Vec<&'static str>,
    /// The name of the call where something happened.
    pub hit: Option<&'static str>,
}

/// Whether this host can do it: ptrace by hand is written for one processor, and files are told by /proc, which
/// shows the descriptors of a private process to root alone.
pub fn here(test: &str) -> bool {
    let here = cfg!(all(target_os = "linux", target_arch = "x86_64")) && rustix::process::geteuid().is_root();
    if !here {
        println!("NOT RUN: {test} needs root on Linux on x86_64");
    }
    here
}

/// Runs a command to its end, which has to come in time; `folder` takes its output. With `counting` only calls made
/// while it is set are counted.
pub fn run(mut command: Command, folder: &Path, counting: Option<Arc<AtomicBool>>, point: Option<Point>, limit: Duration) -> Traced {
    let (out, err) = (folder.join("traced.out"), folder.join("traced.err"));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let shown = format!("{command:?} {point:?}");
    // A thread of its own: only the one that begins a trace hears of it.
    let tracing = std::thread::spawn(move || Tracer::new(counting, point).trace(command, limit));
    let (code, tracer) = tracing.join().unwrap_or_else(|_| panic!("{shown}: the tracer broke"));
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let done = Done { code, stdout: read(&out), stderr: read(&err) };
    assert!(!tracer.late.load(Ordering::Relaxed), "{shown} did not end within {limit:?}: {done:?}");
    Traced { done, calls: tracer.calls, hit: tracer.hit }
}

/// Stops one thread of a running process, and that one alone, until the process ends.
pub fn hold(tid: c_int) {
    const ANY_THREAD: c_int = 0x4000_0000;
    let (held, is_held) = std::sync::mpsc::channel();
    // Only the thread that begins a trace hears of it; it goes with the process, so that whoever waits for that one's end
    // hears of it in turn.
    std::thread::spawn(move || {
        assert_eq!(ptrace(SEIZE, tid, 0, 0), 0, "{}", std::io::Error::last_os_error());
        assert_eq!(ptrace(INTERRUPT, tid, 0, 0), 0, "{}", std::io::Error::last_os_error());
        let mut status = 0;
        loop {
            // SAFETY: `status` outlives the call.
            #[allow(unsafe_code)]
            let waited = unsafe { libc::waitpid(tid, &raw mut status, ANY_THREAD) };
            let is_stopped = waited == tid && status & 0xff == 0x7f;
            if !is_stopped {
                return;
            }
            // Nobody listens any more from the second stop on.
            let _ = held.send(());
        }
    });
    is_held.recv_timeout(Duration::from_secs(20)).expect("the thread is held");
}

struct Tracer {
    counting: Option<Arc<AtomicBool>>,
    private: bool,
    point: Option<Point>,
    calls: Vec<&'static str>,
    hit: Option<&'static str>,
    /// The call that fails for good, and how often it did.
    forever: Option<(u64, i64, u32)>,
    /// Calls that are skipped, and the error that they return, by thread.
    failing: HashMap<c_int, i64>,
    late: Arc<AtomicBool>,
}

impl Tracer {
    fn new(counting: Option<Arc<AtomicBool>>, point: Option<Point>) -> Self {
        Self { counting, private: false, point, calls: Vec::new(), hit: None, forever: None, failing: HashMap::new(), late: Arc::default() }
    }

    fn trace(mut self, mut command: Command, limit: Duration) -> (Option<i32>, Self) {
        // SAFETY: the closure makes one system call between fork and exec, and touches nothing else.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| if ptrace(TRACEME, 0, 0, 0) < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
        }
        #[allow(clippy::zombie_processes)] // waited for below
        let child = command.spawn().unwrap();
        let pid = c_int::try_from(child.id()).unwrap();
        let (over, ended) = std::sync::mpsc::channel::<()>();
        let late = Arc::clone(&self.late);
        let watch = std::thread::spawn(move || {
            if ended.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                late.store(true, Ordering::Relaxed);
                let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
            }
        });
        let code = self.follow(pid);
        drop(over);
        watch.join().unwrap();
        (code, self)
    }

    fn follow(&mut self, pid: c_int) -> Option<i32> {
        let mut begun = false;
        loop {
            let (tid, status) = wait();
            if status & 0x7f == 0 || (status & 0xff) != 0x7f {
                // An end: by itself with a code, or by a signal.
                if tid == pid {
                    return (status & 0x7f == 0).then_some((status >> 8) & 0xff);
                }
                continue;
            }
            let (signal, event) = ((status >> 8) & 0xff, status >> 16);
            let mut deliver = 0;
            if !begun && tid == pid {
                begun = true;
                ptrace(SETOPTIONS, pid, 0, OPTIONS);
            } else if signal == SIGTRAP | 0x80 {
                self.call(pid, tid);
            } else if event == 0 && signal != SIGSTOP {
                // New threads begin with a stop of their own, events are the tracer's.
                deliver = i64::from(signal);
            }
            ptrace(SYSCALL, tid, 0, deliver);
        }
    }

    fn call(&mut self, pid: c_int, tid: c_int) {
        let Some(info) = info(tid) else { return };
        let (entry, number, first) = (info[0] & 0xff == 1, info[3], info[4]);
        if !entry {
            if let Some(error) = self.failing.remove(&tid) {
                set(tid, RAX, -error);
            }
            return;
        }
        if number == PRCTL && first == SET_DUMPABLE {
            self.private = true;
            return;
        }
        let counted = self.private && self.counting.as_ref().is_none_or(|counting| counting.load(Ordering::Relaxed));
        let Some(name) = name(number).filter(|_| counted) else { return };
        if on_descriptor(number) && !is_file(tid, first) {
            return;
        }
        self.calls.push(name);
        if let Some((failing, error, times)) = &mut self.forever
            && *failing == number
        {
            *times += 1;
            if *error != EINTR || *times < INTERRUPTIONS {
                let error = *error;
                self.fail(tid, error);
            }
            return;
        }
        let Some(point) = self.point.filter(|point| point.nth == self.calls.len()) else { return };
        self.hit = Some(name);
        match point.act {
            Act::Kill => kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap(),
            Act::Fail(error) => self.fail(tid, error),
            Act::FailForGood(error) => {
                self.forever = Some((number, error, 1));
                self.fail(tid, error);
            }
        }
    }

    fn fail(&mut self, tid: c_int, error: i64) {
        // No call has this number, so that nothing is done; the answer is put in its place at the way out.
        set(tid, ORIG_RAX, -1);
        self.failing.insert(tid, error);
    }
}

/// File system calls by their number on x86_64; those on descriptors count only on files.
#[rustfmt::skip]
const CALLS: &[(u64, &str, bool)] = &[
    (0, "read", true), (1, "write", true), (4, "stat", false), (5, "fstat", true), (6, "lstat", false), (8, "lseek", true),
    (17, "pread64", true), (18, "pwrite64", true), (19, "readv", true), (20, "writev", true), (21, "access", false),
    (73, "flock", true), (74, "fsync", true), (75, "fdatasync", true), (76, "truncate", false), (77, "ftruncate", true),
    (82, "rename", false), (83, "mkdir", false), (84, "rmdir", false), (86, "link", false), (87, "unlink", false),
    (88, "symlink", false), (89, "readlink", false), (90, "chmod", false), (91, "fchmod", true), (92, "chown", false),
    (93, "fchown", true), (2, "open", false), (137, "statfs", false), (138, "fstatfs", true), (191, "getxattr", false),
    (193, "fgetxattr", true), (217, "getdents64", true), (257, "openat", false), (258, "mkdirat", false),
    (260, "fchownat", false), (262, "newfstatat", false), (263, "unlinkat", false), (264, "renameat", false),
    (265, "linkat", false), (266, "symlinkat", false), (267, "readlinkat", false), (268, "fchmodat", false),
    (269, "faccessat", false), (277, "sync_file_range", true), (280, "utimensat", false), (285, "fallocate", true),
    (306, "syncfs", true), (316, "renameat2", false), (326, "copy_file_range", true), (332, "statx", false),
    (437, "openat2", false), (439, "faccessat2", false), (452, "fchmodat2", false),
];

fn name(number: u64) -> Option<&'static str> {
    CALLS.iter().find(|call| call.0 == number).map(|call| call.1)
}

fn on_descriptor(number: u64) -> bool {
    CALLS.iter().any(|call| call.0 == number && call.2)
}

/// Not a socket, a pipe, an event, a device, or the output that the test gave.
fn is_file(tid: c_int, descriptor: u64) -> bool {
    let link = std::fs::read_link(format!("/proc/{tid}/fd/{descriptor}"));
    descriptor > 2 && link.is_ok_and(|path| path.starts_with("/") && (!path.starts_with("/dev") || path.starts_with("/dev/shm")))
}

const TRACEME: c_uint = 0;
const SYSCALL: c_uint = 24;
const GETREGS: c_uint = 12;
const SETREGS: c_uint = 13;
const SETOPTIONS: c_uint = 0x4200;
const SEIZE: c_uint = 0x4206;
const INTERRUPT: c_uint = 0x4207;
const GET_SYSCALL_INFO: c_uint = 0x420e;
/// System calls told apart from signals; forks, threads and execs followed; nothing outlives the tracer.
const OPTIONS: i64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x0010_0000;
const SIGTRAP: c_int = 5;
const SIGSTOP: c_int = 19;
const PRCTL: u64 = 157;
const SET_DUMPABLE: u64 = 4;
const EINTR: i64 = 4;
/// Places in `user_regs_struct`.
const RAX: usize = 10;
const ORIG_RAX: usize = 15;

mod libc {
    use super::{c_int, c_long, c_uint};
    #[allow(unsafe_code)]
    unsafe extern "C" {
        pub fn ptrace(request: c_uint, ...) -> c_long;
        pub fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    }
}

fn ptrace(request: c_uint, tid: c_int, address: i64, data: i64) -> c_long {
    // SAFETY: the requests made by this function read and write no memory of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::ptrace(request, tid, address as *mut c_void, data as *mut c_void)
    }
}

/// The next stop or end among this thread's own children: others of this process wait for theirs.
fn wait() -> (c_int, c_int) {
    const ALL_OF_THIS_THREAD: c_int = 0x4000_0000 | 0x2000_0000;
    let mut status = 0;
    loop {
        // SAFETY: `status` outlives the call.
        #[allow(unsafe_code)]
        let tid = unsafe { libc::waitpid(-1, &raw mut status, ALL_OF_THIS_THREAD) };
        if tid > 0 {
            return (tid, status);
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "nothing to wait for: {error}");
    }
}

/// `ptrace_syscall_info`: what kind of stop, and at an entry the number and the arguments from the fourth word on.
/// Nothing where the thread is gone meanwhile.
fn info(tid: c_int) -> Option<[u64; 11]> {
    let mut words = [0_u64; 11];
    // SAFETY: the kernel writes at most the size that it is given.
    #[allow(unsafe_code)]
    let read = unsafe { libc::ptrace(GET_SYSCALL_INFO, tid, size_of_val(&words), words.as_mut_ptr().cast::<c_void>()) };
    (read > 0).then_some(words)
}

/// Sets one register of a stopped thread; a thread that is gone has none.
fn set(tid: c_int, register: usize, value: i64) {
    let mut words = [0_u64; 27];
    // SAFETY: `user_regs_struct` of x86_64 has 27 words.
    #[allow(unsafe_code)]
    unsafe {
        if libc::ptrace(GETREGS, tid, std::ptr::null_mut::<c_void>(), words.as_mut_ptr().cast::<c_void>()) == 0 {
            words[register] = value.cast_unsigned();
            libc::ptrace(SETREGS, tid, std::ptr::null_mut::<c_void>(), words.as_mut_ptr().cast::<c_void>());
        }
    }
}
