//! A fleet: several daemons share one schedule. Each announces itself by a Lease; each target with shared places has one
//! owner among those who live; targets with files of a host are served on the hosts that they name.
//!
//! `members` (who lives, and may we write) and `share` (who owns what) are pure; `pulse` renews our Lease and watches
//! those of others; [`Fleet`] is what the loop and each rotation ask.

pub mod members;
mod pulse;
mod seat;
pub mod share;
pub mod view;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::clock::Clocks;
use crate::cluster::lease::{Lease, LeaseSpec, Said};
use crate::cluster::{Cluster, Trouble};
use crate::schedule::{Plan, pattern};
use crate::token::render::hex;
use members::{Members, Pass};
pub use seat::Seat;
use view::View;

/// The variable that names this member, where the host's name will not do: several daemons on one host, Pods that share
/// their node's name.
pub const VARIABLE: &str = "TOKENFERRY_MEMBER";
/// A write waits for that long to learn whether our Lease holds.
const ASK_WITHIN: Duration = Duration::from_secs(12);
/// A clean stop does not wait longer for the API server.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// The name of this member: what the variable says, else the host's (in a Pod, the Pod's) name, as Leases can have it.
pub fn member(variable: Option<&str>) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = variable.filter(|name| !name.is_empty()).unwrap_or(&host);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().take(190).map(plain).collect();
    let labels = name.split('.').map(|label| label.trim_matches('-')).filter(|label| !label.is_empty());
    let name = labels.collect::<Vec<_>>().join(".");
    if name.is_empty() { "member".into() } else { name }
}

/// This process's own name as a member.
pub fn this_member() -> String {
    member(std::env::var(VARIABLE).ok().as_deref())
}

/// The plan as this host serves it: targets for other hosts left out.
pub fn here(mut plan: Plan) -> Plan {
    if plan.targets.iter().all(|target| target.hosts.is_empty()) {
        return plan;
    }
    let me = this_member();
    plan.targets.retain(|target| target.hosts.is_empty() || target.hosts.iter().any(|glob| pattern::matches(glob, &me)));
    plan.by_name = plan.targets.iter().enumerate().map(|(index, target)| (Arc::clone(&target.name), index)).collect();
    plan
}

/// A sketch of what a plan serves.
fn kin(plan: &Plan) -> String {
    let names = plan.targets.iter().filter(|target| target.is_shared());
    share::sketch(names.map(|target| &*target.name))
}

/// Our seat in the fleet. Shared by the loop, the rotations and the pulse.
pub struct Fleet {
    spec: LeaseSpec,
    members: Mutex<Members>,
    cluster: Mutex<Arc<Cluster>>,
    /// Our Lease as we wrote it last.
    held: Mutex<Option<Lease>>,
    /// Counts what has changed.
    turns: watch::Sender<u64>,
    /// Our Lease was tried, whatever came of it.
    tries: watch::Sender<()>,
    /// Our Lease is to be renewed now.
    hurry: Notify,
    begun: AtomicBool,
}

impl Fleet {
    /// A seat that is not taken yet. `daemon` names this host and records folder.
    pub fn new(spec: LeaseSpec, plan: &Plan, cluster: Arc<Cluster>, daemon: &str) -> Arc<Self> {
        let said = Said {
            member: this_member(),
            run: run(),
            daemon: daemon.to_owned(),
            schedule: plan.sha256.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            kin: kin(plan),
        };
        Arc::new(Self {
            spec,
            members: Mutex::new(Members::new(said)),
            cluster: Mutex::new(cluster),
            held: Mutex::new(None),
            turns: watch::channel(0).0,
            tries: watch::channel(()).0,
            hurry: Notify::new(),
            begun: AtomicBool::new(false),
        })
    }

    /// Takes the seat, and keeps it until the handle is aborted.
    pub fn begin(self: &Arc<Self>) -> JoinHandle<()> {
        self.begun.store(true, Ordering::Relaxed);
        tokio::spawn(pulse::keep(Arc::clone(self)))
    }

    /// Whether the seat is being kept: who runs once takes none.
    pub fn is_kept(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Where the fleet meets.
    pub fn spec(&self) -> &LeaseSpec {
        &self.spec
    }

    /// Another plan is in force.
    pub fn announce(&self, plan: &Plan, cluster: Option<&Arc<Cluster>>) {
        if let Some(cluster) = cluster {
            *lock(&self.cluster) = Arc::clone(cluster);
        }
        self.tell(|members| members.announce(&plan.sha256, &kin(plan)));
        self.hurry.notify_one();
    }

    /// The fleet now.
    pub fn view(&self) -> View {
        lock(&self.members).view()
    }

    /// Tells of every change from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.turns.subscribe()
    }

    /// The time without a gap in which we are a member: what begins in it may write in it.
    pub fn term(&self) -> u64 {
        lock(&self.members).term()
    }

    /// Whether what began in that term may write now. Where we were stopped for a while, that is known only once our
    /// Lease was tried again; where the API server is away, whoever owned a target goes on.
    pub async fn may_write(&self, term: u64) -> bool {
        let (mut changes, mut tries) = (self.changes(), self.tries.subscribe());
        let known = async {
            loop {
                changes.mark_unchanged();
                tries.mark_unchanged();
                match lock(&self.members).pass(term, uptime()) {
                    Pass::Go => return true,
                    Pass::Stop => return false,
                    Pass::Wait => self.hurry.notify_one(),
                }
                tokio::select! {
                    _ = changes.changed() => {}
                    _ = tries.changed() => {}
                }
            }
        };
        // Nothing is known: as where the API server is away.
        tokio::time::timeout(ASK_WITHIN, known).await.unwrap_or(true)
    }

    /// Gives the seat up, so that others serve our targets at once. To be called when nothing is under way any more.
    pub async fn leave(&self) {
        let (held, cluster) = (lock(&self.held).take(), Arc::clone(&lock(&self.cluster)));
        let Some(lease) = held else { return };
        self.tell(|members| members.lost("this daemon stops".into()));
        let given = async {
            match cluster.drop_lease(&self.spec, &lease).await {
                // A renewal was under way when the pulse ended.
                Err(refusal) if refusal.trouble == Trouble::Conflict => {
                    let (leases, _) = cluster.leases(&self.spec).await?;
                    match leases.iter().find(|found| found.said.member == lease.said.member && found.said.run == lease.said.run) {
                        Some(own) => cluster.drop_lease(&self.spec, own).await,
                        None => Ok(()),
                    }
                }
                other => other,
            }
        };
        match tokio::time::timeout(LEAVE_WITHIN, given).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "our Lease could not be given up: others take over once it has run out"),
            Err(_) => tracing::warn!("our Lease could not be given up in time: others take over once it has run out"),
        }
    }

    /// Changes what is known, and tells who waits.
    fn tell<T>(&self, change: impl FnOnce(&mut Members) -> T) -> T {
        let (answer, turns) = {
            let mut members = lock(&self.members);
            (change(&mut members), members.turns())
        };
        self.turns.send_if_modified(|told| std::mem::replace(told, turns) != turns);
        answer
    }

    /// Our Lease was tried: who waits to write looks again, changed or not.
    fn tried(&self) {
        self.tries.send_replace(());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This host's own clock that no one sets, ms.
fn uptime() -> i64 {
    Clocks::now().uptime
}

/// A name for this one run.
fn run() -> String {
    use ring::rand::SecureRandom;
    let mut bytes = [0u8; 8];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        // Without randomness, what differs from run to run.
        bytes = (Clocks::now().wall ^ i64::from(std::process::id())).to_le_bytes();
    }
    hex(&bytes)
}

#[cfg(test)]
mod tests {
    use super::member;

    #[test]
    fn a_member_is_called_by_its_variable_or_by_its_host_as_a_lease_can_be() {
        for (said, name) in [
            ("node-1.example.com", "node-1.example.com"),
            ("Node_1", "node-1"),
            ("-a..b-.", "a.b"),
            ("___", "member"),
            ("pod-7d9f", "pod-7d9f"),
        ] {
            assert_eq!(member(Some(said)), name, "{said}");
        }
        assert!(!member(None).is_empty() && member(None) == member(Some("")));
        assert!(member(Some(&"x".repeat(400))).len() <= 190);
    }
}
