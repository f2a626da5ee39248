//! Appends lines durably. One thread owns the folder: it gathers lines, seals them into the chain, writes
//! and syncs them together, and only then acknowledges them.
//!
//! While that fails nothing stops: lines wait in bounded memory, writing is tried again, and what did not
//! fit is counted in one `gap` line. `folder` is the folder and its lock, `recover` what is found in it,
//! `begin` a new file, `scribe` the file being written, `backlog` what waits, `queue` what those who append
//! share with the `thread` that joins them all.

mod backlog;
mod begin;
mod folder;
mod queue;
mod recover;
mod scribe;
mod thread;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::fold::{ReadError, State};
use super::line::Line;
use folder::Folder;
use queue::Shared;
use scribe::Scribe;

/// How the folder is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Closed files go when their last line is older than that, in seconds.
    pub keep: u64,
    /// A file is followed by a new one at that size in bytes, or at four times its checkpoint where that is larger.
    pub max_size: u64,
}

/// An open records folder.
#[derive(Debug)]
pub struct Opened {
    /// What the records amount to.
    pub state: State,
    /// Appends to them.
    pub writer: Writer,
    /// What was found amiss and put right, one sentence each: for the log.
    pub notes: Vec<String>,
}

/// Why a records folder cannot be opened for writing.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes there: exit code 2.
    #[error("records at {} are held by {}", directory.display(), pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Busy {
        /// The folder.
        directory: PathBuf,
        /// Who holds it, where the lock file says so.
        pid: Option<u32>,
    },
    /// The folder cannot be made, opened or locked.
    #[error("cannot {action} {}", path.display())]
    Folder {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The records cannot be read, or a newer program wrote them.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Takes the folder (made if it is missing, mode 0700), folds its records, and starts the thread that
/// writes them.
///
/// A folder that can be read but not written (full disk, read-only) is opened all the same: the writer then
/// starts as one that waits, and says so in [`Writer::health`]. Blocks for as long as reading takes.
///
/// # Errors
/// [`OpenError`].
pub fn open(directory: &Path, options: Options) -> Result<Opened, OpenError> {
    open_signed(directory, options, None)
}

/// As [`open`]; every head that is made durable is signed with that key (P-256, PKCS#8 PEM) as well. A key that cannot
/// be used stops no record: [`Health::unsigned`] says why.
///
/// # Errors
/// [`OpenError`].
pub fn open_signed(directory: &Path, options: Options, signing_key: Option<PathBuf>) -> Result<Opened, OpenError> {
    let folder = Folder::take(directory)?;
    let mut notes = Vec::new();
    let found = recover::recover(&folder, &mut notes)?;
    let mut scribe = Scribe::new(folder, options, found, signing_key);
    let mut error = None;
    if let Err(cause) = scribe.make_ready() {
        notes.push(format!("{cause}; records wait in memory until they can be written"));
        error = Some(cause.to_string());
    }
    let state = scribe.state().clone();
    let shared = Arc::new(Shared::new(&state, error));
    let failed = |source| OpenError::Folder { action: "start a thread for", path: directory.to_owned(), source };
    let (writing, watching) = (Arc::clone(&shared), Arc::clone(&shared));
    spawn("records", move || thread::run(&writing, scribe)).map_err(failed)?;
    if let Err(error) = spawn("records-watch", move || watching.watch(queue::PATIENCE)) {
        shared.close(None);
        return Err(failed(error));
    }
    Ok(Opened { state, writer: Writer { handle: Arc::new(Handle(shared)) }, notes })
}

/// Makes the folder as [`open`] would.
///
/// # Errors
/// What the file system refused.
pub fn make_folder(directory: &Path) -> io::Result<()> {
    folder::make(directory).map(drop)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map(drop)
}

/// What became of appended lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// They are on the disk.
    Durable,
    /// They wait for the records to be writable again, or were counted as lost; [`Writer::health`] says more.
    Waiting,
}

/// How recording goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Lines that did not fit while records could not be written, since the start.
    pub lost: u64,
    /// Lines that wait in memory.
    pub waiting: u64,
    /// Why records cannot be written now.
    pub error: Option<String>,
    /// Why the last head could not be signed, where heads are.
    pub unsigned: Option<String>,
    /// `hash` of the last durable line.
    pub head: String,
    /// Its `seq`.
    pub seq: u64,
}

/// Appends lines to an open folder. Clones append to the same one; when the last is gone the folder is let go.
#[derive(Debug, Clone)]
pub struct Writer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close(None);
    }
}

impl Writer {
    /// Appends lines in that order, `seq`, `previous` and `hash` filled in. Returns when they are durable,
    /// or at once while records cannot be written; after 5 s where the disk does not answer at all. Lines of
    /// one call stand side by side. Never fails: see [`Health`]. Dropping the future takes nothing back.
    pub async fn append(&self, lines: Vec<Line>) -> Appended {
        let (sender, receiver) = oneshot::channel();
        if !self.handle.0.push(lines, sender) {
            return Appended::Waiting;
        }
        receiver.await.unwrap_or(Appended::Waiting)
    }

    /// How recording goes, now.
    pub fn health(&self) -> Health {
        self.handle.0.health()
    }

    /// Writes what waits (one last attempt where that fails) and lets the folder go. Later appends of
    /// clones answer [`Appended::Waiting`] and are lost.
    pub async fn close(self) {
        let (sender, receiver) = oneshot::channel();
        self.handle.0.close(Some(sender));
        // The thread is gone already where nobody answers.
        let _ = receiver.await;
    }
}
