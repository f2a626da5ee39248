//! The world around the daemon: its clock, API servers, stores and places, with their bad days. True time is in ms
//! since the simulation began.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use tokenferry::cluster::{Limits, MintFailure, MintFailureKind, Proven};
use tokenferry::record::fold::State;
use tokenferry::record::{Kind, Line, Reason};
use tokenferry::schedule::{Plan, Target};
use tokenferry::sink::{Failure, FailureKind, Put, SinkSpec};
use tokenferry::token::Claims;
use tokio::time::{Instant, sleep};

use super::chance::Chance;

/// 2026-03-01T00:00:00Z.
pub const EPOCH: i64 = 1_772_323_200_000;
pub const SECOND: i64 = 1_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;
/// After that long without a fault a target that is due has its token.
const RECOVERED: i64 = 3 * MINUTE;
/// A refusal (403) is tried again at least that often.
const RECOVERED_FROM_REFUSAL: i64 = 8 * MINUTE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens, or 503.
    Down,
    /// It takes requests and does not answer.
    Hung,
    /// 429, with that many seconds of patience.
    Overloaded(Option<u64>),
    /// 403.
    Refusing,
}

/// When something is out of order.
#[derive(Default)]
pub struct Days(Vec<(i64, i64, Fault)>);

impl Days {
    pub fn random(chance: &Chance, until: i64, gap: i64, refusing: bool) -> Self {
        let mut days = Vec::new();
        let mut at = chance.between(gap / 4, gap * 2);
        while at < until {
            let long = chance.scale(5e3, 4.0 * HOUR as f64);
            let fault = match chance.next() % 8 {
                0 | 1 => Fault::Hung,
                2 => Fault::Overloaded(None),
                3 => Fault::Overloaded(Some(chance.scale(1.0, 500.0) as u64)),
                4 if refusing => Fault::Refusing,
                _ => Fault::Down,
            };
            days.push((at, at + long, fault));
            at += long + chance.between(gap / 4, gap * 2);
        }
        Self(days)
    }

    pub fn one(from: i64, to: i64, fault: Fault) -> Self {
        Self(vec![(from, to, fault)])
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, time: i64) -> Option<Fault> {
        let next = self.0.partition_point(|(from, ..)| *from <= time);
        let (_, to, fault) = *self.0.get(next.checked_sub(1)?)?;
        (time < to).then_some(fault)
    }

    /// Since when all was well at `time`, with the time to recover from what was before.
    fn well_since(&self, time: i64) -> i64 {
        let next = self.0.partition_point(|(from, ..)| *from < time);
        let Some((_, to, fault)) = next.checked_sub(1).and_then(|i| self.0.get(i)) else { return i64::MIN };
        let wish = if let Fault::Overloaded(Some(seconds)) = fault { *seconds as i64 * SECOND } else { 0 };
        let recovered = if *fault == Fault::Refusing { RECOVERED_FROM_REFUSAL } else { RECOVERED };
        to + wish + recovered
    }
}

pub struct Server {
    pub days: Days,
    pub limits: Limits,
    /// Its clock less true time, ms.
    pub skew: i64,
    /// Longest life that it grants, seconds.
    pub longest: i64,
    /// Milliseconds that an answer takes, at least and at most.
    pub pace: (i64, i64),
    in_flight: Cell<u32>,
    begun: RefCell<VecDeque<i64>>,
    pub peak: Cell<u32>,
    /// Longest time that a rotation waited for its turn, ms.
    pub longest_wait: Cell<i64>,
    /// Since when this run of the daemon knows the server's time.
    pub told_time: Cell<Option<i64>>,
}

impl Server {
    pub fn new(limits: Limits, pace: (i64, i64)) -> Self {
        Self {
            days: Days::default(),
            limits,
            skew: 0,
            longest: i64::MAX,
            pace,
            in_flight: Cell::new(0),
            begun: RefCell::default(),
            peak: Cell::new(0),
            longest_wait: Cell::new(0),
            told_time: Cell::new(None),
        }
    }

    /// A new run of the daemon knows nothing of the load of the run before.
    pub fn forget(&self) {
        self.begun.borrow_mut().clear();
        self.told_time.set(None);
    }
}

/// A token at a place.
#[derive(Clone)]
pub struct Placed {
    pub claims: Claims,
}

impl Placed {
    pub fn jti(&self) -> &str {
        self.claims.jti.as_deref().expect("every token here has a name")
    }
}

/// What a target's early mints may be explained by.
#[derive(Default)]
struct Account {
    /// True time of the last mint, and the life that it gave, ms.
    last: Option<(i64, i64)>,
    credit: i64,
    /// Until when a clock error explains one.
    clock_errors: VecDeque<i64>,
    requests: VecDeque<i64>,
}

/// True time at which a token ends, where it stands, its name, its target.
type End = (i64, String, String, String);

pub struct World {
    begun: Instant,
    asleep: Cell<i64>,
    /// Local wall clock less true time, ms.
    pub clock: Cell<i64>,
    pub chance: Chance,
    pub servers: BTreeMap<String, Server>,
    pub stores: BTreeMap<String, Server>,
    places: RefCell<HashMap<String, Placed>>,
    accounts: RefCell<HashMap<String, Account>>,
    /// The ends to come, the next one first.
    ends: RefCell<BinaryHeap<Reverse<End>>>,
    /// When the daemon did not run, or could not know the time.
    pub absent: RefCell<Days>,
    pub plan: RefCell<Rc<Plan>>,
    pub disk: RefCell<Disk>,
    revoked: RefCell<std::collections::HashSet<String>>,
    minted: Cell<u64>,
    pub seed: u64,
    pub figures: Figures,
}

#[derive(Default)]
pub struct Figures {
    pub events: Cell<u64>,
    pub mints: Cell<u64>,
    pub puts: Cell<u64>,
    pub expired: Cell<u64>,
    pub excused: Cell<u64>,
    pub starts: Cell<u64>,
    pub steps: Cell<u64>,
}

pub fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// The records: what is durable, and what is on its way.
#[derive(Default)]
pub struct Disk {
    pub durable: State,
    pub on_its_way: Vec<Line>,
    /// Successes by token: none is booked twice.
    booked: HashMap<String, (Kind, Option<String>)>,
}

impl Disk {
    pub fn write(&mut self, line: &Line, seed: u64) {
        self.durable.apply(line);
        if line.target.is_some() && line.target.as_deref() == std::env::var("TOKENFERRY_WATCH").ok().as_deref() {
            println!("{}", serde_json::to_string(line).expect("a line is JSON"));
        }
        // A target that comes back after it went finds its own token again.
        if line.kind == Kind::Retired {
            self.booked.retain(|_, (_, target)| *target != line.target);
        }
        if matches!(line.kind, Kind::Rotated | Kind::Adopted)
            && let Some(jti) = &line.jti
        {
            let before = self.booked.insert(jti.clone(), (line.kind, line.target.clone()));
            assert!(before.is_none(), "G10: {jti} is booked twice: {before:?} and {:?}; {}", line.kind, alone(seed));
            // Old ones are of no interest: the names count up.
            if self.booked.len() > 200_000 {
                self.booked.clear();
            }
        }
    }
}

pub fn alone(seed: u64) -> String {
    format!("run it alone: TOKENFERRY_SEED={seed} cargo test --test all simulation:: -- --nocapture")
}

/// A request under way; dropped when it is over, or its caller killed.
struct Flight<'a>(&'a Server);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl World {
    pub fn new(seed: u64, plan: Plan, servers: BTreeMap<String, Server>, stores: BTreeMap<String, Server>) -> Self {
        Self {
            begun: Instant::now(),
            asleep: Cell::new(0),
            clock: Cell::new(0),
            chance: Chance::new(seed),
            servers,
            stores,
            places: RefCell::default(),
            accounts: RefCell::default(),
            ends: RefCell::default(),
            absent: RefCell::default(),
            plan: RefCell::new(Rc::new(plan)),
            disk: RefCell::default(),
            revoked: RefCell::default(),
            minted: Cell::new(0),
            seed,
            figures: Figures::default(),
        }
    }

    /// True time, ms since the beginning.
    pub fn time(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).expect("a simulation is shorter than an aeon") + self.asleep.get()
    }

    pub fn local(&self) -> Timestamp {
        Timestamp::from_millisecond(EPOCH + self.time() + self.clock.get()).expect("a time of this era")
    }

    /// The host sleeps: its timers stand still, the world goes on.
    pub fn sleep(&self, long: i64) {
        let now = self.time();
        self.absent.borrow_mut().0.push((now, now + long, Fault::Down));
        self.asleep.set(self.asleep.get() + long);
    }

    /// The daemon is away for that long, by the world's time.
    pub fn away(&self, from: i64, to: i64) {
        self.absent.borrow_mut().0.push((from, to, Fault::Down));
    }

    pub async fn until(&self, time: i64) {
        let left = time - self.time();
        if left > 0 {
            sleep(Duration::from_millis(left as u64)).await;
        }
    }

    /// Says what happens, while one target is watched (`TOKENFERRY_WATCH=t7`).
    pub fn say(&self, what: &dyn std::fmt::Display) {
        if std::env::var_os("TOKENFERRY_WATCH").is_some() {
            println!("{} {}: {what}", self.time(), self.local());
        }
    }

    fn bad(&self, what: String) -> ! {
        panic!("{what} at {} ({}); {}", self.time(), self.local(), alone(self.seed));
    }

    /// Something gives a target reason to be minted early.
    pub fn excuse(&self, target: &str, mints: i64) {
        self.accounts.borrow_mut().entry(target.to_owned()).or_default().credit += mints;
    }

    /// The wall clock is off by that many ms from now on: each target may be minted once for it, soon.
    pub fn set_clock(&self, error: i64) {
        add(&self.figures.steps);
        self.clock.set(error);
        self.excuse_clock();
    }

    fn excuse_clock(&self) {
        let until = self.time() + 6 * HOUR;
        self.accounts.borrow_mut().values_mut().for_each(|a| a.clock_errors.push_back(until));
    }

    fn begin<'a>(&self, server: &'a Server, name: &str) -> Flight<'a> {
        let now = self.time();
        let flying = server.in_flight.get() + 1;
        server.in_flight.set(flying);
        server.peak.set(server.peak.get().max(flying));
        if flying > server.limits.in_flight {
            self.bad(format!("G7: {flying} requests at once at {name}"));
        }
        if server.limits.per_second > 0 {
            let mut begun = server.begun.borrow_mut();
            begun.push_back(now);
            while begun.front().is_some_and(|at| *at <= now - SECOND) {
                begun.pop_front();
            }
            if begun.len() > server.limits.per_second as usize + 1 {
                self.bad(format!("G7: {} requests within a second at {name}", begun.len()));
            }
        }
        Flight(server)
    }

    async fn travel(&self, server: &Server) {
        let pace = self.chance.between(server.pace.0, server.pace.1);
        sleep(Duration::from_millis(pace as u64)).await;
    }

    /// One request to an API server; `note` is told the server's time with every answer.
    pub async fn ask(&self, cluster: &str, note: &dyn Fn(f64, f64)) -> Result<(), MintFailure> {
        let server = &self.servers[cluster];
        let flight = self.begin(server, cluster);
        self.travel(server).await;
        let failure = |kind, wish: Option<u64>| {
            Err(MintFailure { kind, message: format!("{kind:?}"), retry_after: wish.map(Duration::from_secs), audit_id: None })
        };
        let fault = server.days.at(self.time());
        if fault == Some(Fault::Hung) {
            sleep(Duration::from_secs(15)).await;
        }
        drop(flight);
        if !matches!(fault, Some(Fault::Down | Fault::Hung)) {
            // The header has whole seconds, cut.
            let date = (EPOCH + self.time() + server.skew).div_euclid(1000);
            note(date as f64 + 0.5, self.local().as_millisecond() as f64 / 1000.0);
            if server.told_time.get().is_none() {
                server.told_time.set(Some(self.time()));
                // A daemon that starts on a wrong clock cannot know better before the first answer.
                if self.wrong(server) {
                    self.excuse_clock();
                }
            }
        }
        match fault {
            None => Ok(()),
            Some(Fault::Down | Fault::Hung) => failure(MintFailureKind::Unavailable, None),
            Some(Fault::Overloaded(wish)) => failure(MintFailureKind::Throttled, wish),
            Some(Fault::Refusing) => failure(MintFailureKind::Refused, None),
        }
    }

    fn wrong(&self, server: &Server) -> bool {
        (self.clock.get() - server.skew).abs() > 5 * SECOND
    }

    pub async fn mint(&self, target: &Target, reason: Reason, note: &dyn Fn(f64, f64)) -> Result<Claims, MintFailure> {
        self.count_request(&target.name);
        self.ask(&target.cluster, note).await?;
        let server = &self.servers[&*target.cluster];
        let iat = (EPOCH + self.time() + server.skew).div_euclid(1000);
        let life = (target.ask.duration as i64).min(server.longest);
        self.account(&target.name, life * SECOND, reason);
        self.minted.set(self.minted.get() + 1);
        add(&self.figures.mints);
        Ok(Claims {
            iss: "https://kubernetes.default.svc".into(),
            sub: format!("system:serviceaccount:{}:{}", target.ask.namespace, target.ask.service_account),
            aud: vec!["https://kubernetes.default.svc".into()],
            iat: Some(iat),
            exp: Some(iat + life),
            nbf: Some(iat),
            jti: Some(format!("j{}", self.minted.get())),
            kubernetes: Default::default(),
        })
    }

    fn count_request(&self, name: &str) {
        let now = self.time();
        let mut accounts = self.accounts.borrow_mut();
        let requests = &mut accounts.entry(name.to_owned()).or_default().requests;
        requests.push_back(now);
        while requests.front().is_some_and(|at| *at <= now - MINUTE) {
            requests.pop_front();
        }
        if requests.len() > 40 {
            self.bad(format!("G7: {name} is asked for {} times within a minute", requests.len()));
        }
    }

    /// No token is minted early without a reason.
    fn account(&self, name: &str, life: i64, reason: Reason) {
        let now = self.time();
        let mut accounts = self.accounts.borrow_mut();
        let account = accounts.entry(name.to_owned()).or_default();
        let ticked = |at: i64| self.ticked(name, at, now);
        if let Some((at, long)) = account.last
            && now - at < long * 2 / 5
            && !(matches!(reason, Reason::Cron | Reason::Missed) && ticked(at))
        {
            while account.clock_errors.front().is_some_and(|until| *until < now) {
                account.clock_errors.pop_front();
            }
            if account.clock_errors.pop_front().is_none() {
                account.credit -= 1;
            }
            if account.credit < 0 {
                let age = (now - at) / SECOND;
                self.bad(format!("a mint too many: {name}, for {reason:?}, {age} s after the last one, which has {} s", long / SECOND));
            }
        }
        account.last = Some((now, life));
    }

    /// Whether a cron time of the target came between two true times, as its API server sees them.
    fn ticked(&self, name: &str, from: i64, to: i64) -> bool {
        let plan = self.plan.borrow();
        let Some(target) = plan.target(name) else { return false };
        let skew = self.servers[&*target.cluster].skew;
        let Ok(from) = Timestamp::from_millisecond(EPOCH + from + skew) else { return false };
        let to = EPOCH + to + skew + 5 * SECOND;
        target.rotate.cron.iter().any(|rule| rule.next(from).is_some_and(|at| at.as_millisecond() <= to))
    }

    pub async fn prove(&self, cluster: &str, jti: &str, note: &dyn Fn(f64, f64)) -> Proven {
        match self.ask(cluster, note).await {
            Ok(()) if self.revoked.borrow().contains(jti) => Proven::Refused("401".into()),
            Ok(()) => Proven::Online,
            Err(failure) if failure.kind == MintFailureKind::Refused => Proven::NotOffered("403".into()),
            Err(failure) => Proven::Unknown(failure.message),
        }
    }

    pub async fn put(&self, sink: &SinkSpec, claims: &Claims, target: &Target) -> Result<Put, Failure> {
        let place = key(sink);
        if let Some(store) = sink.store() {
            let server = &self.stores[store];
            let flight = self.begin(server, store);
            self.travel(server).await;
            let wish = match server.days.at(self.time()) {
                None => None,
                Some(Fault::Refusing) => Some((FailureKind::Refused, None)),
                Some(Fault::Overloaded(wish)) => Some((FailureKind::Throttled, wish)),
                Some(Fault::Down) => Some((FailureKind::Unavailable, None)),
                Some(Fault::Hung) => {
                    sleep(Duration::from_secs(5)).await;
                    Some((FailureKind::Unavailable, None))
                }
            };
            drop(flight);
            if let Some((kind, wish)) = wish {
                return Err(Failure { kind, message: format!("{kind:?}"), retry_after: wish.map(Duration::from_secs) });
            }
        } else {
            sleep(Duration::from_millis(1)).await;
        }
        let same = self.places.borrow().get(&place).is_some_and(|p| p.claims.jti == claims.jti);
        if same {
            return Ok(Put::Unchanged);
        }
        add(&self.figures.puts);
        let placed = Placed { claims: claims.clone() };
        let skew = self.servers[&*target.cluster].skew;
        let ends = claims.exp.expect("every token here ends") * 1000 - EPOCH - skew;
        let older = self.places.borrow().get(&place).is_some_and(|p| p.claims.iat > claims.iat);
        if older {
            self.bad(format!("an older token replaces a newer one at {place}"));
        }
        self.ends.borrow_mut().push(Reverse((ends, place.clone(), placed.jti().to_owned(), target.name.to_string())));
        self.places.borrow_mut().insert(place, placed);
        Ok(Put::Written)
    }

    pub async fn held(&self, sink: &SinkSpec) -> Option<Option<Placed>> {
        if let Some(store) = sink.store() {
            let server = &self.stores[store];
            self.travel(server).await;
            if server.days.at(self.time()).is_some() {
                return None;
            }
        }
        Some(self.places.borrow().get(&key(sink)).cloned())
    }

    /// Somebody removes what stands at a place.
    pub fn destroy(&self, sink: &SinkSpec) {
        self.places.borrow_mut().remove(&key(sink));
    }

    /// The account behind a target was deleted and made again: what was delivered is refused.
    pub fn revoke(&self, target: &Target) {
        for place in &target.deliver {
            if let Some(placed) = self.places.borrow().get(&key(&place.sink)) {
                self.revoked.borrow_mut().insert(placed.jti().to_owned());
            }
        }
    }

    pub fn at(&self, sink: &SinkSpec) -> Option<Placed> {
        self.places.borrow().get(&key(sink)).cloned()
    }

    /// G2: whatever ended by now is looked at.
    pub fn check_ends(&self) {
        let now = self.time();
        loop {
            let Reverse((ends, place, jti, name)) = {
                let mut all = self.ends.borrow_mut();
                if all.peek().is_none_or(|Reverse((ends, ..))| *ends > now) {
                    return;
                }
                all.pop().expect("it was peeked at")
            };
            let still = self.places.borrow().get(&place).is_some_and(|p| p.jti() == jti);
            if still {
                self.check_end(ends, &place, &name);
            }
        }
    }

    fn check_end(&self, ends: i64, place: &str, name: &str) {
        let plan = self.plan.borrow().clone();
        let Some(target) = plan.target(name).filter(|t| !t.suspend) else { return };
        let Some(primary) = target.deliver.iter().find(|p| key(&p.sink) == place) else { return };
        add(&self.figures.expired);
        let server = &self.servers[&*target.cluster];
        let mut well = server.days.well_since(ends).max(self.absent.borrow().well_since(ends));
        if let Some(store) = primary.sink.store() {
            well = well.max(self.stores[store].days.well_since(ends));
        }
        match server.told_time.get() {
            Some(told) => well = well.max(if self.wrong(server) { told + RECOVERED } else { i64::MIN }),
            None if self.wrong(server) => well = i64::MAX,
            None => {}
        }
        if well < ends {
            let text = format!("G2: {place} of {name} serves a token that ended, though all was well for {} s", (ends - well) / SECOND);
            self.bad(text);
        }
        add(&self.figures.excused);
    }

    /// G2, G6 at the end of a long calm: every place has a token in date, the newest of its target.
    pub fn check_calm(&self) {
        let now = self.time();
        for target in &self.plan.borrow().targets {
            let skew = self.servers[&*target.cluster].skew;
            let mut newest = None;
            for place in &target.deliver {
                let Some(placed) = self.at(&place.sink) else { self.bad(format!("{} has nothing after a calm", key(&place.sink))) };
                let ends = placed.claims.exp.expect("every token here ends") * 1000 - EPOCH - skew;
                if ends <= now || self.revoked.borrow().contains(placed.jti()) {
                    self.bad(format!("{} serves a bad token after a calm", key(&place.sink)));
                }
                let before = newest.replace(placed.jti().to_owned());
                if before.is_some() && before != newest {
                    self.bad(format!("an owed place was forgotten: {} of {}", key(&place.sink), target.name));
                }
            }
        }
    }
}

/// A place by one name.
pub fn key(sink: &SinkSpec) -> String {
    format!("{} {}", sink.kind(), sink.place())
}
