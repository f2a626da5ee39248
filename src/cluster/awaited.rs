//! A login token that we keep fresh ourselves: at the start, and after it has ended, it may be on its way to its file
//! while a place is written already that needs the login.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// How long a login waits for its token: less than an attempt at a place may take. What waits holds no turn but one
/// of its own store, and the token comes to its file without any store, so nothing waits in a circle.
const LONGEST: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// That of a file which was looked at.
    pub fn of(found: &std::fs::Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino(), size: found.size(), modified: (found.mtime(), found.mtime_nsec()) }
    }
}

/// The stamp of the file as it stands now, `None` where it cannot be looked at.
pub async fn stamp(path: &Path) -> Option<Stamp> {
    tokio::fs::metadata(path).await.ok().as_ref().map(Stamp::of)
}

/// What is left of one login's patience.
pub struct Patience {
    file: PathBuf,
    until: Instant,
    /// The file's content as it was when it was last found there.
    seen: Option<Stamp>,
}

impl Patience {
    /// Patience for the token in that file.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), until: Instant::now() + LONGEST, seen: None }
    }

    /// Waits until the file is there; false where patience ends first.
    pub async fn until_there(&mut self) -> bool {
        self.until(|now, _| now.is_some()).await
    }

    /// Waits until another token stands in the file than the one that was refused; false where patience ends first.
    pub async fn until_other(&mut self) -> bool {
        self.until(|now, seen| now.is_some() && now != seen).await
    }

    async fn until(&mut self, holds: impl Fn(Option<Stamp>, Option<Stamp>) -> bool) -> bool {
        loop {
            let now = stamp(&self.file).await;
            if holds(now, self.seen) {
                self.seen = now;
                return true;
            }
            if Instant::now() >= self.until {
                return false;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What to say of a token that did not come.
    pub fn missing(&self) -> String {
        format!("the token that it logs in with is not in {} yet: its target has to be rotated first", self.file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_for_the_file_and_then_for_another_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let (written, other) = (path.clone(), folder.path().join("other"));
        let write = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            std::fs::write(&written, "one").unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
            std::fs::write(&other, "two").unwrap();
            std::fs::rename(&other, &written).unwrap();
        });
        let mut patience = Patience::new(&path);
        assert!(patience.until_there().await);
        assert!(patience.until_there().await, "what is there is there");
        assert!(patience.until_other().await);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        write.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn its_end_is_told() {
        let mut patience = Patience::new(Path::new("/nonexistent/token"));
        assert!(!patience.until_there().await);
        assert!(patience.missing().contains("/nonexistent/token"));
    }
}
