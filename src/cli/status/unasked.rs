//! What `status` shows of monitored tokens, alerts, heartbeat and textfile.

use jiff::Timestamp;
use serde_json::Value;

use crate::cli::print::{self, Cell, Colour};

/// Tokens of others, as a table; nothing where none is watched.
pub(super) fn monitored(status: &Value, now: Timestamp) -> String {
    let files: Vec<&Value> = status["monitored"].as_array().into_iter().flatten().collect();
    if files.is_empty() {
        return String::new();
    }
    let row = |file: &&Value| {
        let time = |key: &str| file[key].as_str().and_then(|text| text.parse().ok());
        let state = file["state"].as_str().unwrap_or("-");
        let colour = if state == "fresh" { Colour::Good } else { Colour::Bad };
        vec![
            file["path"].as_str().unwrap_or("-").into(),
            Cell::new(state, colour),
            print::distance(time("issuedAt"), now).into(),
            print::distance(time("expiresAt"), now).into(),
            file["reason"].as_str().unwrap_or("").into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = files.iter().map(row).collect();
    format!("\n{}", print::table(&["MONITORED", "STATE", "ISSUED", "EXPIRES", "WHY"], &rows))
}

/// Those that told nobody the last time.
pub(super) fn failing(daemon: &Value) -> String {
    let alerts = daemon["alerts"].as_array().into_iter().flatten();
    let told = alerts.filter_map(|alert| Some((format!("alert {} {}", alert["alert"].as_str()?, alert["to"].as_str()?), alert)));
    let others = ["heartbeat", "textfile"].map(|key| (key.to_owned(), &daemon[key]));
    let mut text = String::new();
    for (what, outcome) in told.chain(others) {
        if let Some(error) = outcome["error"].as_str() {
            text.push_str(&format!("{what}: failed {} times, last: {error}\n", outcome["failed"]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_last_is_named_and_what_went_well_is_not() {
        let daemon = serde_json::json!({
            "alerts": [{"alert": "exec", "to": "page", "failed": 2, "error": "page: no"}, {"alert": "http", "to": "POST https://x", "failed": 9, "error": null}],
            "heartbeat": {"to": "https://y", "failed": 1, "error": "it answered 500"},
        });
        assert_eq!(failing(&daemon), "alert exec page: failed 2 times, last: page: no\nheartbeat: failed 1 times, last: it answered 500\n");
        assert_eq!(failing(&Value::Null), "");
    }

    #[test]
    fn monitored_files_stand_in_a_table_with_their_reason() {
        let status = serde_json::json!({"monitored": [{"path": "/t", "state": "missing", "reason": "does not exist"}]});
        let text = monitored(&status, Timestamp::UNIX_EPOCH);
        assert!(text.contains("MONITORED") && text.contains("/t") && text.contains("missing") && text.contains("does not exist"), "{text}");
        assert_eq!(monitored(&serde_json::json!({}), Timestamp::UNIX_EPOCH), "");
    }
}
