//! The loop in a fleet: what others do is heard, what is ours is taken, what is another's is handed over.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Wheel;
use crate::daemon::ask::{Elsewhere, Selector};
use crate::daemon::fleet::Fleet;
use crate::daemon::fleet::view::View;
use crate::daemon::rotation::identify;
use crate::daemon::status::Status;
use crate::daemon::status::fleet::{FleetStatus, MemberStatus};
use crate::daemon::step::Standing;
use crate::record::{FleetLine, Kind, Line};
use crate::schedule::Target;

/// What the loop remembers of it.
#[derive(Default)]
pub(super) struct Sharing {
    changes: Option<watch::Receiver<u64>>,
    pulse: Option<JoinHandle<()>>,
    /// The fleet as the loop acted on it last.
    view: View,
    /// Targets that were taken over from another member, and handed over to one.
    moved: (u64, u64),
}

impl Sharing {
    /// Waits for the next change; never, where there is no fleet.
    pub async fn changed(&mut self) {
        match &mut self.changes {
            Some(changes) => {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    }
}

impl Wheel {
    /// Takes our seat, where the schedule is a fleet's. Who runs once takes none.
    pub(super) fn join_fleet(&mut self) {
        if self.options.once.is_some() {
            return;
        }
        let Some(fleet) = &self.scene.fleet else { return };
        self.table.share();
        self.sharing.changes = Some(fleet.changes());
        self.sharing.pulse = Some(fleet.begin());
    }

    /// Others came, went, or have another schedule: what changes owners is taken, or handed over.
    pub(super) async fn share(&mut self) {
        let Some(fleet) = self.scene.fleet.clone().filter(|_| self.options.once.is_none()) else { return };
        let view = fleet.view();
        let before = std::mem::replace(&mut self.sharing.view, view.clone());
        tell(&before, &view);
        let renewed = before.term != view.term;
        // Who was not there to see whose they were asks those who were.
        let others = if before.member { before.clone() } else { view.beside_us() };
        let (mut gone, mut ours, mut lines) = (Vec::new(), Vec::new(), standing(&fleet, &before, &view));
        let plan = Arc::clone(&self.scene.plan);
        for target in plan.targets.iter().filter(|target| target.is_shared()) {
            let name: Arc<str> = Arc::clone(&target.name);
            let (was, is) = (!self.table.is_elsewhere(&name), view.is_ours(&name));
            // In another term nothing is as we left it.
            if was && (!is || renewed) {
                gone.push(Arc::clone(&name));
            }
            if is && (!was || renewed) {
                ours.push(Arc::clone(target));
            }
            if was != is {
                lines.extend(self.moved(&fleet, target, is, if is { others.owner(&name) } else { view.owner(&name) }));
            }
        }
        for line in &lines {
            self.table.state.apply(line);
        }
        if !lines.is_empty() {
            self.writer.append(lines).await;
        }
        if gone.is_empty() && ours.is_empty() {
            return;
        }
        tracing::info!(taken = ours.len(), given = gone.len(), "the fleet's targets are shared out");
        self.event(|table, _| {
            table.hand_over(&gone);
            table.take(ours);
        })
        .await;
    }

    /// The record of a hand-over; of a target that nobody else served there is none.
    fn moved(&mut self, fleet: &Fleet, target: &Target, ours: bool, other: Option<&str>) -> Option<Line> {
        let (me, other) = (self.sharing.view.me.clone(), other?.to_owned());
        let (kind, from, to) = if ours { (Kind::TakenOver, other, me.clone()) } else { (Kind::HandedOver, me.clone(), other) };
        let count = if ours { &mut self.sharing.moved.0 } else { &mut self.sharing.moved.1 };
        *count += 1;
        let mut line = Line::new(kind, Timestamp::now());
        identify(&mut line, target);
        line.fleet = Some(FleetLine { lease: fleet.spec().shown(), member: me, from: Some(from), to: Some(to) });
        Some(line)
    }

    /// Another plan is in force.
    pub(super) async fn announce(&mut self) {
        if let Some(fleet) = &self.scene.fleet {
            fleet.announce(&self.scene.plan, self.scene.cluster(&fleet.spec().cluster));
        }
        self.share().await;
    }

    /// Gives our seat up, once nothing is under way any more.
    pub(super) async fn leave_fleet(&mut self) {
        let Some(pulse) = self.sharing.pulse.take() else { return };
        pulse.abort();
        let Some(fleet) = self.scene.fleet.clone() else { return };
        if fleet.view().member {
            let mut line = Line::new(Kind::Left, Timestamp::now());
            line.fleet = Some(FleetLine { lease: fleet.spec().shown(), member: self.sharing.view.me.clone(), from: None, to: None });
            self.record(line).await;
        }
        fleet.leave().await;
    }

    /// Says of a status which member serves what. What is known here of a target that another one serves is old.
    pub(super) fn show_fleet(&self, status: &mut Status) {
        let Some(fleet) = self.scene.fleet.as_ref().filter(|fleet| fleet.is_kept()) else { return };
        let view = fleet.view();
        for row in &mut status.targets {
            let shared = self.scene.plan.target(&row.name).is_some_and(|target| target.is_shared());
            row.owner = view.owner(&row.name).filter(|_| shared).map(str::to_owned);
            if self.table.is_elsewhere(&row.name) {
                row.state = Standing::Elsewhere;
                (row.jti, row.last_error, row.failures) = (None, None, 0);
                (row.issued_at, row.expires_at, row.proven_at, row.next_rotation) = (None, None, None, None);
                row.sinks.iter_mut().for_each(|sink| (sink.outcome, sink.error) = (None, None));
            }
        }
        if let Some(daemon) = &mut status.daemon {
            daemon.fleet = Some(self.fleet_status(fleet, &view));
        }
    }

    /// Which of these another member serves, or nobody yet.
    pub(super) fn elsewhere(&self, meant: &Selector) -> Vec<Elsewhere> {
        let view = self.scene.fleet.as_ref().filter(|fleet| fleet.is_kept()).map(|fleet| fleet.view());
        let away = self.scene.plan.targets.iter().filter(|target| self.table.is_elsewhere(&target.name) && meant(target));
        let owner = |name: &str| view.as_ref().and_then(|view| view.owner(name).filter(|owner| *owner != view.me)).map(str::to_owned);
        away.map(|target| Elsewhere { target: target.name.to_string(), member: owner(&target.name) }).collect()
    }

    fn fleet_status(&self, fleet: &Fleet, view: &View) -> FleetStatus {
        let mut owned: HashMap<&str, usize> = HashMap::new();
        for target in self.scene.plan.targets.iter().filter(|target| target.is_shared()) {
            if let Some(owner) = view.owner(&target.name) {
                *owned.entry(owner).or_default() += 1;
            }
        }
        let members = view.members.iter().map(|seen| MemberStatus {
            name: seen.name.clone(),
            alive: seen.alive,
            targets: owned.get(seen.name.as_str()).copied().unwrap_or(0),
            version: seen.version.clone(),
            schedule: seen.schedule.clone(),
            warnings: seen.warnings.clone(),
        });
        let (taken_over, handed_over) = self.sharing.moved;
        FleetStatus {
            lease: fleet.spec().shown(),
            member: view.me.clone(),
            joined: view.member,
            error: view.trouble.clone(),
            members: members.collect(),
            taken_over,
            handed_over,
        }
    }
}

/// The record of our own place in the fleet, where it is another one now.
fn standing(fleet: &Fleet, before: &View, view: &View) -> Vec<Line> {
    if before.term == view.term {
        return Vec::new();
    }
    let line = |kind, error: Option<String>| {
        let mut line = Line::new(kind, Timestamp::now());
        line.fleet = Some(FleetLine { lease: fleet.spec().shown(), member: view.me.clone(), from: None, to: None });
        line.error = error;
        line
    };
    let left = before.member.then(|| {
        let unseen = || "our Lease ran out before it was renewed: this daemon was stopped, or cut off".to_owned();
        line(Kind::Left, Some(if view.member { unseen() } else { view.trouble.clone().unwrap_or_else(unseen) }))
    });
    left.into_iter().chain(view.member.then(|| line(Kind::Joined, None))).collect()
}

/// What a person should know, in the log.
fn tell(before: &View, view: &View) {
    if before.term != view.term {
        match (view.member, &view.trouble) {
            (true, _) => tracing::info!(member = view.me, "this daemon is a member of the fleet"),
            (false, why) => {
                tracing::error!(member = view.me, "this daemon is no member of the fleet: {}", why.as_deref().unwrap_or("unknown"))
            }
        }
    }
    for seen in &view.members {
        let known = before.members.iter().find(|known| known.name == seen.name);
        for warning in seen.warnings.iter().filter(|warning| known.is_none_or(|known| !known.warnings.contains(warning))) {
            tracing::warn!(member = seen.name, "member {}: {warning}", seen.name);
        }
        if seen.name != view.me && known.is_none_or(|known| known.alive != seen.alive) {
            let word = if seen.alive { "lives" } else { "is dead: its Lease ran out" };
            tracing::info!(member = seen.name, "member {} {word}", seen.name);
        }
    }
    for known in before.members.iter().filter(|known| !view.members.iter().any(|seen| seen.name == known.name)) {
        tracing::info!(member = known.name, "member {} left", known.name);
    }
}
