//! What waits to be written, and when that is tried again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::scribe::{Scribe, WriteError};
use crate::record::line::{Kind, Line};

/// Lines that wait at most while records cannot be written: some 10 MB.
pub(super) const CAPACITY: usize = 10_000;
/// Lines written and synced together at most.
const CHUNK: usize = 1_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Lines on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    lines: VecDeque<Line>,
    /// Lines that did not fit and that no `gap` line tells yet.
    lost: u64,
    /// While writing fails: the pause after the last attempt, and when the next one is due.
    retry: Option<(Duration, Instant)>,
}

impl Backlog {
    pub fn push(&mut self, lines: Vec<Line>) {
        self.lines.extend(lines);
    }

    /// Counts lines that were turned away before they came here.
    pub fn turned_away(&mut self, lines: u64) {
        self.lost += lines;
    }

    pub fn waiting(&self) -> usize {
        self.lines.len()
    }

    /// How long to wait for lines before writing is tried again; nothing where nothing failed.
    pub fn pause(&self) -> Option<Duration> {
        self.retry.map(|(_, due)| due.saturating_duration_since(Instant::now()))
    }

    /// Whether an attempt is due.
    pub fn due(&self) -> bool {
        self.retry.is_none_or(|(_, due)| Instant::now() >= due)
    }

    /// Puts the next attempt off, longer each time.
    pub fn put_off(&mut self) {
        let pause = self.retry.map_or(FIRST_PAUSE, |(pause, _)| (pause * 2).min(LONGEST_PAUSE));
        self.retry = Some((pause, Instant::now() + pause));
    }

    /// Writes all that waits. What was lost is told first, after a checkpoint that has its effects: the
    /// oldest lines are the ones that went.
    pub fn write(&mut self, scribe: &mut Scribe) -> Result<(), WriteError> {
        if self.lost > 0 {
            scribe.start_anew();
            let mut gap = Line::new(Kind::Gap, Timestamp::now());
            gap.count = Some(self.lost);
            scribe.commit(std::slice::from_mut(&mut gap))?;
            self.lost = 0;
        }
        scribe.make_ready()?;
        while !self.lines.is_empty() {
            let count = self.lines.len().min(CHUNK);
            scribe.commit(&mut self.lines.make_contiguous()[..count])?;
            self.lines.drain(..count);
        }
        self.retry = None;
        Ok(())
    }

    /// Gives up the oldest lines that do not fit; says how many.
    pub fn trim(&mut self, scribe: &mut Scribe) -> u64 {
        let surplus = self.lines.len().saturating_sub(CAPACITY);
        for line in self.lines.drain(..surplus) {
            scribe.apply_lost(&line);
        }
        self.lost += surplus as u64;
        surplus as u64
    }
}
