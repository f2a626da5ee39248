//! State to lines and back: what opens each file, so that the files before it may go.

use jiff::Timestamp;

use super::{HookState, MarkerState, PlaceState, State, TargetState, Trouble};
use crate::record::line::{Kind, Line, SinkLine, Standing};
use crate::record::text::{owned, owned_labels};

impl State {
    /// One line per target, closed by `checkpointEnd` with their count. Folding them gives this state
    /// again, but for `seq`, `head` and `time`, which the writer gives them.
    pub fn checkpoint(&self, now: Timestamp) -> Vec<Line> {
        self.checkpoint_lines(now).collect()
    }

    /// The same, one line in memory at a time.
    pub(in crate::record) fn checkpoint_lines(&self, now: Timestamp) -> impl Iterator<Item = Line> + '_ {
        let mut end = Line::new(Kind::CheckpointEnd, now);
        end.count = Some((self.targets.len() + self.leavers.len()) as u64);
        end.schedule.clone_from(&self.schedule);
        let leavers = self.leavers.iter().map(move |(name, leaver)| leaver.to_checkpoint(name, now));
        let mut targets: Vec<_> = self.targets.iter().collect();
        targets.sort_unstable_by(|a, b| a.0.cmp(b.0));
        targets.into_iter().map(move |(name, target)| target.to_checkpoint(name, now)).chain(leavers).chain(std::iter::once(end))
    }
}

impl TargetState {
    fn to_checkpoint(&self, name: &str, now: Timestamp) -> Line {
        Line {
            target: Some(name.to_owned()),
            generation: Some(self.generation),
            cluster: self.cluster.clone(),
            service_account: self.service_account.clone(),
            ask: self.ask.clone(),
            labels: self.labels.clone(),
            reason: self.reason,
            requested: self.requested,
            granted: self.granted,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            jti: self.jti.clone(),
            proof: self.proof,
            sinks: self.places.iter().map(PlaceState::to_line).collect(),
            hooks: self.hooks.iter().map(HookState::to_line).collect(),
            markers: self.markers.iter().map(MarkerState::to_checkpoint).collect(),
            error: self.last_error.as_ref().map(|trouble| trouble.error.clone()),
            standing: Some(Standing {
                last_rotation: self.last_rotation,
                proven_at: self.proven_at,
                rejected_at: self.rejected_at,
                failed_at: self.last_error.as_ref().map(|trouble| trouble.at),
                failures: self.failures,
                mended: self.mended,
            }),
            ..Line::new(Kind::Checkpoint, now)
        }
    }

    pub(super) fn from_checkpoint<S: AsRef<str>>(line: &Line<S>) -> Self {
        let standing = line.standing.clone().unwrap_or_default();
        Self {
            generation: line.generation.unwrap_or(0),
            cluster: owned(line.cluster.as_ref()),
            service_account: owned(line.service_account.as_ref()),
            ask: owned(line.ask.as_ref()),
            labels: owned_labels(&line.labels),
            reason: line.reason,
            jti: owned(line.jti.as_ref()),
            issued_at: line.issued_at,
            expires_at: line.expires_at,
            requested: line.requested,
            granted: line.granted,
            proof: line.proof,
            proven_at: standing.proven_at,
            rejected_at: standing.rejected_at,
            last_rotation: standing.last_rotation,
            last_error: standing.failed_at.map(|at| Trouble { at, error: owned(line.error.as_ref()).unwrap_or_default() }),
            failures: standing.failures,
            mended: standing.mended,
            places: line.sinks.iter().map(|sink| PlaceState::from_line(sink, line.time)).collect(),
            hooks: line.hooks.iter().map(|hook| HookState::from_line(hook, line.time)).collect(),
            markers: line.markers.iter().map(MarkerState::from_checkpoint).collect(),
        }
    }
}

impl PlaceState {
    fn to_line(&self) -> SinkLine {
        SinkLine {
            sink: self.sink.clone(),
            place: self.place.clone(),
            outcome: self.outcome,
            sha256: self.sha256.clone(),
            attempts: 0,
            kind: self.kind.clone(),
            error: self.error.clone(),
            fallback: self.fallback.clone(),
            jti: self.jti.clone(),
            since: Some(self.since),
            returned_at: self.returned_at,
            copies: self.copies.clone(),
            tried: None,
        }
    }

    fn from_line<S: AsRef<str>>(line: &SinkLine<S>, time: Timestamp) -> Self {
        Self {
            sink: line.sink.as_ref().to_owned(),
            place: line.place.as_ref().to_owned(),
            outcome: line.outcome,
            sha256: owned(line.sha256.as_ref()),
            jti: owned(line.jti.as_ref()),
            fallback: owned(line.fallback.as_ref()),
            since: line.since.unwrap_or(time),
            kind: owned(line.kind.as_ref()),
            error: owned(line.error.as_ref()),
            returned_at: line.returned_at,
            copies: line.copies.iter().map(|copy| copy.as_ref().to_owned()).collect(),
        }
    }
}
