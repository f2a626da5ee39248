//! The load that one API server or store gets from us: permits by urgency, an adaptive window, a rate,
//! a retry budget, a breaker, and the patience that it asks for. One value for each, shared by all targets.
//!
//! Decisions are pure ([`Gate`], times passed in); [`Upstream`] adds the waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Limits;
use super::patience::LONGEST;

/// Requests under way at first; the window grows from here to `limits.inFlight` (AIMD).
const FIRST_WINDOW: f64 = 16.0;
/// Failures in a row that open the breaker.
const BREAK_AFTER: u32 = 20;
/// A probe is let through this often while the breaker is open.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Retry budget: its size, the price of a retry, and what a success pays back (as the AWS SDKs have it).
const BUDGET: f64 = 500.0;
const PRICE: f64 = 14.0;
const REFUND: f64 = 5.0;

/// What a request said of its upstream's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answered in good order, be it with a refusal of this one request.
    Healthy,
    /// It did not answer, or with 5xx.
    Failed,
    /// It asks for less load (429), or for time (503 with `Retry-After`), for that long where it says so.
    Overloaded(Option<Duration>),
}

/// How urgent a request is: the earlier the deadline, the sooner its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urgency {
    /// Unix seconds at which the token in use ends; `i64::MIN` for a target that has none.
    pub deadline: i64,
    /// Whether this is another try of something that failed.
    pub retry: bool,
}

/// The decisions, with time passed in.
#[derive(Debug)]
struct Gate {
    limits: Limits,
    window: f64,
    in_flight: u32,
    failures: u32,
    probe_at: Option<Instant>,
    paused_until: Option<Instant>,
    next_slot: Option<Instant>,
    budget: f64,
}

/// What stands between the next request and its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    WhenOneEnds,
}

impl Gate {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            window: FIRST_WINDOW.min(f64::from(limits.in_flight)),
            in_flight: 0,
            failures: 0,
            probe_at: None,
            paused_until: None,
            next_slot: None,
            budget: BUDGET,
        }
    }

    fn turn(&self, now: Instant, retry: bool) -> Turn {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Turn::At(until);
        }
        if let Some(at) = self.probe_at {
            return match (self.in_flight, at > now) {
                (0, false) => Turn::Now,
                (0, true) => Turn::At(at),
                _ => Turn::WhenOneEnds,
            };
        }
        if self.in_flight >= self.width() {
            return Turn::WhenOneEnds;
        }
        if let Some(slot) = self.next_slot.filter(|slot| *slot > now) {
            return Turn::At(slot);
        }
        // A retry without budget goes alone: it never stops for good, and never adds to a storm.
        if retry && self.budget < PRICE && self.in_flight > 0 {
            return Turn::WhenOneEnds;
        }
        Turn::Now
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and limits.in_flight
    fn width(&self) -> u32 {
        (self.window as u32).clamp(1, self.limits.in_flight.max(1))
    }

    fn begin(&mut self, now: Instant, retry: bool) {
        self.in_flight += 1;
        if retry {
            self.budget = (self.budget - PRICE).max(0.0);
        }
        if self.limits.per_second > 0 {
            let gap = Duration::from_secs(1) / self.limits.per_second;
            self.next_slot = Some(self.next_slot.filter(|slot| *slot + gap > now).unwrap_or(now) + gap);
        }
    }

    fn end(&mut self, now: Instant, verdict: Option<Verdict>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match verdict {
            None => {}
            Some(Verdict::Healthy) => {
                self.failures = 0;
                self.probe_at = None;
                self.budget = (self.budget + REFUND).min(BUDGET);
                self.window = (self.window + 1.0 / self.window.max(1.0)).min(f64::from(self.limits.in_flight));
            }
            Some(Verdict::Failed) => {
                self.failures = self.failures.saturating_add(1);
                self.window = (self.window * 0.7).max(1.0);
                if self.failures >= BREAK_AFTER {
                    self.probe_at = Some(now + PROBE_EVERY);
                }
            }
            Some(Verdict::Overloaded(wish)) => {
                self.window = (self.window * 0.5).max(1.0);
                if let Some(wish) = wish {
                    let until = now + wish.min(LONGEST);
                    self.paused_until = Some(self.paused_until.map_or(until, |p| p.max(until)));
                }
            }
        }
    }
}

struct Waiting {
    retry: bool,
    go: oneshot::Sender<()>,
}

struct Shared {
    gate: Gate,
    waiting: BTreeMap<(i64, u64), Waiting>,
    arrivals: u64,
    alarm: Option<Instant>,
    skew: Option<f64>,
    garbled: u64,
}

/// One API server or store, as far as our load on it goes.
pub struct Upstream {
    name: String,
    shared: Mutex<Shared>,
}

impl Upstream {
    /// Nothing is known of it yet.
    pub fn new(name: impl Into<String>, limits: Limits) -> Arc<Self> {
        let shared = Shared { gate: Gate::new(limits), waiting: BTreeMap::new(), arrivals: 0, alarm: None, skew: None, garbled: 0 };
        Arc::new(Self { name: name.into(), shared: Mutex::new(shared) })
    }

    /// Its name in the schedule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bounds that it was made with.
    pub fn limits(&self) -> Limits {
        self.lock().gate.limits
    }

    /// Waits for the turn of a request that is that urgent. Dropping the future gives the turn up.
    pub async fn enter(self: &Arc<Self>, urgency: Urgency) -> Permit {
        let (go, turn) = oneshot::channel();
        let key = {
            let mut shared = self.lock();
            shared.arrivals += 1;
            let key = (urgency.deadline, shared.arrivals);
            shared.waiting.insert(key, Waiting { retry: urgency.retry, go });
            self.grant(&mut shared);
            key
        };
        let mut place = Queued { upstream: Arc::clone(self), key, served: false };
        // The sender is dropped only with the whole upstream, which we hold.
        let _ = turn.await;
        place.served = true;
        Permit { upstream: Arc::clone(self), ended: false }
    }

    /// Whether it is taken for dead: only probes go through.
    pub fn is_open(&self) -> bool {
        self.lock().gate.probe_at.is_some()
    }

    /// Notes a `Date` header: `server` and `local` in unix seconds.
    pub fn note_time(&self, server: f64, local: f64) {
        self.lock().skew = Some(server - local);
    }

    /// Notes that the local clock stepped by that many seconds: what was measured before is off by as much.
    pub fn note_step(&self, seconds: f64) {
        let mut shared = self.lock();
        shared.skew = shared.skew.map(|skew| skew - seconds);
    }

    /// Server time minus local time in seconds, where an answer has shown it.
    pub fn skew(&self) -> Option<f64> {
        self.lock().skew
    }

    /// Notes a `Retry-After` that makes no sense: it is not obeyed.
    pub fn note_garbled(&self) {
        let mut shared = self.lock();
        shared.garbled = shared.garbled.saturating_add(1);
    }

    /// How many of them it has sent.
    pub fn garbled(&self) -> u64 {
        self.lock().garbled
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(self: &Arc<Self>, shared: &mut Shared) {
        loop {
            let now = Instant::now();
            let Some((&key, first)) = shared.waiting.first_key_value() else { return };
            // First attempts never starve behind retries that wait for budget.
            let (key, retry) = match shared.gate.turn(now, first.retry) {
                Turn::WhenOneEnds if first.retry => match shared.waiting.iter().find(|(_, w)| !w.retry) {
                    Some((other, _)) if shared.gate.turn(now, false) == Turn::Now => (*other, false),
                    _ => return,
                },
                Turn::WhenOneEnds => return,
                Turn::At(at) => return self.wake_at(shared, at),
                Turn::Now => (key, first.retry),
            };
            let Some(next) = shared.waiting.remove(&key) else { return };
            shared.gate.begin(now, retry);
            if next.go.send(()).is_err() {
                shared.gate.end(now, None);
            }
        }
    }

    fn wake_at(self: &Arc<Self>, shared: &mut Shared, at: Instant) {
        if shared.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        shared.alarm = Some(at);
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(at).await;
            let Some(this) = this.upgrade() else { return };
            let mut shared = this.lock();
            if shared.alarm == Some(at) {
                shared.alarm = None;
            }
            this.grant(&mut shared);
        });
    }

    fn leave(self: &Arc<Self>, verdict: Option<Verdict>) {
        let mut shared = self.lock();
        shared.gate.end(Instant::now(), verdict);
        self.grant(&mut shared);
    }
}

/// A place in the queue that is given up when its future is dropped.
struct Queued {
    upstream: Arc<Upstream>,
    key: (i64, u64),
    served: bool,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        let removed = self.upstream.lock().waiting.remove(&self.key);
        if removed.is_none() {
            // The turn had come, but nobody took it.
            self.upstream.leave(None);
        }
    }
}

/// The right to one request. Dropped without a verdict it says nothing of the upstream's health.
pub struct Permit {
    upstream: Arc<Upstream>,
    ended: bool,
}

impl Permit {
    /// Gives the permit back with what the request showed.
    pub fn end(mut self, verdict: Verdict) {
        self.ended = true;
        self.upstream.leave(Some(verdict));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.upstream.leave(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(deadline: i64) -> Urgency {
        Urgency { deadline, retry: false }
    }

    #[tokio::test(start_paused = true)]
    async fn never_more_than_the_limit_is_under_way() {
        let up = Upstream::new("a", Limits { in_flight: 3, per_second: 0 });
        let held = [up.enter(first(1)).await, up.enter(first(1)).await, up.enter(first(1)).await];
        assert!(tokio::time::timeout(Duration::from_secs(5), up.enter(first(0))).await.is_err(), "a fourth went through");
        drop(held);
        up.enter(first(1)).await.end(Verdict::Healthy);
        assert_eq!(up.lock().gate.in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_death_is_served_first() {
        let up = Upstream::new("a", Limits { in_flight: 1, per_second: 0 });
        let held = up.enter(first(0)).await;
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for deadline in [30, 10, 20] {
            let (up, order) = (Arc::clone(&up), order.clone());
            tokio::spawn(async move {
                let permit = up.enter(first(deadline)).await;
                order.send(deadline).unwrap();
                permit.end(Verdict::Healthy);
            });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        held.end(Verdict::Healthy);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(served.recv().await.unwrap());
        }
        assert_eq!(seen, [10, 20, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_begin_no_faster_than_the_rate() {
        let up = Upstream::new("a", Limits { in_flight: 64, per_second: 10 });
        let begun = Instant::now();
        for _ in 0..21 {
            up.enter(first(1)).await.end(Verdict::Healthy);
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1990) && took <= Duration::from_millis(2200), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_for_patience_binds_everybody() {
        let up = Upstream::new("a", Limits::default());
        up.enter(first(1)).await.end(Verdict::Overloaded(Some(Duration::from_secs(7))));
        let begun = Instant::now();
        up.enter(first(0)).await.end(Verdict::Healthy);
        assert!(begun.elapsed() >= Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_upstream_gets_one_probe_at_a_time_and_the_most_urgent_first() {
        let up = Upstream::new("a", Limits::default());
        for _ in 0..BREAK_AFTER {
            up.enter(first(1)).await.end(Verdict::Failed);
        }
        assert!(up.is_open());
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for deadline in [9, 5, 7] {
            let (up, order) = (Arc::clone(&up), order.clone());
            tokio::spawn(async move {
                let permit = up.enter(first(deadline)).await;
                order.send((deadline, Instant::now())).unwrap();
                permit.end(if deadline == 9 { Verdict::Healthy } else { Verdict::Failed });
            });
        }
        let a = served.recv().await.unwrap();
        let b = served.recv().await.unwrap();
        let c = served.recv().await.unwrap();
        assert_eq!((a.0, b.0, c.0), (5, 7, 9));
        assert!(b.1 - a.1 >= PROBE_EVERY && c.1 - b.1 >= PROBE_EVERY);
        assert!(!up.is_open(), "a probe that was answered closes it");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_without_budget_do_not_hold_up_first_attempts() {
        let up = Upstream::new("a", Limits::default());
        up.lock().gate.budget = 0.0;
        let alone = up.enter(Urgency { deadline: 1, retry: true }).await;
        let waits = Arc::clone(&up);
        let second = tokio::spawn(async move { waits.enter(Urgency { deadline: 1, retry: true }).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!second.is_finished(), "a second retry went beside the first");
        let fresh = up.enter(first(5)).await;
        alone.end(Verdict::Failed);
        fresh.end(Verdict::Healthy);
        assert!(tokio::time::timeout(Duration::from_secs(1), second).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_gives_its_turn_up() {
        let up = Upstream::new("a", Limits { in_flight: 1, per_second: 0 });
        let held = up.enter(first(0)).await;
        assert!(tokio::time::timeout(Duration::from_millis(5), up.enter(first(1))).await.is_err());
        held.end(Verdict::Healthy);
        up.enter(first(2)).await.end(Verdict::Healthy);
        let shared = up.lock();
        assert_eq!((shared.gate.in_flight, shared.waiting.len()), (0, 0));
    }
}
