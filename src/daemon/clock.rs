//! The clocks of this host, and chance.

use jiff::Timestamp;

/// Now, unix ms.
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Wall clock less monotonic clock, ms: it changes when the wall clock steps, and by the time of a suspend.
pub fn offset() -> i64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now_ms() - (clock.tv_sec * 1000 + clock.tv_nsec / 1_000_000)
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
