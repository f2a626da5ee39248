//! The next file: it gets its name only once its checkpoint is whole and durable.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use jiff::Timestamp;

use super::State;
use super::folder::Folder;
use super::recover::{Tail, UNFINISHED};
use super::scribe::WriteError;
use crate::record::line::Line;
use crate::record::{chain, files};

/// Begins a file that goes on after the state's last line. Returns the open file, what is in it, and the
/// last line of its checkpoint. On failure nothing is left behind.
pub(super) fn begin(folder: &Folder, state: &State) -> Result<(File, Tail, Line), WriteError> {
    let name = files::name(state.seq + 1);
    let unfinished = format!("{name}{UNFINISHED}");
    let result = write_checkpoint(folder, state, &unfinished).and_then(|written| {
        folder.rename(&unfinished, &name)?;
        // Not there durably means not there at all: the next attempt needs the name.
        folder.sync().inspect_err(|_| drop(folder.remove(&name)))?;
        Ok(written)
    });
    match result {
        Ok((file, length, last)) => Ok((file, Tail { name, length, checkpoint: length }, last)),
        Err(cause) => {
            // Gives its room back; where that fails too the next attempt removes it first.
            let _ = folder.remove(&unfinished);
            Err(WriteError::File { action: "begin", path: folder.path().join(name), cause })
        }
    }
}

fn write_checkpoint(folder: &Folder, state: &State, name: &str) -> io::Result<(File, u64, Line)> {
    let file = match folder.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            folder.remove(name)?;
            folder.create(name)?
        }
        other => other?,
    };
    let mut output = BufWriter::with_capacity(256 << 10, file);
    let (mut seq, mut head, mut length) = (state.seq, state.head.clone(), 0);
    let mut text = Vec::with_capacity(1024);
    let mut last = None;
    for mut line in state.checkpoint_lines(Timestamp::now()) {
        seq += 1;
        text.clear();
        chain::seal(&mut line, seq, &head, &mut text);
        output.write_all(&text)?;
        head.clone_from(&line.hash);
        length += text.len() as u64;
        last = Some(line);
    }
    let file = output.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok((file, length, last.expect("a checkpoint has at least its end")))
}
