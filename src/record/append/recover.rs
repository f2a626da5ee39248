//! What an earlier process left behind: the newest file that can be started from, its torn end cut off.

use super::folder::Folder;
use super::{OpenError, ReadError, State};
use crate::record::files;
use crate::record::fold::fold_file;

/// The end of an unfinished file's name: it has no place in the folder before its checkpoint is whole.
pub(super) const UNFINISHED: &str = ".new";

/// Where to go on.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The fold of what is there.
    pub state: State,
    /// The file to append to; nothing where a new one is due.
    pub tail: Option<Tail>,
}

/// The sound part of the newest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tail {
    /// Its name.
    pub name: String,
    /// Its sound length in bytes.
    pub length: u64,
    /// Size of its checkpoint in bytes.
    pub checkpoint: u64,
}

/// Finds where to go on. A file without a whole checkpoint holds no event (events come after it): it is put
/// aside and the one before goes on. Each thing amiss becomes a note.
pub(super) fn recover(folder: &Folder, notes: &mut Vec<String>) -> Result<Found, OpenError> {
    let unreadable = |source| ReadError::Unreadable { path: folder.path().to_owned(), source };
    sweep(folder).map_err(unreadable)?;
    for file in files::list(folder.path()).map_err(unreadable)?.iter().rev() {
        let folded = fold_file(&file.path)?;
        let Some(checkpoint) = folded.checkpoint else {
            notes.push(format!("{} has no whole checkpoint and is put aside; the file before it goes on", file.path.display()));
            if let Err(error) = folder.rename(&file.name, &format!("{}.ignored", file.name)) {
                notes.push(format!("cannot put {} aside: {error}", file.path.display()));
            }
            continue;
        };
        if let Some(line) = folded.damaged {
            notes.push(format!("{}:{line}: damaged; a new file goes on, and `tokenferry records verify` says more", file.path.display()));
            return Ok(Found { state: folded.state, tail: None });
        }
        if folded.torn {
            notes.push(format!("{}: the last line was cut off before it was acknowledged; its rest is removed", file.path.display()));
        }
        // The scribe cuts the file to that length before it appends.
        let tail = Tail { name: file.name.clone(), length: folded.sound_end, checkpoint };
        return Ok(Found { state: folded.state, tail: Some(tail) });
    }
    Ok(Found::default())
}

/// Removes files that a kill left unfinished.
fn sweep(folder: &Folder) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder.path())? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if name.starts_with("records-") && name.ends_with(UNFINISHED) {
            // On a read-only file system it stays; a new file of that name removes it first.
            let _ = folder.remove(&name);
        }
    }
    Ok(())
}
