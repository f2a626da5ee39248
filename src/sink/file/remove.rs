//! A published file goes for good: the copy in a fallback, once the place that it stood in for has the token, and
//! what a target leaves behind.

use std::time::Duration;

use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

use super::blame::blame;
use super::{FileSpec, account, commit, folder, held, lane};
use crate::sink::{Failure, Ours, Removal};
use crate::token::Payload;

/// Removes what is published, durably, where it is ours.
///
/// # Errors
/// `Local` where something else than a file of ours stands there, or the folder is not safe; `Unavailable` where the
/// file system does not answer in time.
pub(in crate::sink) async fn remove(spec: &FileSpec, ours: Ours<'_>, timeout: Duration) -> Result<Removal, Failure> {
    let Some(seen) = held::held(spec, timeout).await? else { return Ok(Removal::Nothing) };
    if !(ours.0)(&seen.payload) {
        return Ok(Removal::Left);
    }
    let (parent, name) = super::parts(&spec.path)?;
    let wish = account::wish(spec).await?;
    let at = parent.clone();
    let work = move || {
        let Some(folder) = folder::find(&parent)? else { return Ok(Removal::Nothing) };
        let path = folder.path.join(&name);
        match held::bytes(&folder, &name, &wish)? {
            None => return Ok(Removal::Nothing),
            // It was replaced while we looked at it.
            Some(bytes) if Payload::new(bytes.to_vec()).sha256() != seen.payload.sha256() => return Ok(Removal::Left),
            Some(_) => {}
        }
        match unlinkat(&folder.fd, &name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Removal::Nothing),
            Err(errno) => return Err(blame("remove", &path, errno)),
        }
        commit::sync(&folder.fd).map_err(|errno| blame("sync the folder of", &path, errno))?;
        Ok(Removal::Gone)
    };
    lane::run(timeout, &at, work).await
}
