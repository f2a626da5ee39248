//! What people did with tokens of their own: `mint` and `exec` tell it, and it becomes a record. Whoever may use
//! the socket may tell; who it was is read from the peer's credentials, not from what is told.

use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Ask, going, json, problem};
use crate::record::{Actor, Kind, Line};
use crate::token::mask::mask;

/// Longest text in it, in characters.
const LONGEST: usize = 500;

/// One token minted, or one command ended. Never a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// `minted` or `executed`.
    pub kind: Kind,
    /// The target that lent its settings, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The cluster's name in the schedule, else the URL of its API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// `NAMESPACE/NAME`.
    pub service_account: String,
    /// Seconds of life asked for.
    pub requested: u64,
    /// Seconds of life given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
    /// The token's `iat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at: Option<Timestamp>,
    /// The token's `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The token's `jti`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// `Audit-Id` of the TokenRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_id: Option<String>,
    /// How the command ended, where it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was typed; of a command that `exec` ran its name alone.
    pub command: String,
}

impl Report {
    /// As a record; what looks like a credential is taken out.
    ///
    /// # Errors
    /// What is wrong with it.
    fn line(self, actor: Actor) -> Result<Line, String> {
        if !matches!(self.kind, Kind::Minted | Kind::Executed) {
            return Err("only `minted` and `executed` are told; the daemon records the rest itself".into());
        }
        let texts = [&self.target, &self.cluster, &self.jti, &self.audit_id, &self.error];
        if texts.into_iter().flatten().chain([&self.service_account]).any(|text| text.chars().count() > LONGEST) {
            return Err(format!("no text of a report is longer than {LONGEST} characters"));
        }
        let clean = |text: String| mask(&text).chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect::<String>();
        let mut line = Line::new(self.kind, Timestamp::now());
        line.target = self.target.map(clean);
        line.cluster = self.cluster.map(clean);
        line.service_account = Some(clean(self.service_account));
        line.requested = Some(self.requested);
        line.granted = self.granted;
        line.issued_at = self.issued_at;
        line.expires_at = self.expires_at;
        line.jti = self.jti.map(clean);
        line.audit_id = self.audit_id.map(clean);
        line.error = self.error.map(clean);
        line.actor = Some(Actor { command: clean(self.command), ..actor });
        Ok(line)
    }
}

/// `POST /report`.
pub(super) async fn take(body: &[u8], asks: &mpsc::Sender<Ask>, actor: Actor) -> Answer {
    let report: Result<Report, _> = serde_json::from_slice(body);
    let line = match report.map_err(|e| format!("the report is not what it should be: {e}")).and_then(|report| report.line(actor)) {
        Ok(line) => line,
        Err(message) => return problem(StatusCode::BAD_REQUEST, &message),
    };
    let (reply, recorded) = oneshot::channel();
    if asks.send(Ask::Report(Box::new(line), reply)).await.is_err() {
        return going();
    }
    match recorded.await {
        Ok(()) => json(&serde_json::json!({ "recorded": true })),
        Err(_) => going(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor() -> Actor {
        Actor { uid: 7, user: None, says: None, command: String::new() }
    }

    fn report(more: serde_json::Value) -> Result<Line, String> {
        let mut value = serde_json::json!({"kind": "minted", "serviceAccount": "a/b", "requested": 60, "command": "tokenferry mint"});
        for (key, told) in more.as_object().unwrap() {
            value[key] = told.clone();
        }
        serde_json::from_value::<Report>(value).map_err(|e| e.to_string()).and_then(|report| report.line(actor()))
    }

    #[test]
    fn a_report_becomes_a_line_of_who_told_it() {
        let line = report(serde_json::json!({"jti": "j", "target": "ci"})).unwrap();
        assert_eq!((line.kind, line.jti.as_deref(), line.target.as_deref()), (Kind::Minted, Some("j"), Some("ci")));
        assert_eq!(line.actor, Some(Actor { command: "tokenferry mint".into(), ..actor() }));
    }

    #[test]
    fn nothing_but_the_two_kinds_is_told_and_nobody_tells_who_he_is() {
        assert!(report(serde_json::json!({"kind": "rotated"})).is_err());
        assert!(report(serde_json::json!({"kind": "gap"})).is_err());
        assert!(report(serde_json::json!({"actor": {"uid": 0, "command": ""}})).is_err());
        assert!(report(serde_json::json!({"jti": "x".repeat(501)})).is_err());
    }

    #[test]
    fn what_looks_like_a_token_and_what_breaks_a_line_is_taken_out() {
        let line =
            report(serde_json::json!({"command": "x eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.c2lnbmF0dXJl", "error": "a\nb\u{1b}[1m"})).unwrap();
        let text = serde_json::to_string(&line).unwrap();
        assert!(!text.contains("eyJ") && !text.contains("\\n") && !text.contains("\\u001b"), "{text}");
    }
}
