//! One life of a daemon in that world, from its start to its end or its kill: production's decisions, carried out
//! by simulated hands.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use jiff::Timestamp;
use tokenferry::cluster::{MintFailure, MintFailureKind, Proven, Upstream, Urgency, Verdict};
use tokenferry::daemon::clock::Clocks;
use tokenferry::daemon::moves::Touch;
use tokenferry::daemon::proof;
use tokenferry::daemon::rotation::{Fault, Finished, Held, conclude, conclude_without, identify};
use tokenferry::daemon::start::{Depth, Finding, Look, Seen, judge, newest};
use tokenferry::daemon::timetable::payments::receipt;
use tokenferry::daemon::timetable::{self, Clearing, Looking, Manner, Moment, Order, Payment, Timetable, Turn, Wanted};
use tokenferry::record::fold::TargetState;
use tokenferry::record::{Actor, Kind, Line, Outcome, Proof, SinkLine};
use tokenferry::schedule::change::Change;
use tokenferry::schedule::cron::CronRule;
use tokenferry::schedule::{Plan, Target};
use tokenferry::sink::delivery::Delivered;
use tokenferry::sink::delivery::tries::{Step, Tries, WITHIN, verdict};
use tokenferry::sink::{Failure, FailureKind, Place, Put, SinkSpec};
use tokenferry::token::{Claims, Token};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::world::{World, add, alone, key};

/// What happens to the daemon from outside.
pub enum Event {
    /// The wall clock is set: it is off by that many ms from now on.
    Clock(i64),
    /// The host sleeps for that many ms.
    Sleep(i64),
    /// Another schedule.
    Reload(Box<Plan>),
    /// A person asks for the rotation of that target.
    Ask(usize),
    /// Somebody removes what stands at the first place of that target; the watch tells the daemon, where it runs.
    Destroy(usize),
    /// The same, again and again for an hour.
    Hostile(usize),
    /// The tokens of that target are refused from now on.
    Revoke(usize),
    /// kill -9; the next start comes after that many ms.
    Kill(i64),
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clock(error) => write!(f, "clock off by {error} ms"),
            Self::Sleep(long) => write!(f, "sleep for {long} ms"),
            Self::Reload(_) => write!(f, "reload"),
            Self::Ask(target) => write!(f, "t{target} is asked for"),
            Self::Destroy(target) | Self::Hostile(target) => write!(f, "a place of t{} is removed", target & !SPITEFUL),
            Self::Revoke(target) => write!(f, "t{target} is revoked"),
            Self::Kill(pause) => write!(f, "killed for {pause} ms"),
        }
    }
}

pub type Events = VecDeque<(i64, Event)>;

#[derive(Clone)]
struct Loads {
    clusters: Rc<BTreeMap<String, Arc<Upstream>>>,
    stores: Rc<BTreeMap<String, Arc<Upstream>>>,
}

struct Outside<'a> {
    world: &'a World,
    loads: &'a Loads,
}

impl timetable::World for Outside<'_> {
    fn skew(&self, cluster: &str) -> Option<f64> {
        self.loads.clusters.get(cluster)?.skew()
    }

    fn share(&self) -> f64 {
        self.world.chance.share()
    }
}

enum Done {
    Rotated(Arc<str>, Box<Finished>),
    Paid(Arc<str>, Arc<Held>, Vec<(usize, Delivered)>, Option<Box<Line>>),
    Looked(Vec<Finding>, Looking),
    ToldTime(String),
    Cleared(Arc<str>, Box<Line>),
}

struct Life {
    world: Rc<World>,
    loads: Loads,
    table: Timetable,
    tasks: JoinSet<Done>,
    paying: HashMap<Arc<str>, AbortHandle>,
    rotating: std::collections::BTreeSet<Arc<str>>,
    rules: Vec<(CronRule, i64)>,
    clocks: Clocks,
    begun: Instant,
}

/// Lives until `until`, or until it is killed.
pub async fn live(world: &Rc<World>, events: &mut Events, until: i64) {
    let plan = world.plan.borrow().clone();
    add(&world.figures.starts);
    let load = |servers: &BTreeMap<String, super::world::Server>| {
        servers.values().for_each(super::world::Server::forget);
        Rc::new(servers.iter().map(|(name, s)| (name.clone(), Upstream::new(name.as_str(), s.limits))).collect())
    };
    let loads = Loads { clusters: load(&world.servers), stores: load(&world.stores) };
    let state = world.disk.borrow().durable.clone();
    let mut life = Life {
        world: Rc::clone(world),
        loads,
        table: Timetable::new(Arc::new((*plan).clone()), "host".into(), Manner::default(), state),
        tasks: JoinSet::new(),
        paying: HashMap::new(),
        rotating: Default::default(),
        rules: Vec::new(),
        clocks: Clocks { wall: 0, awake: 0, uptime: 0 },
        begun: Instant::now(),
    };
    life.clocks = life.read_clocks();
    life.schedule_ticks();
    life.event(|table, _| table.begin(plan.targets.clone()));
    loop {
        life.check_clock();
        life.event(Timetable::run_due);
        life.world.check_ends();
        let (now, local) = (world.time(), world.local().as_millisecond());
        let tick = life.rules.iter().map(|(_, at)| *at).min();
        let due = [life.table.next(), tick].into_iter().flatten().map(|at| at - local).min().unwrap_or(i64::MAX);
        let next = events.front().map_or(until, |(at, _)| (*at).min(until)) - now;
        let wake = Duration::from_millis(u64::try_from(due.min(next)).unwrap_or(0));
        tokio::select! {
            biased;
            Some(done) = life.tasks.join_next(), if !life.tasks.is_empty() => match done {
                Ok(done) => life.done(done),
                Err(error) if error.is_cancelled() => {}
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = sleep(wake) => {}
        }
        add(&world.figures.events);
        life.tick();
        while events.front().is_some_and(|(at, _)| *at <= world.time()) {
            let (_, event) = events.pop_front().expect("it was looked at");
            if let Event::Kill(pause) = event {
                world.say(&Event::Kill(pause));
                return life.die(events, pause, until).await;
            }
            life.happen(event, events);
        }
        if world.time() >= until {
            return life.die(events, 0, until).await;
        }
    }
}

/// What happens to the world while nobody runs.
fn meanwhile(world: &World, event: Event) {
    match event {
        Event::Clock(error) => {
            world.set_clock(error);
        }
        Event::Reload(plan) => {
            take(world, &plan);
        }
        Event::Destroy(target) | Event::Hostile(target) => {
            if let Some(found) = world.plan.borrow().targets.get(target & !SPITEFUL) {
                world.destroy(&found.deliver[0].sink);
                world.excuse(&found.name, i64::from(target & SPITEFUL == 0));
            }
        }
        Event::Revoke(target) => {
            if let Some(target) = world.plan.borrow().targets.get(target) {
                world.revoke(target);
                world.excuse(&target.name, 1);
            }
        }
        Event::Sleep(_) | Event::Ask(_) | Event::Kill(_) => {}
    }
}

fn take(world: &World, plan: &Plan) -> Change {
    let change = Change::between(&world.plan.borrow(), plan);
    for name in change.changed.iter().chain(&change.added) {
        world.excuse(name, 2);
    }
    *world.plan.borrow_mut() = Rc::new(plan.clone());
    change
}

impl Life {
    fn read_clocks(&self) -> Clocks {
        let awake = i64::try_from(self.begun.elapsed().as_millis()).expect("short");
        Clocks { wall: self.world.local().as_millisecond(), awake, uptime: self.world.time() }
    }

    fn check_clock(&mut self) {
        let now = self.read_clocks();
        // A life begins in the middle of the world's time.
        let Some(jump) = now.jump_since(self.clocks) else { return };
        self.clocks = now;
        for upstream in self.loads.clusters.values() {
            upstream.note_step(jump.set);
        }
        self.event(|table, moment| table.stepped(jump.set, moment));
    }

    fn schedule_ticks(&mut self) {
        let mut rules: Vec<(CronRule, i64)> = Vec::new();
        for rule in self.world.plan.borrow().targets.iter().flat_map(|t| &t.rotate.cron) {
            if !rules.iter().any(|(known, _)| known == rule) {
                rules.push((rule.clone(), next_tick(rule, self.world.local())));
            }
        }
        self.rules = rules;
    }

    fn tick(&mut self) {
        let now = self.world.local();
        for index in 0..self.rules.len() {
            if self.rules[index].1 <= now.as_millisecond() {
                let rule = self.rules[index].0.clone();
                self.rules[index].1 = next_tick(&rule, now);
                self.event(|table, moment| table.tick(&rule, moment));
            }
        }
    }

    async fn die(mut self, events: &mut Events, pause: i64, until: i64) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let world = Rc::clone(&self.world);
        // What was on its way, or held in memory alone, is lost.
        let held = self.table.courses.iter().filter(|(_, course)| course.debt.held.is_some()).map(|(name, _)| name);
        for name in self.rotating.iter().chain(held) {
            world.excuse(name, 1);
        }
        {
            let mut disk = world.disk.borrow_mut();
            let lines = std::mem::take(&mut disk.on_its_way);
            let kept = world.chance.between(0, lines.len() as i64 + 1) as usize;
            for line in &lines[..kept] {
                disk.write(line, world.seed);
            }
        }
        let back = (world.time() + pause).min(until);
        world.away(world.time(), back);
        while events.front().is_some_and(|(at, _)| *at <= back) {
            let (_, event) = events.pop_front().expect("it was looked at");
            meanwhile(&world, event);
        }
        world.until(back).await;
        world.check_ends();
    }

    fn happen(&mut self, event: Event, events: &mut Events) {
        let world = Rc::clone(&self.world);
        if !matches!(event, Event::Destroy(index) if index & SPITEFUL != 0) {
            world.say(&event);
        }
        let target = |index: usize| world.plan.borrow().targets.get(index).cloned();
        match event {
            Event::Clock(error) => {
                world.set_clock(error);
            }
            Event::Sleep(long) => world.sleep(long),
            Event::Reload(plan) => {
                let change = take(&world, &plan);
                let plan = Arc::from(plan);
                self.event(|table, moment| table.swap(&plan, &change, moment));
                self.schedule_ticks();
            }
            Event::Ask(index) => {
                let Some(target) = target(index) else { return };
                world.excuse(&target.name, 1);
                let actor = Actor { uid: 0, user: None, says: None, command: "rotate".into() };
                let waiter = mpsc::unbounded_channel().0;
                self.event(|table, _| table.ask(&|t| t.name == target.name, &actor, &waiter));
            }
            Event::Destroy(index) | Event::Hostile(index) => {
                let spiteful = index & SPITEFUL != 0;
                let Some(target) = target(index & !SPITEFUL) else { return };
                world.destroy(&target.deliver[0].sink);
                if matches!(event, Event::Hostile(_)) {
                    // Mending doubles its pause from 15 s to half an hour.
                    world.excuse(&target.name, 12);
                    let now = world.time();
                    for again in 1..400 {
                        let at = now + again * 9_000;
                        let place = events.partition_point(|(before, _)| *before <= at);
                        events.insert(place, (at, Event::Destroy(index | SPITEFUL)));
                    }
                } else if !spiteful {
                    world.excuse(&target.name, 1);
                }
                if matches!(target.deliver[0].sink, SinkSpec::File(_)) {
                    let touch = Touch { target: Arc::clone(&target.name), moved: false };
                    self.event(|table, moment| table.touched(&[touch], moment));
                }
            }
            Event::Revoke(index) => {
                let Some(target) = target(index) else { return };
                world.revoke(&target);
                world.excuse(&target.name, 1);
            }
            Event::Kill(_) => unreachable!("the loop takes it"),
        }
    }

    fn event<T>(&mut self, tell: impl FnOnce(&mut Timetable, &Moment<'_>) -> T) -> T {
        let outside = Outside { world: &self.world, loads: &self.loads };
        let answer = tell(&mut self.table, &Moment { now: self.world.local(), world: &outside });
        for order in self.table.orders() {
            let (world, loads) = (Rc::clone(&self.world), self.loads.clone());
            match order {
                Order::Record(line) => world.disk.borrow_mut().on_its_way.push(*line),
                Order::Rotate(turn) => {
                    let name = Arc::clone(&turn.name);
                    assert!(self.rotating.insert(Arc::clone(&name)), "two rotations of {name} at once; {}", alone(world.seed));
                    self.tasks.spawn_local(async move { Done::Rotated(name, Box::new(rotate(&world, &loads, *turn).await)) });
                }
                Order::Pay(payment) => {
                    let name = Arc::clone(&payment.name);
                    let handle = self.tasks.spawn_local(async move { pay(&world, &loads, payment).await });
                    self.paying.insert(name, handle);
                }
                Order::StopPaying(name) => {
                    if let Some(paying) = self.paying.remove(&name) {
                        paying.abort();
                    }
                }
                Order::Clear(clearing) => {
                    let line = clear(&world, &clearing);
                    self.tasks.spawn_local(async move {
                        record(&world, &line).await;
                        Done::Cleared(clearing.name, Box::new(line))
                    });
                }
                Order::Leave(_) => panic!("nobody withdraws anything in this world"),
                Order::Revoke(_) => unreachable!("no target of the simulation is revocable"),
                Order::Begin(looks) => {
                    for wanted in looks {
                        let (world, loads) = (Rc::clone(&world), loads.clone());
                        self.tasks.spawn_local(async move {
                            let all = futures_util::stream::iter(wanted).map(|wanted| look(&world, &loads, wanted, Depth::Files));
                            Done::Looked(all.buffer_unordered(128).collect().await, Looking::Start)
                        });
                    }
                }
                Order::Look(wanted, why) => {
                    let depth = why.depth();
                    self.tasks.spawn_local(async move {
                        let all = futures_util::stream::iter(wanted).map(|wanted| look(&world, &loads, wanted, depth));
                        Done::Looked(all.buffer_unordered(128).collect().await, why)
                    });
                }
                Order::AskTime(cluster) => {
                    self.tasks.spawn_local(async move {
                        let upstream = &loads.clusters[&cluster];
                        while !ask_time(&world, upstream, &cluster).await {
                            sleep(Duration::from_secs(30)).await;
                        }
                        Done::ToldTime(cluster)
                    });
                }
                Order::Tell(..) => {}
            }
        }
        answer
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Rotated(name, finished) => {
                assert!(self.rotating.remove(&name), "{name} was not rotating");
                self.event(|table, moment| table.rotated(&name, *finished, moment));
            }
            Done::Paid(name, held, delivered, line) => {
                self.paying.remove(&name);
                self.event(|table, moment| table.paid(&name, &held, &delivered, line.map(|line| *line), moment));
            }
            Done::Cleared(name, line) => self.event(|table, moment| table.cleared(&name, &line, moment)),
            Done::ToldTime(cluster) => self.event(|table, moment| table.told_time(&cluster, moment)),
            Done::Looked(findings, why) => {
                for finding in findings {
                    self.event(|table, moment| match why {
                        Looking::Beat(depth) => table.looked(finding, depth, moment),
                        Looking::Mint(reason) => table.before_mint(finding, reason, moment),
                        Looking::Start | Looking::Reload | Looking::Takeover => table.found(finding, moment),
                    });
                }
            }
        }
    }
}

async fn ask_time(world: &World, upstream: &Arc<Upstream>, cluster: &str) -> bool {
    let permit = upstream.enter(Urgency { deadline: i64::MAX, retry: false }).await;
    let answer = world.ask(cluster, &|server, local| upstream.note_time(server, local)).await;
    let answered = answer.as_ref().err().is_none_or(|failure| failure.kind != MintFailureKind::Unavailable);
    permit.end(if answered { Verdict::Healthy } else { Verdict::Failed });
    answered
}

/// A neighbour that was paid for already.
const SPITEFUL: usize = 1 << 40;

fn next_tick(rule: &CronRule, after: Timestamp) -> i64 {
    rule.next(after).map_or(i64::MAX, Timestamp::as_millisecond)
}

async fn record(world: &World, line: &Line) {
    world.disk.borrow_mut().on_its_way.push(line.clone());
    sleep(Duration::from_millis(world.chance.between(1, 6) as u64)).await;
    let mut disk = world.disk.borrow_mut();
    let lines = std::mem::take(&mut disk.on_its_way);
    for line in &lines {
        disk.write(line, world.seed);
    }
}

/// Removes copies in fallbacks: never before the place itself has a token as new.
fn clear(world: &World, clearing: &Clearing) -> Line {
    let mut line = Line::new(Kind::Cleared, world.local());
    identify(&mut line, &clearing.target);
    line.jti = clearing.state.jti.as_ref().map(ToString::to_string);
    for (index, copy) in &clearing.copies {
        let place = &clearing.target.deliver[*index];
        let Some(fallback) = place.fallback.iter().find(|f| f.sink.place() == *copy) else { continue };
        let (Some(here), Some(there)) = (world.at(&place.sink), world.at(&fallback.sink)) else { continue };
        assert!(
            here.claims.iat >= there.claims.iat,
            "{}: the copy at {copy} would go before the place has a token as new; {}",
            clearing.name,
            alone(world.seed)
        );
        world.destroy(&fallback.sink);
        let cleared = SinkLine::new(place.sink.kind(), place.sink.place(), Outcome::Unchanged);
        line.sinks.push(SinkLine { fallback: Some(copy.clone()), ..cleared });
    }
    line
}

async fn rotate(world: &World, loads: &Loads, turn: Turn) -> Finished {
    let nothing = |line, fault| Finished {
        line,
        held: None,
        fault: Some(fault),
        unauthorized: false,
        durable: true,
        mint_took: None,
        places_took: Vec::new(),
    };
    let upstream = &loads.clusters[&*turn.target.cluster];
    let note = |server, local| upstream.note_time(server, local);
    let ordered = world.time();
    let permit = upstream.enter(turn.urgency(world.local())).await;
    let waits = &world.servers[&*turn.target.cluster].longest_wait;
    waits.set(waits.get().max(world.time() - ordered));
    let minted = world.mint(&turn.target, turn.reason, &note).await;
    permit.end(minted.as_ref().map_or_else(MintFailure::verdict, |_| Verdict::Healthy));
    let proven = match minted {
        Ok(claims) => prove_fresh(world, upstream, &turn, &claims, &note).await.map(|proof| (claims, proof)),
        Err(failure) => Err(failure),
    };
    let (claims, proof) = match proven {
        Ok(both) => both,
        Err(failure) => {
            let (line, fault): (Line, Fault) = conclude_without(&turn, &failure, None, world.local());
            record(world, &line).await;
            return nothing(line, fault);
        }
    };
    let token = Token::new(claims.jti.clone().expect("named"));
    let held = Held { token, claims, generation: turn.generation };
    let places = turn.target.deliver.iter().map(|place| {
        let tries = Tries::new(place, sha256(&held.claims));
        deliver(world, loads, &turn.target, &held, tries, false, turn.urgency(world.local()))
    });
    let delivered = futures_util::future::join_all(places).await;
    let (line, fault) = conclude(&turn, &held, proof, &delivered, world.local());
    let owed = delivered.iter().any(|d| d.outcome.is_owed());
    record(world, &line).await;
    Finished {
        line,
        held: owed.then(|| Arc::new(held)),
        fault,
        unauthorized: false,
        durable: true,
        mint_took: None,
        places_took: Vec::new(),
    }
}

async fn prove_fresh(
    world: &World,
    upstream: &Arc<Upstream>,
    turn: &Turn,
    claims: &Claims,
    note: &dyn Fn(f64, f64),
) -> Result<Proof, MintFailure> {
    if !turn.target.prove {
        return Ok(Proof::Claims);
    }
    for attempt in 0..proof::TRIES {
        let permit = upstream.enter(Turn::urgency_of_proof(attempt)).await;
        let proven = world.prove(&turn.target.cluster, claims.jti.as_deref().unwrap_or_default(), note).await;
        permit.end(if matches!(proven, Proven::Unknown(_)) { Verdict::Failed } else { Verdict::Healthy });
        match proven {
            Proven::Online => return Ok(Proof::Online),
            Proven::Signed => return Ok(Proof::Signature),
            Proven::NotOffered(_) | Proven::Unserved(_) => return Ok(Proof::Claims),
            Proven::Refused(message) => {
                return Err(MintFailure { kind: MintFailureKind::BadAnswer, message, retry_after: None, audit_id: None });
            }
            Proven::Unknown(_) => sleep(Duration::from_millis(250 << attempt)).await,
        }
    }
    if proof::too_late(turn, world.local()) {
        return Ok(Proof::Claims);
    }
    // The mint was for nothing.
    world.excuse(&turn.target.name, 1);
    Err(MintFailure { kind: MintFailureKind::Unavailable, message: "not proven".into(), retry_after: None, audit_id: None })
}

async fn pay(world: &World, loads: &Loads, payment: Payment) -> Done {
    let urgency = Urgency { deadline: payment.held.claims.exp.unwrap_or(0), retry: true };
    let places = payment.places.iter().map(|owed| {
        let tries = Tries::once_more(&payment.target.deliver[owed.index], sha256(&payment.held.claims), owed.served.clone());
        deliver(world, loads, &payment.target, &payment.held, tries, true, urgency)
    });
    let delivered = futures_util::future::join_all(places).await;
    let line = receipt(&payment, &delivered, world.local());
    if let Some(line) = &line {
        record(world, line).await;
    }
    let delivered = payment.places.iter().map(|owed| owed.index).zip(delivered).collect();
    Done::Paid(payment.name, payment.held, delivered, line.map(Box::new))
}

async fn deliver(
    world: &World,
    loads: &Loads,
    target: &Target,
    held: &Held,
    mut tries: Tries<'_>,
    mut waits: bool,
    urgency: Urgency,
) -> Delivered {
    let begun = Instant::now();
    let place = tries.place();
    let mut sink = &place.sink;
    loop {
        let result = attempt(world, loads, target, held, sink, waits, urgency).await;
        match tries.after(result, begun.elapsed(), world.chance.share()) {
            Step::Again(pause) => sleep(pause).await,
            Step::Fallback(index) => (sink, waits) = (&place.fallback[index].sink, false),
            Step::Over(delivered) => {
                if let Some((index, _)) = &delivered.fallback {
                    let there = world.at(&place.fallback[*index].sink);
                    let newer = there.is_some_and(|p| p.claims.iat >= held.claims.iat);
                    assert!(newer, "{} fell back on nothing; {}", key(&place.sink), alone(world.seed));
                }
                return delivered;
            }
        }
    }
}

async fn attempt(
    world: &World,
    loads: &Loads,
    target: &Target,
    held: &Held,
    sink: &SinkSpec,
    waits: bool,
    urgency: Urgency,
) -> Result<Put, Failure> {
    let Some(store) = sink.store() else { return world.put(sink, &held.claims, target).await };
    let upstream = &loads.stores[store];
    if !waits && upstream.is_open() {
        return Err(Failure::new(FailureKind::Unavailable, "it is taken for dead"));
    }
    let Ok(permit) = tokio::time::timeout(WITHIN, upstream.enter(urgency)).await else {
        return Err(Failure::new(FailureKind::Unavailable, "no turn"));
    };
    let result = world.put(sink, &held.claims, target).await;
    permit.end(verdict(result.as_ref().err()));
    result
}

async fn look(world: &World, loads: &Loads, (target, state): Wanted, depth: Depth) -> Finding {
    let state = state.as_deref();
    let mut finding = Finding::new(Arc::clone(&target));
    let now = world.local();
    let mut seen = Vec::with_capacity(target.deliver.len());
    for place in &target.deliver {
        let unasked = place.sink.store().is_some() && depth == Depth::Files;
        let there = if unasked { None } else { world.held(&place.sink).await };
        seen.push(match there {
            None => Look::Unknown,
            Some(None) => Look::Nothing,
            Some(Some(placed)) => shown(&target, placed.claims),
        });
    }
    let mut best = newest(seen.iter_mut().filter_map(Look::seen), now);
    if best.is_none() {
        best = spare(world, &target, state, now).await;
    }
    if depth == Depth::Everything
        && target.prove
        && let Some((_, claims)) = &best
    {
        let upstream = &loads.clusters[&*target.cluster];
        let permit = upstream.enter(Urgency { deadline: claims.exp.unwrap_or(0), retry: false }).await;
        let note = |server, local| upstream.note_time(server, local);
        let proven = world.prove(&target.cluster, claims.jti.as_deref().unwrap_or_default(), &note).await;
        permit.end(if matches!(proven, Proven::Unknown(_)) { Verdict::Failed } else { Verdict::Healthy });
        finding.proven = Some(proven);
    }
    judge(finding, state, &seen, best, now)
}

fn sha256(claims: &Claims) -> String {
    format!("sha256 of {}", claims.jti.as_deref().unwrap_or_default())
}

fn ours(target: &Target, claims: &Claims) -> bool {
    claims.sub == format!("system:serviceaccount:{}:{}", target.ask.namespace, target.ask.service_account)
}

fn token(claims: Claims) -> (Token, Claims) {
    (Token::new(claims.jti.clone().unwrap_or_default()), claims)
}

fn shown(target: &Target, claims: Claims) -> Look {
    let own = ours(target, &claims);
    let issue = claims.jti.clone().filter(|_| own);
    let sha256 = sha256(&claims);
    Look::Seen(Box::new(Seen { sha256, right: true, issue, token: own.then(|| token(claims)) }))
}

async fn spare(world: &World, target: &Target, state: Option<&TargetState>, now: Timestamp) -> Option<(Token, Claims)> {
    let mut found = Vec::new();
    for place in &target.deliver {
        let at = place.sink.place();
        let fell_back = state.is_some_and(|s| s.places.iter().any(|p| *p.place == *at && p.outcome == Outcome::FellBack));
        let places: Vec<&Place> =
            place.fallback.iter().filter(|_| fell_back || state.is_none()).chain(state.is_none().then_some(place)).collect();
        for place in places {
            found.extend(world.held(&place.sink).await.flatten().filter(|p| ours(target, &p.claims)).map(|p| token(p.claims)));
        }
    }
    found.retain(|(_, claims)| claims.exp.is_some_and(|exp| exp > now.as_second()));
    found.into_iter().max_by_key(|(_, claims)| claims.iat)
}
