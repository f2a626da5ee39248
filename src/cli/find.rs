//! Where a target's token stands on this host, found without planning where that can be helped.

use std::path::PathBuf;

use super::{Context, Exit};
use crate::daemon::{files, read};

/// The file places of a target, each before what stands in for it: as the daemon says, else the index beside
/// the records, else the schedule.
pub fn files(context: &Context, name: &str) -> Result<Vec<PathBuf>, Exit> {
    let schedule = context.schedule(None);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b)) {
        return Err(Exit::usage(format!("`{name}` is no name of a target; a file is written with a slash, such as ./{name}")));
    }
    let (socket, index) = context.daemon();
    if let Some(found) = files::asked(&socket, name).or_else(|| index?.files(name)) {
        return Ok(found);
    }
    let accepted = read::read(&schedule).map_err(|problems| Exit::refused(&problems))?;
    match accepted.plan.target(name) {
        Some(target) => Ok(files::of(target)),
        None => Err(Exit::usage(format!("the schedule has no target `{name}`; a file is written with a slash, such as ./{name}"))),
    }
}
