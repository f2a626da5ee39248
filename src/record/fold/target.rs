//! What became of one target: how each event changes it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::place::{PlaceState, arrived};
use super::{HookState, MarkerState};
use crate::record::hex::Hex;
use crate::record::line::{Line, Mended, Outcome, Proof, Reason};
use crate::record::rare::Rare;
use crate::record::text::{are_those, owned, owned_labels, text};

/// What the records say of one target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetState {
    /// Tokens minted so far.
    pub generation: u64,
    /// Its cluster.
    pub cluster: Option<Box<str>>,
    /// `NAMESPACE/NAME`.
    pub service_account: Option<Box<str>>,
    /// Names what its token was asked for.
    pub ask: Option<Hex<8>>,
    /// Its labels.
    pub labels: Rare<BTreeMap<String, String>>,
    /// Why it was last rotated.
    pub reason: Option<Reason>,
    /// `jti` of the newest token that reached a place.
    pub jti: Option<Hex<16>>,
    /// That token's `iat`.
    pub issued_at: Option<Timestamp>,
    /// That token's `exp`.
    pub expires_at: Option<Timestamp>,
    /// Seconds of life asked for.
    pub requested: Option<u64>,
    /// Seconds of life given.
    pub granted: Option<u64>,
    /// How that token was proven good.
    pub proof: Option<Proof>,
    /// When it was.
    pub proven_at: Option<Timestamp>,
    /// Since when that token is known to be refused.
    pub rejected_at: Option<Timestamp>,
    /// When the target was last `rotated` or `adopted`.
    pub last_rotation: Option<Timestamp>,
    /// The last failure, until a success.
    pub last_error: Option<Box<Trouble>>,
    /// `failed` records since the last success.
    pub failures: u64,
    /// Rotations that mended something, one after the other: what keeps mending from becoming a loop, over restarts too.
    pub mended: Option<Box<Mended>>,
    /// Its places, in the schedule's order.
    pub places: Vec<PlaceState>,
    /// Its hooks, as far as they had something to be told of.
    pub hooks: Rare<Vec<HookState>>,
    /// Its markers, oldest first.
    pub markers: Rare<Vec<MarkerState>>,
}

/// A failure and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When it was recorded.
    pub at: Timestamp,
    /// What was recorded.
    pub error: String,
}

impl TargetState {
    /// What the records say of one of its places.
    pub fn place(&self, sink: &str, place: &str) -> Option<&PlaceState> {
        self.places.iter().find(|known| known.is_at(sink, place))
    }

    /// A rotation that is done: its line lists every place, so places that it does not list are gone.
    pub(super) fn rotated<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.describe(line);
        self.take_token(line);
        self.places.retain(|place| line.sinks.iter().any(|sink| place.is_at(sink.sink.as_ref(), sink.place.as_ref())));
        self.take_places(line, self.jti.clone());
        self.hooks_due(line, true);
        self.reason = line.reason.or(self.reason);
        if matches!(line.reason, Some(Reason::Repair | Reason::Rejected)) {
            let lasted = |last: &Mended| line.time.as_second() - last.at.as_second() >= Mended::FOR_GOOD;
            let times = self.mended.as_deref().filter(|last| !lasted(last)).map_or(0, |last| last.times);
            self.mended = Some(Box::new(Mended { at: line.time, times: times.saturating_add(1) }));
        }
        self.succeeded(line.time);
    }

    /// A rotation that is over without success. Its token counts only if some place has it: after a
    /// restart nobody else would.
    pub(super) fn failed<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.describe(line);
        if line.sinks.iter().any(|sink| arrived(sink.outcome) || sink.outcome == Outcome::FellBack) {
            self.take_token(line);
        }
        self.take_places(line, text(line.jti.as_ref()).map(Hex::from));
        self.hooks_due(line, false);
        self.failures += 1;
        self.trouble(line);
    }

    /// An owed place has the token. Once none is owed the failure that left it so is over.
    pub(super) fn paid<S: AsRef<str>>(&mut self, line: &Line<S>) {
        if !self.is_of(line) && line.expires_at.is_some() {
            self.take_token(line);
        }
        self.take_places(line, text(line.jti.as_ref()).map(Hex::from));
        self.hooks_due(line, false);
        if self.places.iter().all(|place| arrived(place.outcome)) {
            self.failures = 0;
            self.last_error = None;
        }
    }

    /// A copy in a fallback is gone: the place that it stood in for has held for long enough.
    pub(super) fn cleared<S: AsRef<str>>(&mut self, line: &Line<S>) {
        for sink in &line.sinks {
            if let Some(place) = self.places.iter_mut().find(|place| place.is_at(sink.sink.as_ref(), sink.place.as_ref())) {
                place.cleared(sink);
            }
        }
    }

    /// A token of ours was found at a place, newer than what was recorded.
    pub(super) fn adopted<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.describe(line);
        self.take_token(line);
        self.take_places(line, self.jti.clone());
        self.hooks_due(line, false);
        self.reason = line.reason.or(self.reason);
        self.succeeded(line.time);
    }

    /// The token at hand is refused. A line about another token (a fresh one that was never published)
    /// says nothing of this one.
    pub(super) fn rejected<S: AsRef<str>>(&mut self, line: &Line<S>) {
        if line.jti.is_none() || self.is_of(line) {
            self.rejected_at = Some(line.time);
        }
        self.trouble(line);
    }

    /// Whether a line is about the token that is known.
    fn is_of<S: AsRef<str>>(&self, line: &Line<S>) -> bool {
        text(line.jti.as_ref()).map(Hex::from) == self.jti
    }

    fn describe<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.generation = self.generation.max(line.generation.unwrap_or(0));
        rename(&mut self.cluster, text(line.cluster.as_ref()));
        rename(&mut self.service_account, text(line.service_account.as_ref()));
        if let Some(ask) = text(line.ask.as_ref()) {
            self.ask = Some(Hex::from(ask));
        }
        if !are_those(&self.labels, &line.labels) {
            self.labels = owned_labels(&line.labels).into();
        }
        self.take_markers(line);
    }

    fn take_token<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.generation = self.generation.max(line.generation.unwrap_or(0));
        self.jti = text(line.jti.as_ref()).map(Hex::from);
        self.issued_at = line.issued_at;
        self.expires_at = line.expires_at;
        self.requested = line.requested;
        self.granted = line.granted;
        self.proof = line.proof;
        self.proven_at = line.proof.map(|_| line.time);
        self.rejected_at = None;
    }

    /// Takes what became of places; the line is about the token of that `jti`.
    fn take_places<S: AsRef<str>>(&mut self, line: &Line<S>, jti: Option<Hex<16>>) {
        for sink in &line.sinks {
            let index = self.places.iter().position(|place| place.is_at(sink.sink.as_ref(), sink.place.as_ref())).unwrap_or_else(|| {
                // Room for one more, not for the three that a list grows by: most targets have one place.
                self.places.reserve_exact(1);
                self.places.push(PlaceState::new(sink.sink.as_ref(), sink.place.as_ref(), sink.outcome, line.time));
                self.places.len() - 1
            });
            self.places[index].take(sink, jti.as_ref(), line.time);
        }
    }

    fn succeeded(&mut self, time: Timestamp) {
        self.last_rotation = Some(time);
        self.failures = 0;
        self.last_error = None;
    }

    fn trouble<S: AsRef<str>>(&mut self, line: &Line<S>) {
        let error = owned(line.error.as_ref()).or_else(|| line.sinks.iter().find_map(|sink| owned(sink.error.as_ref())));
        self.last_error = Some(Box::new(Trouble { at: line.time, error: error.unwrap_or_default() }));
    }
}

/// Takes what a line says, where it says something else.
fn rename(known: &mut Option<Box<str>>, told: Option<&str>) {
    if told.is_some() && told != known.as_deref() {
        *known = told.map(Box::from);
    }
}
