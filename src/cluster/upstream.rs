//! The load that one API server or store gets from us: permits by urgency, an adaptive window, a rate,
//! a retry budget, a breaker, and the patience that it asks for. One value for each, shared by all targets.
//!
//! Decisions are pure ([`gate`], times passed in); [`Upstream`] adds the waiting.

pub mod gate;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Limits;
use gate::{Gate, Next, Ticket};
pub use gate::{Urgency, Verdict};

struct Shared {
    gate: Gate,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    alarm: Option<Instant>,
    garbled: u64,
    /// Requests that it answered in good order.
    answered: u64,
}

/// One API server or store, as far as our load on it goes.
pub struct Upstream {
    name: String,
    shared: Mutex<Shared>,
}

impl Upstream {
    /// Nothing is known of it yet.
    pub fn new(name: impl Into<String>, limits: Limits) -> Arc<Self> {
        let shared = Shared { gate: Gate::new(limits), waiting: HashMap::new(), alarm: None, garbled: 0, answered: 0 };
        Arc::new(Self { name: name.into(), shared: Mutex::new(shared) })
    }

    /// Its name in the schedule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bounds that it was made with.
    pub fn limits(&self) -> Limits {
        self.lock().gate.limits()
    }

    /// Waits for the turn of a request that is that urgent. Dropping the future gives the turn up.
    pub async fn enter(self: &Arc<Self>, urgency: Urgency) -> Permit {
        let (go, turn) = oneshot::channel();
        let ticket = {
            let mut shared = self.lock();
            let ticket = shared.gate.arrive(urgency);
            shared.waiting.insert(ticket, go);
            self.grant(&mut shared);
            ticket
        };
        let mut place = Queued { upstream: Arc::clone(self), ticket, served: false };
        // The sender is dropped only with the whole upstream, which we hold.
        let _ = turn.await;
        place.served = true;
        Permit { upstream: Arc::clone(self), ended: false }
    }

    /// Waits for its turn as [`Upstream::enter`] does, as long as others are answered meanwhile: one with much to do is
    /// not one that is dead. `None` where for `patience` nobody was.
    pub async fn turn(self: &Arc<Self>, urgency: Urgency, patience: Duration) -> Option<Permit> {
        while_others_end(|| self.lock().answered, patience, self.enter(urgency)).await
    }

    /// Whether it is taken for dead: only probes go through.
    pub fn is_open(&self) -> bool {
        self.lock().gate.is_open()
    }

    /// Notes a `Date` header: `server` and `local` in unix seconds.
    pub fn note_time(&self, server: f64, local: f64) {
        self.lock().gate.note_time(server, local);
    }

    /// Notes that the local clock was set by that many ms: what was measured before is off by as much.
    pub fn note_step(&self, milliseconds: i64) {
        self.lock().gate.note_step(milliseconds);
    }

    /// Server time minus local time in seconds, where an answer has shown it.
    pub fn skew(&self) -> Option<f64> {
        self.lock().gate.skew()
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
            match shared.gate.next(now) {
                Next::Wait => return,
                Next::At(at) => return self.wake_at(shared, at),
                Next::Go(ticket) => {
                    let went = shared.waiting.remove(&ticket).is_some_and(|go| go.send(()).is_ok());
                    if !went {
                        shared.gate.end(now, None);
                    }
                }
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
        shared.answered += u64::from(verdict == Some(Verdict::Healthy));
        shared.gate.end(Instant::now(), verdict);
        self.grant(&mut shared);
    }
}

/// A place in the queue that is given up when its future is dropped.
struct Queued {
    upstream: Arc<Upstream>,
    ticket: Ticket,
    served: bool,
}

impl Drop for Queued {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        let waited = {
            let mut shared = self.upstream.lock();
            shared.waiting.remove(&self.ticket);
            shared.gate.give_up(self.ticket)
        };
        if !waited {
            // The turn had come, but nobody took it.
            self.upstream.leave(None);
        }
    }
}

/// Waits for `turn` as long as others end theirs meanwhile, which `ended` counts; `None` where for `patience` none did.
pub async fn while_others_end<T>(ended: impl Fn() -> u64, patience: Duration, turn: impl Future<Output = T>) -> Option<T> {
    let mut turn = std::pin::pin!(turn);
    loop {
        let before = ended();
        match tokio::time::timeout(patience, &mut turn).await {
            Ok(turn) => return Some(turn),
            Err(_) if ended() == before => return None,
            Err(_) => {}
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
    use super::gate::{BREAK_AFTER, PROBE_EVERY};

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
        assert_eq!(up.lock().gate.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_turn_is_patient_while_others_are_answered_and_no_longer() {
        let (up, patience) = (Upstream::new("a", Limits { in_flight: 1, per_second: 0 }), Duration::from_secs(10));
        let mut held = up.enter(first(0)).await;
        let last = {
            let up = Arc::clone(&up);
            tokio::spawn(async move { up.turn(first(99), patience).await.is_some() })
        };
        for number in 1..=6 {
            let next = {
                let up = Arc::clone(&up);
                tokio::spawn(async move { up.enter(first(number)).await })
            };
            tokio::time::sleep(Duration::from_secs(9)).await;
            held.end(Verdict::Healthy);
            held = next.await.unwrap();
        }
        assert!(!last.is_finished(), "54 s of a slow store are no reason to give up");
        let begun = Instant::now();
        assert!(!last.await.unwrap(), "nobody is answered any more");
        assert!(begun.elapsed() <= patience * 2);
        drop(held);
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
    async fn first_attempts_never_starve_behind_a_thousand_urgent_retries_without_budget() {
        let up = Upstream::new("a", Limits { in_flight: 2, per_second: 0 });
        up.lock().gate.budget = 0.0;
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for number in 0..1_000 {
            let (up, order) = (Arc::clone(&up), order.clone());
            tokio::spawn(async move {
                let permit = up.enter(Urgency { deadline: number, retry: true }).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = order.send("retry");
                permit.end(Verdict::Failed);
            });
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let fresh = tokio::time::timeout(Duration::from_secs(2), up.enter(first(1_000_000))).await.expect("it starved");
        assert!(served.try_recv().is_err(), "it waited for a retry to end");
        fresh.end(Verdict::Healthy);
    }

    #[tokio::test(start_paused = true)]
    async fn the_probe_of_a_dead_upstream_is_the_target_that_ends_first_even_where_it_came_last_and_is_a_retry() {
        let up = Upstream::new("a", Limits::default());
        for _ in 0..BREAK_AFTER {
            up.enter(first(1)).await.end(Verdict::Failed);
        }
        let (order, mut served) = tokio::sync::mpsc::unbounded_channel();
        for (deadline, retry) in [(900, false), (800, false), (7, true)] {
            let (up, order) = (Arc::clone(&up), order.clone());
            tokio::spawn(async move {
                let permit = up.enter(Urgency { deadline, retry }).await;
                order.send(deadline).unwrap();
                permit.end(Verdict::Failed);
            });
        }
        assert_eq!(served.recv().await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_gives_its_turn_up() {
        let up = Upstream::new("a", Limits { in_flight: 1, per_second: 0 });
        let held = up.enter(first(0)).await;
        assert!(tokio::time::timeout(Duration::from_millis(5), up.enter(first(1))).await.is_err());
        held.end(Verdict::Healthy);
        up.enter(first(2)).await.end(Verdict::Healthy);
        let shared = up.lock();
        assert_eq!((shared.gate.in_flight(), shared.gate.waiting()), (0, 0));
    }
}
