//! The decisions about the load on one API server or store: whose turn it is, and when. Pure: times are passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Limits;
use crate::cluster::patience::LONGEST;

/// Requests under way at first; the window grows from here to `limits.inFlight` (AIMD).
const FIRST_WINDOW: f64 = 16.0;
/// Failures in a row that open the breaker.
pub const BREAK_AFTER: u32 = 20;
/// A probe is let through this often while the breaker is open.
pub const PROBE_EVERY: Duration = Duration::from_secs(2);
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

/// A place in the queue: by deadline, then in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    deadline: i64,
    number: u64,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// That request begins, now.
    Go(Ticket),
    /// Nobody before that time.
    At(Instant),
    /// Nobody before a request ends or another one arrives.
    Wait,
}

/// One upstream's load, as it is and as it may become.
#[derive(Debug)]
pub struct Gate {
    /// Who waits, and whether it is a retry.
    waiting: BTreeMap<Ticket, bool>,
    arrivals: u64,
    skew: Option<f64>,
    limits: Limits,
    window: f64,
    in_flight: u32,
    failures: u32,
    probe_at: Option<Instant>,
    paused_until: Option<Instant>,
    next_slot: Option<Instant>,
    pub(super) budget: f64,
}

/// What stands between the next request and its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Now,
    At(Instant),
    WhenOneEnds,
}

impl Gate {
    /// Nothing is under way, nothing known.
    pub fn new(limits: Limits) -> Self {
        Self {
            waiting: BTreeMap::new(),
            arrivals: 0,
            skew: None,
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

    /// The bounds that it keeps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Whether the upstream is taken for dead: only probes go through.
    pub fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A request joins the queue.
    pub fn arrive(&mut self, urgency: Urgency) -> Ticket {
        self.arrivals += 1;
        let ticket = Ticket { deadline: urgency.deadline, number: self.arrivals };
        self.waiting.insert(ticket, urgency.retry);
        ticket
    }

    /// A request leaves the queue before its turn came; false where it had come.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// Lets the next request begin, where one may.
    pub fn next(&mut self, now: Instant) -> Next {
        let Some((&ticket, &retry)) = self.waiting.first_key_value() else { return Next::Wait };
        // First attempts never starve behind retries that wait for budget.
        let (ticket, retry) = match self.turn(now, retry) {
            Turn::WhenOneEnds if retry => match self.waiting.iter().find(|(_, retry)| !**retry) {
                Some((other, _)) if self.turn(now, false) == Turn::Now => (*other, false),
                _ => return Next::Wait,
            },
            Turn::WhenOneEnds => return Next::Wait,
            Turn::At(at) => return Next::At(at),
            Turn::Now => (ticket, retry),
        };
        self.waiting.remove(&ticket);
        self.begin(now, retry);
        Next::Go(ticket)
    }

    /// Notes a `Date` header: `server` and `local` in unix seconds.
    pub fn note_time(&mut self, server: f64, local: f64) {
        self.skew = Some(server - local);
    }

    /// Notes that the local clock stepped by that many seconds: what was measured before is off by as much.
    pub fn note_step(&mut self, seconds: f64) {
        self.skew = self.skew.map(|skew| skew - seconds);
    }

    /// Server time minus local time in seconds, where an answer has shown it.
    pub fn skew(&self) -> Option<f64> {
        self.skew
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

    /// A request is over; without a verdict it says nothing of the upstream's health.
    pub fn end(&mut self, now: Instant, verdict: Option<Verdict>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_without_budget_do_not_hold_up_first_attempts() {
        let now = Instant::now();
        let mut gate = Gate { budget: 0.0, ..Gate::new(Limits::default()) };
        let alone = gate.arrive(Urgency { deadline: 1, retry: true });
        let second = gate.arrive(Urgency { deadline: 1, retry: true });
        assert_eq!(gate.next(now), Next::Go(alone));
        assert_eq!(gate.next(now), Next::Wait, "a second retry went beside the first");
        let fresh = gate.arrive(Urgency { deadline: 5, retry: false });
        assert_eq!(gate.next(now), Next::Go(fresh));
        gate.end(now, Some(Verdict::Failed));
        gate.end(now, Some(Verdict::Healthy));
        assert_eq!(gate.next(now), Next::Go(second));
    }
}
