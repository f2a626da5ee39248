//! What a recipient of an alert gets to read. Pure; no secret stands in it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Condition, Run, Subject};
use crate::after::message::Message;
use crate::record::word;

/// Subjects that one message names; `count` says how many there are.
const NAMED: usize = 200;

/// The message of a run.
pub fn message(run: &Run, host: &str, now: Timestamp) -> Message {
    let body = json!({
        "alert": run.on,
        "recovered": run.recovered,
        "repeated": run.repeated,
        "time": now,
        "host": host,
        "count": run.about.len(),
        "about": run.about.iter().take(NAMED).map(about).collect::<Vec<Value>>(),
    });
    let mut variables = vec![
        ("TOKENFERRY_ALERT", word(run.on)),
        ("TOKENFERRY_RECOVERED", run.recovered.to_string()),
        ("TOKENFERRY_COUNT", run.about.len().to_string()),
    ];
    // Of several, a program reads its input.
    if let [one] = run.about.as_slice() {
        variables.push(("TOKENFERRY_STATE", one.state.clone()));
        variables.push(("TOKENFERRY_SINCE", one.since.to_string()));
        variables.extend(one.expires_at.map(|at| ("TOKENFERRY_EXPIRES_AT", at.to_string())));
        match &one.matter.subject {
            Subject::Daemon => {}
            Subject::Target(name) => variables.push(("TOKENFERRY_TARGET", name.clone())),
            Subject::Cluster(name) => variables.push(("TOKENFERRY_CLUSTER", name.clone())),
            Subject::File(path) => variables.push(("TOKENFERRY_PATH", path.display().to_string())),
            // TOKENFERRY_MEMBER names this daemon.
            Subject::Member(name) => variables.push(("TOKENFERRY_FLEET_MEMBER", name.clone())),
        }
    }
    Message { variables, body }
}

fn about(condition: &Condition) -> Value {
    let mut about = json!({ "state": condition.state, "since": condition.since });
    match &condition.matter.subject {
        Subject::Daemon => {}
        Subject::Target(name) => about["target"] = name.as_str().into(),
        Subject::Cluster(name) => about["cluster"] = name.as_str().into(),
        Subject::File(path) => about["file"] = path.display().to_string().into(),
        Subject::Member(name) => about["member"] = name.as_str().into(),
    }
    let more = [
        ("expiresAt", condition.expires_at.map(|at| at.to_string())),
        ("error", condition.error.clone()),
        ("errorKind", condition.error_kind.clone()),
    ];
    for (key, value) in more {
        if let Some(value) = value {
            about[key] = value.into();
        }
    }
    about
}

#[cfg(test)]
mod tests {
    use super::super::Matter;
    use super::*;
    use crate::schedule::alerts::On;

    fn run(names: &[&str]) -> Run {
        let condition = |name: &&str| Condition {
            matter: Matter { on: On::AtRisk, subject: Subject::Target((*name).into()) },
            state: "atRisk".into(),
            since: Timestamp::UNIX_EPOCH,
            expires_at: Some(Timestamp::UNIX_EPOCH),
            error: Some("403: refused".into()),
            error_kind: None,
        };
        let about = names.iter().map(condition).collect();
        Run { alert: String::new(), on: On::AtRisk, recovered: false, repeated: true, about, repeat: 0 }
    }

    #[test]
    fn one_subject_stands_in_the_environment_too_and_many_are_counted() {
        let one = message(&run(&["ci"]), "h", Timestamp::UNIX_EPOCH);
        let names: Vec<&str> = one.variables.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "TOKENFERRY_ALERT",
                "TOKENFERRY_RECOVERED",
                "TOKENFERRY_COUNT",
                "TOKENFERRY_STATE",
                "TOKENFERRY_SINCE",
                "TOKENFERRY_EXPIRES_AT",
                "TOKENFERRY_TARGET"
            ]
        );
        assert_eq!(
            one.body,
            json!({
                "alert": "atRisk", "recovered": false, "repeated": true, "time": "1970-01-01T00:00:00Z", "host": "h", "count": 1,
                "about": [{"target": "ci", "state": "atRisk", "since": "1970-01-01T00:00:00Z", "expiresAt": "1970-01-01T00:00:00Z", "error": "403: refused"}],
            })
        );
        let many = message(&run(&["x"; 300]), "h", Timestamp::UNIX_EPOCH);
        assert_eq!((&many.body["count"], many.body["about"].as_array().unwrap().len(), many.variables.len()), (&json!(300), 200, 3));
    }
}
