//! The fleet at one moment: who is in it, and who owns what. Pure.

use super::members::SKEW;
use super::share;
use crate::cluster::lease::Said;

/// A member, as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Whether it lives; of ourselves: whether we are a member.
    pub alive: bool,
    /// SHA-256 of its schedule.
    pub schedule: String,
    /// Its version.
    pub version: String,
    /// What a person should mend.
    pub warnings: Vec<String>,
}

/// The fleet at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Our own name.
    pub me: String,
    /// Whether we are a member.
    pub member: bool,
    /// The time without a gap in which we are.
    pub term: u64,
    /// Why we are not, or cannot tell.
    pub trouble: Option<String>,
    /// Every member that is known, ourselves first.
    pub members: Vec<Seen>,
    /// Those among whom targets are shared out.
    pub(in crate::daemon) names: Vec<String>,
    /// The hashes of their names.
    pub(in crate::daemon) hashes: Vec<u64>,
}

impl View {
    /// Who owns the target of that name.
    pub fn owner(&self, target: &str) -> Option<&str> {
        share::owner(share::hash(target), &self.hashes).map(|index| self.names[index].as_str())
    }

    /// Those among whom targets are shared out, ourselves first where we are one.
    pub fn sharers(&self) -> &[String] {
        &self.names
    }

    /// The same fleet without us.
    pub fn beside_us(&self) -> Self {
        let mut others = Self { member: false, ..self.clone() };
        if let Some(at) = others.names.iter().position(|name| *name == others.me) {
            others.names.remove(at);
            others.hashes.remove(at);
        }
        others
    }

    /// Whether it is ours to serve.
    pub fn is_ours(&self, target: &str) -> bool {
        self.member && self.owner(target) == Some(self.me.as_str())
    }
}

/// What a person should mend of a member that lives; `skew`: its clock less ours, ms.
pub(super) fn warnings(ours: &Said, theirs: &Said, skew: i64) -> Vec<String> {
    let mut warnings = Vec::new();
    let short = |sha256: &str| sha256.chars().take(12).collect::<String>();
    if theirs.schedule != ours.schedule {
        let (a, b) = (short(&theirs.schedule), short(&ours.schedule));
        warnings.push(if share::is_kin(&theirs.kin, &ours.kin) {
            format!("it has another schedule ({a}, ours is {b}): until both have the same each serves all of its own targets")
        } else {
            format!(
                "its schedule ({a}, ours is {b}) has nothing of ours: two fleets use one Lease name; give each its own `fleet.lease.name`"
            )
        });
    }
    if theirs.version != ours.version {
        warnings.push(format!("it runs version {}, we run {}: bring all members to one", theirs.version, ours.version));
    }
    if skew.abs() > SKEW {
        let way = if skew > 0 { "ahead of" } else { "behind" };
        warnings.push(format!("its clock is {} s {way} ours: set the wrong one right", skew.abs() / 1000));
    }
    warnings
}
