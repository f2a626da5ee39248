//! The fleet in `status`: who its members are, and what a person should know of them.

use serde_json::Value;

use crate::cli::print::{self, Cell, Colour};

/// What needs a person, in any case.
pub(super) fn troubled(daemon: &Value) -> String {
    let fleet = &daemon["fleet"];
    let mut text = String::new();
    if let Some(error) = fleet["error"].as_str() {
        let serves = if fleet["joined"] == true { "this daemon goes on with what it owned" } else { "this daemon serves no shared target" };
        text.push_str(&format!("The fleet: {error}; {serves}\n"));
    }
    for member in fleet["members"].as_array().into_iter().flatten() {
        for warning in member["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            text.push_str(&format!("Member {}: {warning}\n", member["name"].as_str().unwrap_or("-")));
        }
    }
    text
}

/// Its members.
pub(super) fn members(daemon: &Value) -> String {
    let fleet = &daemon["fleet"];
    let Some(lease) = fleet["lease"].as_str() else { return "This daemon is in no fleet.\n".into() };
    let me = fleet["member"].as_str().unwrap_or_default();
    let row = |member: &Value| -> Vec<Cell> {
        let name = member["name"].as_str().unwrap_or("-");
        let (word, colour) = match (member["alive"] == true, name == me) {
            (true, _) => ("alive", Colour::Good),
            (false, true) => ("not joined", Colour::Bad),
            (false, false) => ("dead", Colour::Warn),
        };
        let schedule: String = member["schedule"].as_str().unwrap_or("-").chars().take(12).collect();
        vec![
            name.into(),
            Cell::new(word, colour),
            member["targets"].to_string().into(),
            member["version"].as_str().unwrap_or("-").into(),
            schedule.into(),
        ]
    };
    let rows: Vec<Vec<Cell>> = fleet["members"].as_array().into_iter().flatten().map(row).collect();
    let table = print::table(&["MEMBER", "STATE", "TARGETS", "VERSION", "SCHEDULE"], &rows);
    let (taken, handed) = (&fleet["takenOver"], &fleet["handedOver"]);
    format!("Fleet {lease}; this daemon is {me}, took over {taken} targets since its start and handed over {handed}\n{table}\n")
}
