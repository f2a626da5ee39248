//! A folder that was walked to a moment ago is not walked to again: a wave of a thousand rotations into one folder is a
//! few walks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::stat;

use super::folder::{self, Folder, Mark};
use crate::sink::Failure;

/// How old a walk may be. It is also the longest that a folder stays open once nobody writes there: an unmount waits for
/// no longer.
const COUNTS: Duration = Duration::from_millis(20);

static WALKED: LazyLock<Mutex<Walked>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Walked {
    /// When the first of these was walked to; none that is older is used.
    since: Option<Instant>,
    folders: HashMap<PathBuf, Arc<Folder>>,
}

/// The folder, as [`folder::make`] gives it. Who may change what lies above it was looked at within the last moments; that
/// the path still leads to this very folder, and whose it is, is asked each time.
///
/// # Errors
/// As [`folder::make`].
pub(super) fn make(path: &Path) -> Result<Arc<Folder>, Failure> {
    let known = walked().of(path);
    if let Some(folder) = known.filter(|folder| stat(path).is_ok_and(|there| Mark::of(&there) == folder.mark)) {
        return Ok(folder);
    }
    let folder = Arc::new(folder::make(path)?);
    walked().keep(path, &folder);
    Ok(folder)
}

fn walked() -> MutexGuard<'static, Walked> {
    WALKED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Walked {
    fn of(&self, path: &Path) -> Option<Arc<Folder>> {
        self.since.filter(|since| since.elapsed() < COUNTS)?;
        self.folders.get(path).cloned()
    }

    fn keep(&mut self, path: &Path, folder: &Arc<Folder>) {
        // Somebody has to close it again.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.since.is_none_or(|since| since.elapsed() >= COUNTS) {
            self.folders.clear();
            self.since = Some(Instant::now());
            runtime.spawn(async {
                tokio::time::sleep(COUNTS).await;
                walked().folders.clear();
            });
        }
        self.folders.insert(path.to_owned(), Arc::clone(folder));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder that was walked to just now, and by which path. Others' walks may clear all that is known.
    fn known(path: &Path) -> Arc<Folder> {
        loop {
            let (one, two) = (make(path).unwrap(), make(path).unwrap());
            if Arc::ptr_eq(&one, &two) {
                return one;
            }
        }
    }

    async fn apart(work: impl FnOnce(&Path) + Send + 'static) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().canonicalize().unwrap().join("folder");
        std::fs::create_dir(&path).unwrap();
        tokio::task::spawn_blocking(move || work(&path)).await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_is_walked_to_once_within_moments_and_closed_after_them() {
        apart(|path| {
            let folder = known(path);
            while Arc::strong_count(&folder) > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!Arc::ptr_eq(&folder, &make(path).unwrap()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_path_that_leads_elsewhere_is_walked_anew() {
        apart(|path| {
            let before = known(path);
            std::fs::rename(path, path.with_extension("old")).unwrap();
            std::fs::create_dir(path).unwrap();
            assert!(make(path).unwrap().mark != before.mark);
            let before = known(path);
            std::fs::remove_dir(path).unwrap();
            let made = make(path);
            assert!(made.is_err() || made.is_ok_and(|made| made.mark != before.mark), "it was not there any more");
        })
        .await;
    }

    #[tokio::test]
    async fn a_folder_that_was_opened_to_others_is_refused_at_once() {
        apart(|path| {
            drop(known(path));
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
            assert!(make(path).err().unwrap().message.contains("chmod go-w"));
        })
        .await;
    }
}
