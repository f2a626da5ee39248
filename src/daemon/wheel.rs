//! The event loop: it owns all mutable state, and everything that changes goes through it. Work is done in
//! tasks that report back; at most one rotation of a target is under way.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::course::{Course, Timer, Timers, Told};
use super::cron::Ticker;
use super::read::{self, Accepted};
use super::rotation::{self, Fault, Finished, Held, Job, identify, sink_line, tell};
use super::scene::Scene;
use super::start::{self, Finding};
use super::status::{Refused, Status, View};
use super::{Options, step};
use crate::record::append::Writer;
use crate::record::fold::State;
use crate::record::{Actor, Kind, Line, Outcome, Reason};
use crate::schedule::change::Change;
use crate::schedule::cron::CronRule;
use crate::schedule::{Problem, Target};
use crate::sink::delivery::Delivered;

/// Longest sleep: a step of the wall clock is noticed by then at the latest.
const LONGEST_SLEEP: i64 = 15_000;
/// A step of the wall clock beyond that has everything judged anew, milliseconds.
const STEP: i64 = 5_000;
/// What is in flight at the end may take that long.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(30);

/// What others ask of the loop.
pub enum Ask {
    /// How the targets that it selects stand.
    Status(Selector, oneshot::Sender<Status>),
    /// Rotate now; the answer names what was taken on, the channel tells each outcome.
    Rotate(Selector, Actor, mpsc::UnboundedSender<Told>, oneshot::Sender<Vec<String>>),
    /// Take the schedule again.
    Reload(Option<Actor>, oneshot::Sender<Verdict>),
    /// End in good order.
    Stop,
}

/// Chooses targets: takes a target, says whether it is meant.
pub type Selector = Box<dyn Fn(&Target) -> bool + Send>;

/// What became of a reload.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the schedule is in force.
    pub accepted: bool,
    /// What is wrong with it, or smells.
    pub problems: Vec<Problem>,
    /// What changed.
    #[serde(flatten)]
    pub change: Change,
}

/// What a task reports.
enum Done {
    Rotated(Arc<str>, Option<Box<Finished>>),
    Paid(Arc<str>, Arc<Held>, Vec<(usize, Delivered)>, Option<Box<Line>>),
    Looked(Vec<Finding>, Looking),
    Planned(Box<Result<Accepted, Vec<Problem>>>, Option<Actor>, Option<oneshot::Sender<Verdict>>),
}

/// Why places were looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    Start,
    Reload,
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
    ticker: Ticker,
    ticks: (mpsc::UnboundedSender<CronRule>, mpsc::UnboundedReceiver<CronRule>),
    stop: watch::Sender<bool>,
    refused: Option<Refused>,
    since: Timestamp,
    settled: bool,
    /// Wall clock less monotonic clock, ms, at the last look.
    offset: i64,
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
            ticker: Ticker::default(),
            ticks: mpsc::unbounded_channel(),
            stop: watch::channel(false).0,
            refused,
            since: Timestamp::now(),
            settled: false,
            offset: 0,
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
            if self.is_done() {
                break;
            }
            let wake = self.timers.first().map_or(LONGEST_SLEEP, |(at, ..)| (at - now_ms()).clamp(0, LONGEST_SLEEP));
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

    /// Lets what is in flight finish and records it; what waits for its turn never begins.
    async fn end(&mut self) {
        self.ticker.stop().await;
        self.stop.send_replace(true);
        for course in self.courses.values_mut() {
            if let Some(paying) = course.paying.take() {
                paying.abort();
            }
        }
        let farewell = tokio::time::sleep(FAREWELL);
        tokio::pin!(farewell);
        while !self.tasks.is_empty() {
            tokio::select! {
                done = self.tasks.join_next() => if let Some(Ok(Done::Rotated(name, Some(finished)))) = done {
                    self.rotated(&name, *finished);
                },
                () = &mut farewell => {
                    tracing::error!(tasks = self.tasks.len(), "some work did not end in time and is given up; the next start picks it up");
                    break;
                }
            }
        }
        self.tasks.abort_all();
        if self.options.once.is_none() {
            self.record(Line::new(Kind::Stopped, Timestamp::now())).await;
        }
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

    /// Has the places of these targets looked at, orphaned temporary files removed on the way.
    fn look(&mut self, targets: Vec<Arc<Target>>, why: Looking) {
        let scene = Arc::clone(&self.scene);
        let wanted = targets.into_iter().map(|t| { let state = self.state.targets.get(&t.name).cloned(); (t, state) }).collect();
        self.tasks.spawn(async move { Done::Looked(start::look(&scene, wanted).await, why) });
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
                    self.found(finding).await;
                }
                if why == Looking::Start {
                    self.settled = true;
                    let ready = format!("serving {} targets", self.courses.len());
                    notify(&ready);
                }
            }
            Done::Planned(result, actor, reply) => self.planned(*result, actor, reply).await,
        }
    }

    /// Takes what a look at a target's places has shown.
    async fn found(&mut self, finding: Finding) {
        let name: Arc<str> = Arc::from(finding.target.name.as_str());
        for note in &finding.notes {
            tracing::warn!(target_name = &*name, "{note}");
        }
        if let Some(line) = finding.adopted {
            tell(&line);
            self.record(line).await;
        }
        let Some(course) = self.courses.get_mut(&name) else { return };
        course.notes = finding.notes;
        if let Some((held, places)) = finding.copy {
            course.held = Some(held);
            let paying = places.clone();
            self.pay(&name, Some(paying));
        }
        let forced = self.options.once.as_ref().is_some_and(|once| once.force);
        let mint = finding.mint.or(forced.then_some(Reason::Manual));
        let suspended = self.courses.get(&name).is_some_and(|c| c.target.suspend);
        match mint {
            Some(reason) if !suspended || forced => self.arm_at(&name, Some((now_ms(), reason))),
            _ => self.arm(&name),
        }
    }

    /// Arms a target by its records and its plan.
    fn arm(&mut self, name: &Arc<str>) {
        let Some(course) = self.courses.get(name) else { return };
        let due = step::due(&course.target, self.state.targets.get(&**name), Timestamp::now(), &self.scene.host);
        self.arm_at(name, due);
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
                Timer::Pay => {
                    if let Some(course) = self.courses.get_mut(&name) {
                        course.pay_at = None;
                    }
                    self.pay(&name, None);
                }
            }
        }
    }

    fn rotate(&mut self, name: &Arc<str>, reason: Reason, actor: Option<Actor>) {
        let Some(course) = self.courses.get_mut(name) else { return };
        if course.rotating {
            return;
        }
        course.rotating = true;
        course.arm(name, &mut self.timers, None);
        course.arm_pay(name, &mut self.timers, None);
        // The new token is brought to every place anyway.
        if let Some(paying) = course.paying.take() {
            paying.abort();
        }
        let state = self.state.targets.get(&**name);
        let job = Job {
            target: Arc::clone(&course.target),
            scene: Arc::clone(&self.scene),
            writer: self.writer.clone(),
            reason,
            actor,
            generation: state.map_or(0, |s| s.generation) + 1,
            in_use: state.and_then(step::life).map(|l| (l.issued_at, l.expires_at)),
            failures: course.failures,
            stop: self.stop.subscribe(),
        };
        let name = Arc::clone(name);
        self.tasks.spawn(async move { Done::Rotated(name, rotation::rotate(job).await.map(Box::new)) });
    }

    fn rotated(&mut self, name: &Arc<str>, finished: Finished) {
        let Finished { line, held, fault, .. } = finished;
        let failed = line.kind == Kind::Failed;
        self.state.apply(&line);
        let now = now_ms();
        let Some(course) = self.courses.get_mut(name) else {
            // It went out of the schedule meanwhile.
            self.state.targets.remove(&**name);
            return;
        };
        course.rotating = false;
        let minted = line.issued_at.is_some();
        if minted || held.is_some() {
            course.held = held;
        }
        course.tries = 0;
        course.failures = if failed { course.failures + 1 } else { 0 };
        let failures = course.failures;
        if course.held.is_some() {
            let at = step::retry(now, 1, fault.unwrap_or(Fault { passing: true, retry_after: None }), None, share());
            course.arm_pay(name, &mut self.timers, (self.options.once.is_none()).then_some(at));
        }
        let state = self.state.targets.get(&**name);
        let life = state.and_then(step::life);
        let again = match fault {
            // A token that some place waits for is delivered again, not minted again.
            Some(_) if minted => None,
            Some(fault) => Some((step::retry(now, failures, fault, life, share()), line.reason.unwrap_or(Reason::Lifetime))),
            None => None,
        };
        let target = Arc::clone(&course.target);
        let due = again.or_else(|| step::due(&target, state, Timestamp::now(), &self.scene.host).filter(|_| life.is_some()));
        let due = if self.options.once.is_some() { None } else { due };
        self.arm_at(name, due);
        self.report(name, line);
    }

    /// Tells who waits, and begins the rotation that was asked for meanwhile.
    fn report(&mut self, name: &Arc<str>, line: Line) {
        let standing = self.standing(name);
        let told = Told { line, standing };
        if self.options.once.is_some() {
            self.outcomes.push(told.clone());
        }
        let Some(course) = self.courses.get_mut(name) else { return };
        if let Some(actor) = course.wanted.take() {
            self.rotate(name, Reason::Manual, actor);
            return;
        }
        for waiter in course.waiters.drain(..) {
            // A caller that went away cancels nothing.
            let _ = waiter.send(told.clone());
        }
    }

    fn standing(&self, name: &Arc<str>) -> step::Standing {
        let Some(course) = self.courses.get(name) else { return step::Standing::New };
        let state = self.state.targets.get(&**name);
        step::standing(&course.target, state, course.rotating, course.failures, Timestamp::now(), &self.scene.host)
    }

    /// Tries owed places again: these, or those that the records name.
    fn pay(&mut self, name: &Arc<str>, places: Option<Vec<usize>>) {
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
        let work: Vec<(usize, Option<(usize, String)>, Option<Outcome>)> = places
            .into_iter()
            .map(|index| {
                let at = recorded(&index);
                let fallback = at.and_then(|p| p.fallback.clone()).filter(|_| at.is_some_and(|p| p.outcome == Outcome::FellBack));
                let served = fallback.and_then(|f| course.target.deliver[index].fallback.iter().position(|p| p.sink.place() == f).map(|i| (i, f)));
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

    fn paid(&mut self, name: &Arc<str>, held: &Arc<Held>, delivered: &[(usize, Delivered)], line: Option<Box<Line>>) {
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
            let fault = owed.iter().map(|d| rotation::fault_of(d)).max_by_key(|f| f.passing).unwrap_or(Fault { passing: true, retry_after: None });
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

    /// A cron time has come: its targets are judged anew.
    fn tick(&mut self, rule: &CronRule) {
        let theirs = |course: &&Course| course.target.rotate.cron.contains(rule);
        let names: Vec<Arc<str>> = self.courses.values().filter(theirs).map(|c| Arc::from(c.target.name.as_str())).collect();
        for name in names {
            if self.courses.get(&name).is_some_and(|c| !c.rotating && c.failures == 0) {
                self.arm(&name);
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
        self.offset = now;
        let names: Vec<Arc<str>> = self.courses.keys().cloned().collect();
        for name in names {
            if self.courses.get(&name).is_some_and(|c| !c.rotating && c.failures == 0) {
                self.arm(&name);
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Status(selector, reply) => {
                let view = View {
                    scene: &self.scene,
                    state: &self.state,
                    courses: Some(&self.courses),
                    health: Some(self.writer.health()),
                    since: Some(self.since),
                    refused: self.refused.as_ref(),
                };
                // A caller that went away needs no answer.
                let _ = reply.send(view.status(&selector));
            }
            Ask::Rotate(selector, actor, waiter, reply) => {
                let names: Vec<Arc<str>> = self.courses.iter().filter(|(_, c)| selector(&c.target)).map(|(n, _)| Arc::clone(n)).collect();
                let _ = reply.send(names.iter().map(ToString::to_string).collect());
                for name in names {
                    let Some(course) = self.courses.get_mut(&name) else { continue };
                    course.waiters.push(waiter.clone());
                    if course.rotating {
                        course.wanted = Some(Some(actor.clone()));
                    } else {
                        self.rotate(&name, Reason::Manual, Some(actor.clone()));
                    }
                }
            }
            Ask::Reload(actor, reply) => self.reload(actor, Some(reply)),
            Ask::Stop => {}
        }
    }

    fn reload(&mut self, actor: Option<Actor>, reply: Option<oneshot::Sender<Verdict>>) {
        let path = self.options.schedule.clone();
        self.tasks.spawn(async move {
            let planned = tokio::task::spawn_blocking(move || read::read(&path)).await;
            Done::Planned(Box::new(planned.unwrap_or_else(|_| Err(Vec::new()))), actor, reply)
        });
    }

    async fn planned(&mut self, result: Result<Accepted, Vec<Problem>>, actor: Option<Actor>, reply: Option<oneshot::Sender<Verdict>>) {
        let verdict = match result {
            Err(problems) => self.refuse(problems, actor).await,
            Ok(accepted) => self.swap(accepted, actor).await,
        };
        if let Some(reply) = reply {
            let _ = reply.send(verdict);
        }
    }

    async fn refuse(&mut self, problems: Vec<Problem>, actor: Option<Actor>) -> Verdict {
        for problem in &problems {
            tracing::error!("{problem}");
        }
        tracing::error!("the schedule is refused; the one in force goes on");
        let mut line = Line::new(Kind::ReloadRefused, Timestamp::now());
        line.actor = actor;
        line.error = Some(problems.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("; "));
        self.record(line).await;
        self.refused = Some(Refused { since: Timestamp::now(), problems: problems.clone() });
        Verdict { accepted: false, problems, change: Change::default() }
    }

    async fn swap(&mut self, accepted: Accepted, actor: Option<Actor>) -> Verdict {
        let plan = Arc::new(accepted.plan);
        let change = Change::between(&self.scene.plan, &plan);
        let mut line = Line::new(Kind::Reloaded, Timestamp::now());
        line.actor = actor;
        line.schedule = Some(plan.sha256.clone());
        line.added.clone_from(&change.added);
        line.removed.clone_from(&change.removed);
        line.changed.clone_from(&change.changed);
        self.record(line).await;
        self.refused = None;
        if let Err(error) = read::keep(&self.options.records, &accepted.sources) {
            tracing::warn!(%error, "the accepted schedule cannot be kept beside the records");
        }
        super::files::keep(&self.options.records, &plan);
        self.scene = Arc::new(Scene::new(Arc::clone(&plan), &self.options.records, Some(&self.scene)));
        for name in &change.removed {
            self.retire(name).await;
        }
        let mut looked = Vec::new();
        for target in &plan.targets {
            let name: Arc<str> = Arc::from(target.name.as_str());
            let is_new = !self.courses.contains_key(&name);
            let course = self.courses.entry(Arc::clone(&name)).or_insert_with(|| Course::new(Arc::clone(target)));
            course.target = Arc::clone(target);
            if is_new || change.changed.contains(&target.name) {
                looked.push(Arc::clone(target));
            }
        }
        self.start_ticker().await;
        self.look(looked, Looking::Reload);
        let problems = plan.warnings.clone();
        tracing::info!(added = change.added.len(), removed = change.removed.len(), changed = change.changed.len(), "the schedule is in force");
        Verdict { accepted: true, problems, change }
    }

    /// A target that went out of the schedule: its places stay, its course ends.
    async fn retire(&mut self, name: &str) {
        let name: Arc<str> = Arc::from(name);
        let Some(mut course) = self.courses.remove(&name) else { return };
        course.arm(&name, &mut self.timers, None);
        course.arm_pay(&name, &mut self.timers, None);
        if let Some(paying) = course.paying.take() {
            paying.abort();
        }
        let mut line = Line::new(Kind::Retired, Timestamp::now());
        identify(&mut line, &course.target);
        self.record(line).await;
    }

    async fn record(&mut self, line: Line) {
        self.state.apply(&line);
        self.writer.append(vec![line]).await;
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
    line
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Wall clock less monotonic clock, ms: it changes when the wall clock steps, and by the time of a suspend.
fn offset() -> i64 {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now_ms() - (clock.tv_sec * 1000 + clock.tv_nsec / 1_000_000)
}

/// A random share in [0, 1).
fn share() -> f64 {
    use ring::rand::SecureRandom;
    let mut bytes = [0u8; 4];
    // Without randomness retries come at the middle of their span.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
