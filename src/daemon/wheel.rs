//! The event loop: it tells the timetable what happens, and carries out what the timetable orders. Work is done
//! in tasks that report back; at most one rotation of a target is under way.

mod clearings;
mod end;
mod fleet;
mod heads;
mod hooks;
mod leaves;
mod orders;
mod outward;
mod own;
mod prepare;
mod rehearsals;
mod reloads;
mod revocations;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::Options;
use super::ask::{Ask, Explicit, Verdict};
use super::clock::{Clocks, Steps, now_ms};
use super::course::Told;
use super::cron::{self, Ticker};
use super::errands::Errands;
use super::metrics::Counters;
use super::rotation::{Finished, Held};
use super::scene::Scene;
use super::start::Finding;
use super::status::Refused;
use super::systemd::Watchdog;
use super::timetable::revocations::Outcome;
use super::timetable::{Looking, Manner, Removed, Timetable};
use super::touched::Touched;
use crate::record::append::Writer;
use crate::record::fold::State;
use crate::record::{Kind, Line};
use crate::schedule::cron::CronRule;
use crate::schedule::{Problem, Target};
use crate::sink::delivery::Delivered;
use crate::token::wipe;
use prepare::Prepared;

/// Longest sleep, ms: steps of the wall clock that the kernel does not tell of are noticed by then at the latest.
const LONGEST_SLEEP: i64 = 60_000;
/// The same where the kernel tells of none.
const BLIND_SLEEP: i64 = 15_000;

/// What a task reports.
enum Done {
    Rotated(Arc<str>, Option<Box<Finished>>),
    Paid(Arc<str>, Arc<Held>, Vec<(usize, Delivered)>, Option<Box<Line>>),
    Cleared(Arc<str>, Option<Box<Line>>),
    Left(Arc<str>, Box<Removed>),
    Found(Box<revocations::Found>),
    Revoked(Arc<str>, Vec<Outcome>),
    Looked(Vec<Finding>, Looking),
    ToldTime(String),
    Rehearsed,
    Told(Box<hooks::Told>),
    Outward(Box<outward::News>),
    Kept,
    Planned(Box<Result<Prepared, Vec<Problem>>>, Option<Explicit>, Option<oneshot::Sender<Verdict>>),
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
    /// Reloads that wait for the one under way.
    reloads: VecDeque<(Option<Explicit>, Option<oneshot::Sender<Verdict>>)>,
    reloading: bool,
    steps: Steps,
    stop: watch::Sender<bool>,
    refused: Option<Refused>,
    counters: Counters,
    since: Timestamp,
    /// Parts of the start that are still under way: looks, and what is left beside the records.
    unsettled: usize,
    /// The clocks at the last look.
    clocks: Clocks,
    watchdog: Watchdog,
    /// Never asleep for longer, ms: clock and watchdog want a look.
    longest_sleep: i64,
    /// The head of the records that the log was last told, and when.
    head_told: heads::Told,
    outward: outward::Outward,
    sharing: fleet::Sharing,
    /// Results of `once`.
    pub outcomes: Vec<Told>,
}

impl Wheel {
    /// A loop that has not begun.
    pub fn new(options: Options, scene: Arc<Scene>, writer: Writer, state: State, refused: Option<Refused>) -> Self {
        let manner = Manner { once: options.once.is_some(), force: options.once.as_ref().is_some_and(|once| once.force) };
        let watchdog = Watchdog::of_this_process();
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
            reloads: VecDeque::new(),
            reloading: false,
            steps: Steps::default(),
            stop: watch::channel(false).0,
            refused,
            counters: Counters::default(),
            since: Timestamp::now(),
            unsettled: 0,
            clocks: Clocks::now(),
            longest_sleep: watchdog
                .every()
                .map_or(LONGEST_SLEEP, |every| i64::try_from(every.as_millis()).unwrap_or(LONGEST_SLEEP).clamp(10, LONGEST_SLEEP)),
            watchdog,
            head_told: heads::Told::default(),
            outward: outward::Outward::default(),
            sharing: fleet::Sharing::default(),
            outcomes: Vec::new(),
        }
    }

    /// Runs until asked to stop or, for `once`, until nothing is left to do.
    pub async fn run(&mut self, mut asks: mpsc::Receiver<Ask>, notify: impl Fn(&str)) {
        let mut line = Line::new(Kind::Started, Timestamp::now());
        line.schedule = Some(self.scene.plan.sha256.clone());
        self.record(line).await;
        self.clocks = Clocks::now();
        self.steps = Steps::watch();
        if !self.steps.are_noticed() {
            self.longest_sleep = self.longest_sleep.min(BLIND_SLEEP);
        }
        self.start_ticker(cron::rules(&self.scene.plan)).await;
        self.join_fleet();
        let meant = |target: &&Arc<Target>| self.meant(target) && !self.table.is_elsewhere(&target.name);
        let all: Vec<Arc<Target>> = self.scene.plan.targets.iter().filter(meant).cloned().collect();
        match self.options.once.as_ref().and_then(|once| once.withdraw.clone()) {
            Some(actor) => self.withdraw(&all, &actor).await,
            None => self.event(|table, _| table.begin(all)).await,
        }
        self.watch_places();
        self.remember();
        loop {
            self.check_clock().await;
            self.event(Timetable::run_due).await;
            let unasked = self.outward().await;
            let hooks = self.tell_hooks();
            if self.is_done() {
                break;
            }
            self.watchdog.alive();
            self.tell_head(false);
            let next = self.table.next().into_iter().chain(hooks).chain(unasked).chain(self.head_due()).min();
            let wake = next.map_or(self.longest_sleep, |at| (at - now_ms()).clamp(0, self.longest_sleep));
            // In no order: in a storm of rotations there is always one that has just ended, and who asks would wait for the last.
            tokio::select! {
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
                () = self.steps.next() => {}
                () = self.sharing.changed() => self.share().await,
                touches = self.watched.next() => self.event(|table, moment| table.touched(&touches, moment)).await,
                _ = self.outward.touched.next() => self.touched_monitored(),
                () = tokio::time::sleep(std::time::Duration::from_millis(u64::try_from(wake).unwrap_or(0))) => {}
            }
        }
        self.end().await;
    }

    fn is_done(&self) -> bool {
        self.options.once.is_some() && self.unsettled == 0 && self.tasks.is_empty() && self.table.next().is_none_or(|at| at > now_ms())
    }

    fn meant(&self, target: &Target) -> bool {
        self.options.once.as_ref().is_none_or(|once| (once.selector)(target))
    }

    async fn start_ticker(&mut self, rules: Vec<CronRule>) {
        self.ticker.stop().await;
        if self.options.once.is_some() {
            return;
        }
        match Ticker::start(rules, &self.ticks.0).await {
            Ok(ticker) => self.ticker = ticker,
            Err(error) => tracing::error!(%error, "the cron scheduler did not start; rotations by lifetime go on"),
        }
    }

    async fn done(&mut self, done: Done, notify: &impl Fn(&str)) {
        match done {
            Done::Rotated(name, Some(finished)) => {
                self.counters.count(&finished);
                self.event(|table, moment| table.rotated(&name, *finished, moment)).await;
                self.watch_made(&name);
                self.alarm(&name);
            }
            Done::Rotated(name, None) => self.table.gave_up(&name),
            Done::Paid(name, held, delivered, line) => {
                self.paying.remove(&name);
                self.event(|table, moment| table.paid(&name, &held, &delivered, line.map(|l| *l), moment)).await;
                self.watch_made(&name);
            }
            Done::Cleared(name, line) => {
                if let Some(line) = line {
                    self.event(|table, moment| table.cleared(&name, &line, moment)).await;
                }
            }
            Done::Left(name, removed) => self.event(|table, moment| table.left(&name, *removed, moment)).await,
            Done::Found(found) => self.found(*found).await,
            Done::Revoked(name, outcomes) => self.event(|table, moment| table.revoked(&name, outcomes, moment)).await,
            Done::Looked(findings, why) => {
                self.event(|table, moment| {
                    for finding in findings {
                        match why {
                            Looking::Beat(depth) => table.looked(finding, depth, moment),
                            Looking::Mint(reason) => table.before_mint(finding, reason, moment),
                            Looking::Start | Looking::Reload | Looking::Takeover => table.found(finding, moment),
                        }
                    }
                })
                .await;
                if why == Looking::Start {
                    self.settled(notify);
                }
            }
            Done::ToldTime(cluster) => self.event(|table, moment| table.told_time(&cluster, moment)).await,
            Done::Rehearsed => {}
            Done::Told(told) => self.told(*told).await,
            Done::Outward(news) => self.heard(*news).await,
            Done::Kept => {
                self.kept();
                self.settled(notify);
            }
            Done::Planned(result, actor, reply) => self.planned(*result, actor, reply).await,
        }
    }

    /// One more part of the start is over.
    fn settled(&mut self, notify: &impl Fn(&str)) {
        self.unsettled -= 1;
        if self.unsettled == 0 {
            notify(&self.summary());
            drop(tokio::task::spawn_blocking(wipe::give_back));
        }
    }

    /// After a step of the wall clock, or a sleep of the host, everything is judged anew.
    async fn check_clock(&mut self) {
        let now = Clocks::now();
        let Some(jump) = now.jump_since(self.clocks) else { return };
        self.clocks = now;
        tracing::warn!(set = jump.set, slept = jump.slept, "the clock stepped (ms); every target is judged anew");
        for cluster in self.scene.clusters.iter() {
            cluster.upstream().note_step(jump.set);
        }
        self.event(|table, moment| table.stepped(jump.set, moment)).await;
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
