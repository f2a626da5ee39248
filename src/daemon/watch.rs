//! `reloadOnChange`: notices that the schedule file changed, and reloads once it was quiet for a second.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::ask::Ask;

/// An editor may write a file in several steps.
const QUIET: Duration = Duration::from_secs(1);
/// A folder that cannot be watched is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Watches the folder of the schedule, for editors and configuration tools replace the file.
pub async fn watch(schedule: PathBuf, asks: mpsc::Sender<Ask>) {
    let schedule = std::path::absolute(&schedule).unwrap_or(schedule);
    let folder = schedule.parent().unwrap_or(Path::new("/")).to_owned();
    loop {
        if let Err(error) = follow(&folder, &asks).await {
            tracing::warn!(%error, folder = %folder.display(), "the schedule's folder cannot be watched; `tokenferry reload` still works");
        }
        if asks.is_closed() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(folder: &Path, asks: &mpsc::Sender<Ask>) -> std::io::Result<()> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CREATE | WatchFlags::ONLYDIR;
    inotify::add_watch(&fd, folder, flags)?;
    // Folders of includes below the schedule's own are watched too.
    for entry in std::fs::read_dir(folder)?.flatten().filter(|e| e.path().is_dir()) {
        inotify::add_watch(&fd, entry.path(), flags)?;
    }
    let fd = own(fd)?;
    loop {
        drain(&fd).await?;
        while tokio::time::timeout(QUIET, drain(&fd)).await.is_ok() {}
        if asks.send(Ask::Reload(None, oneshot::channel().0)).await.is_err() {
            return Ok(());
        }
    }
}

/// The descriptor, polled by the runtime.
#[allow(unsafe_code)]
pub(super) fn own(fd: impl Into<Arc<OwnedFd>>) -> std::io::Result<AsyncFd<Arc<OwnedFd>>> {
    let fd = fd.into();
    // SAFETY: an `OwnedFd` gives the same open descriptor for as long as it lives, and the `AsyncFd` has a share in it.
    unsafe { AsyncFd::register(fd) }.map_err(|e| e.into_parts().1)
}

/// Waits for at least one event and takes all that are there.
async fn drain(fd: &AsyncFd<Arc<OwnedFd>>) -> std::io::Result<()> {
    let mut ready = fd.readable().await?;
    let mut buffer = [0u8; 4096];
    let mut seen = false;
    loop {
        match rustix::io::read(fd.get_ref(), &mut buffer[..]) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => seen = true,
            Err(rustix::io::Errno::AGAIN) if seen => return Ok(()),
            Err(rustix::io::Errno::AGAIN) => {
                ready.clear_ready();
                ready = fd.readable().await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
