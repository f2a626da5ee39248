//! How finds and plans look.

use jiff::Timestamp;
use serde::Serialize;

use super::super::Exit;
use super::super::inspect::printable;
use super::super::print::{self, Cell, Colour};
use crate::audit::legacy::plan::Planned;
use crate::audit::legacy::stage::{self, Stage};
use crate::audit::legacy::{Find, Inventory, Kind, Whereabouts};

/// A plan with what it rests on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Whole<'w> {
    /// Token by token.
    pub finds: &'w [Planned<'w>],
    /// The rest of it.
    #[serde(flatten, serialize_with = "without_finds")]
    pub inventory: &'w Inventory,
}

fn without_finds<S: serde::Serializer>(inventory: &Inventory, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = to.serialize_map(None)?;
    map.serialize_entry("trackedSince", &inventory.tracked_since)?;
    map.serialize_entry("log", &inventory.log)?;
    map.serialize_entry("missing", &inventory.missing)?;
    map.serialize_entry("unseen", &inventory.unseen)?;
    map.end()
}

/// The finds as a table.
pub fn list(inventory: &Inventory) -> Result<(), Exit> {
    let now = Timestamp::now();
    if inventory.finds.is_empty() {
        print::talk("no ServiceAccount's token with a life that is too long was found in a Secret");
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = inventory.finds.iter().map(|find| row(find, now)).collect();
    print::data(&print::table(&["SECRET", "WHAT", "ACCOUNT", "AGE", "LAST USED", "STATE", "NAMED BY", "PODS WITH A BOUND TOKEN"], &rows))?;
    if let Some(day) = &inventory.tracked_since {
        print::talk(&format!("uses are noted since {day}; not looked at: {}", inventory.unseen.join("; ")));
    }
    Ok(())
}

fn row(find: &Find, now: Timestamp) -> Vec<Cell> {
    let age = find.issued_at.or(find.created).map(|at| print::span(now.duration_since(at).as_secs().unsigned_abs()));
    let account = find.account.as_ref().map_or_else(|| "-".into(), ToString::to_string);
    let account = match find.account_is {
        Whereabouts::Here => account.into(),
        Whereabouts::Gone => Cell::new(format!("{account} (not here)"), Colour::Faint),
        Whereabouts::Another => Cell::new(format!("{account} (another UID here)"), Colour::Faint),
        Whereabouts::Unknown => Cell::new(format!("{account} (not asked)"), Colour::Warn),
    };
    let named: Vec<String> = find.references.iter().take(2).map(|one| format!("{one}{}", if one.past { ", over" } else { "" })).collect();
    let more = find.references.len().saturating_sub(named.len());
    let named = if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") };
    vec![
        find.place().into(),
        what(find).into(),
        account,
        age.unwrap_or_else(|| "-".into()).into(),
        find.last_used.as_ref().or(find.used_before.as_ref()).cloned().unwrap_or_else(|| "-".into()).into(),
        state(find, now),
        if named.is_empty() { "-".into() } else { named.into() },
        find.bound_pods.to_string().into(),
    ]
}

fn what(find: &Find) -> String {
    match (find.kind, &find.copy_of, find.lifetime) {
        (Kind::TokenSecret, ..) if find.auto_generated => "no end, made by itself".into(),
        (Kind::TokenSecret, ..) => "no end".into(),
        (Kind::Copy, Some(of), _) => format!("no end, copy of {of}"),
        (Kind::Copy | Kind::Endless, ..) => "no end".into(),
        (Kind::Long, _, life) => format!("lives {}", print::span(life.unwrap_or(0).unsigned_abs())),
    }
}

/// Without a time to watch for: what the labels say.
fn state(find: &Find, now: Timestamp) -> Cell {
    match stage::stage(find, now, 0) {
        Stage::Live => Cell::new("accepted", Colour::Bad),
        Stage::Observed { since, .. } | Stage::Quiet { since } => {
            Cell::new(format!("disabled {}", print::distance(Some(since), now)), Colour::Good)
        }
        Stage::Missed { .. } => Cell::new("disabled, used since", Colour::Warn),
        Stage::Elsewhere => match find.expires_at {
            Some(end) => Cell::new(format!("ends {}", print::distance(Some(end), now)), Colour::Warn),
            None => Cell::new("-", Colour::Warn),
        },
    }
}

/// The plan, find by find.
pub fn plan(planned: &[Planned<'_>], inventory: &Inventory) -> Result<(), Exit> {
    if planned.is_empty() {
        print::talk("nothing to do: no ServiceAccount's token with a life that is too long was found in a Secret");
    }
    let mut out = String::new();
    for one in planned {
        let account = one.find.account.as_ref().map_or_else(|| "no account".into(), ToString::to_string);
        out.push_str(&format!("{} ({}, {account}): {}\n", one.find.place(), what(one.find), one.stage.word()));
        let rows: Vec<Vec<Cell>> = one
            .steps
            .iter()
            .map(|step| {
                let mark = if step.done { Cell::new("  done", Colour::Good) } else { Cell::new("  to do", Colour::Warn) };
                vec![mark, step.step.into(), step.what.as_str().into(), Cell::new(step.command.clone().unwrap_or_default(), Colour::Faint)]
            })
            .collect();
        out.push_str(&print::table(&["  ", "STEP", "WHAT", "COMMAND"], &rows));
        out.push_str(&callers(one.find));
        out.push('\n');
    }
    print::data(&out)?;
    if let Some(log) = &inventory.log {
        let span = log.first.zip(log.last).map_or_else(|| "no time".into(), |(first, last)| format!("{first} to {last}"));
        print::talk(&format!("{}: {} events, {span}; who is not in it may use the token at other times", log.name, log.events));
    }
    Ok(())
}

fn callers(find: &Find) -> String {
    if find.uses.is_empty() {
        return String::new();
    }
    let row = |one: &crate::audit::legacy::Use| {
        let from = match &one.pod {
            Some(pod) => format!("{} (now pod {pod})", one.addresses.join(", ")),
            None => one.addresses.join(", "),
        };
        let mut note = Vec::new();
        if one.refused_since > 0 {
            note.push(format!("refused {} times since", one.refused_since));
        }
        if !one.certain {
            note.push("some token of this account: the log does not say which".to_owned());
        }
        let agent = printable(&one.user_agent);
        vec![
            format!("  {}", printable(&from)).into(),
            agent.into(),
            one.count.max(1).to_string().into(),
            one.first.strftime("%Y-%m-%d %H:%M").to_string().into(),
            one.last.strftime("%Y-%m-%d %H:%M").to_string().into(),
            Cell::new(note.join("; "), Colour::Warn),
        ]
    };
    let rows: Vec<Vec<Cell>> = find.uses.iter().map(row).collect();
    let mut text = print::table(&["  CALLER", "AGENT", "REQUESTS", "FIRST (UTC)", "LAST (UTC)", ""], &rows);
    if find.more_uses > 0 {
        text.push_str(&format!("  and {} requests of more callers\n", find.more_uses));
    }
    text
}
