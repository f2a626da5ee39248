//! What those who append share with the thread that writes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backlog::CAPACITY;
use super::{Appended, Health, State};
use crate::record::line::Line;

/// Lines after which a commit is not put off for more.
const GROUP: usize = 100;
/// How long the first line waits for company.
const GATHER: Duration = Duration::from_millis(5);
/// How long a disk may take before nobody waits for it any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What those who append and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the thread that writes.
    wake: Condvar,
    /// Wakes the one that watches it.
    busy: Condvar,
}

#[derive(Debug)]
struct Queue {
    batches: Vec<Vec<Line>>,
    /// Lines in `batches`.
    lines: usize,
    /// Those who wait for `batches`.
    callers: Vec<oneshot::Sender<Appended>>,
    /// Those who wait for what the thread has taken.
    taken_callers: Vec<oneshot::Sender<Appended>>,
    /// Since when the thread has been writing.
    busy_since: Option<Instant>,
    /// Whether the one that watches it looks again by itself.
    watched: bool,
    /// The disk has not answered for so long that nobody waits for it.
    stalled: bool,
    /// Lines that were turned away since the thread last looked.
    turned_away: u64,
    /// `waiting` counts what the thread holds, not what is in `batches`.
    health: Health,
    closing: bool,
    gone: bool,
    closers: Vec<oneshot::Sender<()>>,
}

/// What the thread takes at once.
pub(super) struct Taken {
    pub batches: Vec<Vec<Line>>,
    /// Lines that did not fit before it looked.
    pub turned_away: u64,
    pub closing: bool,
}

impl Shared {
    pub fn new(state: &State, error: Option<String>) -> Self {
        let health = Health { lost: 0, waiting: 0, error, unsigned: None, head: state.head.clone(), seq: state.seq };
        let queue = Queue {
            batches: Vec::new(),
            lines: 0,
            callers: Vec::new(),
            taken_callers: Vec::new(),
            busy_since: None,
            watched: false,
            stalled: false,
            turned_away: 0,
            health,
            closing: false,
            gone: false,
            closers: Vec::new(),
        };
        Self { queue: Mutex::new(queue), wake: Condvar::new(), busy: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands lines to the thread; false where nobody will answer soon. The thread empties the queue quickly
    /// even while writing fails: lines are turned away only while the disk neither answers nor fails.
    pub fn push(&self, lines: Vec<Line>, caller: oneshot::Sender<Appended>) -> bool {
        let mut queue = self.queue();
        if queue.closing || (queue.lines > 0 && queue.lines + lines.len() > CAPACITY) {
            queue.turned_away += lines.len() as u64;
            queue.health.lost += lines.len() as u64;
            return false;
        }
        let gathered = queue.lines;
        queue.lines += lines.len();
        queue.batches.push(lines);
        // Between the first line and the last of a group the thread sleeps on.
        if gathered == 0 || (gathered < GROUP && queue.lines >= GROUP) {
            self.wake.notify_one();
        }
        if queue.stalled {
            return false;
        }
        queue.callers.push(caller);
        true
    }

    pub fn health(&self) -> Health {
        let queue = self.queue();
        let mut health = queue.health.clone();
        if health.error.is_some() {
            health.waiting += queue.lines as u64;
        }
        health
    }

    /// Ends the thread once all is written; tells `done` when the folder is let go.
    pub fn close(&self, done: Option<oneshot::Sender<()>>) {
        let mut queue = self.queue();
        queue.closing = true;
        if !queue.gone {
            queue.closers.extend(done);
        }
        self.wake.notify_one();
    }

    /// Waits for lines, at most for `pause`, then a little longer for their company.
    pub fn take(&self, pause: Option<Duration>) -> Taken {
        let until = pause.map(|pause| Instant::now() + pause);
        let mut queue = self.queue();
        while queue.batches.is_empty() && !queue.closing {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let until = Instant::now() + GATHER;
        while !queue.batches.is_empty() && queue.lines < GROUP && !queue.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.lines = 0;
        queue.taken_callers = std::mem::take(&mut queue.callers);
        queue.busy_since = Some(Instant::now());
        if !queue.watched {
            self.busy.notify_one();
        }
        Taken { batches: std::mem::take(&mut queue.batches), turned_away: std::mem::take(&mut queue.turned_away), closing: queue.closing }
    }

    /// What became of what was taken, told to those who wait for it.
    pub fn answer(&self, outcome: Appended, state: &State, waiting: usize, lost: u64, error: Option<String>) {
        let mut queue = self.queue();
        match (&queue.health.error, &error) {
            (None, Some(error)) => tracing::error!("{error}; records wait in memory"),
            (Some(_), None) => tracing::warn!(lost = queue.health.lost, "records are written again"),
            _ => {}
        }
        queue.busy_since = None;
        queue.stalled = false;
        queue.health.waiting = waiting as u64;
        queue.health.lost += lost;
        queue.health.error = error;
        queue.health.head.clone_from(&state.head);
        queue.health.seq = state.seq;
        let callers = std::mem::take(&mut queue.taken_callers);
        drop(queue);
        // Whoever is woken appends the next line, and is not to wait for this lock.
        send(callers.into_iter(), outcome);
    }

    /// Takes note of whether the last head was signed.
    pub fn signed(&self, unsigned: Option<&str>) {
        let mut queue = self.queue();
        match (&queue.health.unsigned, unsigned) {
            (None, Some(why)) => tracing::error!("heads of the records are not signed: {why}"),
            (Some(_), None) => tracing::warn!("heads of the records are signed again"),
            _ => {}
        }
        queue.health.unsigned = unsigned.map(str::to_owned);
    }

    /// Sends everybody on once the disk has not answered for that long: lines wait, rotations do not. Runs
    /// until the folder is let go.
    pub fn watch(&self, patience: Duration) {
        let mut queue = self.queue();
        while !queue.gone {
            let left = match queue.busy_since.filter(|_| !queue.stalled) {
                None => {
                    queue.watched = false;
                    queue = self.busy.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(since) => (since + patience).saturating_duration_since(Instant::now()),
            };
            if !left.is_zero() {
                queue.watched = true;
                queue = self.busy.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let error = format!("the disk that holds the records has not answered for {} s", patience.as_secs());
            tracing::error!("{error}; records wait in memory");
            queue.stalled = true;
            queue.health.error = Some(error);
            let Queue { callers, taken_callers, .. } = &mut *queue;
            send(callers.drain(..).chain(taken_callers.drain(..)), Appended::Waiting);
        }
    }

    /// The folder is free for others.
    pub fn let_go(&self) {
        let mut queue = self.queue();
        queue.gone = true;
        self.busy.notify_one();
        for closer in queue.closers.drain(..) {
            // A closer that went away needs no answer.
            let _ = closer.send(());
        }
    }
}

fn send(callers: impl Iterator<Item = oneshot::Sender<Appended>>, outcome: Appended) {
    for caller in callers {
        // Whoever asked may have gone; the lines are written all the same.
        let _ = caller.send(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::record::line::Kind;

    fn line() -> Vec<Line> {
        vec![Line::new(Kind::Started, Timestamp::UNIX_EPOCH)]
    }

    #[test]
    fn g10_nobody_waits_for_a_disk_that_does_not_answer_and_no_line_is_dropped() {
        let shared = Arc::new(Shared::new(&State::default(), None));
        let watched = Arc::clone(&shared);
        let watch = std::thread::spawn(move || watched.watch(Duration::from_millis(20)));
        let ((first, first_answer), (second, second_answer)) = (oneshot::channel(), oneshot::channel());
        assert!(shared.push(line(), first));
        assert_eq!(shared.take(None).batches.len(), 1);
        assert_eq!(first_answer.blocking_recv(), Ok(Appended::Waiting));
        assert!(!shared.push(line(), second), "whoever comes later is sent on at once");
        assert!(second_answer.blocking_recv().is_err());
        let health = shared.health();
        assert!(health.error.is_some() && health.waiting == 1 && health.lost == 0, "{health:?}");

        shared.answer(Appended::Durable, &State::default(), 0, 0, None);
        assert_eq!(shared.health().error, None);
        assert_eq!(shared.take(None).batches.len(), 1, "the second line is still there");
        shared.let_go();
        watch.join().unwrap();
    }

    #[test]
    fn g10_memory_stays_bounded_while_the_disk_does_not_answer() {
        let shared = Shared::new(&State::default(), None);
        for _ in 0..CAPACITY + 7 {
            shared.push(line(), oneshot::channel().0);
        }
        assert_eq!(shared.health().lost, 7);
        let taken = shared.take(None);
        assert_eq!((taken.batches.len(), taken.turned_away), (CAPACITY, 7));
    }
}
