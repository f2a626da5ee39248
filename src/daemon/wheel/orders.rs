//! Orders of the timetable, carried out: rotations, payments and looks begin, records are written, people told.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{Done, Wheel};
use crate::daemon::errands::announce;
use crate::daemon::rotation::{self, Held, Job, identify, sink_line, tell};
use crate::daemon::start::{self, Depth};
use crate::daemon::timetable::{Looking, Moment, Order, Payment, Turn, Wanted};
use crate::daemon::touched::Touched;
use crate::record::{Kind, Line};
use crate::schedule::Target;
use crate::sink::delivery::Delivered;

impl Wheel {
    /// Tells the timetable of an event, now, and does what it orders.
    pub(super) async fn event<T>(&mut self, tell: impl FnOnce(&mut crate::daemon::timetable::Timetable, &Moment<'_>) -> T) -> T {
        let scene = Arc::clone(&self.scene);
        let answer = tell(&mut self.table, &Moment { now: Timestamp::now(), world: &*scene });
        for order in self.table.orders() {
            match order {
                Order::Record(line) => {
                    rotation::tell(&line);
                    self.writer.append(vec![*line]).await;
                }
                Order::Rotate(turn) => self.rotate(turn),
                Order::Pay(payment) => self.pay(payment),
                Order::StopPaying(name) => {
                    if let Some(paying) = self.paying.remove(&name) {
                        paying.abort();
                    }
                }
                Order::Look(wanted, why) => self.look(wanted, why),
                Order::Tell(waiters, told) => {
                    for waiter in waiters {
                        // A caller that went away cancels nothing.
                        let _ = waiter.send(told.clone());
                    }
                    if self.options.once.is_some() {
                        self.outcomes.push(told);
                    }
                }
            }
        }
        answer
    }

    fn rotate(&mut self, turn: Turn) {
        let Turn { name, target, reason, actor, generation, in_use, failures } = turn;
        let (scene, writer, stop) = (Arc::clone(&self.scene), self.writer.clone(), self.stop.subscribe());
        let job = Job { target, scene, writer, reason, actor, generation, in_use, failures, stop };
        self.tasks.spawn(async move { Done::Rotated(name, rotation::rotate(job).await.map(Box::new)) });
    }

    fn pay(&mut self, payment: Payment) {
        let (scene, writer) = (Arc::clone(&self.scene), self.writer.clone());
        let Payment { name, target, held, places } = payment;
        let sent = Arc::clone(&name);
        let handle = self.tasks.spawn(async move {
            let mut tries: Vec<BoxFuture<'_, Delivered>> = Vec::with_capacity(places.len());
            for owed in &places {
                tries.push(Box::pin(rotation::pay(&target, &scene, &held, &target.deliver[owed.index], owed.served.clone())));
            }
            let delivered = futures_util::future::join_all(tries).await;
            let news = places.iter().zip(&delivered).filter(|(owed, d)| owed.before != Some(d.outcome));
            let lines: Vec<_> = news.map(|(owed, d)| sink_line(&target.deliver[owed.index], d)).collect();
            let line = (!lines.is_empty()).then(|| payment_line(&target, &held, lines));
            if let Some(line) = &line {
                tell(line);
                writer.append(vec![line.clone()]).await;
            }
            let delivered = places.into_iter().map(|owed| owed.index).zip(delivered).collect();
            Done::Paid(sent, held, delivered, line.map(Box::new))
        });
        self.paying.insert(name, handle);
    }

    fn look(&mut self, wanted: Vec<Wanted>, why: Looking) {
        let scene = Arc::clone(&self.scene);
        let depth = if let Looking::Beat(depth) = why { depth } else { Depth::Files };
        self.tasks.spawn(async move { Done::Looked(start::look(&scene, wanted, depth).await, why) });
    }

    pub(super) fn watch_places(&mut self) {
        if self.options.once.is_none() {
            self.watched = Touched::watch(&self.scene.plan);
        }
    }
}

/// The record of a payment.
pub fn payment_line(target: &Target, held: &Held, sinks: Vec<crate::record::SinkLine>) -> Line {
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
