//! A published file goes for good: the copy in a fallback, once the place that it stood in for has the token.

use std::time::Duration;

use rustix::fs::{AtFlags, fsync, unlinkat};
use rustix::io::Errno;

use super::blame::blame;
use super::{FileSpec, account, folder, held, lane};
use crate::sink::Failure;

/// Removes what is published, durably. Nothing there is as good.
///
/// # Errors
/// `Local` where something else than a file of ours stands there, or the folder is not safe; `Unavailable` where the
/// file system does not answer in time.
pub async fn remove(spec: &FileSpec, timeout: Duration) -> Result<(), Failure> {
    let (parent, name) = super::parts(&spec.path)?;
    let work = async {
        let wish = account::wish(spec).await?;
        let at = parent.clone();
        lane::run(&at, move || {
            let Some(folder) = folder::find(&parent)? else { return Ok(()) };
            if held::stat(&folder, &name, &wish)?.is_none() {
                return Ok(());
            }
            let path = folder.path.join(&name);
            match unlinkat(&folder.fd, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => fsync(&folder.fd).map_err(|errno| blame("sync the folder of", &path, errno)),
                Err(errno) => Err(blame("remove", &path, errno)),
            }
        })
        .await
    };
    lane::within(timeout, &spec.path, work).await
}
