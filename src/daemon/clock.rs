//! The clocks of this host, and chance.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use tokio::io::unix::AsyncFd;

use super::watch::own;

/// A time that never comes, seconds since 1970 (the year 2500): only its cancellation is of interest.
const NEVER: i64 = 16_725_225_600;

/// Now, unix ms.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// A step of the wall clock beyond that has everything judged anew, ms.
const STEP: i64 = 5_000;

/// What this host's clocks show at one moment, ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Time of day, since 1970.
    pub wall: i64,
    /// Since the host started, its sleep left out.
    pub awake: i64,
    /// Since the host started, its sleep included.
    pub uptime: i64,
}

/// How the wall clock jumped between two looks at the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// By how much somebody set it, ms: what was measured against it before is off by as much.
    pub set: i64,
    /// How long the host slept, ms: then it is as right as before.
    pub slept: i64,
}

impl Clocks {
    /// Now.
    pub fn now() -> Self {
        let ms = |id| {
            let clock = rustix::time::clock_gettime(id);
            clock.tv_sec * 1000 + clock.tv_nsec / 1_000_000
        };
        Self { wall: now_ms(), awake: ms(rustix::time::ClockId::Monotonic), uptime: ms(rustix::time::ClockId::Boottime) }
    }

    /// What happened since `before`, where it is more than a clock's common drift. Pure.
    pub fn jump_since(self, before: Self) -> Option<Jump> {
        let set = (self.wall - before.wall) - (self.uptime - before.uptime);
        let slept = (self.uptime - before.uptime) - (self.awake - before.awake);
        (set.abs() >= STEP || slept >= STEP).then_some(Jump { set, slept })
    }
}

/// A random share in [0, 1).
pub fn share() -> f64 {
    use ring::rand::SecureRandom;
    let mut bytes = [0u8; 4];
    // Without randomness retries come at the middle of their span.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

/// Notices steps of the wall clock, and the end of a suspend, when they happen: the kernel cancels a timer on that
/// clock (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
#[derive(Default)]
pub struct Steps(Option<AsyncFd<Arc<OwnedFd>>>);

impl Steps {
    /// Begins to watch. Where that cannot be, [`next`](Self::next) never comes.
    pub fn watch() -> Self {
        let made = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
        match made.map_err(io::Error::from).and_then(own).and_then(|fd| arm(&fd).map(|()| fd)) {
            Ok(fd) => Self(Some(fd)),
            Err(error) => {
                tracing::warn!(%error, "steps of the clock are noticed at the next turn only");
                Self(None)
            }
        }
    }

    /// Whether steps are noticed when they happen.
    pub fn are_noticed(&self) -> bool {
        self.0.is_some()
    }

    /// Waits for the next step. Can be dropped and called again without losing one.
    pub async fn next(&mut self) {
        let Some(fd) = &self.0 else { return std::future::pending().await };
        let noticed = match fd.readable().await {
            Ok(mut ready) => {
                ready.clear_ready();
                // Armed anew before anybody looks at the clock: a step in between is noticed too.
                arm(fd)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = noticed {
            tracing::warn!(%error, "steps of the clock are noticed at the next turn only");
            self.0 = None;
        }
    }
}

fn arm(fd: &AsyncFd<Arc<OwnedFd>>) -> io::Result<()> {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let never = Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: NEVER, tv_nsec: 0 } };
    match timerfd_settime(fd.get_ref(), TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never) {
        // It says so where the clock stepped since it was armed; it is armed anew all the same.
        Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BEFORE: Clocks = Clocks { wall: 1_000_000, awake: 10, uptime: 20 };

    #[test]
    fn a_clock_that_is_set_and_a_host_that_slept_are_told_apart() {
        let set = Clocks { wall: BEFORE.wall - 7_200_000 + 5, awake: 15, uptime: 25 };
        assert_eq!(set.jump_since(BEFORE), Some(Jump { set: -7_200_000, slept: 0 }));
        let slept = Clocks { wall: BEFORE.wall + 7_200_000, awake: 10, uptime: 7_200_020 };
        assert_eq!(slept.jump_since(BEFORE), Some(Jump { set: 0, slept: 7_200_000 }));
        let drifted = Clocks { wall: BEFORE.wall + 60_040, awake: 60_010, uptime: 60_020 };
        assert_eq!(drifted.jump_since(BEFORE), None);
    }

    #[tokio::test]
    async fn a_clock_that_does_not_step_wakes_nobody() {
        let mut steps = Steps::watch();
        assert!(steps.are_noticed(), "this kernel gives no timer on the wall clock");
        assert!(tokio::time::timeout(Duration::from_millis(300), steps.next()).await.is_err(), "woken without a step");
    }
}
