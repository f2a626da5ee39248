//! `records --audit-log`: the history beside the API server's audit log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;

use super::super::print::{self, Cell, Colour, Output};
use super::super::{Context, Exit, error};
use crate::audit::join::{Found, Joined, Mint, NoAnswer, Origin, Question, Rotation, Unexplained, Use, Visible, join};
use crate::daemon::read;
use crate::record::query::Query;
use crate::record::word;

/// What is joined with what.
pub struct Wish {
    pub logs: Vec<PathBuf>,
    pub records: PathBuf,
    pub query: Query,
    pub cluster: Option<String>,
    pub output: Output,
}

/// Shows it. Exits 1 where something does not join.
pub fn show(wish: Wish, context: &Context) -> Result<(), Exit> {
    if wish.logs.iter().filter(|log| log.as_os_str() == "-").count() > 1 {
        return Err(Exit::usage("standard input can be read once: give `--audit-log -` once"));
    }
    let records = wish.records.clone();
    let question =
        Question { logs: wish.logs, records: wish.records, query: wish.query, cluster: wish.cluster, defaults: defaults(context) };
    let joined = join(question).map_err(|why| match why {
        NoAnswer::Log(why) => Exit::own(error::chain(&why)),
        NoAnswer::Records(why) => super::unreadable(&why),
    })?;
    match wish.output {
        Output::Json => print::json(&joined)?,
        Output::Table => print::data(&text(&joined))?,
    }
    for note in &joined.notes {
        print::talk(&format!("note: {note}"));
    }
    if wish.output == Output::Table {
        print::talk(&summary(&joined, &records.display().to_string()));
    }
    if joined.is_sound() { Ok(()) } else { Err(Exit::failed()) }
}

/// Whether each target leaves its audiences to the API server. Records do not say; a schedule that cannot be read hides
/// nothing else.
fn defaults(context: &Context) -> BTreeMap<String, bool> {
    let accepted = read::read(&context.schedule(None));
    let targets = accepted.into_iter().flat_map(|accepted| accepted.plan.targets.clone());
    targets.map(|target| (target.name.to_string(), target.ask.audiences.is_empty())).collect()
}

fn text(joined: &Joined) -> String {
    let mut text = String::new();
    let mut section = |head: &[&str], rows: Vec<Vec<Cell>>| {
        if !rows.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}{}", print::table(head, &rows)));
        }
    };
    section(&["TIME", "RECORD", "TARGET", "IN THE LOG", "AUDIT-ID", "WHAT"], joined.rotations.iter().map(rotation).collect());
    section(&["TIME", "ACCOUNT", "NO RECORD", "BY", "FROM", "AUDIT-ID", "WHAT"], joined.mints.iter().map(mint).collect());
    section(&["TARGET", "USE", "TOKENS", "USED", "LAST", "WHAT"], joined.targets.iter().map(target).collect());
    text
}

fn whole(time: Timestamp) -> String {
    time.round(jiff::Unit::Second).unwrap_or(time).to_string()
}

fn rotation(rotation: &Rotation) -> Vec<Cell> {
    let colour = match rotation.verdict {
        Found::Joined => Colour::Good,
        Found::Missing | Found::Contradicts => Colour::Bad,
        Found::NotCovered | Found::NoRequest | Found::OtherCluster => Colour::Faint,
    };
    vec![
        whole(rotation.time).into(),
        word(rotation.kind).into(),
        rotation.target.as_deref().or(rotation.service_account.as_deref()).unwrap_or("-").into(),
        Cell::new(word(rotation.verdict), colour),
        rotation.audit_id.as_deref().unwrap_or("-").into(),
        rotation.detail.as_str().into(),
    ]
}

fn mint(mint: &Unexplained) -> Vec<Cell> {
    let colour = if mint.verdict == Origin::Unexplained { Colour::Bad } else { Colour::Faint };
    let Mint { audit_id, at, service_account, user, source_ips, user_agent, .. } = &mint.event;
    let with = user_agent.as_ref().map(|agent| format!(" ({agent})")).unwrap_or_default();
    vec![
        whole(*at).into(),
        service_account.as_str().into(),
        Cell::new(word(mint.verdict), colour),
        user.as_str().into(),
        format!("{}{with}", source_ips.join(", ")).into(),
        audit_id.as_str().into(),
        mint.detail.as_str().into(),
    ]
}

fn target(target: &Use) -> Vec<Cell> {
    let colour = match target.state {
        Visible::Used => Colour::Good,
        Visible::Unused => Colour::Warn,
        Visible::NotCovered | Visible::NotVisible => Colour::Faint,
    };
    let callers: Vec<&str> = target.callers.iter().map(String::as_str).collect();
    vec![
        target.target.as_str().into(),
        Cell::new(word(target.state), colour),
        target.tokens.to_string().into(),
        target.used.to_string().into(),
        target.last_used.map_or_else(|| "-".into(), whole).into(),
        if callers.is_empty() { target.detail.as_str().into() } else { callers.join(", ").into() },
    ]
}

fn summary(joined: &Joined, records: &str) -> String {
    let rotations = |verdict| joined.rotations.iter().filter(|rotation| rotation.verdict == verdict).count();
    let unexplained = joined.mints.iter().filter(|mint| mint.verdict == Origin::Unexplained).count();
    let unused = joined.targets.iter().filter(|target| target.state == Visible::Unused).count();
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".into(), whole);
    format!(
        "logs from {} to {}, {records}: {} joined, {} missing, {} contradicting, {} not covered; {unexplained} mints that no record names; {unused} unused targets",
        time(joined.from),
        time(joined.to),
        rotations(Found::Joined),
        rotations(Found::Missing),
        rotations(Found::Contradicts),
        rotations(Found::NotCovered),
    )
}
