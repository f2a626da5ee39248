//! Which moves onto a target's published files are its own rotation's: a publication moves one file onto each of its
//! file places and looks at it there, so that many moves need no further look. Pure.
//!
//! The kernel merges equal events that nobody has read yet (inotify(7)): who moves a file onto a place within the
//! moments between a publication and the next turn of the loop is found by the next proof.

use super::timetable::SETTLED;
use crate::record::{Line, Outcome};

/// Something that happened to a published file, or to a folder of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Touch {
    /// Whose file it is.
    pub target: std::sync::Arc<str>,
    /// Whether a file was moved onto it, as a publication does.
    pub moved: bool,
}

/// The moves that are expected at the places of one target.
#[derive(Debug, Default)]
pub struct Moves {
    /// Moves seen while a rotation is under way.
    seen: u32,
    /// Whether something else was seen meanwhile.
    other: bool,
    /// Own moves that are still to be seen.
    to_come: u32,
    /// Until when, unix ms.
    until: i64,
}

impl Moves {
    /// A touch while a rotation is under way.
    pub fn meanwhile(&mut self, moved: bool) {
        self.seen += u32::from(moved);
        self.other |= !moved;
    }

    /// A rotation has ended, now (unix ms). Whether its places want a look: somebody else was there, too.
    pub fn end(&mut self, line: &Line, now: i64) -> bool {
        let moves = |sink: &&crate::record::SinkLine| sink.outcome == Outcome::Written && matches!(&*sink.sink, "file" | "directory");
        let ours = u32::try_from(line.sinks.iter().filter(moves).count()).unwrap_or(u32::MAX);
        let Self { seen, other, .. } = std::mem::take(self);
        // A folder that was made for the first token is watched only after it.
        if line.generation.is_some_and(|generation| generation > 1) {
            self.to_come = ours.saturating_sub(seen);
            self.until = now + SETTLED;
        }
        other || seen > ours
    }

    /// Whether a touch after it is one of its own.
    pub fn is_own(&mut self, moved: bool, now: i64) -> bool {
        let own = moved && self.to_come > 0 && now < self.until;
        self.to_come -= u32::from(own);
        own
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::record::{Kind, SinkLine};

    fn rotated(generation: u64, places: &[(&str, Outcome)]) -> Line {
        let mut line = Line::new(Kind::Rotated, Timestamp::UNIX_EPOCH);
        line.generation = Some(generation);
        line.sinks = places.iter().map(|(sink, outcome)| SinkLine::new(*sink, "p", *outcome)).collect();
        line
    }

    #[test]
    fn as_many_moves_as_were_published_are_our_own_whenever_they_are_read() {
        let line = rotated(2, &[("file", Outcome::Written), ("file", Outcome::Written), ("vault", Outcome::Written)]);
        for read_before in 0..=2 {
            let mut moves = Moves::default();
            (0..read_before).for_each(|_| moves.meanwhile(true));
            assert!(!moves.end(&line, 0));
            for _ in read_before..2 {
                assert!(moves.is_own(true, 10));
            }
            assert!(!moves.is_own(true, 10), "one more is somebody else's");
        }
    }

    #[test]
    fn whatever_is_no_publication_of_ours_wants_a_look() {
        let line = rotated(2, &[("file", Outcome::Written)]);
        let mut moves = Moves::default();
        moves.meanwhile(true);
        moves.meanwhile(true);
        assert!(moves.end(&line, 0), "somebody moved a file there, too");
        let mut moves = Moves::default();
        moves.meanwhile(false);
        assert!(moves.end(&line, 0), "somebody wrote or removed it meanwhile");
        let mut moves = Moves::default();
        assert!(!moves.end(&line, 0));
        assert!(!moves.is_own(false, 10), "a write");
        assert!(!moves.is_own(true, SETTLED), "too late to be ours");
    }

    #[test]
    fn what_published_nothing_and_a_first_token_expect_no_move() {
        for line in [
            rotated(2, &[("file", Outcome::Unchanged)]),
            rotated(2, &[("file", Outcome::FellBack)]),
            rotated(1, &[("file", Outcome::Written)]),
        ] {
            let mut moves = Moves::default();
            assert!(!moves.end(&line, 0));
            assert!(!moves.is_own(true, 10));
        }
    }
}
