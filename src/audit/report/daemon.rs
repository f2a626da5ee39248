//! What the records say beyond targets: when the daemon ran, how the schedule changed, who did what by hand.

use jiff::Timestamp;
use serde::Serialize;

use super::period::{Period, Span};
use crate::record::{Actor, Kind, Line};

/// A time in which no daemon ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Down {
    /// The records folder that tells of it.
    pub source: usize,
    /// When it was; after a crash from its last record on.
    #[serde(flatten)]
    pub span: Span,
    /// Whether it ended in good order.
    pub stopped: bool,
}

/// A schedule that was taken or refused.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reload {
    /// When.
    pub time: Timestamp,
    /// Whether it was taken.
    pub taken: bool,
    /// Its SHA-256.
    pub schedule: Option<String>,
    /// Names that it added.
    pub added: Vec<String>,
    /// Names that it removed.
    pub removed: Vec<String>,
    /// Names that it changed.
    pub changed: Vec<String>,
    /// Why it was refused.
    pub error: Option<String>,
    /// Who asked.
    pub actor: Option<Actor>,
}

/// Something that a person did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When.
    pub time: Timestamp,
    /// What came of it.
    pub kind: Kind,
    /// To which target.
    pub target: Option<String>,
    /// To which account, where no target is meant.
    pub service_account: Option<String>,
    /// Who.
    pub actor: Actor,
}

/// One source's daemon over the period.
#[derive(Debug, Default)]
pub struct Life {
    /// When none ran, and whether that began in good order.
    pub down: Vec<(Span, bool)>,
    /// Schedules.
    pub reloads: Vec<Reload>,
    /// What people did.
    pub steps: Vec<Step>,
    /// Lines that could not be written.
    pub lost: u64,
    runs: bool,
    last: Option<(Timestamp, bool)>,
}

impl Life {
    /// Takes the next line.
    pub fn take(&mut self, line: &Line, period: &Period) {
        match line.kind {
            Kind::Started => {
                if let Some((since, stopped)) = self.last {
                    self.was_down(since, line.time, stopped || !self.runs, period);
                }
                self.runs = true;
            }
            Kind::Stopped => self.runs = false,
            Kind::Gap if period.holds(line.time) => self.lost += line.count.unwrap_or(0),
            Kind::Reloaded | Kind::ReloadRefused if period.holds(line.time) => self.reloads.push(Reload {
                time: line.time,
                taken: line.kind == Kind::Reloaded,
                schedule: line.schedule.clone(),
                added: line.added.clone(),
                removed: line.removed.clone(),
                changed: line.changed.clone(),
                error: line.error.clone(),
                actor: line.actor.clone(),
            }),
            _ => {}
        }
        self.last = Some((line.time, line.kind == Kind::Stopped));
        if let Some(actor) = line.actor.as_ref().filter(|_| period.holds(line.time)) {
            self.steps.push(Step {
                time: line.time,
                kind: line.kind,
                target: line.target.clone(),
                service_account: line.service_account.clone(),
                actor: actor.clone(),
            });
        }
    }

    /// The end of the period.
    pub fn end(&mut self, period: &Period) {
        if let Some((since, true)) = self.last {
            self.was_down(since, period.until, true, period);
        }
    }

    fn was_down(&mut self, from: Timestamp, until: Timestamp, stopped: bool, period: &Period) {
        if let Some(span) = period.within(from, until).filter(|span| span.seconds() > 0) {
            self.down.push((span, stopped));
        }
    }
}
