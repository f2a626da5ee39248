//! The compliance report: for each target of a period how old and how long-lived its tokens got, what was done, missed
//! and failed, who received them, and whether that keeps the limits that the schedule sets. From the records alone,
//! which are verified on the way; a limit that no schedule names is judged by nobody.

mod course;
mod daemon;
mod judge;
mod monitored;
pub mod page;
mod period;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

pub use course::{Cause, Course, Rehearsal};
pub use daemon::{Down, Reload, Step};
pub use judge::{Judged, Sums, Verdict};
pub use monitored::Watched;
pub use period::{Period, Span};
pub use receiver::Receiver;

use crate::audit::with_causes;
use crate::record::query::{self, fits};
use crate::record::{Kind, Line, chain};
use crate::schedule::plan::{Plan, Target};

/// Parts of the period in the charts.
const PARTS: usize = 60;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// About which time.
    pub period: Period,
    /// When it is asked.
    pub now: Timestamp,
    /// Names or globs of targets; all where there is none.
    pub targets: &'a [String],
    /// The label by whose values targets are summed up.
    pub group_by: &'a str,
    /// The limits, and who is meant to be there.
    pub plan: Option<&'a Plan>,
}

/// One records folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The folder.
    pub folder: PathBuf,
    /// Whether every line is as it was written, and none is missing between them.
    pub sound: bool,
    /// What is wrong with it.
    pub error: Option<String>,
    /// Lines that were read for this report.
    pub lines: u64,
    /// `hash` of its last line: what this report rests on.
    pub head: Option<String>,
    /// `seq` of that line.
    pub seq: Option<u64>,
    /// Time of the oldest line that is kept: nothing is known of the time before.
    pub since: Option<Timestamp>,
}

/// The report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The format of this report.
    pub version: u32,
    /// About which time.
    pub period: Period,
    /// When it was made.
    pub made: Timestamp,
    /// By which version of tokenferry.
    pub tokenferry: &'static str,
    /// What it rests on.
    pub sources: Vec<Source>,
    /// What it cannot say, and why.
    pub missing: Vec<String>,
    /// All targets together.
    pub total: Sums,
    /// By label.
    pub group_by: String,
    /// Targets by the value of that label.
    pub groups: Vec<Sums>,
    /// Target by target, the broken ones first.
    pub targets: Vec<Judged>,
    /// Tokens that others mint, file by file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub monitored: Vec<Watched>,
    /// When no daemon ran.
    pub down: Vec<Down>,
    /// Schedules that were taken or refused.
    pub reloads: Vec<Reload>,
    /// What people did.
    pub steps: Vec<Step>,
    /// Records that could not be written.
    pub lost: u64,
    /// Rotations in each part of the period.
    pub rotations: Vec<u64>,
    /// Failed ones in each part of the period.
    pub failures: Vec<u64>,
}

impl Report {
    /// Whether nothing is to be complained of: limits kept, monitored tokens well, records sound, and none lost.
    pub fn is_clean(&self) -> bool {
        self.total.broken == 0
            && self.lost == 0
            && self.monitored.iter().all(|file| file.unwell == 0)
            && self.sources.iter().all(|source| source.sound)
    }
}

/// Reads the folders and makes the report. A folder that is damaged or cannot be read tells what it can, and
/// [`Report::missing`] says so.
pub fn report(folders: &[PathBuf], question: &Question<'_>) -> Report {
    let mut made = Made::new(question);
    for (index, folder) in folders.iter().enumerate() {
        made.read(index, folder);
    }
    made.finish(folders.len())
}

struct Made<'q, 'a> {
    question: &'q Question<'a>,
    report: Report,
    courses: BTreeMap<(usize, String), Course>,
}

impl<'q, 'a> Made<'q, 'a> {
    fn new(question: &'q Question<'a>) -> Self {
        let report = Report {
            version: 1,
            period: question.period,
            made: question.now,
            tokenferry: env!("CARGO_PKG_VERSION"),
            sources: Vec::new(),
            missing: Vec::new(),
            total: Sums::default(),
            group_by: question.group_by.to_owned(),
            groups: Vec::new(),
            targets: Vec::new(),
            monitored: Vec::new(),
            down: Vec::new(),
            reloads: Vec::new(),
            steps: Vec::new(),
            lost: 0,
            rotations: vec![0; PARTS],
            failures: vec![0; PARTS],
        };
        Self { question, report, courses: BTreeMap::new() }
    }

    fn read(&mut self, index: usize, folder: &Path) {
        let mut source = Source { folder: folder.to_owned(), sound: true, error: None, lines: 0, head: None, seq: None, since: None };
        match chain::verify(folder, None) {
            Ok(verified) => (source.head, source.seq) = (Some(verified.head), Some(verified.seq)),
            Err(broken) => {
                source.sound = false;
                source.error = Some(with_causes(&broken));
                self.report.missing.push(format!("the records in {} are damaged: {}", folder.display(), with_causes(&broken)));
            }
        }
        if let Err(unread) = self.lines(index, folder, &mut source) {
            self.report.missing.push(format!("{}: what comes after its damage is not in this report: {unread}", folder.display()));
        }
        let period = self.question.period;
        match source.since {
            None => self.report.missing.push(format!("{} holds no record", folder.display())),
            Some(since) if since > period.from => self.report.missing.push(format!("{} knows nothing before {since}", folder.display())),
            Some(_) => {}
        }
        self.report.sources.push(source);
    }

    fn lines(&mut self, index: usize, folder: &Path, source: &mut Source) -> Result<(), String> {
        let period = self.question.period;
        let mut life = daemon::Life::default();
        let all = query::all_around(folder, period.from).map_err(|error| with_causes(&error))?;
        let mut done = Ok(());
        for line in all {
            let line = match line {
                Ok(line) => line,
                Err(error) => {
                    done = Err(with_causes(&error));
                    break;
                }
            };
            source.since.get_or_insert(line.time);
            if line.time >= period.until {
                // The clock may have been set back in between.
                continue;
            }
            source.lines += 1;
            if !matches!(line.kind, Kind::Checkpoint | Kind::CheckpointEnd) {
                life.take(&line, &period);
            }
            self.monitored(index, &line);
            let Some(name) = line.target.as_ref().filter(|name| self.asked_for(name) && !line.is_of_leaver()) else { continue };
            if period.holds(line.time) {
                let chart = match line.kind {
                    Kind::Rotated => Some(&mut self.report.rotations),
                    Kind::Failed => Some(&mut self.report.failures),
                    _ => None,
                };
                if let Some(chart) = chart {
                    chart[period.part(line.time, PARTS)] += 1;
                }
            }
            let course = self.courses.entry((index, name.clone())).or_insert_with(|| Course::new(name, index, PARTS));
            course.take(&line, &period);
        }
        life.end(&period);
        self.report.down.extend(life.down.into_iter().map(|(span, stopped)| Down { source: index, span, stopped }));
        self.report.reloads.append(&mut life.reloads);
        self.report.steps.append(&mut life.steps);
        self.report.lost += life.lost;
        done
    }

    fn monitored(&mut self, source: usize, line: &Line) {
        let Some(seen) = &line.monitored else { return };
        let files = &mut self.report.monitored;
        let known = files.iter().position(|file| file.source == source && file.path == seen.path);
        let index = known.unwrap_or_else(|| {
            files.push(Watched::new(seen.path.clone(), source));
            files.len() - 1
        });
        files[index].take(line, seen, &self.question.period);
    }

    fn asked_for(&self, name: &str) -> bool {
        self.question.targets.is_empty() || self.question.targets.iter().any(|glob| fits(glob, name))
    }

    fn finish(mut self, folders: usize) -> Report {
        let (period, plan) = (self.question.period, self.question.plan);
        let mut groups: BTreeMap<Option<String>, Sums> = BTreeMap::new();
        for mut course in std::mem::take(&mut self.courses).into_values() {
            course.end(&period);
            if !course.matters() {
                continue;
            }
            let limits = plan.and_then(|plan| plan.target(&course.name)).map(|target| target.compliance).unwrap_or_default();
            let label = course.labels.get(self.question.group_by).cloned();
            let judged = judge::judge(course, limits);
            self.report.total.add(&judged);
            groups.entry(label.clone()).or_insert_with(|| Sums { label, ..Sums::default() }).add(&judged);
            self.report.targets.push(judged);
        }
        self.report.targets.sort_by(|a, b| (a.verdict, &a.course.name, a.course.source).cmp(&(b.verdict, &b.course.name, b.course.source)));
        self.report.monitored.iter_mut().for_each(|file| file.end(&period, self.question.now));
        self.report.groups = groups.into_values().collect();
        let told: BTreeSet<&str> = self.report.targets.iter().map(|judged| judged.course.name.as_str()).collect();
        let expected = plan.iter().flat_map(|plan| &plan.targets).filter(|target| self.asked_for(&target.name));
        let untold = expected.filter(|target| !told.contains(&*target.name));
        let said = |target: &Arc<Target>| format!("target {} is in the schedule, and no record of the period tells of it", target.name);
        let untold: Vec<String> = untold.map(said).collect();
        self.report.missing.extend(untold);
        if plan.is_none() {
            self.report.missing.push("no schedule was read, so no limit (`compliance`) is judged".into());
        }
        if self.report.lost > 0 {
            self.report.missing.push(format!("{} records could not be written at their time and are lost", self.report.lost));
        }
        if folders > 1 {
            self.report.steps.sort_by_key(|step| step.time);
            self.report.reloads.sort_by_key(|reload| reload.time);
        }
        self.report
    }
}

#[cfg(test)]
mod tests;
