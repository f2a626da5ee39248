//! What the loop tells the world unasked: alerts, heartbeat, the textfile, and what it sees of tokens that others mint.
//! Each is decided by a pure part, and carried out in a task that may hang and fail without holding up a rotation.

mod amiss;
mod monitored;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Done, Wheel};
use crate::after::message::{Message, Recipient, hand};
use crate::daemon::alerts::fleet::Troubles;
use crate::daemon::alerts::{Alerts, Kept, Run};
use crate::daemon::clock::now_ms;
use crate::daemon::monitor::{self, Held};
use crate::daemon::pace::Pace;
use crate::daemon::status::Status;
use crate::daemon::status::outward::{AlertStatus, Outcome};
use crate::daemon::touched::Touched;
use crate::daemon::whole;
use crate::schedule::{Plan, Target};
use crate::sink::file;
use amiss::MEMO;
use monitored::watch;

/// Where nothing happens, what is amiss is looked for that often, ms: a token ends without an event.
const LOOK_EVERY: i64 = 5_000;
/// Between two looks, ms.
const LEAST: i64 = 1_000;
/// No more than that part of the loop's time goes into looks, and into texts: one in so many.
const PART: i64 = 20;
/// The textfile is written anew that often: its age tells whether the daemon lives.
const WRITTEN_EVERY: Duration = Duration::from_secs(15);
/// A file system that does not take the textfile within that is given up for this time.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// Monitored files are read that often, beside whenever they are touched: a network file system tells no touch.
const READ_EVERY: Duration = Duration::from_secs(60);
/// What failed is tried again after that.
const AGAIN: Duration = Duration::from_secs(5);

/// What the loop remembers of it.
#[derive(Default)]
pub(super) struct Outward {
    alerts: Alerts,
    /// Lost lines that were seen, and when there were more of them last, unix ms.
    lost: (u64, i64),
    /// What is amiss with the fleet.
    troubles: Troubles,
    looks: Looks,
    texts: Looks,
    heartbeat: Pace,
    textfile: Pace,
    reading: Pace,
    /// What the monitored files hold, and since when.
    held: BTreeMap<PathBuf, (Held, Timestamp)>,
    recorded: BTreeMap<PathBuf, monitor::Recorded>,
    pub(super) touched: Touched,
}

/// When something that costs the loop time was done last, and what it cost.
#[derive(Default)]
struct Looks {
    at: i64,
    took: i64,
    seq: Option<u64>,
}

impl Looks {
    /// When the next may be: soon after a new record, else after `every`.
    fn next(&self, seq: u64, every: i64, now: i64) -> i64 {
        let pause = if self.seq == Some(seq) { every } else { LEAST };
        self.at.min(now) + pause.max(self.took * PART)
    }

    fn took(&mut self, seq: u64, begun: i64) {
        *self = Self { at: begun, took: (now_ms() - begun).clamp(0, 60_000), seq: Some(seq) };
    }
}

/// What came of a task.
pub(super) enum News {
    Told(Run, Option<String>),
    Beat(Option<String>),
    Written(PathBuf, Option<String>),
    Read(Vec<(PathBuf, Held)>),
    Kept(Option<String>),
    /// The daemon stops.
    Left,
}

impl Wheel {
    /// As the run before left it.
    pub(super) fn remember(&mut self) {
        let memo = std::fs::read(self.options.records.join(MEMO)).ok();
        let kept: Vec<Kept> = memo.and_then(|memo| serde_json::from_slice(&memo).ok()).unwrap_or_default();
        self.outward.alerts = Alerts::remembered(kept);
        self.outward.lost = (self.writer.health().lost, i64::MIN / 2);
        self.turn_outward();
    }

    /// Another plan is in force.
    pub(super) fn turn_outward(&mut self) {
        if self.options.once.is_some() {
            return;
        }
        let files = &self.scene.plan.unasked.monitor;
        self.outward.alerts.keep_only(&self.scene.plan.unasked.alerts);
        self.outward.held.retain(|path, _| files.iter().any(|spec| spec.path == *path));
        self.outward.recorded.retain(|path, _| files.iter().any(|spec| spec.path == *path));
        self.outward.touched = watch(files);
        let now = now_ms();
        self.outward.reading.hurry(now);
        self.outward.textfile.hurry(now);
    }

    /// Does what is due; gives the time, unix ms, of what is due next.
    pub(super) async fn outward(&mut self) -> Option<i64> {
        if self.options.once.is_some() || *self.stop.borrow() {
            return None;
        }
        let (now, plan) = (now_ms(), Arc::clone(&self.scene.plan));
        self.record_monitored(now).await;
        [self.read_monitored(&plan, now), self.tell_amiss(&plan, now), self.beat(&plan, now), self.write_text(&plan, now)]
            .into_iter()
            .flatten()
            .min()
    }

    fn go(&mut self, work: impl Future<Output = News> + Send + 'static) {
        let mut stop = self.stop.subscribe();
        self.tasks.spawn(async move {
            let news = tokio::select! {
                news = work => news,
                _ = stop.wait_for(|stop| *stop) => News::Left,
            };
            Done::Outward(Box::new(news))
        });
    }

    fn beat(&mut self, plan: &Plan, now: i64) -> Option<i64> {
        let spec = plan.unasked.heartbeat.as_ref()?;
        let next = self.outward.heartbeat.next(now, spec.every)?;
        if next > now {
            return Some(next);
        }
        if !self.is_well(plan) {
            tracing::error!("no heartbeat: every target's token has ended or is refused");
            self.outward.heartbeat.skip(now, spec.every);
            return self.outward.heartbeat.next(now, spec.every);
        }
        self.outward.heartbeat.begin(now, spec.every);
        let body = serde_json::json!({
            "heartbeat": "tokenferry", "version": env!("CARGO_PKG_VERSION"), "host": host(), "time": Timestamp::now(),
            "since": self.since, "every": spec.every.as_secs(), "targets": plan.targets.len(),
        });
        let (to, message) = (Recipient::Http(spec.http.clone()), Message { variables: Vec::new(), body });
        self.go(async move { News::Beat(hand(&to, &message).await.err().map(|failure| failure.0)) });
        None
    }

    fn write_text(&mut self, plan: &Plan, now: i64) -> Option<i64> {
        let path = plan.unasked.textfile.clone()?;
        let seq = self.writer.health().seq;
        if self.outward.texts.seq != Some(seq) {
            let soon = self.outward.texts.next(seq, LEAST, now).max(now);
            self.outward.textfile.hurry(soon);
        }
        let next = self.outward.textfile.next(now, WRITTEN_EVERY)?;
        if next > now {
            return Some(next);
        }
        self.outward.textfile.begin(now, WRITTEN_EVERY);
        let text = self.counters.text(&self.status(&|_| true), &self.scene);
        self.outward.texts.took(seq, now);
        self.go(async move {
            let error = match text {
                Ok(text) => put(path.clone(), text.into_bytes(), 0o644).await.err(),
                Err(error) => Some(error.to_string()),
            };
            News::Written(path, error)
        });
        None
    }

    /// What came of a task.
    pub(super) async fn heard(&mut self, news: News) {
        let now = now_ms();
        let outward = &mut self.outward;
        match news {
            News::Told(run, error) => self.told_of(&run, error, now),
            News::Beat(error) => {
                let every = self.scene.plan.unasked.heartbeat.as_ref().map_or(AGAIN, |spec| spec.every);
                if let Some(error) = &error {
                    tracing::warn!(error, "the heartbeat was not taken");
                }
                outward.heartbeat.ended(error, now, AGAIN.min(every));
            }
            News::Written(path, error) => {
                let (shown, why) = (path.display().to_string(), error.clone());
                if outward.textfile.ended(error, now, WRITTEN_EVERY) {
                    match why {
                        Some(why) => tracing::warn!(file = shown, "metrics.textfile cannot be written: {why}"),
                        None => tracing::info!(file = shown, "metrics.textfile is written again"),
                    }
                }
            }
            News::Read(read) => {
                outward.reading.ended(None, now, READ_EVERY);
                let seen = Timestamp::now();
                for (path, held) in read {
                    match outward.held.get_mut(&path) {
                        Some(known) if known.0 == held => {}
                        _ => drop(outward.held.insert(path, (held, seen))),
                    }
                }
                outward.looks.seq = None;
            }
            News::Kept(Some(error)) => tracing::debug!(error, "what was told cannot be kept; after a restart it is told again"),
            News::Kept(None) | News::Left => {}
        }
    }

    /// The status of the targets meant, with what is told unasked.
    pub(super) fn status(&self, meant: &dyn Fn(&Target) -> bool) -> Status {
        let mut status = self.view().status(meant);
        status.monitored = self.monitored(Timestamp::now());
        self.show_fleet(&mut status);
        let unasked = &self.scene.plan.unasked;
        if let Some(daemon) = &mut status.daemon {
            daemon.alerts = unasked.alerts.iter().map(|alert| AlertStatus::new(alert, self.outward.alerts.tally(alert))).collect();
            let to = |path: &PathBuf| path.display().to_string();
            daemon.heartbeat = unasked.heartbeat.as_ref().map(|spec| Outcome::new(spec.http.server().into(), &self.outward.heartbeat));
            daemon.textfile = unasked.textfile.as_ref().map(|path| Outcome::new(to(path), &self.outward.textfile));
        }
        status
    }
}

/// This host, as people call it.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Writes a file whole, apart from the loop's threads.
async fn put(path: PathBuf, bytes: Vec<u8>, mode: u32) -> Result<(), String> {
    let at = path.clone();
    let written = file::apart(WRITE_WITHIN, &at, move || Ok(whole::write(&path, &bytes, mode))).await;
    let shown = at.display();
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            let missing = at.parent().is_some_and(|folder| error.kind() == std::io::ErrorKind::NotFound && !folder.exists());
            Err(if missing {
                format!("{shown}: its folder does not exist: make it, writable by this user")
            } else {
                format!("{shown}: {error}")
            })
        }
        Err(failure) => Err(failure.message),
    }
}
