//! The file, checked: what the daemon runs by. Every value is whole here; nothing means "not yet filled in".

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::after::HookSpec;
use crate::cluster::lease::LeaseSpec;
use crate::cluster::{Ask, ClusterSpec};
use crate::schedule::alerts::Unasked;
use crate::schedule::check::Memo;
use crate::schedule::cron::CronRule;
use crate::schedule::problem::Problem;
use crate::sink::{Place, SinkSpec, StoreSpec};

/// A checked schedule.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file that it came from.
    pub path: PathBuf,
    /// SHA-256, in hex, of the file's text and its includes' in order.
    pub sha256: String,
    /// Clusters by name.
    pub clusters: BTreeMap<String, Arc<ClusterSpec>>,
    /// Stores by name.
    pub stores: BTreeMap<String, Arc<StoreSpec>>,
    /// Targets in the file's order.
    pub targets: Vec<Arc<Target>>,
    /// Index into `targets` by name.
    pub by_name: HashMap<Arc<str>, usize>,
    /// Where and how long records are kept.
    pub records: RecordsSpec,
    /// Where the control socket stands; the default place when `None`.
    pub socket: Option<PathBuf>,
    /// Where metrics are served, if at all.
    pub metrics: Option<std::net::SocketAddr>,
    /// What the daemon tells unasked.
    pub unasked: Unasked,
    /// Where the members of a fleet meet, where it is one.
    pub fleet: Option<LeaseSpec>,
    /// Reload when the file changes.
    pub reload_on_change: bool,
    /// What smells but does not stop the schedule.
    pub warnings: Vec<Problem>,
    /// What need not be planned again while it stands as it is.
    pub memo: Memo,
}

impl Plan {
    /// The target of that name.
    pub fn target(&self, name: &str) -> Option<&Arc<Target>> {
        self.by_name.get(name).map(|index| &self.targets[*index])
    }
}

/// `records`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordsSpec {
    /// The folder; the default place when `None`.
    pub directory: Option<PathBuf>,
    /// Seconds that a closed file is kept.
    pub keep: u64,
    /// Bytes at which a file is closed and the next begun.
    pub max_size: u64,
    /// The key that signs each head, if any.
    pub signing_key: Option<PathBuf>,
}

/// One ServiceAccount's token, kept fresh.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Unique name.
    pub name: Arc<str>,
    /// What it has in common with others; its fields are read as the target's own.
    pub terms: Arc<Terms>,
    /// What the TokenRequest asks.
    pub ask: Ask,
    /// Where it goes.
    pub deliver: Vec<Place>,
    /// Whether others wait for it: the credential of a cluster, the login of a store.
    pub first: bool,
    /// Line of its first key in its file, for messages.
    pub line: usize,
}

/// What targets mostly have in common, so that a hundred thousand of them share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// The owner's own words.
    pub labels: BTreeMap<String, String>,
    /// Name of the cluster.
    pub cluster: Arc<str>,
    /// Whether each generation is bound to a marker of its own.
    pub revocable: bool,
    /// Seconds that the generation before stays good once the newer one is everywhere.
    pub overlap: u64,
    /// When it is rotated.
    pub rotate: Rotate,
    /// Not rotated unless asked for.
    pub suspend: bool,
    /// Whether a fresh token is tried on the API server before it is published.
    pub prove: bool,
    /// Seconds between later proofs.
    pub prove_every: u64,
    /// Limits that the target has to keep.
    pub compliance: Compliance,
    /// What becomes of its places when it goes out of the schedule.
    pub when_removed: WhenRemoved,
    /// Who is told when it stands there.
    pub after: Vec<HookSpec>,
    /// Globs of the hosts that serve it, in a fleet; empty where it has one owner, or where there is no fleet.
    pub hosts: Vec<String>,
}

impl Deref for Target {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// `whenRemoved`: what becomes of a target's places when it goes out of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WhenRemoved {
    /// They stay as they are; the token ends by itself.
    #[default]
    Keep,
    /// What is ours in them is deleted, after an explicit reload alone.
    Delete,
}

impl Target {
    /// Every place, each before what stands in for it.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.deliver.iter().flat_map(|place| std::iter::once(place).chain(&place.fallback))
    }

    /// Whether one member of a fleet serves it for all: none of its places is of one host alone.
    pub fn is_shared(&self) -> bool {
        self.hosts.is_empty() && !self.deliver.iter().any(is_of_a_host)
    }
}

/// Whether a place is one on each host, and not one for all.
pub fn is_of_a_host(place: &Place) -> bool {
    matches!(place.sink, SinkSpec::File(_) | SinkSpec::Directory(_))
}

/// `rotate`, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotate {
    /// Share of the real lifetime after which the token is due, in (0, 1).
    pub at: f64,
    /// Fixed times that come on top.
    pub cron: Vec<CronRule>,
    /// Most seconds that the stable offset may move a time; `None`: a tenth of the life or of the cron gap, at most 900.
    pub splay: Option<u64>,
    /// Hours in which rotations by lifetime are preferred.
    pub window: Option<Window>,
}

/// `window`: a daily span, possibly over midnight, on some weekdays.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Minute of the day at which it opens.
    pub from: u16,
    /// Minute of the day at which it closes; before `from` = on the next day.
    pub to: u16,
    /// Weekdays on which it opens, Monday first.
    pub days: [bool; 7],
    /// Its time zone.
    pub zone: jiff::tz::TimeZone,
}

/// `compliance`, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compliance {
    /// Oldest that a served token may get.
    pub max_age: Option<u64>,
    /// Longest life that a token may be given.
    pub max_lifetime: Option<u64>,
}
