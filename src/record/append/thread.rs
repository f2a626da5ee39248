//! The loop between those who append and the disk.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backlog::{Backlog, CAPACITY};
use super::scribe::Scribe;
use super::{Appended, Health, State};
use crate::record::line::Line;

/// Lines after which a commit is not put off for more.
const GROUP: usize = 100;
/// How long the first line waits for company.
const GATHER: Duration = Duration::from_millis(5);

/// What those who append and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Debug)]
struct Queue {
    entries: Vec<Entry>,
    /// Lines in `entries`.
    lines: usize,
    /// Lines that were turned away since the thread last looked.
    turned_away: u64,
    /// `waiting` counts what the thread holds, not what is in `entries`.
    health: Health,
    closing: bool,
    gone: bool,
    closers: Vec<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Entry {
    lines: Vec<Line>,
    acknowledge: oneshot::Sender<Appended>,
}

struct Taken {
    entries: Vec<Entry>,
    turned_away: u64,
    closing: bool,
}

impl Shared {
    pub fn new(state: &State, error: Option<String>) -> Self {
        let health = Health { lost: 0, waiting: 0, error, head: state.head.clone(), seq: state.seq };
        let queue = Queue { entries: Vec::new(), lines: 0, turned_away: 0, health, closing: false, gone: false, closers: Vec::new() };
        Self { queue: Mutex::new(queue), wake: Condvar::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands lines to the thread; false where they were turned away. The thread empties the queue quickly
    /// even while writing fails: it is full only while the disk neither answers nor fails.
    pub fn push(&self, lines: Vec<Line>, acknowledge: oneshot::Sender<Appended>) -> bool {
        let mut queue = self.queue();
        if queue.closing || (queue.lines > 0 && queue.lines + lines.len() > CAPACITY) {
            queue.turned_away += lines.len() as u64;
            queue.health.lost += lines.len() as u64;
            return false;
        }
        queue.lines += lines.len();
        queue.entries.push(Entry { lines, acknowledge });
        self.wake.notify_one();
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
    fn take(&self, pause: Option<Duration>) -> Taken {
        let until = pause.map(|pause| Instant::now() + pause);
        let mut queue = self.queue();
        while queue.entries.is_empty() && !queue.closing {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => break,
                Some(left) => queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
                None => queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
        let until = Instant::now() + GATHER;
        while !queue.entries.is_empty() && queue.lines < GROUP && !queue.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.lines = 0;
        Taken { entries: std::mem::take(&mut queue.entries), turned_away: std::mem::take(&mut queue.turned_away), closing: queue.closing }
    }

    fn report(&self, state: &State, waiting: usize, lost: u64, error: Option<String>) {
        let mut queue = self.queue();
        match (&queue.health.error, &error) {
            (None, Some(error)) => tracing::error!("{error}; records wait in memory"),
            (Some(_), None) => tracing::warn!(lost = queue.health.lost, "records are written again"),
            _ => {}
        }
        queue.health.waiting = waiting as u64;
        queue.health.lost += lost;
        queue.health.error = error;
        queue.health.head.clone_from(&state.head);
        queue.health.seq = state.seq;
    }
}

/// Writes until closed.
pub(super) fn run(shared: &Shared, mut scribe: Scribe) {
    let mut backlog = Backlog::default();
    let mut error = shared.health().error;
    if error.is_some() {
        backlog.put_off();
    }
    loop {
        let taken = shared.take(backlog.pause());
        backlog.turned_away(taken.turned_away);
        let mut acknowledge = Vec::with_capacity(taken.entries.len());
        for entry in taken.entries {
            backlog.push(entry.lines);
            acknowledge.push(entry.acknowledge);
        }
        let mut lost = 0;
        if backlog.due() || taken.closing {
            error = backlog.write(&mut scribe).err().map(|error| error.to_string());
            if error.is_some() {
                backlog.put_off();
            }
        }
        if error.is_some() {
            lost = backlog.trim(&mut scribe);
        }
        shared.report(scribe.state(), backlog.waiting(), lost, error.clone());
        let outcome = if error.is_some() { Appended::Waiting } else { Appended::Durable };
        for sender in acknowledge {
            // Whoever asked may have gone; the lines are written all the same.
            let _ = sender.send(outcome);
        }
        if taken.closing {
            break;
        }
    }
    drop(scribe);
    let mut queue = shared.queue();
    queue.gone = true;
    for closer in queue.closers.drain(..) {
        // A closer that went away needs no answer.
        let _ = closer.send(());
    }
}
