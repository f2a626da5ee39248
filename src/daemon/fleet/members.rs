//! Who is in the fleet, who lives, and may we write? Pure: every event comes with its time on this host's own clock
//! that no one sets (ms since the start of the host, its sleep included).
//!
//! A member lives while its Lease changes: the time at which we saw it change counts, never the one that it wrote, so a
//! clock that is wrong does no harm. While the API server does not answer us nobody ages: owners go on, and nobody takes
//! over.

use std::collections::BTreeMap;

use super::share;
use super::view::{Seen, View, warnings};
use crate::cluster::lease::{Lease, Said};

/// A member whose Lease did not change for that long is dead, ms.
pub const LEASE: i64 = 15_000;
/// A Lease is renewed that often, ms.
pub const RENEW: i64 = 6_000;
/// Who has neither renewed its Lease nor tried for that long asks before it writes, ms: it was stopped.
pub const DEADLINE: i64 = 10_000;
/// Where nothing was heard for that long we do not know how others do, ms.
pub const HEARD: i64 = 9_000;
/// Who joins gives every other member that long to show that it lives, ms: where the API server was away for all, whoever
/// lives tries again every two seconds.
const PATIENCE: i64 = 5_000;
/// Clocks that differ by more are told of, ms.
pub(super) const SKEW: i64 = 60_000;
/// The Lease of one that is dead for so long is removed, ms.
const FORGOTTEN: i64 = 600_000;

/// Another member, as far as we know it.
#[derive(Debug, Clone)]
struct Member {
    lease: Lease,
    /// When we saw its Lease change last.
    changed: i64,
    alive: bool,
    /// Its clock less ours when it last wrote, ms.
    skew: i64,
}

/// How we ourselves stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    /// Not a member yet.
    Outside,
    /// A member; when its Lease was last renewed.
    Member(i64),
    /// Our Lease is another's, or was taken away.
    Lost,
}

/// Whether a write may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It may.
    Go,
    /// Nobody knows before our Lease was tried again.
    Wait,
    /// Others may serve the target by now.
    Stop,
}

/// What one member knows of the fleet.
#[derive(Debug, Clone)]
pub struct Members {
    said: Said,
    own: Own,
    /// Counts the times without a gap in which our Lease was ours: what began in one ends in it.
    term: u64,
    /// When our Lease was last tried, with or without success.
    tried: i64,
    /// When the answer to our last renewal came, and which record it made.
    settled: (i64, u64),
    others: BTreeMap<String, Member>,
    /// When something was last heard of all Leases.
    heard: Option<i64>,
    trouble: Option<String>,
    /// Counts what has changed in who owns what.
    turns: u64,
}

impl Members {
    /// One that knows nobody and is no member yet.
    pub fn new(said: Said) -> Self {
        let (tried, settled) = (i64::MIN / 2, (i64::MIN / 2, 0));
        Self { said, own: Own::Outside, term: 0, tried, settled, others: BTreeMap::new(), heard: None, trouble: None, turns: 0 }
    }

    /// What it says of itself.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Another schedule is in force.
    pub fn announce(&mut self, schedule: &str, kin: &str) {
        schedule.clone_into(&mut self.said.schedule);
        kin.clone_into(&mut self.said.kin);
        self.turns += 1;
    }

    /// Counts what has changed in who owns what, or in what a person should know.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// The time without a gap in which we are a member.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Every Lease of the fleet, as it stood at some time since `begun`.
    pub fn listed(&mut self, leases: Vec<Lease>, begun: i64, now: i64, wall: i64) {
        self.touch(now);
        let before = self.others.len();
        self.others.retain(|name, _| leases.iter().any(|lease| lease.said.member == *name));
        self.turns += u64::from(self.others.len() != before);
        // What was asked before our last renewal came through may not show it yet.
        let is_there = begun < self.settled.0 || leases.iter().any(|lease| lease.said.member == self.said.member);
        if matches!(self.own, Own::Member(_)) && !is_there {
            self.lost("its Lease was deleted".into());
        }
        leases.into_iter().for_each(|lease| self.written(lease, now, wall));
    }

    /// A Lease was written.
    pub fn written(&mut self, lease: Lease, now: i64, wall: i64) {
        self.touch(now);
        if lease.said.member == self.said.member {
            let older = version(&lease.record) <= self.settled.1;
            if matches!(self.own, Own::Member(_)) && lease.said.run != self.said.run && !older {
                self.lost(format!("another daemon is member {} too: give each host or Pod a name of its own", self.said.member));
            }
            return;
        }
        let skew = lease.renewed.map_or(0, |renewed| renewed - wall);
        let name = lease.said.member.clone();
        match self.others.get_mut(&name) {
            Some(known) if known.lease.record == lease.record => {}
            Some(known) => {
                let news = !known.alive || known.lease.said != lease.said || (known.skew.abs() > SKEW) != (skew.abs() > SKEW);
                *known = Member { lease, changed: now, alive: true, skew };
                self.turns += u64::from(news);
            }
            None => {
                self.others.insert(name, Member { lease, changed: now, alive: true, skew });
                self.turns += 1;
            }
        }
    }

    /// A member gave its Lease up: it serves nothing any more.
    pub fn gone(&mut self, lease: &Lease, now: i64) {
        self.touch(now);
        let said = &lease.said;
        if said.member == self.said.member {
            if matches!(self.own, Own::Member(_)) && said.run == self.said.run {
                self.lost("its Lease was deleted".into());
            }
        } else if self.others.remove(&said.member).is_some() {
            self.turns += 1;
        }
    }

    /// Something was heard. Where nothing was for a while, those who lived before get their time again: nobody knows
    /// what we did not hear.
    fn touch(&mut self, now: i64) {
        if self.heard.is_none_or(|heard| now - heard > HEARD) {
            for member in self.others.values_mut().filter(|member| member.alive) {
                member.changed = now;
            }
        }
        self.heard = Some(now);
    }

    /// Whether we know how others do.
    pub fn hears(&self, now: i64) -> bool {
        self.heard.is_some_and(|heard| now - heard <= HEARD)
    }

    /// Time passes: who was silent for too long is dead, as far as we can hear.
    pub fn tick(&mut self, now: i64) {
        if !self.hears(now) {
            return;
        }
        for member in self.others.values_mut().filter(|member| member.alive && now - member.changed >= LEASE) {
            member.alive = false;
            self.turns += 1;
        }
    }

    /// When the next one would be dead if it stayed silent.
    pub fn next(&self) -> Option<i64> {
        self.others.values().filter(|member| member.alive).map(|member| member.changed + LEASE).min()
    }

    /// Leases of those who are dead for long: to be removed.
    pub fn forgotten(&self, now: i64) -> Vec<Lease> {
        let long = |member: &&Member| !member.alive && now - member.changed >= LEASE + FORGOTTEN;
        if !self.hears(now) || !matches!(self.own, Own::Member(_)) {
            return Vec::new();
        }
        self.others.values().filter(long).map(|member| member.lease.clone()).collect()
    }

    /// Our Lease was renewed by a call that began then, and is that record now.
    pub fn renewed(&mut self, record: &str, begun: i64, now: i64) {
        let unbroken = matches!(self.own, Own::Member(last) if begun - last <= LEASE);
        if !unbroken {
            self.term += 1;
            self.turns += 1;
        }
        if self.hears(now) && self.trouble.take().is_some() {
            self.turns += 1;
        }
        self.own = Own::Member(begun);
        self.settled = (now, version(record));
        self.tried = self.tried.max(begun);
    }

    /// We are about to join, by a write that the API server made at `written` (unix ms, its own clock): by that clock we know
    /// how long the others had been silent before we could hear them; a second less, for it cuts fractions off, and who was
    /// dead for us before its Lease ran out would go on as its owner.
    pub fn joins(&mut self, written: Option<i64>, now: i64) {
        let Some(ours) = written.filter(|_| !matches!(self.own, Own::Member(_))) else { return };
        for member in self.others.values_mut() {
            let Some(theirs) = member.lease.written else { continue };
            let silent = (ours - theirs - 1_000).min(LEASE - PATIENCE);
            member.changed = member.changed.min(now - silent);
        }
    }

    /// Our Lease could not be tried, or was refused: we go on as we are.
    pub fn failed(&mut self, begun: i64, why: &str) {
        self.tried = self.tried.max(begun);
        if self.trouble.as_deref() != Some(why) {
            self.trouble = Some(why.to_owned());
            self.turns += 1;
        }
    }

    /// Our Lease is not ours any more.
    pub fn lost(&mut self, why: String) {
        self.own = Own::Lost;
        self.term += 1;
        self.turns += 1;
        self.trouble = Some(why);
    }

    /// Whether our Lease was taken from us.
    pub fn is_lost(&self) -> bool {
        self.own == Own::Lost
    }

    /// Whether what began in that term may write now.
    pub fn pass(&self, term: u64, now: i64) -> Pass {
        match self.own {
            Own::Member(_) if term != self.term => Pass::Stop,
            // Where it was tried in vain the API server is away for us: whoever owned a target goes on.
            Own::Member(renewed) if now - renewed.max(self.tried) < DEADLINE => Pass::Go,
            Own::Member(_) => Pass::Wait,
            Own::Outside | Own::Lost => Pass::Stop,
        }
    }

    /// Who owns what, and what a person should know, at this moment.
    pub fn view(&self) -> View {
        let (said, member) = (&self.said, matches!(self.own, Own::Member(_)));
        let mut owners: Vec<(String, u64)> = Vec::new();
        if member {
            owners.push((said.member.clone(), share::hash(&said.member)));
        }
        // Who has another schedule may not know our targets: it serves its own.
        let with_us = |other: &&Member| other.alive && other.lease.said.schedule == said.schedule;
        owners.extend(self.others.values().filter(with_us).map(|o| (o.lease.said.member.clone(), share::hash(&o.lease.said.member))));
        let others = self.others.values().map(|other| Seen {
            name: other.lease.said.member.clone(),
            alive: other.alive,
            schedule: other.lease.said.schedule.clone(),
            version: other.lease.said.version.clone(),
            warnings: if other.alive { warnings(said, &other.lease.said, other.skew) } else { Vec::new() },
        });
        let own = Seen {
            name: said.member.clone(),
            alive: member,
            schedule: said.schedule.clone(),
            version: said.version.clone(),
            warnings: Vec::new(),
        };
        let hashes = owners.iter().map(|(_, hash)| *hash).collect();
        let names = owners.into_iter().map(|(name, _)| name).collect();
        let trouble = self.trouble.clone();
        View {
            me: said.member.clone(),
            member,
            term: self.term,
            trouble,
            members: std::iter::once(own).chain(others).collect(),
            names,
            hashes,
        }
    }
}

/// A record's place in the order of all writes: API servers count them, though they promise it since 1.35 only. Where
/// they did not, everything would be newer.
fn version(record: &str) -> u64 {
    record.parse().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
