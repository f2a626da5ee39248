//! State to lines and back: what opens each file, so that the files before it may go.

use jiff::Timestamp;

use super::{Detour, HookState, MarkerState, PlaceState, State, TargetState, Trouble};
use crate::record::hex::Hex;
use crate::record::line::{Kind, Line, SinkLine, Standing};
use crate::record::text::{owned, owned_labels, text};

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
            cluster: self.cluster.as_deref().map(str::to_owned),
            service_account: self.service_account.as_deref().map(str::to_owned),
            ask: self.ask.as_ref().map(Hex::to_string),
            labels: (*self.labels).clone(),
            reason: self.reason,
            requested: self.requested,
            granted: self.granted,
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            jti: self.jti.as_ref().map(Hex::to_string),
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
                mended: self.mended.as_deref().copied(),
            }),
            ..Line::new(Kind::Checkpoint, now)
        }
    }

    pub(super) fn from_checkpoint<S: AsRef<str>>(line: &Line<S>) -> Self {
        let standing = line.standing.clone().unwrap_or_default();
        Self {
            generation: line.generation.unwrap_or(0),
            cluster: text(line.cluster.as_ref()).map(Box::from),
            service_account: text(line.service_account.as_ref()).map(Box::from),
            ask: text(line.ask.as_ref()).map(Hex::from),
            labels: owned_labels(&line.labels).into(),
            reason: line.reason,
            jti: text(line.jti.as_ref()).map(Hex::from),
            issued_at: line.issued_at,
            expires_at: line.expires_at,
            requested: line.requested,
            granted: line.granted,
            proof: line.proof,
            proven_at: standing.proven_at,
            rejected_at: standing.rejected_at,
            last_rotation: standing.last_rotation,
            last_error: standing.failed_at.map(|at| Box::new(Trouble { at, error: owned(line.error.as_ref()).unwrap_or_default() })),
            failures: standing.failures,
            mended: standing.mended.map(Box::new),
            places: line.sinks.iter().map(|sink| PlaceState::from_line(sink, line.time)).collect(),
            hooks: line.hooks.iter().map(|hook| HookState::from_line(hook, line.time)).collect::<Vec<_>>().into(),
            markers: line.markers.iter().map(MarkerState::from_checkpoint).collect::<Vec<_>>().into(),
        }
    }
}

impl PlaceState {
    fn to_line(&self) -> SinkLine {
        let Detour { fallback, kind, error, returned_at, copies } = (*self.detour).clone();
        SinkLine {
            sha256: self.sha256.as_ref().map(Hex::to_string),
            kind,
            error,
            fallback,
            jti: self.jti.as_ref().map(Hex::to_string),
            since: Some(self.since),
            returned_at,
            copies,
            ..SinkLine::new(&*self.sink, &*self.place, self.outcome)
        }
    }

    fn from_line<S: AsRef<str>>(line: &SinkLine<S>, time: Timestamp) -> Self {
        let detour = Detour {
            fallback: owned(line.fallback.as_ref()),
            kind: owned(line.kind.as_ref()),
            error: owned(line.error.as_ref()),
            returned_at: line.returned_at,
            copies: line.copies.iter().map(|copy| copy.as_ref().to_owned()).collect(),
        };
        Self {
            sha256: text(line.sha256.as_ref()).map(Hex::from),
            jti: text(line.jti.as_ref()).map(Hex::from),
            detour: detour.into(),
            ..Self::new(line.sink.as_ref(), line.place.as_ref(), line.outcome, line.since.unwrap_or(time))
        }
    }
}
