//! Which targets' tokens were seen in use.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::Question;
use super::history::{Course, Told};
use super::log::{Log, Seen};
use crate::audit::trail::Coverage;
use crate::record::query::fits;

/// What can be said of a target's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Visible {
    /// A token of it was used.
    Used,
    /// The logs cover the whole time of a token, and nobody used it or another one of it.
    Unused,
    /// Not used so far as the logs reach, which is not far enough to say that nobody does.
    NotCovered,
    /// Its tokens are for somebody else than the API server, or the log does not name tokens.
    NotVisible,
}

/// How a target's tokens are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// Its name.
    pub target: String,
    /// What can be said.
    pub state: Visible,
    /// Tokens of it that the records name.
    pub tokens: u64,
    /// Those whose whole time the logs cover.
    pub covered: u64,
    /// Those that were used.
    pub used: u64,
    /// When one was used last.
    pub last_used: Option<Timestamp>,
    /// From where and with what, up to three.
    pub callers: BTreeSet<String>,
    /// Why that is said.
    pub detail: String,
}

pub(super) fn of(question: &Question, told: &Told, log: &Log, coverage: &Coverage, clusters: &BTreeSet<String>) -> Vec<Use> {
    let globs = &question.query.targets;
    let asked = |name: &String| globs.is_empty() || globs.iter().any(|glob| fits(glob, name));
    let courses = told.targets.iter().filter(|(name, course)| asked(name) && clusters.contains(&course.cluster));
    courses.map(|(name, course)| one(name, course, question, log, coverage)).collect()
}

fn one(name: &str, course: &Course, question: &Question, log: &Log, coverage: &Coverage) -> Use {
    let seen: Vec<&Seen> = course.tokens.iter().filter_map(|token| log.seen.get(&token.jti)).collect();
    let covered = course.tokens.iter().filter(|token| coverage.covers(token.from, token.to)).count();
    // The API server accepts none but its own audience: a token that it was proven with is for it.
    let default = question.defaults.get(name).copied();
    let (state, detail) = if !seen.is_empty() {
        (Visible::Used, "")
    } else if !log.names_tokens {
        (Visible::NotVisible, "the log does not name the tokens that were used")
    } else if !course.online && course.by_signature {
        (Visible::NotVisible, "its audience is not the API server's")
    } else if !course.online && default != Some(true) {
        let why = match default {
            Some(_) => "the schedule gives it audiences of its own, and none of its tokens was proven on the API server",
            None => "neither a proof nor the schedule says that its audience is the API server's",
        };
        (Visible::NotVisible, why)
    } else if covered > 0 {
        (Visible::Unused, "the log covers the whole time of a token, and nobody used it")
    } else {
        (Visible::NotCovered, "not used in the time that the log covers, which is not the whole time of a token")
    };
    Use {
        target: name.to_owned(),
        state,
        tokens: course.tokens.len() as u64,
        covered: covered as u64,
        used: seen.len() as u64,
        last_used: seen.iter().map(|seen| seen.last).max(),
        callers: seen.iter().flat_map(|seen| seen.callers.iter().cloned()).take(3).collect(),
        detail: detail.to_owned(),
    }
}
