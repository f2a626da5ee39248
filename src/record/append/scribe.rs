//! The file being written: lines in, durable lines out; when it has grown, the next one.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::fdatasync;

use super::begin::begin;
use super::folder::Folder;
use super::recover::{Found, Tail};
use super::{OpenError, Options, State};
use crate::record::chain;
use crate::record::files;
use crate::record::line::Line;

/// How often closed files are looked at for their age, while lines come.
const SWEEP: Duration = Duration::from_secs(3600);
/// How long a failed roll-over is left alone: appending goes on in the old file.
const ROLL_AGAIN: Duration = Duration::from_secs(60);

/// Why lines could not be made durable. The text has the cause in it: it is for [`super::Health`].
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("cannot {action} {}: {cause}", path.display())]
    File { action: &'static str, path: PathBuf, cause: io::Error },
    #[error("{} was removed or changed by somebody else", path.display())]
    Removed { path: PathBuf },
    #[error("{error}{}", std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default())]
    Folder { error: OpenError },
}

/// An open file of which a known part is durable.
#[derive(Debug)]
struct Current {
    file: File,
    tail: Tail,
}

/// A file to cut back.
#[derive(Debug, Clone)]
struct Uncertain {
    tail: Tail,
    /// Whether a sync of it failed: then it is left for a new file, because the kernel may have dropped
    /// what it could not write and would not say so again.
    failed_sync: bool,
}

/// Owns the folder and the state of all that is durable in it.
#[derive(Debug)]
pub(super) struct Scribe {
    folder: Folder,
    options: Options,
    state: State,
    current: Option<Current>,
    /// A file that may hold more than is acknowledged: cut back before anything else is written.
    uncertain: Option<Uncertain>,
    /// The next line goes to a new file.
    anew: bool,
    swept: Option<Instant>,
    roll_after: Option<Instant>,
}

impl Scribe {
    pub fn new(folder: Folder, options: Options, found: Found) -> Self {
        let uncertain = found.tail.map(|tail| Uncertain { tail, failed_sync: false });
        Self { folder, options, state: found.state, current: None, uncertain, anew: false, swept: None, roll_after: None }
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// The next line goes to a new file, which opens with a checkpoint of all that is known.
    pub fn start_anew(&mut self) {
        self.anew = true;
    }

    /// Takes a line that will never be written into the state, so that the next checkpoint tells its effect.
    pub fn apply_lost(&mut self, line: &Line) {
        let (seq, head, time) = (self.state.seq, std::mem::take(&mut self.state.head), self.state.time);
        self.state.apply(line);
        (self.state.seq, self.state.head, self.state.time) = (seq, head, time);
    }

    /// Sees to it that there is a file to append to.
    pub fn make_ready(&mut self) -> Result<(), WriteError> {
        let look = |cause| WriteError::File { action: "look at", path: self.folder.path().to_owned(), cause };
        if !self.folder.stands().map_err(look)? {
            self.current = None;
            self.uncertain = None;
            self.folder = Folder::take(self.folder.path()).map_err(|error| WriteError::Folder { error })?;
        }
        if let Some(uncertain) = self.uncertain.clone() {
            self.cut_back(uncertain)?;
        }
        if self.current.is_none() || self.anew {
            self.begin_file()?;
        }
        if self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            self.sweep();
        }
        Ok(())
    }

    /// Makes lines durable, in order, all or none, and takes them into the state.
    pub fn commit(&mut self, lines: &mut [Line]) -> Result<(), WriteError> {
        self.make_ready()?;
        let mut text = Vec::with_capacity(lines.len() * 768);
        let (mut seq, mut head) = (self.state.seq, self.state.head.clone());
        for line in &mut *lines {
            seq += 1;
            chain::seal(line, seq, &head, &mut text);
            head.clone_from(&line.hash);
        }
        self.put(&text)?;
        for line in &*lines {
            self.state.apply(line);
        }
        self.roll();
        Ok(())
    }

    /// Writes and syncs. On failure nothing of it is acknowledged, and the file is cut back before it is
    /// used again.
    fn put(&mut self, text: &[u8]) -> Result<(), WriteError> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let path = self.folder.path().join(&current.tail.name);
        // Writing beyond the end of a cut file would leave a hole, not a line.
        match self.folder.holds(&current.tail.name, &current.file, current.tail.length) {
            Ok(true) => {}
            Ok(false) => return Err(WriteError::Removed { path }),
            Err(cause) => return Err(self.doubt(current.tail, path, cause)),
        }
        if let Err(cause) = current.file.write_all(text) {
            self.uncertain = Some(Uncertain { tail: current.tail, failed_sync: false });
            return Err(WriteError::File { action: "write", path, cause });
        }
        if let Err(cause) = fdatasync(&current.file) {
            self.uncertain = Some(Uncertain { tail: current.tail, failed_sync: true });
            return Err(WriteError::File { action: "sync", path, cause: cause.into() });
        }
        let length = current.tail.length + text.len() as u64;
        let stands = self.folder.stands().and_then(|stands| Ok(stands && self.folder.holds(&current.tail.name, &current.file, length)?));
        match stands {
            Ok(true) => {}
            Ok(false) => {
                // Not acknowledged, so not to be found, should the name come back; somebody's cut stays as it is.
                if current.file.metadata().is_ok_and(|there| there.len() == length) {
                    let cut = current.file.set_len(current.tail.length).and_then(|()| current.file.sync_all());
                    cut.map_err(|cause| WriteError::File { action: "cut", path: path.clone(), cause })?;
                }
                return Err(WriteError::Removed { path });
            }
            Err(cause) => return Err(self.doubt(current.tail, path, cause)),
        }
        current.tail.length = length;
        self.current = Some(current);
        Ok(())
    }

    /// Nobody can say what stands there now: the file is cut back to what is acknowledged before it is used again.
    fn doubt(&mut self, tail: Tail, path: PathBuf, cause: io::Error) -> WriteError {
        self.uncertain = Some(Uncertain { tail, failed_sync: false });
        WriteError::File { action: "look at", path, cause }
    }

    /// Cuts a file to what is acknowledged and goes on in it, unless its sync failed.
    fn cut_back(&mut self, uncertain: Uncertain) -> Result<(), WriteError> {
        let Uncertain { tail, failed_sync } = uncertain;
        let path = self.folder.path().join(&tail.name);
        let cut = || -> io::Result<File> {
            let mut file = self.folder.reopen(&tail.name)?;
            match file.metadata().map_err(io::Error::other)?.len().cmp(&tail.length) {
                Ordering::Less => return Err(io::ErrorKind::NotFound.into()),
                Ordering::Equal => {}
                Ordering::Greater => {
                    file.set_len(tail.length)?;
                    file.sync_all()?;
                }
            }
            file.seek(SeekFrom::Start(tail.length))?;
            Ok(file)
        };
        match cut() {
            Ok(file) if !failed_sync => self.current = Some(Current { file, tail }),
            // A disk that failed once may refuse the cut as well: the new file counts.
            Ok(_) => {}
            Err(error) if failed_sync || error.kind() == io::ErrorKind::NotFound => {}
            Err(cause) => return Err(WriteError::File { action: "go on in", path, cause }),
        }
        self.uncertain = None;
        Ok(())
    }

    fn begin_file(&mut self) -> Result<(), WriteError> {
        let (file, tail, last) = begin(&self.folder, &self.state)?;
        self.state.advance(last.seq, &last.hash, last.time);
        self.current = Some(Current { file, tail });
        self.anew = false;
        Ok(())
    }

    /// Goes on in a new file once this one has grown. A failure costs nothing: this one goes on.
    fn roll(&mut self) {
        let Some(current) = &self.current else { return };
        let limit = self.options.max_size.max(current.tail.checkpoint.saturating_mul(4));
        let early = self.roll_after.is_some_and(|after| Instant::now() < after);
        if current.tail.length < limit || early {
            return;
        }
        match self.begin_file() {
            Ok(()) => {
                self.roll_after = None;
                self.sweep();
            }
            Err(error) => {
                tracing::warn!("{error}; records go on in the old file");
                self.roll_after = Some(Instant::now() + ROLL_AGAIN);
            }
        }
    }

    /// Removes closed files that are old enough, the oldest first, so that what is kept has no hole. A
    /// file was closed when the next one began.
    fn sweep(&mut self) {
        self.swept = Some(Instant::now());
        let Some(current) = &self.current else { return };
        let Ok(files) = files::list(self.folder.path()) else { return };
        let keep = SignedDuration::from_secs(i64::try_from(self.options.keep).unwrap_or(i64::MAX));
        let Ok(oldest) = Timestamp::now().saturating_sub(keep) else { return };
        for pair in files.windows(2) {
            let [file, next] = pair else { break };
            if file.name == current.tail.name || files::begin(&next.path).is_none_or(|closed| closed >= oldest) {
                break;
            }
            if let Err(error) = self.folder.remove(&file.name) {
                tracing::warn!("cannot remove {}, which is older than records.keep: {error}", file.path.display());
                break;
            }
        }
    }
}
