//! What became of what the daemon tells unasked.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::daemon::alerts::Tally as Told;
use crate::daemon::pace::{Pace, Tally};
use crate::schedule::alerts::{AlertSpec, On};

/// One alert of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertStatus {
    /// `exec` or `http`.
    pub alert: &'static str,
    /// Who is told.
    pub to: String,
    /// Of what.
    pub on: BTreeSet<On>,
    /// Messages that arrived since the start.
    pub told: u64,
    /// Messages that did not.
    pub failed: u64,
    /// When the last one arrived.
    pub told_at: Option<Timestamp>,
    /// Why the last one did not; nothing after one that did.
    pub error: Option<String>,
}

impl AlertStatus {
    /// An alert and what came of it.
    pub fn new(spec: &AlertSpec, told: Told) -> Self {
        let Told { told, failed, told_at, error, .. } = told;
        Self { alert: spec.to.kind(), to: spec.to.to(), on: spec.on.clone(), told, failed, told_at, error }
    }
}

/// The heartbeat, or the textfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Where it goes.
    pub to: String,
    /// What came of it since the start.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Outcome {
    /// What goes there, and what came of it.
    pub fn new(to: String, pace: &Pace) -> Self {
        Self { to, tally: pace.tally().clone() }
    }
}
