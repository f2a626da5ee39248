//! Tokens that others mint: read when they are touched, and recorded when they change.

use std::ffi::OsStr;
use std::sync::Arc;

use jiff::Timestamp;

use super::{LEAST, LOOK_EVERY, News, READ_EVERY};
use crate::daemon::clock::now_ms;
use crate::daemon::monitor::{self, Monitored};
use crate::daemon::touched::Touched;
use crate::daemon::wheel::Wheel;
use crate::schedule::Plan;
use crate::schedule::alerts::MonitorSpec;

impl Wheel {
    pub(super) fn read_monitored(&mut self, plan: &Plan, now: i64) -> Option<i64> {
        if plan.unasked.monitor.is_empty() {
            return None;
        }
        let next = self.outward.reading.next(now, READ_EVERY)?;
        if next > now {
            return Some(next);
        }
        self.outward.reading.begin(now, READ_EVERY);
        self.outward.touched.again_missing();
        let paths = plan.unasked.monitor.iter().map(|spec| spec.path.clone()).collect();
        self.go(async move { News::Read(monitor::read(paths).await) });
        None
    }

    /// Records what changed in the monitored files.
    pub(super) async fn record_monitored(&mut self, now: i64) {
        if self.outward.held.is_empty() || self.outward.looks.next(self.writer.health().seq, LOOK_EVERY, now) > now {
            return;
        }
        let now = Timestamp::now();
        for file in self.monitored(now) {
            let Some((line, recorded)) = monitor::line(&file, self.outward.recorded.get(&file.path), now) else { continue };
            match &file.reason {
                Some(why) => tracing::warn!(file = %file.path.display(), "a monitored token is not well: {why}"),
                None => tracing::info!(file = %file.path.display(), "a monitored token is well"),
            }
            self.outward.recorded.insert(file.path, recorded);
            self.record(line).await;
        }
    }

    pub(super) fn monitored(&self, now: Timestamp) -> Vec<Monitored> {
        let files = &self.scene.plan.unasked.monitor;
        let known = files.iter().filter_map(|spec| Some((spec, self.outward.held.get(&spec.path)?)));
        known.map(|(spec, (held, seen))| monitor::shown(spec, held, *seen, now)).collect()
    }

    /// Monitored files were touched: they are read, but not more than once a second.
    pub(in crate::daemon::wheel) fn touched_monitored(&mut self) {
        let now = now_ms();
        let last = self.outward.reading.tally().done_at.map_or(i64::MIN, Timestamp::as_millisecond);
        self.outward.reading.hurry(now.max(last.min(now).saturating_add(LEAST)));
    }
}

/// Watches the folders of these files.
pub(super) fn watch(files: &[MonitorSpec]) -> Touched {
    if files.is_empty() {
        return Touched::default();
    }
    let named =
        files.iter().filter_map(|spec| Some((spec.path.parent()?, spec.path.file_name()?, Arc::<str>::from(spec.path.to_string_lossy()))));
    let named: Vec<_> = named.collect();
    // What a kubelet mounts changes by its `..data` alone.
    let both = named.iter().flat_map(|(folder, name, path)| [*name, OsStr::new("..data")].map(|name| ((*folder, name), Arc::clone(path))));
    Touched::on(both)
}
