//! The problems found so far.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use crate::schedule::problem::{Problem, Severity};
use crate::schedule::yaml::{At, Finding, Marks, Node, Step};

/// A tree that problems are found in: a file's root, or one target.
pub struct Spot<'a> {
    /// Which file, by its place among the sources.
    pub file: usize,
    /// The tree.
    pub node: &'a Node,
    /// What was left out of it.
    pub marks: &'a Marks,
    /// The tree's own path in its file.
    pub prefix: Prefix,
    /// The target that it is.
    pub target: Option<&'a str>,
}

/// A tree's own path in its file, written out only where something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// The file's root.
    Root,
    /// `defaults`.
    Defaults,
    /// That target of the schedule, from 0.
    Target(usize),
    /// That target of an included file, from 0.
    Element(usize),
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Defaults => f.write_str("defaults"),
            Self::Target(index) => write!(f, "targets[{index}]"),
            Self::Element(index) => write!(f, "[{index}]"),
        }
    }
}

/// Collects problems; each is kept once.
pub struct Report<'a> {
    files: Vec<&'a Path>,
    found: Vec<(usize, Problem)>,
    said: HashSet<(usize, At, String, String)>,
    errors: usize,
    calls: usize,
}

impl<'a> Report<'a> {
    pub fn new(files: Vec<&'a Path>) -> Self {
        Self { files, found: Vec::new(), said: HashSet::new(), errors: 0, calls: 0 }
    }

    pub fn path(&self, file: usize) -> &'a Path {
        self.files[file]
    }

    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How often something was said so far, warnings and repetitions among it.
    pub fn said(&self) -> usize {
        self.calls
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub fn error(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], message: &str) {
        self.say(spot, steps, Severity::Error, message);
    }

    pub fn warning(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], message: &str) {
        self.say(spot, steps, Severity::Warning, message);
    }

    pub fn say(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], severity: Severity, message: &str) {
        let (node, path) = spot.marks.find(spot.node, steps);
        self.add(spot, node.at, severity, &path, message);
    }

    /// What reading a tree found.
    pub fn findings(&mut self, spot: &Spot<'_>, found: Vec<Finding>) {
        for finding in found {
            self.add(spot, finding.at, Severity::Error, &finding.key, &finding.message);
        }
    }

    /// A problem of a file as such.
    pub fn at(&mut self, file: usize, at: At, severity: Severity, message: &str) {
        self.push(file, at, severity, None, String::new(), message);
    }

    fn add(&mut self, spot: &Spot<'_>, at: At, severity: Severity, path: &str, message: &str) {
        let dot = if spot.prefix == Prefix::Root || path.is_empty() || path.starts_with('[') { "" } else { "." };
        self.push(spot.file, at, severity, spot.target, format!("{}{dot}{path}", spot.prefix), message);
    }

    fn push(&mut self, file: usize, at: At, severity: Severity, target: Option<&str>, key: String, message: &str) {
        self.calls += 1;
        // what `defaults` get wrong comes up for each target, with that target's numbers
        let wording: String = message.chars().filter(|c| !c.is_ascii_digit()).collect();
        if !self.said.insert((file, at, key.clone(), wording)) {
            return;
        }
        self.errors += usize::from(severity == Severity::Error);
        let problem = Problem {
            file: self.files[file].into(),
            line: at.line,
            column: at.column,
            severity,
            target: target.map(Into::into),
            key,
            message: message.into(),
        };
        self.found.push((file, problem));
    }

    /// All of them, in the order of files and lines.
    pub fn finish(&mut self) -> Vec<Problem> {
        let mut found = std::mem::take(&mut self.found);
        // what is wrong need not smell as well
        let place = |file: usize, problem: &Problem| (file, problem.line, problem.column, problem.key.clone());
        let wrong: HashSet<_> = found.iter().filter(|(_, p)| p.severity == Severity::Error).map(|(file, p)| place(*file, p)).collect();
        found.retain(|(file, p)| p.severity == Severity::Error || !wrong.contains(&place(*file, p)));
        found.sort_by(|(a_file, a), (b_file, b)| {
            (a_file, a.line, a.column, &a.key, &a.message).cmp(&(b_file, b.line, b.column, &b.key, &b.message))
        });
        found.into_iter().map(|(_, problem)| problem).collect()
    }
}
