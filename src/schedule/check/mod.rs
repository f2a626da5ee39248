//! Schedule → plan: defaults, cross-checks, and all problems with their place, in one run. Nothing is opened:
//! what needs a look at the host is not asked here.

mod abreast;
mod after;
mod alerts;
mod audiences;
mod clusters;
mod deliver;
mod fleet;
mod format;
mod locate;
mod logins;
mod pace;
mod report;
mod revocable;
mod rotate;
mod rules;
mod secret;
mod stores;
mod target;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::schedule::cron::CronTexts;
use crate::schedule::file::{ScheduleFile, TargetFile, later};
use crate::schedule::plan::{Plan, RecordsSpec, Target};
use crate::schedule::problem::{Problem, Severity};
use crate::schedule::yaml::{self, At, Marks, Node, START, Value};

pub use locate::{Written, locate};

use abreast::Parsed;
use clusters::ClusterFacts;
use report::{Report, Spot};
use stores::StoreFacts;

/// Seconds that closed record files are kept where `records.keep` is absent.
const KEEP: u64 = 400 * 86_400;
/// Bytes at which a record file is closed where `records.maxSize` is absent.
const MAX_SIZE: u64 = 64 << 20;

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
    let spot = Spot { file: 0, node: &root, marks: &marks, prefix: "", target: None };
    planner.report.findings(&spot, found);
    let mut file = file.unwrap_or_default();
    let defaults = root.get("defaults").map(|node| Defaults::new(node, std::mem::take(&mut file.defaults)));
    if let Some(defaults) = &defaults
        && defaults.node.has("name")
    {
        planner.report.error(&spot, &["defaults".into(), "name".into()], "a name belongs to one target: leave it out of `defaults`");
    }
    let clusters = planner.clusters(&spot, file.clusters);
    let mut stores = planner.stores(&spot, file.stores);
    let fleet = planner.fleet(&spot, file.fleet);
    let records = planner.records(&spot, file.records);
    let socket = file.control.socket.and_then(|path| planner.own_path(&spot, &["control".into(), "socket".into()], path));
    let metrics = planner.metrics(&spot, file.metrics.listen.as_deref());
    let unasked = planner.unasked(&spot, file.alerts, file.heartbeat, file.monitor, file.metrics.textfile);
    if root.get("targets").is_some_and(|node| !matches!(node.value, Value::Null)) {
        planner.report.error(&spot, &["targets".into()], "a list of targets is expected here, with a dash before each: `- name: …`");
    }
    let mut planned = planner.targets(&root, targets, defaults);
    planner.logins(&spot, &mut planned, &mut stores);
    planner.pace(&spot, &planned, &clusters, &stores);
    if planner.report.has_errors() {
        return Err(planner.report.finish());
    }
    Ok(Plan {
        path: sources.path.clone(),
        sha256: sources.sha256(),
        clusters,
        stores,
        by_name: planned.iter().enumerate().map(|(index, target)| (target.name.clone(), index)).collect(),
        targets: planned,
        records,
        socket,
        metrics,
        unasked,
        fleet,
        reload_on_change: file.reload_on_change,
        warnings: planner.report.finish(),
    })
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
    sources: &'a Sources,
    variables: &'a BTreeMap<String, String>,
    report: Report<'a>,
    clusters: BTreeMap<String, ClusterFacts>,
    stores: BTreeMap<String, StoreFacts>,
    /// Whether it is the schedule of a fleet.
    fleet: bool,
    /// Target names: file and line.
    names: HashMap<String, (usize, usize)>,
    /// Who writes to a place.
    places: HashMap<String, deliver::Writer>,
    crons: CronTexts,
    zones: HashMap<String, Option<jiff::tz::TimeZone>>,
}

impl<'a> Planner<'a> {
    fn new(sources: &'a Sources, variables: &'a BTreeMap<String, String>) -> Self {
        let files = std::iter::once(&*sources.path).chain(sources.includes.iter().map(|(path, _)| &**path)).collect();
        Self {
            sources,
            variables,
            report: Report::new(files),
            clusters: BTreeMap::new(),
            stores: BTreeMap::new(),
            fleet: false,
            names: HashMap::new(),
            places: HashMap::new(),
            crons: CronTexts::default(),
            zones: HashMap::new(),
        }
    }

    /// Whether to go on: a newer file means other things by the same words.
    fn version(&mut self, root: &Node) -> bool {
        let marks = Marks::default();
        let spot = Spot { file: 0, node: root, marks: &marks, prefix: "", target: None };
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

    fn targets(&mut self, root: &Node, given: bool, defaults: Option<Defaults<'_>>) -> Vec<Arc<Target>> {
        let (mut planned, mut count) = (Vec::new(), 0);
        let sources = self.sources;
        let texts = std::iter::once(&sources.text).filter(|_| given).map(|text| (0, text, false));
        let includes = sources.includes.iter().enumerate().map(|(index, (_, text))| (index + 1, text, true));
        let texts: Vec<(usize, &str, bool)> = texts.chain(includes).map(|(file, text, whole)| (file, &**text, whole)).collect();
        let mut index = 0;
        abreast::parse(&texts, |file, whole, parsed| match parsed {
            Parsed::Target(node) => {
                let prefix = if whole { format!("[{index}]") } else { format!("targets[{index}]") };
                planned.extend(self.target(file, &node, &prefix, defaults.as_ref()).map(Arc::new));
                (index, count) = (index + 1, count + 1);
            }
            Parsed::Empty => self.report.at(file, START, Severity::Warning, "no target stands in this file: write a list, `- name: …`"),
            Parsed::End(ended) => {
                index = 0;
                if let Err(broken) = ended {
                    self.report.at(file, broken.at, Severity::Error, &broken.message);
                }
            }
        });
        if count == 0 && !self.report.has_errors() {
            let at = root.get("targets").map_or(START, |node| node.at);
            self.report.at(0, at, Severity::Warning, "there are no targets: nothing will be minted");
        }
        planned
    }

    fn records(&mut self, spot: &Spot<'_>, file: crate::schedule::file::RecordsFile) -> RecordsSpec {
        let directory = file.directory.and_then(|path| self.own_path(spot, &["records".into(), "directory".into()], path));
        let keep = file.keep.map_or(KEEP, |keep| keep.0);
        if keep == 0 {
            self.report.error(spot, &["records".into(), "keep".into()], "records cannot be kept for no time: write such as 400d");
        }
        let max_size = file.max_size.map_or(MAX_SIZE, |size| size.0);
        if max_size < 64 << 10 {
            self.report.error(spot, &["records".into(), "maxSize".into()], "files of records need some room: write 64KiB or more");
        }
        let signing_key = file.signing_key.map(|mut key| {
            self.refer(spot, &["records".into(), "signingKey".into(), "file".into()], &mut key.file);
            key.file
        });
        RecordsSpec { directory, keep, max_size, signing_key }
    }

    fn metrics(&mut self, spot: &Spot<'_>, listen: Option<&str>) -> Option<std::net::SocketAddr> {
        let text = listen?;
        let address = text.parse().ok();
        if address.is_none() {
            let shown = crate::schedule::measure::shown(text);
            self.report.error(
                spot,
                &["metrics".into(), "listen".into()],
                &format!("{shown} is no ADDRESS:PORT: write such as 127.0.0.1:9467"),
            );
        }
        address
    }
}
