//! Schedule → plan: defaults, cross-checks, and all problems with their place, in one run. Nothing is opened:
//! what needs a look at the host is not asked here.

mod abreast;
mod after;
mod alerts;
mod audiences;
mod clusters;
mod deliver;
mod eks;
mod encrypt;
mod fleet;
mod format;
mod locate;
mod logins;
mod memo;
mod pace;
mod report;
mod revocable;
mod rotate;
mod rules;
mod secret;
mod settings;
mod stores;
mod target;
mod texts;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::schedule::cron::CronTexts;
use crate::schedule::file::{ScheduleFile, TargetFile, later};
use crate::schedule::plan::{Plan, Target, Terms};
use crate::schedule::problem::{Problem, Severity};
use crate::schedule::yaml::{self, At, Marks, Node, START, Value};

pub use locate::{Written, locate};
pub use memo::Memo;

use abreast::Parsed;
use clusters::ClusterFacts;
use memo::Digest;
use report::{Prefix, Report, Spot};
use stores::StoreFacts;
use texts::{Part, Texts};

/// So many targets are worth a thread.
const MANY: usize = 10_000;

/// A schedule's text and those of its includes, in order. Relative paths in a text count from its file's
/// folder, so the paths are best absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The schedule's path.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Paths and texts of the files that `include` names, sorted by path.
    pub includes: Vec<(PathBuf, String)>,
}

impl Sources {
    /// SHA-256, in hex, of all texts in order.
    pub fn sha256(&self) -> String {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(self.text.as_bytes());
        self.includes.iter().for_each(|(_, text)| digest.update(text.as_bytes()));
        crate::token::render::hex(digest.finish().as_ref())
    }
}

/// The patterns under `include`, as written, for whoever opens files; none where the text cannot be read.
pub fn include_patterns(text: &str) -> Vec<String> {
    // As it is written, or with an escape in quotes: most schedules need no parsing for this.
    if !text.contains("include") && !text.contains('\\') {
        return Vec::new();
    }
    let Ok((root, _)) = yaml::head(text) else { return Vec::new() };
    let Some(include) = root.get("include") else { return Vec::new() };
    yaml::read(include, later, &mut Vec::new()).0.unwrap_or_default()
}

/// A problem of a file that is no UTF-8 text.
pub fn not_utf8(path: &Path, bytes: &[u8]) -> Problem {
    let broken = yaml::not_utf8(bytes);
    problem(path, broken.at, broken.message)
}

fn problem(path: &Path, at: At, message: String) -> Problem {
    Problem { file: path.into(), line: at.line, column: at.column, severity: Severity::Error, target: None, key: String::new(), message }
}

/// Plans a schedule. `variables` are the values for `${NAME}` in file references.
///
/// # Errors
/// All problems, warnings among them, sorted by file and place, where at least one of them is an error.
pub fn plan(sources: &Sources, variables: &BTreeMap<String, String>) -> Result<Plan, Vec<Problem>> {
    plan_after(sources, variables, None)
}

/// The same, after a plan of the same host whose memo that is: what stands as it stood is not planned again.
///
/// # Errors
/// As [`plan`].
pub fn plan_after(sources: &Sources, variables: &BTreeMap<String, String>, before: Option<&Memo>) -> Result<Plan, Vec<Problem>> {
    let texts = Texts::of(sources, variables);
    let before = before.filter(|memo| memo.head == texts.head);
    if let Some(before) = before
        && let Ok(Some(plan)) = attempt(sources, variables, &texts, Some(before))
    {
        return Ok(plan);
    }
    // Whatever is unusual is planned whole, and told as ever.
    attempt(sources, variables, &texts, None).map(|plan| plan.expect("nothing was planned before that could be in its way"))
}

/// One run; nothing where it has to be another one, with nothing taken from before.
fn attempt(
    sources: &Sources,
    variables: &BTreeMap<String, String>,
    texts: &Texts<'_>,
    before: Option<&Memo>,
) -> Result<Option<Plan>, Vec<Problem>> {
    let (root, targets) = match yaml::head(&sources.text) {
        Ok(head) => head,
        Err(broken) => return Err(vec![problem(&sources.path, broken.at, broken.message)]),
    };
    let mut planner = Planner::new(sources, variables);
    if !planner.version(&root) {
        return Err(planner.report.finish());
    }
    let mut found = Vec::new();
    let (file, marks) = yaml::read::<ScheduleFile>(&root, later, &mut found);
    let spot = Spot { file: 0, node: &root, marks: &marks, prefix: Prefix::Root, target: None };
    planner.report.findings(&spot, found);
    let mut file = file.unwrap_or_default();
    let defaults = root.get("defaults").map(|node| Defaults::new(node, std::mem::take(&mut file.defaults)));
    if let Some(defaults) = &defaults
        && defaults.node.has("name")
    {
        planner.report.error(&spot, &["defaults".into(), "name".into()], "a name belongs to one target: leave it out of `defaults`");
    }
    let mut clusters = planner.clusters(&spot, file.clusters);
    let mut stores = planner.stores(&spot, file.stores);
    let fleet = planner.fleet(&spot, file.fleet);
    let records = planner.records(&spot, file.records);
    let socket = file.control.socket.and_then(|path| planner.own_path(&spot, &["control".into(), "socket".into()], path));
    let metrics = planner.metrics(&spot, file.metrics.listen.as_deref());
    let unasked = planner.unasked(&spot, file.alerts, file.heartbeat, file.monitor, file.metrics.textfile);
    if root.get("targets").is_some_and(|node| !matches!(node.value, Value::Null)) {
        planner.report.error(&spot, &["targets".into()], "a list of targets is expected here, with a dash before each: `- name: …`");
    }
    let Some((mut planned, memo)) = planner.targets(&root, targets, defaults, texts, before) else { return Ok(None) };
    planner.logins(&spot, &mut planned, &mut stores);
    planner.cluster_logins(&spot, &mut planned, &mut clusters);
    planner.pace(&spot, &planned, &clusters, &stores);
    if planner.report.has_errors() {
        return Err(planner.report.finish());
    }
    let by_name = planner.index(&planned);
    Ok(Some(Plan {
        path: sources.path.clone(),
        sha256: sources.sha256(),
        clusters,
        stores,
        by_name,
        targets: planned,
        records,
        socket,
        metrics,
        unasked,
        fleet,
        reload_on_change: file.reload_on_change,
        warnings: planner.report.finish(),
        memo,
    }))
}

/// `defaults`, as a tree for places and as values.
struct Defaults<'a> {
    node: &'a Node,
    marks: Marks,
    file: TargetFile,
}

impl<'a> Defaults<'a> {
    fn new(node: &'a Node, file: TargetFile) -> Self {
        // a second reading for the marks of this subtree alone; its problems are said already
        let marks = yaml::read::<TargetFile>(node, later, &mut Vec::new()).1;
        Self { node, marks, file }
    }
}

/// What planning knows so far.
struct Planner<'a> {
    variables: &'a BTreeMap<String, String>,
    report: Report<'a>,
    clusters: BTreeMap<String, ClusterFacts>,
    stores: BTreeMap<String, StoreFacts>,
    /// Whether it is the schedule of a fleet.
    fleet: bool,
    /// Target names: file and line.
    names: HashMap<Arc<str>, (usize, usize)>,
    /// Who writes to a place, by what stands for its name.
    places: HashMap<Digest, deliver::Writer>,
    crons: CronTexts,
    zones: HashMap<String, Option<jiff::tz::TimeZone>>,
    /// The terms of the target that was planned last: the next one mostly has the same.
    terms: Option<Arc<Terms>>,
}

impl<'a> Planner<'a> {
    fn new(sources: &'a Sources, variables: &'a BTreeMap<String, String>) -> Self {
        let files = std::iter::once(&*sources.path).chain(sources.includes.iter().map(|(path, _)| &**path)).collect();
        Self {
            variables,
            report: Report::new(files),
            clusters: BTreeMap::new(),
            stores: BTreeMap::new(),
            fleet: false,
            names: HashMap::new(),
            places: HashMap::new(),
            crons: CronTexts::default(),
            zones: HashMap::new(),
            terms: None,
        }
    }

    /// Whether to go on: a newer file means other things by the same words.
    fn version(&mut self, root: &Node) -> bool {
        let marks = Marks::default();
        let spot = Spot { file: 0, node: root, marks: &marks, prefix: Prefix::Root, target: None };
        let Some(node) = root.get("version") else {
            self.report.error(&spot, &["version".into()], "the version is missing: begin the file with `version: 1`");
            return true;
        };
        let version = yaml::read::<u64>(node, later, &mut Vec::new()).0;
        match version {
            Some(0) => self.report.error(&spot, &["version".into()], "there is no version 0: write `version: 1`"),
            Some(newer @ 2..) => {
                let message = format!("version {newer} is newer than this tokenferry, which knows version 1: update tokenferry");
                self.report.error(&spot, &["version".into()], &message);
                return false;
            }
            _ => {}
        }
        true
    }

    /// The index of these targets by name; what told one from the other so far is let go.
    fn index(&mut self, planned: &[Arc<Target>]) -> HashMap<Arc<str>, usize> {
        // Both and the index at once would be the most that is ever in memory.
        self.places = HashMap::new();
        let spent = std::mem::take(&mut self.names);
        let index = || planned.iter().enumerate().map(|(index, target)| (Arc::clone(&target.name), index)).collect();
        if planned.len() < MANY {
            return index();
        }
        // As long work as the other, so side by side.
        std::thread::scope(|scope| {
            scope.spawn(move || drop(spent));
            index()
        })
    }

    /// Plans all targets; nothing where one of them is in the way of one that was planned before.
    fn targets(
        &mut self,
        root: &Node,
        given: bool,
        defaults: Option<Defaults<'_>>,
        texts: &Texts<'_>,
        before: Option<&Memo>,
    ) -> Option<(Vec<Arc<Target>>, Memo)> {
        let (mut planned, mut count, mut index) = (Vec::new(), 0, 0);
        let mut memo = Memo::new(texts.head);
        let mut reused: HashMap<Digest, &[Arc<Target>]> = HashMap::new();
        let (mut from, mut twice) = ((0, 0), false);
        let parts = texts.parts.iter().filter(|part| given || part.text.0 > 0);
        let parts: Vec<Part<'_>> = parts.map(|part| Part { known: before.is_some_and(|memo| memo.knows(&part.digest)), ..*part }).collect();
        abreast::parse(&parts, |part, parsed| match parsed {
            Parsed::Known => {
                let before = before.map(|memo| memo.of(&part.digest)).unwrap_or_default();
                twice |= reused.insert(part.digest, before).is_some();
                planned.extend(before.iter().cloned());
                memo.keep(part.digest, before.to_vec());
                (index, count) = (index + before.len(), count + before.len());
            }
            Parsed::Begin => from = (planned.len(), self.report.said()),
            Parsed::Target(node) => {
                let prefix = if part.text.2 { Prefix::Element(index) } else { Prefix::Target(index) };
                planned.extend(self.target(part.text.0, &node, prefix, defaults.as_ref()).map(Arc::new));
                (index, count) = (index + 1, count + 1);
            }
            Parsed::Empty => {
                self.report.at(part.text.0, START, Severity::Warning, "no target stands in this file: write a list, `- name: …`");
            }
            Parsed::End(ended) => {
                if let Err(broken) = ended {
                    self.report.at(part.text.0, broken.at, Severity::Error, &broken.message);
                } else if self.report.said() == from.1 {
                    memo.keep(part.digest, planned[from.0..].to_vec());
                }
            }
            Parsed::EndOfFile => index = 0,
        });
        if count == 0 && !self.report.has_errors() {
            let at = root.get("targets").map_or(START, |node| node.at);
            self.report.at(0, at, Severity::Warning, "there are no targets: nothing will be minted");
        }
        let before: Vec<&[Arc<Target>]> = reused.into_values().collect();
        (!twice && !self.collides(&before)).then_some((planned, memo))
    }
}
