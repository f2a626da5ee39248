//! `report`: the compliance report, for people, machines and auditors.

mod archive;
mod csv;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use super::kubeconfig::Reach;
use super::print::{self, Cell, Colour};
use super::records::moment;
use super::{Context, Exit};
use crate::audit::report::{self, Judged, Question, Report as Made, Span, Verdict};
use crate::cluster::view::View;
use crate::daemon::read;
use crate::record::{chain, word};
use crate::schedule::Plan;

/// Show whether tokens kept their limits over a time, and what happened to them
///
/// From the records, which are verified on the way, and the limits under `compliance` in the schedule. Works from the
/// records alone where nothing else is left; several folders join several hosts. Where your kubeconfig or --cluster
/// leads to a cluster, the report tells too who has tokens in it. Exits 1 where a limit was broken, a target was
/// without a valid token, or records are damaged or lost.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry report                                   the last 30 days
  tokenferry report --since 2026-01-01 --until 2026-04-01 --group-by owner
  tokenferry report --since 7d -o html > report.html
  tokenferry report -o json | jq '.targets[] | select(.verdict == \"broken\") | {name, why}'
  tokenferry report --records /backup/host-a --records /backup/host-b -o csv
  tokenferry report --archive /var/lib/tokenferry/reports    last month's, kept, as tokenferry-report.timer does it")]
pub struct Report {
    /// Only these targets (names or globs)
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    targets: Vec<String>,
    /// From then on: a time, a day or a distance [default: 30d]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before then [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// The records of another host, or a copy; may be given more than once [default: the schedule's]
    #[arg(long = "records", value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// The label by whose values targets are summed up
    #[arg(short, long, value_name = "LABEL", default_value = "owner")]
    group_by: String,
    /// Keep the report of the last whole month in that folder, as HTML, JSON and CSV; what is there stays
    #[arg(long, value_name = "DIR", conflicts_with_all = ["since", "until", "output"])]
    archive: Option<PathBuf>,
    /// Look at no cluster
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    reach: Reach,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    #[value(alias = "table")]
    Text,
    Json,
    Csv,
    Html,
}

/// A report with what was seen of a cluster.
#[derive(Serialize)]
struct Whole<'r> {
    #[serde(flatten)]
    report: &'r Made,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<&'r View>,
}

impl Report {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where the time is empty, 1 where something is to be complained of or cannot be written.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let schedule = context.schedule(None);
        let mut notes = Vec::new();
        let plan = match read::read(&schedule) {
            Ok(accepted) => Some(accepted.plan),
            Err(_) if !schedule.exists() => None,
            Err(_) => {
                notes.push(format!(
                    "the schedule {} is refused, so its limits are not judged: tokenferry check says why",
                    schedule.display()
                ));
                None
            }
        };
        let folders = self.folders(plan.as_ref(), context);
        let now = Timestamp::now();
        let period = match &self.archive {
            Some(_) => archive::last_month(now),
            None => {
                let month = Timestamp::from_second(now.as_second() - 30 * 86_400).unwrap_or(now);
                Span { from: self.since.unwrap_or(month), until: self.until.unwrap_or(now) }
            }
        };
        if period.seconds() == 0 {
            return Err(Exit::usage("--until is not after --since"));
        }
        let question = Question { period, now, targets: &self.targets, group_by: &self.group_by, plan: plan.as_ref() };
        let shown = context.progress("reading the records and the cluster");
        // Reading months of records takes its time, and its disk may hang.
        let (mut made, view) =
            tokio::join!(async { tokio::task::block_in_place(|| report::report(&folders, &question)) }, self.view(context, &mut notes));
        drop(shown);
        made.missing.append(&mut notes);
        let key = plan.as_ref().and_then(|plan| plan.records.signing_key.as_deref());
        match &self.archive {
            Some(folder) => archive::keep(folder, &made, view.as_ref(), key)?,
            None => self.show(&made, view.as_ref())?,
        }
        if made.is_clean() { Ok(()) } else { Err(Exit::failed()) }
    }

    fn folders(&self, plan: Option<&Plan>, context: &Context) -> Vec<PathBuf> {
        if !self.folders.is_empty() {
            return self.folders.clone();
        }
        vec![plan.map_or_else(|| context.places.records.clone(), |plan| context.places.by(plan).records)]
    }

    async fn view(&self, context: &Context, notes: &mut Vec<String>) -> Option<View> {
        if self.offline {
            return None;
        }
        match self.reach.cluster(context) {
            Ok(cluster) => {
                let view = cluster.view().await;
                // Nothing was seen of it: one line says so.
                if view.missing.len() == 4 {
                    notes.push(format!("the cluster could not be looked at: {}", view.missing[0]));
                    return None;
                }
                Some(view)
            }
            Err(exit) => {
                notes.push(format!("no cluster was looked at: {}", exit.message.unwrap_or_default()));
                None
            }
        }
    }

    fn show(&self, made: &Made, view: Option<&View>) -> Result<(), Exit> {
        match self.output {
            Form::Json => print::json(&Whole { report: made, cluster: view }),
            Form::Csv => print::data(&csv::csv(made)),
            Form::Html => print::data(&report::page::page(made, view)),
            Form::Text => text(made, view),
        }
    }
}

fn text(made: &Made, view: Option<&View>) -> Result<(), Exit> {
    let day = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M").to_string();
    let mut out = format!("{} to {} UTC\n\n", day(made.period.from), day(made.period.until));
    let rows: Vec<Vec<Cell>> = made.targets.iter().map(row).collect();
    if !rows.is_empty() {
        out += &print::table(&["TARGET", "VERDICT", "OLDEST", "LONGEST LIFE", "DONE", "LATE", "FAILED", "NO TOKEN", "WHY"], &rows);
        out.push('\n');
    }
    let group = |sums: &report::Sums| {
        let label: Cell = sums.label.clone().map_or_else(|| Cell::new("(none)", Colour::Faint), Cell::from);
        let numbers = [sums.targets, sums.broken, sums.rotations, sums.missed, sums.failures].map(|n| Cell::from(n.to_string()));
        std::iter::once(label).chain(numbers).chain([Cell::from(print::span(sums.without_token))]).collect::<Vec<_>>()
    };
    let head =
        [made.group_by.to_uppercase(), "TARGETS".into(), "BROKEN".into(), "DONE".into(), "LATE".into(), "FAILED".into(), "NO TOKEN".into()];
    out += &print::table(&head.each_ref().map(String::as_str), &made.groups.iter().map(group).collect::<Vec<_>>());
    out += &monitored(made);
    for down in &made.down {
        let how = if down.stopped { "it had been stopped" } else { "it had ended without a word" };
        out += &format!(
            "\nno daemon ran from {} to {} ({}): {how}",
            day(down.span.from),
            day(down.span.until),
            print::span(down.span.seconds())
        );
    }
    for step in &made.steps {
        let who = step.actor.who();
        let what = step.target.as_ref().or(step.service_account.as_ref()).map_or(String::new(), |name| format!(" {name}"));
        out += &format!("\n{} {who}: {} ({}{what})", day(step.time), step.actor.command, word(step.kind));
    }
    if let Some(view) = view {
        out += &format!(
            "\n\ncluster {}: {} ServiceAccounts in {} namespaces, {} of them without automount; {} pods, {} with a token mounted; {} legacy token Secrets\n",
            view.name,
            view.accounts,
            view.namespaces.len(),
            view.automount_off,
            view.pods,
            view.mounting,
            view.legacy.len()
        );
        let legacy = |secret: &crate::cluster::view::LegacySecret| {
            vec![
                Cell::from(format!("{}/{}", secret.namespace, secret.name)),
                secret.account.as_str().into(),
                Cell::from(print::distance(secret.created, made.made)),
                Cell::from(secret.last_used.clone().unwrap_or_else(|| "never noted".into())),
            ]
        };
        if !view.legacy.is_empty() {
            out += &print::table(&["LEGACY SECRET", "ACCOUNT", "MADE", "LAST USED"], &view.legacy.iter().map(legacy).collect::<Vec<_>>());
        }
    }
    out = out.trim_end().to_owned() + "\n";
    print::data(&out)?;
    for line in view.iter().flat_map(|view| &view.missing).chain(&made.missing) {
        print::talk(&format!("not in this report: {line}"));
    }
    for source in &made.sources {
        if let Some(head) = &source.head {
            print::talk(&format!("records in {} are sound up to {head}", source.folder.display()));
        }
    }
    Ok(())
}

/// Tokens that others mint; nothing where none was watched.
fn monitored(made: &Made) -> String {
    if made.monitored.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<Cell>> = made.monitored.iter().map(watched).collect();
    format!("\n{}", print::table(&["MONITORED", "STATE", "TOKENS", "OLDEST", "NOT WELL", "WHY"], &rows))
}

fn watched(file: &report::Watched) -> Vec<Cell> {
    let colour = if file.unwell == 0 { Colour::Good } else { Colour::Bad };
    vec![
        file.path.display().to_string().into(),
        word(file.state).into(),
        file.tokens.to_string().into(),
        file.longest_age.map_or_else(|| "-".to_owned(), print::span).into(),
        Cell::new(print::span(file.unwell), colour),
        file.why.join("; ").into(),
    ]
}

fn row(judged: &Judged) -> Vec<Cell> {
    let course = &judged.course;
    let span = |seconds: Option<u64>| seconds.map_or_else(|| "-".to_owned(), print::span);
    let verdict = match judged.verdict {
        Verdict::Kept => Cell::new("kept", Colour::Good),
        Verdict::NoLimits => Cell::new("no limits", Colour::Faint),
        Verdict::Broken => Cell::new("broken", Colour::Bad),
    };
    let causes = course.causes.iter().map(|cause| format!("{} × {}", cause.count, cause.error));
    let rehearsed = course.rehearsal.as_ref().map(|rehearsal| {
        let at = rehearsal.time.round(jiff::Unit::Second).unwrap_or(rehearsal.time);
        format!("rehearsed {at}: {}", rehearsal.error.as_deref().unwrap_or("good"))
    });
    let why: Vec<String> = judged.why.iter().cloned().chain(causes).chain(rehearsed).collect();
    vec![
        course.name.as_str().into(),
        verdict,
        span(course.longest_age).into(),
        span(course.longest_life).into(),
        course.rotations.to_string().into(),
        course.missed.to_string().into(),
        course.failures.to_string().into(),
        print::span(course.without_token).into(),
        why.join("; ").into(),
    ]
}
