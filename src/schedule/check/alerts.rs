//! `alerts`, `heartbeat`, `monitor` and `metrics.textfile`: who is told unasked, completed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::deliver::joined;
use super::report::Spot;
use super::{Planner, rules};
use crate::after::message::Recipient;
use crate::schedule::alerts::{AlertFile, AlertSpec, HeartbeatFile, HeartbeatSpec, MonitorFile, MonitorSpec, On, Unasked};
use crate::schedule::measure::{Seconds, shown};
use crate::schedule::yaml::{Step, Value};

/// `repeat` where it is absent, and its bounds, seconds.
const REPEAT: u64 = 3600;
const REPEATS: (u64, u64) = (10, 30 * 86_400);
/// `every` where it is absent, and its bounds, seconds.
const EVERY: u64 = 300;
const PERIODS: (u64, u64) = (10, 86_400);

impl Planner<'_> {
    /// What the daemon tells unasked.
    pub(super) fn unasked(
        &mut self,
        spot: &Spot<'_>,
        alerts: Vec<AlertFile>,
        heartbeat: Option<HeartbeatFile>,
        monitor: Vec<MonitorFile>,
        textfile: Option<PathBuf>,
    ) -> Unasked {
        let mut planned: Vec<AlertSpec> = Vec::new();
        for (index, alert) in alerts.iter().enumerate() {
            let here = [Step::Key("alerts"), index.into()];
            let Some(alert) = self.alert(spot, &here, alert) else { continue };
            if planned.iter().any(|other| other.key() == alert.key()) {
                self.report.error(spot, &here, &format!("{} is told of the same twice: keep one", shown(&alert.to.to())));
            }
            planned.push(alert);
        }
        let heartbeat = heartbeat.and_then(|heartbeat| self.heartbeat(spot, &heartbeat));
        let monitor = self.monitor(spot, monitor);
        let textfile = textfile.and_then(|path| self.textfile(spot, path));
        Unasked { alerts: planned, heartbeat, monitor, textfile }
    }

    fn alert(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &AlertFile) -> Option<AlertSpec> {
        let repeat = self.span(spot, &joined(here, "repeat"), file.repeat, REPEAT, REPEATS);
        let on = self.words(spot, here, file.on.as_deref());
        let (key, written) = match (&file.exec, &file.http) {
            (Some(exec), None) => ("exec", exec.timeout),
            (None, Some(http)) => ("http", http.timeout),
            (None, None) => {
                self.report.error(spot, here, "it tells nobody: write exec: {command: […]} or http: {url: …}");
                return None;
            }
            (Some(_), Some(_)) => {
                self.report.error(spot, here, "exec and http exclude each other: keep one, or give each an alert of its own");
                return None;
            }
        };
        let at = joined(here, key);
        let mut to = match (&file.exec, &file.http) {
            (Some(exec), _) => Recipient::Exec(self.exec_hook(spot, &at, exec)?),
            (_, Some(http)) => Recipient::Http(self.http_hook(spot, &at, http)?),
            (None, None) => return None,
        };
        let timeout = match &mut to {
            Recipient::Exec(spec) => &mut spec.timeout,
            Recipient::Http(spec) => &mut spec.timeout,
        };
        self.fit(spot, &at, written, timeout, repeat, "repeat");
        Some(AlertSpec { on, to, repeat })
    }

    /// A duration with bounds.
    fn span(&mut self, spot: &Spot<'_>, at: &[Step<'_>], written: Option<Seconds>, otherwise: u64, (least, most): (u64, u64)) -> Duration {
        let seconds = written.map_or(otherwise, |written| written.0);
        if seconds < least || seconds > most {
            let message = format!("{} is out of bounds: write {} to {}", Seconds(seconds), Seconds(least), Seconds(most));
            self.report.error(spot, at, &message);
        }
        Duration::from_secs(seconds)
    }

    /// A time limit that is absent fits into the period; one that was written has to.
    fn fit(&mut self, spot: &Spot<'_>, here: &[Step<'_>], written: Option<Seconds>, timeout: &mut Duration, period: Duration, key: &str) {
        if *timeout <= period {
            return;
        }
        match written {
            None => *timeout = period,
            Some(written) => {
                let message = format!("{written} is longer than `{key}`, {}: write less", Seconds(period.as_secs()));
                self.report.error(spot, &joined(here, "timeout"), &message);
            }
        }
    }

    fn words(&mut self, spot: &Spot<'_>, here: &[Step<'_>], written: Option<&[On]>) -> BTreeSet<On> {
        let Some(written) = written else { return On::ALL.into() };
        let words: BTreeSet<On> = written.iter().copied().collect();
        let at = joined(here, "on");
        if words.len() < written.len() {
            self.report.error(spot, &at, "a word stands here twice: keep one");
        }
        // An element that cannot be read was reported, and is not among them.
        let whole = matches!(&spot.marks.node(spot.node, &at).value, Value::List(list) if list.len() == written.len());
        let only_recovered = words.len() == 1 && words.contains(&On::Recovered);
        if written.is_empty() && whole {
            self.report.error(spot, &at, "no state is named: write such as [failed, atRisk, recovered], or leave the key out for all");
        } else if only_recovered && whole {
            self.report.error(spot, &at, "nothing recovers that was not told before: name states beside `recovered`");
        }
        words
    }

    fn heartbeat(&mut self, spot: &Spot<'_>, file: &HeartbeatFile) -> Option<HeartbeatSpec> {
        let here = [Step::Key("heartbeat")];
        let every = self.span(spot, &joined(&here, "every"), file.every, EVERY, PERIODS);
        let at = joined(&here, "http");
        let mut http = self.http_hook(spot, &at, &file.http)?;
        self.fit(spot, &at, file.http.timeout, &mut http.timeout, every, "every");
        Some(HeartbeatSpec { http, every })
    }

    fn monitor(&mut self, spot: &Spot<'_>, files: Vec<MonitorFile>) -> Vec<MonitorSpec> {
        let mut planned = Vec::new();
        let mut known: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for (index, mut file) in files.into_iter().enumerate() {
            let here = [Step::Key("monitor"), index.into()];
            let at = joined(&here, "path");
            let before = self.report.errors();
            self.refer(spot, &at, &mut file.path);
            if self.report.errors() > before {
                continue;
            }
            if file.max_age == Some(Seconds(0)) {
                self.report.error(spot, &joined(&here, "maxAge"), "no token is younger than that: write such as 2h");
            }
            if let Some(first) = known.insert(file.path.clone(), index) {
                self.report.error(spot, &at, &format!("monitor[{first}] has this file already: keep one"));
            }
            planned.push(MonitorSpec { path: file.path, max_age: file.max_age.map(|age| age.0) });
        }
        planned
    }

    /// node_exporter reads what ends in `.prom`, and nothing else.
    fn textfile(&mut self, spot: &Spot<'_>, path: PathBuf) -> Option<PathBuf> {
        let at = [Step::Key("metrics"), Step::Key("textfile")];
        match rules::written_path(self.base(spot.file), &path) {
            Ok(path) if path.extension().is_some_and(|end| end == "prom") => return Some(path),
            Ok(_) => {
                let example = "/var/lib/prometheus/node-exporter/tokenferry.prom";
                let message = format!("node_exporter reads no file of that name: let it end in .prom, such as {example}");
                self.report.error(spot, &at, &message);
            }
            Err(message) => self.report.error(spot, &at, &message),
        }
        None
    }
}
