//! A file system that never answers, as one whose server or disk is gone.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

use fuser::{BackgroundSession, Errno, FileHandle, Filesystem, INodeNo, MountOption, ReplyAttr, ReplyEntry, Request};

#[derive(Default)]
struct Silence {
    broken: Mutex<bool>,
    woken: Condvar,
}

impl Silence {
    fn keep(&self) {
        let mut broken = self.broken.lock().unwrap();
        while !*broken {
            broken = self.woken.wait(broken).unwrap();
        }
    }
}

struct Nothing(Arc<Silence>);

// One thread takes the requests: with the first of them it falls silent, and all others wait unread.
impl Filesystem for Nothing {
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        self.0.keep();
        reply.error(Errno::EIO);
    }

    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.0.keep();
        reply.error(Errno::EIO);
    }
}

/// A mounted file system that never answers.
pub struct Mute {
    at: PathBuf,
    silence: Arc<Silence>,
    session: Option<BackgroundSession>,
}

impl Mute {
    /// Mounts it over a folder. A thread of the test's own asks the first question, so that no other process is in
    /// the middle of one that cannot be given up.
    pub fn mount(at: &Path) -> Self {
        let silence = Arc::new(Silence::default());
        // The kernel checks permissions itself, and asks for them, as with most network file systems.
        let options = [MountOption::DefaultPermissions, MountOption::FSName("tokenferry-test".into())];
        let mut config = fuser::Config::default();
        config.mount_options = options.to_vec();
        let session = fuser::spawn_mount(Nothing(Arc::clone(&silence)), at, &config).unwrap();
        let first = at.join("first");
        std::thread::spawn(move || {
            let _ = std::fs::symlink_metadata(first);
        });
        Self { at: at.to_owned(), silence, session: Some(session) }
    }

    /// Gives it up: its connection is cut, and what stands below shows again.
    pub fn abort(&mut self) {
        let Some(session) = self.session.take() else { return };
        let done = Command::new("umount").args(["--no-canonicalize", "-f", "-l"]).arg(&self.at).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        *self.silence.broken.lock().unwrap() = true;
        self.silence.woken.notify_all();
        if let Err(error) = session.umount_and_join() {
            eprintln!("{}: {error}", self.at.display());
        }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.abort();
    }
}
