//! Payments: places that are owed a token get it.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Moment, Order, Owed, Payment, Timetable};
use crate::daemon::course::Told;
use crate::daemon::errands::announce;
use crate::daemon::rotation::{self, Fault, Held, identify, sink_line};
use crate::daemon::step;
use crate::record::{Kind, Line, Outcome};
use crate::sink::delivery::Delivered;

impl Timetable {
    /// Tries owed places again: these, or those that the records name.
    pub(super) fn pay(&mut self, name: &Arc<str>, places: Option<Vec<usize>>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        if course.rotating || course.paying {
            return;
        }
        let Some(held) = course.debt.held.clone() else { return };
        let state = self.state.target(name);
        let recorded = |index: usize| {
            let place = &course.target.deliver[index];
            let (sink, at) = (place.sink.kind(), place.sink.place());
            state.and_then(|s| s.place(sink, &at))
        };
        let owed = |index: &usize| recorded(*index).is_some_and(|p| p.owed());
        let places = places.unwrap_or_else(|| (0..course.target.deliver.len()).filter(owed).collect());
        let work: Vec<Owed> = places
            .into_iter()
            .map(|index| {
                let at = recorded(index);
                let fallback = at.and_then(|p| p.detour.fallback.clone()).filter(|_| at.is_some_and(|p| p.outcome == Outcome::FellBack));
                let served =
                    fallback.and_then(|f| course.target.deliver[index].fallback.iter().position(|p| p.sink.place() == f).map(|i| (i, f)));
                Owed { index, served, before: at.map(|p| p.outcome) }
            })
            .collect();
        if work.is_empty() {
            course.debt.edit().held = None;
            return;
        }
        course.paying = true;
        self.orders.push(Order::Pay(Payment { name: Arc::clone(name), target: Arc::clone(&course.target), held, places: work }));
    }

    /// Takes what came of a payment; `line` is its record, where it had one.
    pub fn paid(&mut self, name: &Arc<str>, held: &Arc<Held>, delivered: &[(usize, Delivered)], line: Option<Line>, moment: &Moment<'_>) {
        if let Some(line) = &line {
            self.state.apply(line);
        }
        let Some(course) = self.courses.get_mut(name) else { return };
        course.paying = false;
        if course.debt.held.as_ref().is_some_and(|now| !Arc::ptr_eq(now, held)) {
            return;
        }
        let owed: Vec<&Delivered> = delivered.iter().map(|(_, d)| d).filter(|d| d.outcome.is_owed()).collect();
        if owed.is_empty() {
            let mut debt = course.debt.edit();
            (debt.held, debt.tries) = (None, 0);
            drop(debt);
            course.failures = 0;
        } else if !self.manner.once {
            course.debt.edit().tries += 1;
            let fault =
                owed.iter().map(|d| rotation::fault_of(d)).max_by_key(|f| f.passing).unwrap_or(Fault { passing: true, retry_after: None });
            let life = self.state.target(name).and_then(step::life);
            let at = step::retry(moment.ms(), course.debt.tries, fault, life, moment.world.share());
            course.arm_pay(name, &mut self.timers, Some(at));
        }
        self.arm_clear(name, moment);
        self.arm_revoke(name, moment);
        let Some(course) = self.courses.get(name) else { return };
        if !course.rotating && course.armed.is_none() && !self.manner.once {
            self.arm(name, moment);
        }
        if let Some(line) = line
            && self.manner.once
        {
            let standing = self.standing(name, moment.now);
            self.orders.push(Order::Tell(Vec::new(), Box::new(Told { line, standing })));
        }
    }
}

/// The record of a payment: the places whose outcome is another one now; none where nothing changed. Pure.
pub fn receipt(payment: &Payment, delivered: &[Delivered], now: Timestamp) -> Option<Line> {
    let Payment { target, held, places, .. } = payment;
    let news = places.iter().zip(delivered).filter(|(owed, d)| owed.before != Some(d.outcome));
    let sinks: Vec<_> = news.map(|(owed, d)| sink_line(&target.deliver[owed.index], d)).collect();
    if sinks.is_empty() {
        return None;
    }
    let mut line = Line::new(Kind::Paid, now);
    identify(&mut line, target);
    line.generation = Some(held.generation);
    line.jti = Some(held.issue());
    line.issued_at = held.claims.iat.and_then(|s| Timestamp::from_second(s).ok());
    line.expires_at = held.claims.exp.and_then(|s| Timestamp::from_second(s).ok());
    line.sinks = sinks;
    announce(&mut line, target);
    Some(line)
}
