//! The log's side: who minted what, and which tokens were used.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::trail::{self, Event, Stage, Survey, Unreadable};
use crate::token::mask::mask;

/// So many callers of one token are named.
const CALLERS: usize = 3;
/// How our own calls name themselves.
const OURS: &str = "tokenferry/";

/// One TokenRequest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mint {
    /// Names the request.
    pub audit_id: String,
    /// When it came in.
    pub at: Timestamp,
    /// For whom: `NAMESPACE/NAME`.
    pub service_account: String,
    /// The token that was issued; none before Kubernetes 1.30, and where none was.
    pub jti: Option<String>,
    /// Who asked.
    pub user: String,
    /// From where.
    #[serde(rename = "sourceIPs")]
    pub source_ips: Vec<String>,
    /// With what.
    pub user_agent: Option<String>,
    /// How it was answered, where the log says so.
    pub code: Option<u16>,
    #[serde(skip)]
    pub(super) by_kubelet: bool,
    #[serde(skip)]
    stage: Option<Stage>,
}

impl Mint {
    /// Whether a token was handed out.
    pub fn is_issued(&self) -> bool {
        self.jti.is_some() || self.code.is_some_and(|code| (200..300).contains(&code))
    }

    /// Whether none was.
    pub fn is_refused(&self) -> bool {
        self.code.is_some_and(|code| code >= 400)
    }
}

/// How a token was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// For the last time.
    pub last: Timestamp,
    /// `ADDRESS (USER AGENT)`, the first ones.
    pub callers: BTreeSet<String>,
}

/// All logs together.
#[derive(Default)]
pub(super) struct Log {
    pub surveys: Vec<Survey>,
    pub mints: Vec<Mint>,
    pub by_audit: HashMap<String, usize>,
    pub by_jti: HashMap<String, usize>,
    /// By `jti`.
    pub seen: HashMap<String, Seen>,
    /// Whether any event names the token that was used.
    pub names_tokens: bool,
}

impl Log {
    /// Reads every log to its end.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Unreadable> {
        let mut log = Self::default();
        for path in paths {
            let mut trail = trail::open(path)?;
            for event in trail.by_ref() {
                log.take(event?);
            }
            log.surveys.push(trail.into_survey());
        }
        for (index, mint) in log.mints.iter().enumerate() {
            if let Some(jti) = &mint.jti {
                log.by_jti.insert(jti.clone(), index);
            }
        }
        Ok(log)
    }

    pub(super) fn take(&mut self, event: Event) {
        if let Some(jti) = event.user.token() {
            self.names_tokens = true;
            if !is_our_proof(&event) {
                self.used(jti.to_owned(), &event);
            }
        }
        if event.is_token_request() {
            self.mint(event);
        }
    }

    fn used(&mut self, jti: String, event: &Event) {
        let seen = self.seen.entry(jti).or_insert_with(|| Seen { last: event.at, callers: BTreeSet::new() });
        seen.last = seen.last.max(event.at);
        if seen.callers.len() < CALLERS {
            let from = event.source_ips.first().map_or("an unknown address", String::as_str);
            seen.callers.insert(clean(&format!("{from} ({})", event.user_agent.as_deref().unwrap_or("no user agent"))));
        }
    }

    /// A request may have an event for each of its stages: the last one knows the answer.
    fn mint(&mut self, event: Event) {
        let Some(object) = &event.object else { return };
        let mint = Mint {
            at: event.received,
            service_account: clean(&format!("{}/{}", object.namespace, object.name)),
            jti: event.issued().map(clean),
            user: clean(&match &event.impersonated {
                Some(other) => format!("{} as {other}", event.user.name),
                None => event.user.name.clone(),
            }),
            source_ips: event.source_ips.iter().map(|ip| clean(ip)).collect(),
            user_agent: event.user_agent.as_deref().map(clean),
            code: event.code,
            by_kubelet: event.impersonated.is_none() && event.user.groups.iter().any(|group| group == "system:nodes"),
            stage: Some(event.stage),
            audit_id: clean(&event.audit_id),
        };
        match self.by_audit.get(&mint.audit_id) {
            Some(&index) if self.mints[index].stage >= mint.stage => {}
            Some(&index) => self.mints[index] = mint,
            None => {
                self.by_audit.insert(mint.audit_id.clone(), self.mints.len());
                self.mints.push(mint);
            }
        }
    }

    /// Whether that user asked for a token that our records name.
    pub fn is_ours(&self, explained: &BTreeSet<usize>, user: &str) -> bool {
        explained.iter().any(|index| self.mints[*index].user == user)
    }
}

/// Our own proof of a token is no use of it.
fn is_our_proof(event: &Event) -> bool {
    let reviewed = event.object.as_ref().is_some_and(|object| object.resource == "selfsubjectreviews");
    reviewed && event.user_agent.as_deref().is_some_and(|agent| agent.starts_with(OURS))
}

/// A log holds what callers sent: nothing of it may move a cursor, or be a token.
fn clean(text: &str) -> String {
    mask(text).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(300).collect()
}
