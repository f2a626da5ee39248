//! What takes over a second shows that it goes on: a spinner with the time on a terminal, a line now and then elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::print;

/// Nothing is shown of what ends sooner.
const SOON: Duration = Duration::from_secs(1);
/// Between two lines where no terminal is.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows until it is dropped that something goes on.
pub struct Progress {
    done: Arc<AtomicUsize>,
    end: Option<Sender<()>>,
    shows: Option<JoinHandle<()>>,
}

impl Progress {
    /// `what` in the -ing form.
    pub fn begin(what: &str, quiet: bool) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let (end, ended) = channel();
        let (what, count) = (what.to_owned(), Arc::clone(&done));
        let shows = (!quiet).then(|| std::thread::spawn(move || show(&what, &count, &ended)));
        Self { done, end: Some(end), shows }
    }

    /// How many parts are done; shown once there is one.
    pub fn counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.done)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(shows) = self.shows.take() {
            // It only ever draws; a spinner that could not be taken away is no failure of the command.
            let _ = shows.join();
        }
    }
}

fn show(what: &str, done: &AtomicUsize, ended: &Receiver<()>) {
    let begun = Instant::now();
    if ended.recv_timeout(SOON) != Err(RecvTimeoutError::Timeout) {
        return;
    }
    let said = || match done.load(Ordering::Relaxed) {
        0 => what.to_owned(),
        done => format!("{what}: {done} done"),
    };
    if !print::is_watched() {
        let mut pause = Duration::ZERO;
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            print::talk(&format!("{} ({} s)", said(), begun.elapsed().as_secs()));
            pause = PAUSE;
        }
        return;
    }
    let bar = ProgressBar::new_spinner().with_elapsed(begun.elapsed());
    bar.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})").unwrap_or_else(|_| ProgressStyle::default_spinner()));
    while ended.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
        bar.set_message(said());
        bar.tick();
    }
    bar.finish_and_clear();
}
