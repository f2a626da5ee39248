//! Whose turn it is at a path: an attempt that was given up while its file system hung must never put its
//! old token over a newer one when the file system wakes up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, TryLockError};

use crate::sink::{Failure, FailureKind};

static QUEUES: LazyLock<Mutex<HashMap<PathBuf, Arc<Queue>>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Queue {
    newest: AtomicU64,
    publishing: Mutex<()>,
}

/// The waiting side of an attempt: when it is dropped, its ticket is worth nothing any more.
pub(super) struct Turn {
    path: PathBuf,
    queue: Arc<Queue>,
    number: u64,
}

/// The working side of an attempt, on its blocking thread.
pub(super) struct Ticket {
    path: PathBuf,
    queue: Arc<Queue>,
    number: u64,
}

impl Turn {
    /// The newest turn at `path`; every turn before it is over.
    pub(super) fn take(path: &Path) -> Self {
        let queue = QUEUES.lock().unwrap_or_else(PoisonError::into_inner).entry(path.to_owned()).or_default().clone();
        let number = queue.newest.fetch_add(1, Ordering::SeqCst) + 1;
        Self { path: path.to_owned(), queue, number }
    }

    /// To be taken to the thread that works.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket { path: self.path.clone(), queue: self.queue.clone(), number: self.number }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.queue.newest.compare_exchange(self.number, self.number + 1, Ordering::SeqCst, Ordering::SeqCst);
        let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours: no thread still holds a ticket of this path.
        if Arc::strong_count(&self.queue) == 2 {
            queues.remove(&self.path);
        }
    }
}

impl Ticket {
    /// Does the one step that publishes, unless the turn is over or an earlier attempt is in the middle of it.
    pub(super) fn alone<T>(&self, publish: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let over = |why: &str| Err(Failure::new(FailureKind::Unavailable, format!("{} not published: {why}", self.path.display())));
        let _publishing = match self.queue.publishing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return over("an earlier attempt still hangs in the file system"),
        };
        if self.queue.newest.load(Ordering::SeqCst) != self.number {
            return over("the attempt was given up meanwhile");
        }
        publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_that_was_given_up_does_not_publish() {
        let turn = Turn::take(Path::new("/t/given-up"));
        let ticket = turn.ticket();
        drop(turn);
        assert!(ticket.alone(|| Ok(())).is_err());
    }

    #[test]
    fn a_newer_attempt_ends_the_turn_of_an_older_one() {
        let (old, new) = (Turn::take(Path::new("/t/newer")), Turn::take(Path::new("/t/newer")));
        assert!(old.ticket().alone(|| Ok(())).is_err());
        drop(old);
        assert!(new.ticket().alone(|| Ok(())).is_ok(), "the end of an old turn takes nothing from the newest");
    }

    #[test]
    fn a_ticket_held_by_a_hung_thread_keeps_its_path_in_order() {
        let first = Turn::take(Path::new("/t/hung"));
        let hung = first.ticket();
        drop(first);
        let second = Turn::take(Path::new("/t/hung"));
        assert!(second.ticket().alone(|| Ok(())).is_ok());
        drop(second);
        assert!(hung.alone(|| Ok(())).is_err());
    }

    #[test]
    fn nobody_publishes_while_an_earlier_attempt_is_in_the_middle_of_it() {
        let path = Path::new("/t/middle");
        let turn = Turn::take(path);
        let inner = turn.ticket().alone(|| {
            let next = Turn::take(path);
            Ok(next.ticket().alone(|| Ok(())).unwrap_err().message)
        });
        assert!(inner.unwrap().contains("still hangs"));
    }

    #[test]
    fn paths_without_an_attempt_are_forgotten() {
        let path = Path::new("/t/forgotten");
        drop(Turn::take(path));
        assert!(!QUEUES.lock().unwrap().contains_key(path));
    }
}
