//! Talking to systemd (sd_notify): readiness, status text, reloads, the watchdog. Elsewhere all of it is silence.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// What must arrive waits so long for a systemd that does not read; the loop waits with it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tells that the first plan is in force.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)], Some(PATIENCE));
}

/// Tells that a reload has begun; [`ready`] tells that it is over, whatever came of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now], Some(PATIENCE)),
        Err(error) => tracing::debug!(%error, "systemd is not told of the reload: without the time of it, it would wait for ever"),
    }
}

/// Tells that the end has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping], Some(PATIENCE));
}

/// The watchdog's food, where one watches (`WatchdogSec=`).
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    fed: Option<Instant>,
}

impl Watchdog {
    /// As systemd told this process of it.
    pub fn of_this_process() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 3), fed: None }
    }

    /// How often it wants to be fed.
    pub fn every(&self) -> Option<Duration> {
        self.every
    }

    /// Feeds it; called from the loop's own turns, so that a hung loop is noticed. More than it wants is not sent.
    pub fn alive(&mut self) {
        let Some(every) = self.every else { return };
        if self.fed.is_none_or(|fed| fed.elapsed() >= every / 2) {
            self.fed = Some(Instant::now());
            send(&[NotifyState::Watchdog], None);
        }
    }
}

/// `patience` of `None`: it is left unsaid where there is no room for it.
fn send(states: &[NotifyState<'_>], patience: Option<Duration>) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    if let Err(error) = send_to(&path, &text, patience) {
        tracing::debug!(%error, "systemd was not reached");
    }
}

/// Not `sd_notify::notify`, which waits for as long as nobody reads: nobody has to (`systemd-notify(1)`'s socket is any
/// process's), and the loop would stand.
fn send_to(path: &OsStr, text: &str, patience: Option<Duration>) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(patience)?;
    socket.set_nonblocking(patience.is_none())?;
    socket.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_nobody_reads_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _unread = UnixDatagram::bind(&path).unwrap();
        let begun = Instant::now();
        let mut full = None;
        for _ in 0..10_000 {
            if let Err(error) = send_to(path.as_os_str(), "WATCHDOG=1\n", None) {
                full = Some(error.kind());
                break;
            }
        }
        assert_eq!(full, Some(io::ErrorKind::WouldBlock), "it never was full");
        let waited = Instant::now();
        assert!(send_to(path.as_os_str(), "READY=1\n", Some(PATIENCE)).is_err());
        assert!(waited.elapsed() >= PATIENCE, "what must arrive waits a while");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_hungry_watchdog_is_fed_no_more_often_than_it_wants() {
        let mut dog = Watchdog { every: Some(Duration::from_secs(60)), fed: None };
        dog.alive();
        let fed = dog.fed.expect("at once the first time");
        dog.alive();
        assert_eq!(dog.fed, Some(fed));
        dog.every = Some(Duration::from_nanos(1));
        dog.alive();
        assert!(dog.fed > Some(fed));
    }
}
