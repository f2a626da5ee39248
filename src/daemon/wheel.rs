//! The event loop: it tells the timetable what happens, and carries out what the timetable orders. Work is done
//! in tasks that report back; at most one rotation of a target is under way.

mod end;
mod hooks;
mod orders;
mod reloads;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::ask::Ask;
use super::ask::Verdict;
use super::clock::{now_ms, offset};
use super::course::Told;
use super::cron::Ticker;
use super::errands::Errands;
use super::metrics::Counters;
use super::read::Accepted;
use super::rotation::{Finished, Held};
use super::scene::Scene;
use super::start::Finding;
use super::status::Refused;
use super::timetable::{Looking, Manner, Timetable};
use super::touched::Touched;
use super::{Options, systemd};
use crate::record::append::Writer;
use crate::record::fold::State;
use crate::record::{Actor, Kind, Line};
use crate::schedule::cron::CronRule;
use crate::schedule::{Problem, Target};
use crate::sink::delivery::Delivered;

/// Longest sleep: a step of the wall clock is noticed by then at the latest.
const LONGEST_SLEEP: i64 = 15_000;
/// A step of the wall clock beyond that has everything judged anew, milliseconds.
const STEP: i64 = 5_000;

/// What a task reports.
enum Done {
    Rotated(Arc<str>, Option<Box<Finished>>),
    Paid(Arc<str>, Arc<Held>, Vec<(usize, Delivered)>, Option<Box<Line>>),
    Looked(Vec<Finding>, Looking),
    Told(Box<hooks::Told>),
    Planned(Box<Result<Accepted, Vec<Problem>>>, Option<Actor>, Option<oneshot::Sender<Verdict>>),
}

/// The loop's state.
pub struct Wheel {
    options: Options,
    scene: Arc<Scene>,
    writer: Writer,
    /// What happens next to which target.
    table: Timetable,
    tasks: JoinSet<Done>,
    errands: Errands,
    /// When those who wait were looked up last, unix ms.
    hooks_looked: i64,
    /// Payments under way.
    paying: HashMap<Arc<str>, AbortHandle>,
    ticker: Ticker,
    ticks: (mpsc::UnboundedSender<CronRule>, mpsc::UnboundedReceiver<CronRule>),
    watched: Touched,
    stop: watch::Sender<bool>,
    refused: Option<Refused>,
    counters: Counters,
    since: Timestamp,
    settled: bool,
    /// Wall clock less monotonic clock, ms, at the last look.
    offset: i64,
    /// Never asleep for longer, ms: clock and watchdog want a look.
    longest_sleep: i64,
    /// Results of `once`.
    pub outcomes: Vec<Told>,
}

impl Wheel {
    /// A loop that has not begun.
    pub fn new(options: Options, scene: Arc<Scene>, writer: Writer, state: State, refused: Option<Refused>) -> Self {
        let manner = Manner { once: options.once.is_some(), force: options.once.as_ref().is_some_and(|once| once.force) };
        let table = Timetable::new(Arc::clone(&scene.plan), scene.host.clone(), manner, state);
        Self {
            options,
            scene,
            writer,
            table,
            tasks: JoinSet::new(),
            errands: Errands::default(),
            hooks_looked: 0,
            paying: HashMap::new(),
            ticker: Ticker::default(),
            ticks: mpsc::unbounded_channel(),
            watched: Touched::default(),
            stop: watch::channel(false).0,
            refused,
            counters: Counters::default(),
            since: Timestamp::now(),
            settled: false,
            offset: 0,
            longest_sleep: systemd::watchdog()
                .map_or(LONGEST_SLEEP, |every| i64::try_from(every.as_millis()).unwrap_or(LONGEST_SLEEP).clamp(10, LONGEST_SLEEP)),
            outcomes: Vec::new(),
        }
    }

    /// Runs until asked to stop or, for `once`, until nothing is left to do.
    pub async fn run(&mut self, mut asks: mpsc::Receiver<Ask>, notify: impl Fn(&str)) {
        let mut line = Line::new(Kind::Started, Timestamp::now());
        line.schedule = Some(self.scene.plan.sha256.clone());
        self.record(line).await;
        self.offset = offset();
        self.start_ticker().await;
        let all = self.scene.plan.targets.iter().filter(|t| self.meant(t)).cloned().collect();
        self.event(|table, _| table.begin(all)).await;
        loop {
            self.event(Timetable::run_due).await;
            let hooks = self.tell_hooks();
            if self.is_done() {
                break;
            }
            systemd::alive();
            let next = self.table.next().into_iter().chain(hooks).min();
            let wake = next.map_or(self.longest_sleep, |at| (at - now_ms()).clamp(0, self.longest_sleep));
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(done) => self.done(done, &notify).await,
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                ask = asks.recv() => match ask {
                    None | Some(Ask::Stop) => break,
                    Some(ask) => self.answer(ask).await,
                },
                Some(rule) = self.ticks.1.recv() => self.event(|table, moment| table.tick(&rule, moment)).await,
                names = self.watched.next() => self.event(|table, moment| table.touched(&names, moment)).await,
                () = tokio::time::sleep(std::time::Duration::from_millis(u64::try_from(wake).unwrap_or(0))) => self.check_clock().await,
            }
        }
        self.end().await;
    }

    fn is_done(&self) -> bool {
        self.options.once.is_some() && self.settled && self.tasks.is_empty() && self.table.next().is_none_or(|at| at > now_ms())
    }

    fn meant(&self, target: &Target) -> bool {
        self.options.once.as_ref().is_none_or(|once| (once.selector)(target))
    }

    async fn start_ticker(&mut self) {
        self.ticker.stop().await;
        if self.options.once.is_some() {
            return;
        }
        match Ticker::start(&self.scene.plan, &self.ticks.0).await {
            Ok(ticker) => self.ticker = ticker,
            Err(error) => tracing::error!(%error, "the cron scheduler did not start; rotations by lifetime go on"),
        }
    }

    async fn done(&mut self, done: Done, notify: &impl Fn(&str)) {
        match done {
            Done::Rotated(name, Some(finished)) => {
                self.counters.count(&finished);
                self.event(|table, moment| table.rotated(&name, *finished, moment)).await;
            }
            Done::Rotated(name, None) => self.table.gave_up(&name),
            Done::Paid(name, held, delivered, line) => {
                self.paying.remove(&name);
                self.event(|table, moment| table.paid(&name, &held, &delivered, line.map(|l| *l), moment)).await;
            }
            Done::Looked(findings, why) => {
                for finding in findings {
                    self.event(|table, moment| match why {
                        Looking::Beat(depth) => table.looked(finding, depth, moment),
                        Looking::Start | Looking::Reload => table.found(finding, moment),
                    })
                    .await;
                }
                if why == Looking::Start {
                    self.settled = true;
                    self.watch_places();
                    notify(&self.summary());
                }
            }
            Done::Told(told) => self.told(*told).await,
            Done::Planned(result, actor, reply) => self.planned(*result, actor, reply).await,
        }
    }

    /// After a step of the wall clock, or a sleep of the host, everything is judged anew.
    async fn check_clock(&mut self) {
        let now = offset();
        if (now - self.offset).abs() < STEP {
            return;
        }
        tracing::warn!(milliseconds = now - self.offset, "the clock stepped; every target is judged anew");
        #[allow(clippy::cast_precision_loss)]
        let seconds = (now - self.offset) as f64 / 1000.0;
        self.offset = now;
        for cluster in self.scene.clusters.iter() {
            cluster.upstream().note_step(seconds);
        }
        self.event(Timetable::stepped).await;
    }

    /// A line for `systemctl status`.
    fn summary(&self) -> String {
        let refused = if self.refused.is_some() { "; the schedule file is refused, the one accepted last is served" } else { "" };
        format!("serving {} targets{refused}", self.table.courses.len())
    }

    async fn record(&mut self, line: Line) {
        self.table.state.apply(&line);
        self.writer.append(vec![line]).await;
    }
}
