//! Whether the daemon's loop turns: `GET /livez` of the control socket goes through it, and is asked all the time.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// From one answer to the next question.
const PAUSE: Duration = Duration::from_millis(1);

/// Asks until it is told to end.
pub struct Pulse {
    ended: Arc<AtomicBool>,
    asking: Option<JoinHandle<Vec<Duration>>>,
}

impl Pulse {
    /// Of the daemon on that socket.
    pub fn start(socket: &Path) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (end, socket) = (Arc::clone(&ended), socket.to_owned());
        let asking = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !end.load(Ordering::Relaxed) {
                times.push(ask(&socket));
                std::thread::sleep(PAUSE);
            }
            times
        });
        Self { ended, asking: Some(asking) }
    }

    /// How long the slowest answer took, and how many there were.
    pub fn longest(mut self) -> (Duration, usize) {
        self.ended.store(true, Ordering::Relaxed);
        let times = self.asking.take().expect("it is taken here alone").join().expect("the daemon answers");
        (times.iter().max().copied().unwrap_or_default(), times.len())
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// How long it is until that daemon answers.
fn ask(socket: &PathBuf) -> Duration {
    let begun = Instant::now();
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").expect("the daemon reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the daemon answers");
    assert!(answer.starts_with("HTTP/1.1 200"), "the loop does not turn: {answer}");
    begun.elapsed()
}
