//! Orders of the timetable, carried out: rotations, payments and looks begin, records are written, people told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;

use super::{Done, Wheel};
use crate::daemon::course::Told;
use crate::daemon::parts;
use crate::daemon::rotation::{self, Job, tell};
use crate::daemon::start;
use crate::daemon::timetable::payments::receipt;
use crate::daemon::timetable::{Looking, Moment, Order, Payment, Timetable, Turn, Wanted};
use crate::daemon::touched::Touched;
use crate::record::Line;
use crate::sink::delivery::Delivered;

/// Pause between two tries to learn a server's time.
const BEFORE_ASKING_AGAIN: Duration = Duration::from_secs(30);

impl Wheel {
    /// Tells the timetable of an event, now, and does what it orders.
    pub(super) async fn event<T>(&mut self, tell: impl FnOnce(&mut Timetable, &Moment<'_>) -> T) -> T {
        let scene = Arc::clone(&self.scene);
        let answer = tell(&mut self.table, &Moment { now: Timestamp::now(), world: &*scene });
        let mut lines = Vec::new();
        for order in self.table.orders() {
            // What comes after a record waits until it is durable; those that follow each other are so together.
            if !matches!(order, Order::Record(_)) {
                self.append(&mut lines).await;
            }
            match order {
                Order::Record(line) => {
                    rotation::tell(&line);
                    lines.push(*line);
                }
                Order::Rotate(turn) => self.rotate(turn),
                Order::Pay(payment) => self.pay(payment),
                Order::StopPaying(name) => {
                    if let Some(paying) = self.paying.remove(&name) {
                        paying.abort();
                    }
                }
                Order::Clear(clearing) => self.clear(*clearing),
                Order::Leave(removals) => self.leave(*removals),
                Order::Revoke(revocation) => self.revoke(*revocation),
                Order::Begin(looks) => self.begin(looks),
                Order::Look(wanted, why) => self.look(wanted, why),
                Order::AskTime(cluster) => self.ask_time(cluster),
                Order::Tell(waiters, told) => {
                    for waiter in waiters {
                        // A caller that went away cancels nothing.
                        let _ = waiter.send((*told).clone());
                    }
                    if self.options.once.is_some() {
                        self.ended(*told);
                    }
                }
            }
        }
        self.append(&mut lines).await;
        answer
    }

    async fn append(&mut self, lines: &mut Vec<Line>) {
        if !lines.is_empty() {
            self.writer.append(std::mem::take(lines)).await;
        }
    }

    /// Keeps an outcome of `once`, and counts it for whoever watches.
    pub(super) fn ended(&mut self, told: Told) {
        if let Some(once) = &self.options.once {
            once.told.fetch_add(1, Ordering::Relaxed);
        }
        self.outcomes.push(told);
    }

    fn rotate(&mut self, turn: Box<Turn>) {
        let name = Arc::clone(&turn.name);
        let job = Job { turn, scene: Arc::clone(&self.scene), writer: self.writer.clone(), stop: self.stop.subscribe() };
        self.tasks.spawn(async move { Done::Rotated(name, rotation::rotate(job).await.map(Box::new)) });
    }

    fn pay(&mut self, payment: Payment) {
        let (scene, writer) = (Arc::clone(&self.scene), self.writer.clone());
        let name = Arc::clone(&payment.name);
        let handle = self.tasks.spawn(async move {
            let Payment { target, held, places, .. } = &payment;
            let mut tries: Vec<BoxFuture<'_, Delivered>> = Vec::with_capacity(places.len());
            for owed in places {
                tries.push(Box::pin(rotation::pay(target, &scene, held, &target.deliver[owed.index], owed.served.clone())));
            }
            let delivered = futures_util::future::join_all(tries).await;
            let line = receipt(&payment, &delivered, Timestamp::now());
            if let Some(line) = &line {
                tell(line);
                writer.append(vec![line.clone()]).await;
            }
            let delivered = payment.places.iter().map(|owed| owed.index).zip(delivered).collect();
            Done::Paid(payment.name, payment.held, delivered, line.map(Box::new))
        });
        self.paying.insert(name, handle);
    }

    fn begin(&mut self, looks: Vec<Vec<Wanted>>) {
        let targets: Vec<_> = looks.iter().flatten().map(|(target, _)| Arc::clone(target)).collect();
        // Once for all of them: they share their folders.
        let swept = async move { parts::sweep(&targets).await }.boxed().shared();
        for wanted in looks {
            let (scene, swept) = (Arc::clone(&self.scene), swept.clone());
            self.unsettled += 1;
            self.tasks.spawn(async move {
                swept.await;
                Done::Looked(start::look(&scene, wanted, Looking::Start).await, Looking::Start)
            });
        }
    }

    fn look(&mut self, wanted: Vec<Wanted>, why: Looking) {
        let scene = Arc::clone(&self.scene);
        self.tasks.spawn(async move { Done::Looked(start::look(&scene, wanted, why).await, why) });
    }

    /// Asks an API server for its time, again and again until it answers.
    fn ask_time(&mut self, name: String) {
        let Some(cluster) = self.scene.cluster(&name).cloned() else { return };
        let mut stop = self.stop.subscribe();
        self.tasks.spawn(async move {
            let told = async {
                while !cluster.ask_time().await {
                    tokio::time::sleep(BEFORE_ASKING_AGAIN).await;
                }
            };
            tokio::select! {
                () = told => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            Done::ToldTime(name)
        });
    }

    pub(super) fn watch_places(&mut self) {
        if self.options.once.is_none() {
            self.watched = Touched::watch(&self.scene.plan);
        }
    }

    /// The folders that a delivery has made are watched from now on.
    pub(super) fn watch_made(&mut self, name: &str) {
        if let Some(target) = self.scene.plan.target(name) {
            self.watched.again(target);
        }
    }
}
