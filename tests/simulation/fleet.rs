//! A fleet under a simulated clock: the real decisions of who lives, who owns what, when a token is due and whether a
//! write may go on, in a world of kills, stops, cuts, outages of the API server and wrong clocks.
//!
//! Short: 20,000 targets, 10 clusters, 6 members, 3 days. `TOKENFERRY_LONG=1`: 1,000,000 targets, 100 clusters, 30
//! members, 30 days.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::rc::Rc;

use tokenferry::cluster::lease::{Event, Lease, Said, event};
use tokenferry::daemon::fleet::members::{LEASE, Members, Pass, RENEW};
use tokenferry::daemon::fleet::share;
use tokenferry::daemon::fleet::view::View;
use tokenferry::schedule::Target;
use tokenferry::schedule::timing::{Life, due_by_lifetime};

use super::chance::Chance;
use super::world::{DAY, HOUR, MINUTE, SECOND};
use super::{long, planned, seeds};

/// Life of a token, seconds.
const LIFE: i64 = 24 * 3_600;
/// Others serve what one served after so long at most.
const WITHIN: i64 = 20 * SECOND;
/// A stopped member's write comes that much after its mint, ms.
const SLOW: i64 = 3 * SECOND;

/// How a member fares.
#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Runs,
    Killed,
    Stopped,
    Cut,
}

struct Member {
    members: Members,
    state: State,
    /// Its clock less the right one.
    clock: i64,
    /// What it acted on last, and who owns what by that.
    view: View,
    owners: Rc<Vec<u8>>,
    turns: u64,
    /// What it believes the `iat` of each target's token to be, in seconds.
    believed: Vec<i32>,
    /// Writes under way: target, `iat`, and the term in which they began.
    writes: Vec<(usize, i64, u64)>,
    runs: u32,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Renew(usize),
    Tick,
    Deliver(usize, usize),
    Write(usize),
    Fail,
    Mend(usize),
    Judge(usize, i64),
    Api(bool),
    Cluster(usize, bool),
}

#[derive(Default, Debug)]
struct Figures {
    failures: u64,
    mints: u64,
    minted_again: u64,
    older_over_newer: u64,
    stopped_by_term: u64,
    stopped_by_fence: u64,
    unserved: u64,
    late: u64,
    latest: i64,
    largest_share: f64,
}

struct Fleet<'a> {
    chance: &'a Chance,
    now: i64,
    queue: BinaryHeap<Reverse<(i64, u64, What)>>,
    /// Targets to look at, apart: a million of them would make every other step slow.
    dues: BinaryHeap<Reverse<(i64, u64, usize)>>,
    seq: u64,
    fleet: Vec<Member>,
    names: Vec<u64>,
    /// `iat` at each target's place, and when it is due.
    places: Vec<(i64, i64)>,
    /// When a token issued at 0 is due, in seconds: without a window the time moves with the `iat`.
    ages: Vec<i64>,
    leases: BTreeMap<usize, Lease>,
    record: u64,
    api: bool,
    down: Vec<bool>,
    shares: HashMap<Vec<String>, Rc<Vec<u8>>>,
    /// Whether writes ask for leave, and whether who takes a target reads its age off the place.
    fenced: bool,
    reads: bool,
    /// When the API server went or came, or a member came back.
    moved: i64,
    figures: Figures,
}

fn name(member: usize) -> String {
    format!("node-{member}")
}

fn said(member: usize, run: u32) -> Said {
    let text = |text: &str| text.to_owned();
    Said {
        member: name(member),
        run: format!("{run}"),
        daemon: format!("d{member}"),
        schedule: text("s"),
        version: text("1"),
        kin: text("k"),
    }
}

impl<'a> Fleet<'a> {
    fn new(chance: &'a Chance, targets: usize, clusters: usize, members: usize, (fenced, reads): (bool, bool)) -> Self {
        let plan =
            planned("  - {name: t, cluster: near, serviceAccount: a/b, duration: 24h, deliver: [{vault: {store: vault, path: v}}]}\n");
        let member = |n: usize| Member {
            members: Members::new(said(n, 0)),
            state: State::Runs,
            clock: 0,
            view: View::default(),
            owners: Rc::new(Vec::new()),
            turns: u64::MAX,
            believed: vec![i32::MIN; targets],
            writes: Vec::new(),
            runs: 0,
        };
        let mut template: Target = (*plan.targets[0]).clone();
        let age = |target: usize| {
            template.name = format!("target-{target}").into();
            due_by_lifetime(&template, Life { issued_at: 0, expires_at: LIFE }, "fleet")
        };
        let mut fleet = Self {
            chance,
            now: 0,
            queue: BinaryHeap::new(),
            dues: BinaryHeap::new(),
            seq: 0,
            fleet: (0..members).map(member).collect(),
            names: (0..targets).map(|n| share::hash(&format!("target-{n}"))).collect(),
            places: vec![(i64::MIN, 0); targets],
            ages: (0..targets).map(age).collect(),
            leases: BTreeMap::new(),
            record: 0,
            api: true,
            down: vec![false; clusters],
            shares: HashMap::new(),
            fenced,
            reads,
            moved: 0,
            figures: Figures::default(),
        };
        for index in 0..targets {
            // Whatever was before: ages of all sorts.
            fleet.write(index, -chance.between(0, LIFE / 2));
            fleet.look(fleet.places[index].1.max(MINUTE), index);
        }
        for index in 0..members {
            fleet.at(chance.between(0, RENEW), What::Renew(index));
        }
        fleet.at(SECOND, What::Tick);
        fleet.at(10 * MINUTE, What::Fail);
        fleet
    }

    fn at(&mut self, at: i64, what: What) {
        self.seq += 1;
        self.queue.push(Reverse((at, self.seq, what)));
    }

    /// Looks at a target then.
    fn look(&mut self, at: i64, target: usize) {
        self.seq += 1;
        self.dues.push(Reverse((at, self.seq, target)));
    }

    /// When a token of that `iat` is due, ms.
    fn due_of(&self, target: usize, iat: i64) -> i64 {
        (iat + self.ages[target]) * SECOND
    }

    fn write(&mut self, target: usize, iat: i64) {
        if iat < self.places[target].0 {
            self.figures.older_over_newer += 1;
        }
        self.places[target] = (iat, self.due_of(target, iat));
    }

    fn reaches(&self, member: usize) -> bool {
        self.api && self.fleet[member].state == State::Runs
    }

    /// A member looks at what has changed, as the loop does.
    fn settle(&mut self, index: usize) {
        let turns = self.fleet[index].members.turns();
        if self.fleet[index].turns == turns {
            return;
        }
        let view = self.fleet[index].members.view();
        // Each member names itself first; whose a target is does not depend on it.
        let mut names = view.sharers().to_vec();
        names.sort();
        let owners = match self.shares.get(&names) {
            Some(owners) => Rc::clone(owners),
            None => {
                let hashes: Vec<u64> = names.iter().map(|name| share::hash(name)).collect();
                let number = |at: usize| names[at].trim_start_matches("node-").parse::<u8>().expect("a number");
                let owners = self.names.iter().map(|target| share::owner(*target, &hashes).map_or(u8::MAX, number));
                let owners = Rc::new(owners.collect::<Vec<u8>>());
                if self.shares.len() >= 512 {
                    self.shares.clear();
                }
                self.shares.insert(names, Rc::clone(&owners));
                owners
            }
        };
        let (term, me) = (self.fleet[index].view.term, u8::try_from(index).expect("few members"));
        let renewed = term != view.term;
        let before = (self.fleet[index].view.member && !renewed).then(|| Rc::clone(&self.fleet[index].owners));
        if view.member && before.as_ref().is_none_or(|before| !Rc::ptr_eq(before, &owners)) {
            for (target, _) in owners.iter().enumerate().filter(|(_, owner)| **owner == me) {
                if before.as_ref().is_some_and(|before| before.get(target) == Some(&me)) {
                    continue;
                }
                if self.reads {
                    self.fleet[index].believed[target] = i32::try_from(self.places[target].0).expect("some days");
                } else {
                    self.look(self.now, target);
                }
            }
        }
        let member = &mut self.fleet[index];
        (member.turns, member.view, member.owners) = (turns, view, owners);
    }

    fn serves(&self, member: usize, target: usize) -> bool {
        let known = &self.fleet[member];
        !matches!(known.state, State::Killed | State::Stopped)
            && known.view.member
            && known.owners.get(target) == u8::try_from(member).ok().as_ref()
    }

    fn renew(&mut self, index: usize) {
        if self.fleet[index].state == State::Killed {
            return;
        }
        if self.fleet[index].state == State::Stopped {
            return self.at(self.now + SECOND, What::Renew(index));
        }
        if !self.reaches(index) {
            self.fleet[index].members.failed(self.now, "away");
            self.settle(index);
            return self.at(self.now + 2 * SECOND, What::Renew(index));
        }
        self.record += 1;
        if !self.fleet[index].view.member {
            // Who joins sees who is there already.
            let all: Vec<Lease> = self.leases.values().cloned().collect();
            self.fleet[index].members.listed(all, self.now, self.now, self.now);
            let said = self.fleet[index].members.said();
            self.leases.insert(index, lease(said));
        }
        let own = self.leases.get_mut(&index).expect("a member has a Lease");
        own.record = self.record.to_string();
        own.renewed = Some(self.now + self.fleet[index].clock);
        let record = self.record.to_string();
        self.fleet[index].members.renewed(&record, self.now, self.now);
        self.settle(index);
        for other in 0..self.fleet.len() {
            let delay = self.chance.between(5, 300);
            self.at(self.now + delay, What::Deliver(other, index));
        }
        self.at(self.now + RENEW, What::Renew(index));
    }

    fn deliver(&mut self, index: usize, from: usize) {
        if self.reaches(index) {
            let wall = self.now + self.fleet[index].clock;
            self.fleet[index].members.written(self.leases[&from].clone(), self.now, wall);
            self.settle(index);
        }
    }

    /// A token is due: whoever owns it looks at the place, and mints.
    fn due(&mut self, target: usize) {
        let (iat, due) = self.places[target];
        let cluster = target % self.down.len();
        let owner = (0..self.fleet.len()).find(|member| self.serves(*member, target));
        let (Some(owner), false) = (owner, self.down[cluster]) else {
            if (iat + LIFE) * SECOND < self.now {
                self.figures.late += 1;
                self.figures.latest = self.figures.latest.max(self.now - (iat + LIFE) * SECOND);
            }
            return self.look(self.now + 5 * SECOND, target);
        };
        let believed = i64::from(self.fleet[owner].believed[target]);
        let thinks = self.due_of(target, believed.max(-LIFE * 10));
        if self.now < thinks {
            return self.look(thinks, target);
        }
        // Another one may have minted meanwhile: the place says.
        if self.reads && self.now < due {
            self.fleet[owner].believed[target] = i32::try_from(iat).expect("some days");
            return self.look(due, target);
        }
        self.figures.mints += 1;
        self.figures.minted_again += u64::from(self.now < due);
        self.fleet[owner].believed[target] = i32::try_from(self.now / SECOND).expect("some days");
        let term = self.fleet[owner].members.term();
        self.fleet[owner].writes.push((target, self.now / SECOND, term));
        self.at(self.now + self.chance.between(50, SLOW), What::Write(owner));
        // A write that never comes is noticed by whoever owns the target then.
        self.look(self.now + MINUTE, target);
    }

    /// Writes that are under way come to their places, as far as they may.
    fn writes(&mut self, index: usize) {
        match self.fleet[index].state {
            State::Killed => return self.fleet[index].writes.clear(),
            State::Stopped => return self.at(self.now + SECOND, What::Write(index)),
            State::Runs | State::Cut => {}
        }
        let (mut waiting, mut stopped) = (Vec::new(), Vec::new());
        for (target, iat, term) in std::mem::take(&mut self.fleet[index].writes) {
            let may = self.fleet[index].members.pass(term, self.now);
            if may == Pass::Wait {
                waiting.push((target, iat, term));
            } else if self.fenced && (may == Pass::Stop || iat < self.places[target].0) {
                self.figures.stopped_by_term += u64::from(may == Pass::Stop);
                self.figures.stopped_by_fence += u64::from(may == Pass::Go);
                stopped.push(target);
            } else {
                self.write(target, iat);
            }
        }
        // What was not written is looked at before the next mint.
        for target in stopped {
            self.fleet[index].believed[target] = i32::try_from(self.places[target].0).expect("some days");
            self.look(self.now, target);
        }
        if !waiting.is_empty() {
            self.fleet[index].writes = waiting;
            self.at(self.now + SECOND, What::Write(index));
        }
    }

    fn fail(&mut self) {
        let index = self.chance.between(0, self.fleet.len() as i64) as usize;
        let running = self.fleet.iter().filter(|member| member.state == State::Runs).count();
        let lasts = self.chance.scale(30e3, 3.0 * HOUR as f64);
        match self.chance.next() % 12 {
            0 => {
                (self.api, self.moved) = (false, self.now);
                self.at(self.now + lasts, What::Api(true));
            }
            1 | 2 => {
                let cluster = self.chance.between(0, self.down.len() as i64) as usize;
                self.down[cluster] = true;
                self.at(self.now + lasts, What::Cluster(cluster, false));
            }
            3 => self.fleet[index].clock = [600 * SECOND, -600 * SECOND, 0][self.chance.next() as usize % 3],
            what if running > 2 && self.fleet[index].state == State::Runs => {
                self.figures.failures += 1;
                self.fleet[index].state = [State::Killed, State::Stopped, State::Cut][what as usize % 3];
                self.at(self.now + lasts, What::Mend(index));
                self.at(self.now + WITHIN, What::Judge(index, self.now));
            }
            _ => {}
        }
        self.at(self.now + self.chance.scale(MINUTE as f64, 2.0 * HOUR as f64), What::Fail);
    }

    fn mend(&mut self, index: usize) {
        if self.fleet[index].state == State::Killed {
            let runs = self.fleet[index].runs + 1;
            let known = &mut self.fleet[index];
            known.members = Members::new(said(index, runs));
            (known.runs, known.view, known.turns) = (runs, View::default(), u64::MAX);
            known.writes.clear();
            self.at(self.now, What::Renew(index));
        }
        self.fleet[index].state = State::Runs;
        self.moved = self.now;
    }

    /// So long after a failure every target of that member is served by one of the others.
    fn judge(&mut self, failed: usize, at: i64) {
        // While others come, or the API server does, nobody can tell who lives.
        if !self.api || self.fleet[failed].state == State::Runs || self.moved > at - LEASE {
            return;
        }
        let running: Vec<usize> = (0..self.fleet.len()).filter(|member| self.reaches(*member) && self.fleet[*member].view.member).collect();
        let mut served = vec![false; self.names.len()];
        for member in &running {
            let owners = self.fleet[*member].owners.iter();
            served.iter_mut().zip(owners).for_each(|(served, owner)| *served |= usize::from(*owner) == *member);
        }
        self.figures.unserved += served.iter().filter(|served| !**served).count() as u64;
        if let Some(first) = running.first() {
            let mut shares = vec![0usize; self.fleet.len()];
            self.fleet[*first].owners.iter().for_each(|owner| shares[usize::from(*owner)] += 1);
            let live = shares.iter().filter(|share| **share > 0).count();
            let largest = shares.iter().max().copied().unwrap_or(0) as f64 * live as f64 / self.names.len() as f64;
            self.figures.largest_share = self.figures.largest_share.max(largest);
        }
    }

    fn run(mut self, until: i64) -> Figures {
        let mut day = 0;
        while let Some(Reverse((at, seq, what))) = self.queue.pop() {
            while let Some(Reverse((due, _, target))) =
                self.dues.peek().copied().filter(|Reverse((due, turn, _))| (*due, *turn) < (at, seq))
            {
                self.dues.pop();
                self.now = due;
                self.due(target);
            }
            if at > until {
                break;
            }
            if long() && at / DAY > day {
                day = at / DAY;
                println!("day {day}: {:?}", self.figures);
            }
            self.now = at;
            match what {
                What::Renew(index) => self.renew(index),
                What::Tick => {
                    for index in 0..self.fleet.len() {
                        if !matches!(self.fleet[index].state, State::Killed | State::Stopped) {
                            self.fleet[index].members.tick(at);
                            self.settle(index);
                        }
                    }
                    self.at(at + SECOND, What::Tick);
                }
                What::Deliver(index, from) => self.deliver(index, from),
                What::Write(index) => self.writes(index),
                What::Fail => self.fail(),
                What::Mend(index) => self.mend(index),
                What::Judge(index, since) => self.judge(index, since),
                What::Api(up) => (self.api, self.moved) = (up, at),
                What::Cluster(cluster, down) => self.down[cluster] = down,
            }
        }
        self.figures
    }
}

/// A Lease as the API server tells of it.
fn lease(said: &Said) -> Lease {
    let line = serde_json::json!({"type": "MODIFIED", "object": {
        "metadata": {
            "name": format!("f.{}", said.member), "uid": "u", "resourceVersion": "0", "labels": {"tokenferry/fleet": "f"},
            "annotations": {"tokenferry/daemon": said.daemon, "tokenferry/schedule": said.schedule,
                "tokenferry/version": said.version, "tokenferry/kin": said.kin},
        },
        "spec": {"holderIdentity": format!("{}_{}", said.member, said.run)},
    }});
    match event(line.to_string().as_bytes(), "f") {
        Ok(Some(Event::Written(lease))) => lease,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fleet_serves_every_target_whatever_becomes_of_its_members() {
    const { assert!(LEASE < WITHIN) };
    let (targets, clusters, members, days) = if long() { (1_000_000, 100, 30, 30) } else { (20_000, 10, 6, 3) };
    for seed in seeds(2) {
        let chance = Chance::new(seed);
        let figures = Fleet::new(&chance, targets, clusters, members, (true, true)).run(days * DAY);
        println!("seed {seed}: {targets} targets, {clusters} clusters, {members} members, {days} days: {figures:?}");
        assert!(figures.failures > 5 && figures.mints as usize > targets, "seed {seed}: nothing happened: {figures:?}");
        assert_eq!((figures.unserved, figures.late), (0, 0), "seed {seed}: {figures:?}");
        assert_eq!((figures.minted_again, figures.older_over_newer), (0, 0), "seed {seed}: {figures:?}");
        assert!(figures.largest_share <= 1.15, "seed {seed}: {figures:?}");
    }
}

#[test]
fn without_terms_and_fence_older_tokens_would_stand_over_newer_ones() {
    let older: u64 = (1..=3).map(|seed| Fleet::new(&Chance::new(seed), 20_000, 10, 6, (false, true)).run(3 * DAY).older_over_newer).sum();
    assert!(older > 0, "this world is too kind: what the fence prevents does not happen in it");
}

#[test]
fn without_the_age_read_off_the_place_fresh_tokens_would_be_minted_again() {
    let again = Fleet::new(&Chance::new(1), 2_000, 10, 6, (true, false)).run(DAY).minted_again;
    assert!(again > 0, "this world is too kind: what reading prevents does not happen in it");
}
