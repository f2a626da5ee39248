//! Whether a target kept the limits that the schedule sets, and sums over many.

use serde::Serialize;

use super::Course;
use crate::schedule::plan::Compliance;

/// Whether a target kept its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It did not: `why` says how.
    Broken,
    /// It has none, and always served a valid token.
    NoLimits,
    /// It did.
    Kept,
}

/// A target with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judged {
    /// What happened.
    #[serde(flatten)]
    pub course: Course,
    /// Oldest allowed age, in seconds.
    pub max_age: Option<u64>,
    /// Longest allowed life, in seconds.
    pub max_lifetime: Option<u64>,
    /// Whether they were kept.
    pub verdict: Verdict,
    /// What broke them.
    pub why: Vec<String>,
}

/// Targets with one value of a label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sums {
    /// The value; nothing for those without the label, and for the sum of all.
    pub label: Option<String>,
    /// Targets.
    pub targets: u64,
    /// Those that broke a limit.
    pub broken: u64,
    /// Rotations.
    pub rotations: u64,
    /// Rotations that came late.
    pub missed: u64,
    /// Rotations that failed.
    pub failures: u64,
    /// Seconds without a valid token.
    pub without_token: u64,
}

impl Sums {
    pub(super) fn add(&mut self, judged: &Judged) {
        self.targets += 1;
        self.broken += u64::from(judged.verdict == Verdict::Broken);
        self.rotations += judged.course.rotations;
        self.missed += judged.course.missed;
        self.failures += judged.course.failures;
        self.without_token += judged.course.without_token;
    }
}

/// Holds what happened against the limits.
pub(super) fn judge(course: Course, limits: Compliance) -> Judged {
    let mut why = Vec::new();
    let over = |found: Option<u64>, most: Option<u64>| found.zip(most).filter(|(found, most)| found > most);
    if let Some((age, most)) = over(course.longest_age, limits.max_age) {
        why.push(format!("a token was served for {age} s after its issue; maxAge is {most} s"));
    }
    if let Some((life, most)) = over(course.longest_life, limits.max_lifetime) {
        why.push(format!("a token lived for {life} s; maxLifetime is {most} s"));
    }
    if course.without_token > 0 {
        why.push(format!("it served no valid token for {} s", course.without_token));
    }
    if course.failures > 0 && course.longest_age.is_none() {
        why.push("it never had a token".into());
    }
    let verdict = match why.is_empty() {
        false => Verdict::Broken,
        true if limits == Compliance::default() => Verdict::NoLimits,
        true => Verdict::Kept,
    };
    Judged { course, max_age: limits.max_age, max_lifetime: limits.max_lifetime, verdict, why }
}
