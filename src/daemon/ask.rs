//! What others ask of the loop, and the answer to a reload.

use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};

use super::course::Told;
use super::status::Status;
use crate::record::{Actor, Line};
use crate::schedule::change::Change;
use crate::schedule::{Problem, Target};

/// What others ask of the loop.
pub enum Ask {
    /// How the targets that it selects stand.
    Status(Selector, oneshot::Sender<Status>),
    /// Rotate now; the answer names what was taken on, the channel tells each outcome.
    Rotate(Selector, Actor, mpsc::UnboundedSender<Told>, oneshot::Sender<Vec<String>>),
    /// Take back what stands at every place; the answer names what was taken on, the channel tells each outcome.
    Withdraw(Selector, Actor, mpsc::UnboundedSender<Told>, oneshot::Sender<Vec<String>>),
    /// Take the schedule again, asked for by a person where it says so.
    Reload(Option<Explicit>, oneshot::Sender<Verdict>),
    /// Which files the target of that name writes; nothing where there is no such target.
    Places(String, oneshot::Sender<Option<Vec<PathBuf>>>),
    /// Record what a person told of himself; answered when it is recorded.
    Report(Box<Line>, oneshot::Sender<()>),
    /// What Prometheus is told.
    Metrics(oneshot::Sender<String>),
    /// End in good order.
    Stop,
}

/// A person asks for a reload: only then is anything deleted.
pub struct Explicit {
    /// Who.
    pub actor: Actor,
    /// How many targets he says will have what they left deleted.
    pub remove: Option<usize>,
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
