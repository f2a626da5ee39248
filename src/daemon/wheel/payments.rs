//! Payments of the loop: places that are owed a token get it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{Done, Wheel};
use crate::daemon::clock::{now_ms, share};
use crate::daemon::course::Told;
use crate::daemon::errands::announce;
use crate::daemon::rotation::{self, Fault, Held, identify, sink_line, tell};
use crate::daemon::step;
use crate::record::{Kind, Line, Outcome};
use crate::schedule::Target;
use crate::sink::delivery::Delivered;

/// A place by its index, the fallback that holds the token meanwhile, and what was recorded of it.
type Owed = (usize, Option<(usize, String)>, Option<Outcome>);

impl Wheel {
    /// Tries owed places again: these, or those that the records name.
    pub(super) fn pay(&mut self, name: &Arc<str>, places: Option<Vec<usize>>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        if course.rotating || course.paying.is_some() {
            return;
        }
        let Some(held) = course.held.clone() else { return };
        let state = self.state.targets.get(&**name);
        let recorded = |index: &usize| {
            let place = &course.target.deliver[*index];
            let (sink, at) = (place.sink.kind(), place.sink.place());
            state.and_then(|s| s.places.iter().find(|p| p.sink == sink && p.place == at))
        };
        let owed = |index: &usize| recorded(index).is_some_and(|p| p.owed());
        let places = places.unwrap_or_else(|| (0..course.target.deliver.len()).filter(owed).collect());
        let work: Vec<Owed> = places
            .into_iter()
            .map(|index| {
                let at = recorded(&index);
                let fallback = at.and_then(|p| p.fallback.clone()).filter(|_| at.is_some_and(|p| p.outcome == Outcome::FellBack));
                let served =
                    fallback.and_then(|f| course.target.deliver[index].fallback.iter().position(|p| p.sink.place() == f).map(|i| (i, f)));
                (index, served, at.map(|p| p.outcome))
            })
            .collect();
        if work.is_empty() {
            course.held = None;
            return;
        }
        let (target, scene, writer) = (Arc::clone(&course.target), Arc::clone(&self.scene), self.writer.clone());
        let sent = Arc::clone(name);
        let handle = self.tasks.spawn(async move {
            let mut tries: Vec<BoxFuture<'_, Delivered>> = Vec::with_capacity(work.len());
            for (index, served, _) in &work {
                tries.push(Box::pin(rotation::pay(&target, &scene, &held, &target.deliver[*index], served.clone())));
            }
            let delivered = futures_util::future::join_all(tries).await;
            let mut lines = Vec::new();
            for ((index, _, before), d) in work.iter().zip(&delivered) {
                if *before != Some(d.outcome) {
                    lines.push(sink_line(&target.deliver[*index], d));
                }
            }
            let line = (!lines.is_empty()).then(|| payment(&target, &held, lines));
            if let Some(line) = &line {
                tell(line);
                writer.append(vec![line.clone()]).await;
            }
            let delivered = work.into_iter().map(|(index, ..)| index).zip(delivered).collect();
            Done::Paid(sent, held, delivered, line.map(Box::new))
        });
        course.paying = Some(handle);
    }

    pub(super) fn paid(&mut self, name: &Arc<str>, held: &Arc<Held>, delivered: &[(usize, Delivered)], line: Option<Box<Line>>) {
        if let Some(line) = &line {
            self.state.apply(line);
        }
        let Some(course) = self.courses.get_mut(name) else { return };
        course.paying = None;
        if course.held.as_ref().is_some_and(|now| !Arc::ptr_eq(now, held)) {
            return;
        }
        let owed: Vec<&Delivered> = delivered.iter().map(|(_, d)| d).filter(|d| d.outcome.is_owed()).collect();
        if owed.is_empty() {
            course.held = None;
            course.tries = 0;
            course.failures = 0;
        } else if self.options.once.is_none() {
            course.tries += 1;
            let fault =
                owed.iter().map(|d| rotation::fault_of(d)).max_by_key(|f| f.passing).unwrap_or(Fault { passing: true, retry_after: None });
            let life = self.state.targets.get(&**name).and_then(step::life);
            let at = step::retry(now_ms(), course.tries, fault, life, share());
            course.arm_pay(name, &mut self.timers, Some(at));
        }
        if !course.rotating && course.armed.is_none() && self.options.once.is_none() {
            self.arm(name);
        }
        if let Some(line) = line
            && self.options.once.is_some()
        {
            let standing = self.standing(name);
            self.outcomes.push(Told { line: *line, standing });
        }
    }
}

fn payment(target: &Target, held: &Held, sinks: Vec<crate::record::SinkLine>) -> Line {
    let mut line = Line::new(Kind::Paid, Timestamp::now());
    identify(&mut line, target);
    line.generation = Some(held.generation);
    line.jti = Some(held.issue());
    line.issued_at = held.claims.iat.and_then(|s| Timestamp::from_second(s).ok());
    line.expires_at = held.claims.exp.and_then(|s| Timestamp::from_second(s).ok());
    line.sinks = sinks;
    announce(&mut line, target);
    line
}
