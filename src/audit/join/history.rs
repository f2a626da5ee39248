//! The records' side: every request that a record names, and times in which records are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::log::{Log, Mint};
use super::{Found, Question, Rotation};
use crate::record::query;
use crate::record::{Kind, Line, Proof, ReadError};

/// So many holes are told one by one; where there are more, the last one grows.
const HOLES: usize = 1000;

/// A rotation is recorded when its token has been delivered, or was tried to be: so long after the mint at most.
const LAG: SignedDuration = SignedDuration::from_secs(60);

/// A time in which records are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// The record before.
    pub from: Timestamp,
    /// The record after.
    pub to: Timestamp,
    /// What is missing.
    pub why: String,
}

impl Hole {
    /// Whether the record of a mint at that time may be the one that is missing.
    pub fn may_hold(&self, mint: Timestamp) -> bool {
        self.from.saturating_sub(LAG).is_ok_and(|from| from <= mint) && mint <= self.to
    }
}

/// A token of a target.
pub(super) struct Issued {
    pub jti: String,
    pub from: Timestamp,
    /// Its end, or when it was replaced.
    pub to: Timestamp,
}

/// A target as far as its tokens' use is concerned.
#[derive(Default)]
pub(super) struct Course {
    pub cluster: String,
    pub tokens: Vec<Issued>,
    /// How its tokens were proven: on the API server, which takes none but its own audience.
    pub online: bool,
    /// By their signature alone: for another audience.
    pub by_signature: bool,
}

/// What the records tell of the log's time.
#[derive(Default)]
pub(super) struct Told {
    pub rotations: Vec<Rotation>,
    /// Mints of the log that a record names, by index.
    pub explained: BTreeSet<usize>,
    /// Cluster and account of every target.
    pub accounts: BTreeSet<(String, String)>,
    pub targets: BTreeMap<String, Course>,
    /// When each token was issued.
    pub issued: BTreeMap<String, Timestamp>,
    pub holes: Vec<Hole>,
    /// The first record.
    pub begin: Option<Timestamp>,
}

/// Reads the records of the log's time and later. A damaged line is passed over, and leaves a hole.
pub(super) fn read(question: &Question, log: &Log, since: Timestamp) -> Result<Told, ReadError> {
    let mut told = Told::default();
    let mut before: Option<(u64, Timestamp)> = None;
    let mut broken: Option<(PathBuf, u64)> = None;
    for line in query::all_around(&question.records, since)? {
        match line {
            Ok(line) => {
                let why = match (&broken, before) {
                    (Some((path, number)), _) => Some(format!("{}:{number} is no record", path.display())),
                    (None, Some((seq, _))) if line.seq != seq + 1 => Some(format!("record {seq} is followed by {}", line.seq)),
                    (None, Some(_)) if line.kind == Kind::Gap => {
                        Some(format!("{} could not be written at the time", line.count.unwrap_or(0)))
                    }
                    _ => None,
                };
                if let Some(why) = why {
                    told.hole(before.map_or(line.time, |(_, time)| time), line.time, why);
                }
                (before, broken) = (Some((line.seq, line.time)), None);
                told.take(&line, log);
            }
            Err(ReadError::NotARecord { path, line }) => {
                // A line without end is met again and again.
                if broken.as_ref() == Some(&(path.clone(), line)) {
                    break;
                }
                broken = Some((path, line));
            }
            Err(error) => return Err(error),
        }
    }
    if let (Some((path, number)), Some((_, time))) = (broken, before) {
        told.hole(time, Timestamp::MAX, format!("{}:{number} is no record, and none follows", path.display()));
    }
    Ok(told)
}

impl Told {
    fn hole(&mut self, from: Timestamp, to: Timestamp, why: String) {
        // The clock may have been set back in between.
        let (from, to) = (from.min(to), from.max(to));
        let many = self.holes.len() >= HOLES;
        match self.holes.last_mut() {
            Some(last) if many => last.to = last.to.max(to),
            _ => self.holes.push(Hole { from, to, why }),
        }
    }

    fn take(&mut self, line: &Line, log: &Log) {
        self.begin = Some(self.begin.map_or(line.time, |begin| begin.min(line.time)));
        let by_audit = line.audit_id.as_ref().and_then(|id| log.by_audit.get(id)).copied();
        let by_jti = line.jti.as_ref().and_then(|jti| log.by_jti.get(jti)).copied();
        self.explained.extend(by_audit.into_iter().chain(by_jti));
        let places = line.sinks.iter().filter_map(|sink| log.by_jti.get(sink.jti.as_ref()?));
        self.explained.extend(places.copied());
        if let (Some(cluster), Some(account)) = (&line.cluster, &line.service_account) {
            self.accounts.insert((cluster.clone(), account.clone()));
        }
        if let (Some(jti), Some(at)) = (&line.jti, line.issued_at) {
            self.issued.insert(jti.clone(), at);
        }
        if matches!(line.kind, Kind::Rotated | Kind::Adopted | Kind::Checkpoint) {
            self.token(line);
        }
        if matches!(line.kind, Kind::Rotated | Kind::Failed | Kind::Minted | Kind::Rehearsed)
            && (line.audit_id.is_some() || line.jti.is_some())
        {
            self.rotations.push(rotation(line, by_audit.map(|i| &log.mints[i]), by_jti.map(|i| &log.mints[i])));
        }
    }

    fn token(&mut self, line: &Line) {
        let (Some(target), Some(jti), Some(from)) = (&line.target, &line.jti, line.issued_at) else { return };
        let course = self.targets.entry(target.clone()).or_default();
        course.cluster = line.cluster.clone().unwrap_or_default();
        course.online |= line.proof == Some(Proof::Online);
        course.by_signature |= line.proof == Some(Proof::Signature);
        if course.tokens.iter().rev().take(2).any(|token| token.jti == *jti) {
            return;
        }
        if let Some(last) = course.tokens.last_mut() {
            last.to = last.to.min(from);
        }
        course.tokens.push(Issued { jti: jti.clone(), from, to: line.expires_at.unwrap_or(Timestamp::MAX) });
    }
}

/// A record beside the event of its Audit-Id and that of its token, which have to be the same.
fn rotation(line: &Line, by_audit: Option<&Mint>, by_jti: Option<&Mint>) -> Rotation {
    let account = line.service_account.as_deref().unwrap_or_default();
    let event = by_audit.or(by_jti);
    let (verdict, detail) = match (event, by_audit) {
        (None, _) if line.audit_id.is_none() => (Found::NoRequest, "the record names no request".to_owned()),
        // Whether the log covers its time is judged when it is known whose log it is.
        (None, _) => (Found::Missing, String::new()),
        (Some(mint), _) if mint.service_account != account => {
            (Found::Contradicts, format!("its event is a TokenRequest for {}", mint.service_account))
        }
        (Some(Mint { jti: Some(issued), .. }), _) if line.jti.as_ref().is_some_and(|jti| jti != issued) => {
            (Found::Contradicts, format!("its event issued the token {issued}"))
        }
        (Some(mint), None) if line.audit_id.is_some() => {
            (Found::Contradicts, format!("its token was issued by another request, {}", mint.audit_id))
        }
        (Some(mint), by) => {
            let ids = match (by, mint.jti.is_some() && line.jti.is_some()) {
                (Some(_), true) => "Audit-Id and token",
                (Some(_), false) => "Audit-Id",
                (None, _) => "token",
            };
            (Found::Joined, format!("by {ids}; asked by {}", mint.user))
        }
    };
    Rotation {
        time: line.time,
        kind: line.kind,
        target: line.target.clone(),
        cluster: line.cluster.clone(),
        service_account: line.service_account.clone(),
        jti: line.jti.clone(),
        audit_id: line.audit_id.clone(),
        verdict,
        detail,
        event: event.cloned(),
    }
}
