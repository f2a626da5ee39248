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
    /// Try the whole way and publish nothing; the answer names what was taken on, the channel tells each outcome.
    Rehearse(Selector, Actor, mpsc::UnboundedSender<Told>, oneshot::Sender<Vec<String>>),
    /// Revoke generations of a target; nothing where there is no such target.
    Revoke(Demand, Actor, oneshot::Sender<Option<Revoked>>),
    /// Take back what stands at every place; the answer names what was taken on, the channel tells each outcome.
    Withdraw(Selector, Actor, mpsc::UnboundedSender<Told>, oneshot::Sender<Vec<String>>),
    /// Which of the targets that it selects another member of the fleet serves, or nobody yet.
    Elsewhere(Selector, oneshot::Sender<Vec<Elsewhere>>),
    /// Take the schedule again, asked for by a person where it says so.
    Reload(Option<Explicit>, oneshot::Sender<Verdict>),
    /// Which files the target of that name writes; nothing where there is no such target.
    Places(String, oneshot::Sender<Option<Vec<PathBuf>>>),
    /// Record what a person told of himself; answered when it is recorded.
    Report(Box<Line>, oneshot::Sender<()>),
    /// What Prometheus is told.
    Metrics(oneshot::Sender<String>),
    /// Whether the loop turns.
    Turn(oneshot::Sender<()>),
    /// End in good order.
    Stop,
}

/// A target that another member of the fleet serves.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Elsewhere {
    /// Its name.
    pub target: String,
    /// Who serves it; nothing where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// A person asks for a reload: only then is anything deleted.
#[derive(Debug, Clone)]
pub struct Explicit {
    /// Who.
    pub actor: Actor,
    /// How many targets he says will have what they left deleted.
    pub remove: Option<usize>,
}

/// What a person wants revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    /// Name of the target.
    pub target: String,
    /// Which of its generations.
    pub which: Which,
    /// At once, or when a newer token stands everywhere.
    pub now: bool,
}

/// Which generations are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every one that was delivered so far.
    Delivered,
    /// That one.
    Generation(u64),
    /// Every one but that in use.
    AllButNewest,
}

/// What became of a revocation.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// The target.
    pub target: String,
    /// In a word.
    pub outcome: Word,
    /// The records of the markers that are gone.
    pub records: Vec<Line>,
    /// Why not all is done, or what else is to be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The newest generation, where nothing was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What would end that token at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_by: Option<String>,
    /// When its token ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<jiff::Timestamp>,
}

/// What became of a revocation, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Word {
    /// All that was asked for is dead.
    Revoked,
    /// It is recorded, and done later.
    Owed,
    /// No generation was meant.
    Nothing,
    /// The token in use has no marker: it cannot be revoked on its own.
    NoMarker,
    /// There is no such generation, or no marker of it.
    Unknown,
}

impl Revoked {
    /// Nothing said yet but the word.
    pub fn new(target: &str, outcome: Word) -> Self {
        Self { target: target.to_owned(), outcome, records: Vec::new(), error: None, generation: None, ends_by: None, expires_at: None }
    }
}

/// Somebody who waits for the end of a revocation.
pub struct Asker {
    reply: oneshot::Sender<Option<Revoked>>,
    /// UIDs of the markers that he waits for.
    pub uids: Vec<String>,
    /// Records of those that are gone.
    pub records: Vec<Line>,
}

impl Asker {
    /// Waits for nothing yet.
    pub fn new(reply: oneshot::Sender<Option<Revoked>>) -> Self {
        Self { reply, uids: Vec::new(), records: Vec::new() }
    }

    /// Tells him.
    pub fn tell(self, answer: Revoked) {
        // A caller that went away cancels nothing.
        let _ = self.reply.send(Some(answer));
    }

    /// A marker is gone; gives him back while he waits for more.
    pub fn heard(mut self, uid: &str, line: &Line) -> Option<Self> {
        if let Some(index) = self.uids.iter().position(|wanted| wanted == uid) {
            self.uids.swap_remove(index);
            self.records.push(line.clone());
        }
        if !self.uids.is_empty() {
            return Some(self);
        }
        let target = line.target.clone().unwrap_or_default();
        let records = std::mem::take(&mut self.records);
        self.tell(Revoked { records, ..Revoked::new(&target, Word::Revoked) });
        None
    }
}

/// Chooses targets: takes a target, says whether it is meant.
pub type Selector = Box<dyn Fn(&Target) -> bool + Send + Sync>;

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
