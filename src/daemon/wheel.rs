//! The event loop: it owns all mutable state, and everything that changes goes through it. Work is done in
//! tasks that report back; at most one rotation of a target is under way.

mod end;
mod hooks;
mod looks;
mod payments;
mod reloads;
mod rotations;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::ask::Ask;
use super::ask::Verdict;
use super::clock::{now_ms, offset};
use super::course::{Course, Timer, Timers, Told};
use super::cron::Ticker;
use super::errands::Errands;
use super::metrics::Counters;
use super::read::Accepted;
use super::rotation::{Finished, Held};
use super::scene::Scene;
use super::start::{Depth, Finding};
use super::status::Refused;
use super::touched::Touched;
use super::{Options, step, systemd};
use crate::record::append::Writer;
use crate::record::fold::{State, TargetState};
use crate::record::{Actor, Kind, Line, Reason};
use crate::schedule::cron::CronRule;
use crate::schedule::{Problem, Target};
use crate::sink::delivery::Delivered;

/// A place that was touched is looked at after that long, ms: our own writes touch places too.
const SETTLED: i64 = 1_000;
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

/// Why places were looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    Start,
    Reload,
    Beat(Depth),
}

/// The loop's state.
pub struct Wheel {
    options: Options,
    scene: Arc<Scene>,
    writer: Writer,
    state: State,
    courses: HashMap<Arc<str>, Course>,
    timers: Timers,
    tasks: JoinSet<Done>,
    errands: Errands,
    /// When those who wait were looked up last, unix ms.
    hooks_looked: i64,
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
        let courses = scene.plan.targets.iter().map(|t| (Arc::from(t.name.as_str()), Course::new(Arc::clone(t)))).collect();
        Self {
            options,
            scene,
            writer,
            state,
            courses,
            timers: Timers::new(),
            tasks: JoinSet::new(),
            errands: Errands::default(),
            hooks_looked: 0,
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
        self.look(all, Looking::Start);
        loop {
            self.run_due();
            let hooks = self.tell_hooks();
            if self.is_done() {
                break;
            }
            systemd::alive();
            let next = self.timers.first().map(|(at, ..)| *at).into_iter().chain(hooks).min();
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
                Some(rule) = self.ticks.1.recv() => self.tick(&rule),
                names = self.watched.next() => self.touched(&names),
                () = tokio::time::sleep(std::time::Duration::from_millis(u64::try_from(wake).unwrap_or(0))) => self.check_clock(),
            }
        }
        self.end().await;
    }

    fn is_done(&self) -> bool {
        self.options.once.is_some() && self.settled && self.tasks.is_empty() && self.timers.first().is_none_or(|(at, ..)| *at > now_ms())
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
            Done::Rotated(name, finished) => match finished {
                Some(finished) => self.rotated(&name, *finished),
                None => {
                    if let Some(course) = self.courses.get_mut(&name) {
                        course.rotating = false;
                    }
                }
            },
            Done::Paid(name, held, delivered, line) => self.paid(&name, &held, &delivered, line),
            Done::Looked(findings, why) => {
                for finding in findings {
                    match why {
                        Looking::Beat(depth) => self.looked(finding, depth).await,
                        Looking::Start | Looking::Reload => self.found(finding).await,
                    }
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

    /// Arms a target by its records and its plan.
    fn arm(&mut self, name: &Arc<str>) {
        let Some(course) = self.courses.get(name) else { return };
        let due = self.due(&course.target);
        self.arm_at(name, due);
    }

    /// When the target is due, on the local clock; judged by its API server's time.
    fn due(&self, target: &Target) -> Option<(i64, Reason)> {
        self.judge(target, self.state.targets.get(&target.name))
    }

    /// When a token that some place is owed is too old to be worth delivering, and another is minted.
    fn due_of(&self, target: &Target, held: &Held) -> Option<(i64, Reason)> {
        let time = |claim: Option<i64>| claim.and_then(|s| Timestamp::from_second(s).ok());
        let state = TargetState { issued_at: time(held.claims.iat), expires_at: time(held.claims.exp), ..TargetState::default() };
        self.judge(target, Some(&state))
    }

    fn judge(&self, target: &Target, state: Option<&TargetState>) -> Option<(i64, Reason)> {
        let skew = self.scene.cluster(&target.cluster).and_then(|c| c.upstream().skew());
        let local = Timestamp::now();
        let now = step::server_time(local, skew);
        let due = step::due(target, state, now, skew.is_some(), &self.scene.host);
        due.map(|(at, reason)| (at - (now.as_millisecond() - local.as_millisecond()), reason))
    }

    fn arm_at(&mut self, name: &Arc<str>, due: Option<(i64, Reason)>) {
        if let Some(course) = self.courses.get_mut(name) {
            course.arm(name, &mut self.timers, due);
        }
    }

    fn run_due(&mut self) {
        let now = now_ms();
        while let Some((at, name, timer)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Rotate => {
                    let reason = self.courses.get_mut(&name).and_then(|c| c.armed.take()).map_or(Reason::Lifetime, |(_, reason)| reason);
                    self.rotate(&name, reason, None);
                }
                Timer::Prove => {
                    let Some(course) = self.courses.get_mut(&name) else { continue };
                    let depth = course.prove_at.take().map_or(Depth::Files, |(_, depth)| depth);
                    if course.looking || course.rotating {
                        self.arm_look(&name, depth, SETTLED);
                        continue;
                    }
                    course.looking = true;
                    let target = Arc::clone(&course.target);
                    self.look(vec![target], Looking::Beat(depth));
                    // A quick look at a touched file must not put the next proof off for ever.
                    if depth == Depth::Files {
                        self.arm_next_proof(&name);
                    }
                }
                Timer::Pay => {
                    if let Some(course) = self.courses.get_mut(&name) {
                        course.pay_at = None;
                    }
                    self.pay(&name, None);
                }
            }
        }
    }

    /// After a step of the wall clock, or a sleep of the host, everything is judged anew.
    fn check_clock(&mut self) {
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
        let names: Vec<Arc<str>> = self.courses.keys().cloned().collect();
        for name in names {
            if self.courses.get(&name).is_some_and(|c| !c.rotating && c.failures == 0) {
                self.arm(&name);
            }
        }
    }

    /// A line for `systemctl status`.
    fn summary(&self) -> String {
        let refused = if self.refused.is_some() { "; the schedule file is refused, the one accepted last is served" } else { "" };
        format!("serving {} targets{refused}", self.courses.len())
    }

    async fn record(&mut self, line: Line) {
        self.state.apply(&line);
        self.writer.append(vec![line]).await;
    }
}
