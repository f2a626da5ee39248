//! What became of one target: how each event changes it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{HookState, MarkerState};
use crate::record::line::{Line, Mended, Outcome, Proof, Reason, SinkLine};
use crate::record::text::{assign, assign_labels, text};

/// What the records say of one target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetState {
    /// Tokens minted so far.
    pub generation: u64,
    /// Its cluster.
    pub cluster: Option<String>,
    /// `NAMESPACE/NAME`.
    pub service_account: Option<String>,
    /// Names what its token was asked for.
    pub ask: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Why it was last rotated.
    pub reason: Option<Reason>,
    /// `jti` of the newest token that reached a place.
    pub jti: Option<String>,
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
    pub last_error: Option<Trouble>,
    /// `failed` records since the last success.
    pub failures: u64,
    /// Rotations that mended something, one after the other: what keeps mending from becoming a loop, over restarts too.
    pub mended: Option<Mended>,
    /// Its places, in the schedule's order.
    pub places: Vec<PlaceState>,
    /// Its hooks, as far as they had something to be told of.
    pub hooks: Vec<HookState>,
    /// Its markers, oldest first.
    pub markers: Vec<MarkerState>,
}

/// A failure and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// When it was recorded.
    pub at: Timestamp,
    /// What was recorded.
    pub error: String,
}

/// What the records say of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceState {
    /// The sink's key in the schedule.
    pub sink: String,
    /// The place as people name it.
    pub place: String,
    /// What became of it last.
    pub outcome: Outcome,
    /// SHA-256 of the bytes that stand there, of whichever token.
    pub sha256: Option<String>,
    /// `jti` of the token that stands there.
    pub jti: Option<String>,
    /// Where the newest token was put instead.
    pub fallback: Option<String>,
    /// Since when it has this outcome: an owed place keeps the time at which it became owed.
    pub since: Timestamp,
    /// The failure's machine word, while it is not written.
    pub kind: Option<String>,
    /// The failure in words, while it is not written.
    pub error: Option<String>,
    /// Since when it has its tokens again, after one that it was owed.
    pub returned_at: Option<Timestamp>,
    /// Fallbacks in which a copy of one of this target's tokens stands.
    pub copies: Vec<String>,
}

impl PlaceState {
    /// Whether the place still waits for the newest token.
    pub fn owed(&self) -> bool {
        matches!(self.outcome, Outcome::Owed | Outcome::FellBack)
    }

    /// Whether the place itself took the newest token, as far as is known.
    pub fn holds_the_newest(&self) -> bool {
        arrived(self.outcome)
    }

    fn is_that_of<S: AsRef<str>>(&self, line: &SinkLine<S>) -> bool {
        self.sink == line.sink.as_ref() && self.place == line.place.as_ref()
    }

    fn new<S: AsRef<str>>(line: &SinkLine<S>, time: Timestamp) -> Self {
        Self {
            sink: line.sink.as_ref().to_owned(),
            place: line.place.as_ref().to_owned(),
            outcome: line.outcome,
            sha256: None,
            jti: None,
            fallback: None,
            since: time,
            kind: None,
            error: None,
            returned_at: None,
            copies: Vec::new(),
        }
    }

    fn take<S: AsRef<str>>(&mut self, line: &SinkLine<S>, jti: Option<&S>, time: Timestamp) {
        let arrived = arrived(line.outcome);
        let was_owed = self.owed();
        if arrived || self.outcome != line.outcome {
            self.since = time;
        }
        self.outcome = line.outcome;
        assign(&mut self.fallback, line.fallback.as_ref());
        assign(&mut self.kind, line.kind.as_ref());
        assign(&mut self.error, line.error.as_ref());
        if arrived {
            assign(&mut self.sha256, line.sha256.as_ref());
            assign(&mut self.jti, jti);
            if was_owed {
                self.returned_at = (!self.copies.is_empty()).then_some(time);
            }
        } else if self.owed() {
            self.returned_at = None;
        }
        if line.outcome == Outcome::FellBack
            && let Some(copy) = line.fallback.as_ref().map(AsRef::as_ref)
            && !self.copies.iter().any(|known| known == copy)
        {
            self.copies.push(copy.to_owned());
        }
    }

    fn cleared<S: AsRef<str>>(&mut self, line: &SinkLine<S>) {
        self.copies.retain(|copy| line.fallback.as_ref().is_none_or(|gone| gone.as_ref() != copy));
        if self.copies.is_empty() {
            self.returned_at = None;
        }
    }
}

/// Whether the place itself holds the token now.
fn arrived(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Written | Outcome::Unchanged)
}

impl TargetState {
    /// A rotation that is done: its line lists every place, so places that it does not list are gone.
    pub(super) fn rotated<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.describe(line);
        self.take_token(line);
        self.places.retain(|place| line.sinks.iter().any(|sink| place.is_that_of(sink)));
        self.take_places(line);
        self.hooks_due(line, true);
        self.reason = line.reason.or(self.reason);
        if matches!(line.reason, Some(Reason::Repair | Reason::Rejected)) {
            let lasted = |last: &Mended| line.time.as_second() - last.at.as_second() >= Mended::FOR_GOOD;
            let times = self.mended.filter(|last| !lasted(last)).map_or(0, |last| last.times);
            self.mended = Some(Mended { at: line.time, times: times.saturating_add(1) });
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
        self.take_places(line);
        self.hooks_due(line, false);
        self.failures += 1;
        self.trouble(line);
    }

    /// An owed place has the token. Once none is owed the failure that left it so is over.
    pub(super) fn paid<S: AsRef<str>>(&mut self, line: &Line<S>) {
        if text(line.jti.as_ref()) != self.jti.as_deref() && line.expires_at.is_some() {
            self.take_token(line);
        }
        self.take_places(line);
        self.hooks_due(line, false);
        if self.places.iter().all(|place| arrived(place.outcome)) {
            self.failures = 0;
            self.last_error = None;
        }
    }

    /// A copy in a fallback is gone: the place that it stood in for has held for long enough.
    pub(super) fn cleared<S: AsRef<str>>(&mut self, line: &Line<S>) {
        for sink in &line.sinks {
            if let Some(place) = self.places.iter_mut().find(|place| place.is_that_of(sink)) {
                place.cleared(sink);
            }
        }
    }

    /// A token of ours was found at a place, newer than what was recorded.
    pub(super) fn adopted<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.describe(line);
        self.take_token(line);
        self.take_places(line);
        self.hooks_due(line, false);
        self.reason = line.reason.or(self.reason);
        self.succeeded(line.time);
    }

    /// The token at hand is refused. A line about another token (a fresh one that was never published)
    /// says nothing of this one.
    pub(super) fn rejected<S: AsRef<str>>(&mut self, line: &Line<S>) {
        if line.jti.is_none() || text(line.jti.as_ref()) == self.jti.as_deref() {
            self.rejected_at = Some(line.time);
        }
        self.trouble(line);
    }

    fn describe<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.generation = self.generation.max(line.generation.unwrap_or(0));
        if line.cluster.is_some() {
            assign(&mut self.cluster, line.cluster.as_ref());
        }
        if line.service_account.is_some() {
            assign(&mut self.service_account, line.service_account.as_ref());
        }
        if line.ask.is_some() {
            assign(&mut self.ask, line.ask.as_ref());
        }
        assign_labels(&mut self.labels, &line.labels);
        self.take_markers(line);
    }

    fn take_token<S: AsRef<str>>(&mut self, line: &Line<S>) {
        self.generation = self.generation.max(line.generation.unwrap_or(0));
        assign(&mut self.jti, line.jti.as_ref());
        self.issued_at = line.issued_at;
        self.expires_at = line.expires_at;
        self.requested = line.requested;
        self.granted = line.granted;
        self.proof = line.proof;
        self.proven_at = line.proof.map(|_| line.time);
        self.rejected_at = None;
    }

    fn take_places<S: AsRef<str>>(&mut self, line: &Line<S>) {
        for sink in &line.sinks {
            let index = self.places.iter().position(|place| place.is_that_of(sink)).unwrap_or_else(|| {
                // Room for one more, not for the three that a list grows by: most targets have one place.
                self.places.reserve_exact(1);
                self.places.push(PlaceState::new(sink, line.time));
                self.places.len() - 1
            });
            self.places[index].take(sink, line.jti.as_ref(), line.time);
        }
    }

    fn succeeded(&mut self, time: Timestamp) {
        self.last_rotation = Some(time);
        self.failures = 0;
        self.last_error = None;
    }

    fn trouble<S: AsRef<str>>(&mut self, line: &Line<S>) {
        let error = line.error.as_ref().or_else(|| line.sinks.iter().find_map(|sink| sink.error.as_ref()));
        self.last_error = Some(Trouble { at: line.time, error: error.map_or("", AsRef::as_ref).to_owned() });
    }
}
