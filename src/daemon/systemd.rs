//! Talking to systemd (sd_notify): readiness, status text, reloads, the watchdog. Elsewhere all of it is silence.

use sd_notify::NotifyState;

/// Tells that the first plan is in force.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that a reload has begun; [`ready`] tells that it is over, whatever came of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "systemd is not told of the reload: without the time of it, it would wait for ever"),
    }
}

/// Tells that the end has begun.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Feeds the watchdog; called from the loop's own turns, so that a hung loop is noticed.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to be fed, where one watches.
pub fn watchdog() -> Option<std::time::Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 3)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not reached");
    }
}
