//! `plan`: what will happen.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::print::{self, Cell, Colour, Output};
use super::{Context, Exit, error};
use crate::audit::plan::drill::{self, Lost};
use crate::audit::plan::{self, Forecast, Load};
use crate::daemon::{own, read, scene};
use crate::record::State;
use crate::schedule::measure::Seconds;
use crate::schedule::{self, Change};

/// Show what will happen: the next rotations, the load on each server, and that no token can expire
///
/// Works offline, from the schedule and the records on this host: it asks no server and mints nothing. A schedule
/// that can let a token expire is refused, as `check` refuses it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry plan                            the next day\n  tokenferry plan --horizon 7d --next 50     the next week\n  tokenferry plan --drill 6h                 what an outage of six hours would cost\n  tokenferry plan new.yaml --diff /etc/tokenferry/schedule.yaml   what a reload would change"
)]
pub struct Plan {
    /// The schedule
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many rotations to list
    #[arg(long, value_name = "N", default_value = "20")]
    next: usize,
    /// How far to look ahead
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    horizon: Seconds,
    /// Replay an outage of that length, begun when it hurts each target most; exits 1 where a token would expire
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "diff")]
    drill: Option<Seconds>,
    /// Show what going over from that schedule to this one would change
    #[arg(long, value_name = "FILE")]
    diff: Option<PathBuf>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

fn duration(text: &str) -> Result<Seconds, String> {
    text.parse().map_err(|error: schedule::measure::BadAmount| error.to_string())
}

#[derive(Serialize)]
struct Drilled {
    outage: u64,
    targets: usize,
    lost: Vec<Lost>,
}

impl Plan {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where a schedule is refused, 1 where a drill loses a token.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let path = context.schedule(self.file.as_ref());
        let shown = context.progress("planning the schedule");
        let accepted = read::read(&path).map_err(|problems| Exit::refused(&problems))?;
        drop(shown);
        for warning in &accepted.plan.warnings {
            print::talk(&warning.to_string());
        }
        if let Some(before) = &self.diff {
            let before = read::read(before).map_err(|problems| Exit::refused(&problems))?;
            return self.difference(&Change::between(&before.plan, &accepted.plan));
        }
        let records = context.places.by(&accepted.plan).records;
        let planned = own::join(accepted.plan, &records);
        let state = match crate::record::read(&records) {
            Ok(state) => state,
            Err(_) if !records.exists() => State::default(),
            Err(error) => {
                // A timetable from the schedule alone is better than none.
                print::talk(&format!("the records cannot be read, every target counts as new: {}", error::chain(&error)));
                State::default()
            }
        };
        let (now, host) = (Timestamp::now(), scene::host());
        if let Some(outage) = self.drill {
            let length = i64::try_from(outage.0).unwrap_or(i64::MAX / 4);
            let shown = context.progress("playing the schedule through the outage");
            let lost = drill::drill(&planned, &state, now, length, &host);
            drop(shown);
            return self.drilled(Drilled { outage: outage.0, targets: planned.targets.len(), lost }, now);
        }
        let horizon = i64::try_from(self.horizon.0).unwrap_or(i64::MAX).clamp(60, 366 * 86_400);
        let shown = context.progress("working out the timetable");
        let forecast = plan::forecast(&planned, &state, now, horizon, self.next, &host);
        drop(shown);
        self.forecast(&forecast, now)
    }

    fn difference(&self, change: &Change) -> Result<(), Exit> {
        if self.output == Output::Json {
            return print::json(change);
        }
        if change.is_empty() {
            print::talk("nothing that matters differs");
            return Ok(());
        }
        let settings: Vec<String> = change.settings.iter().map(|key| (*key).to_owned()).collect();
        let kinds = [
            ("added", "target", &change.added, Colour::Good),
            ("removed", "target", &change.removed, Colour::Bad),
            ("changed", "target", &change.changed, Colour::Warn),
            ("changed", "cluster", &change.clusters, Colour::Warn),
            ("changed", "store", &change.stores, Colour::Warn),
            ("changed", "setting", &settings, Colour::Warn),
        ];
        let rows: Vec<Vec<Cell>> = kinds
            .into_iter()
            .flat_map(|(what, kind, names, colour)| {
                names.iter().map(move |name| vec![Cell::new(what, colour), kind.into(), name.as_str().into()])
            })
            .collect();
        print::data(&print::table(&["CHANGE", "WHAT", "NAME"], &rows))
    }

    fn drilled(&self, drilled: Drilled, now: Timestamp) -> Result<(), Exit> {
        let lost = drilled.lost.len();
        match self.output {
            Output::Json => print::json(&drilled)?,
            Output::Table => {
                let cells = |lost: &Lost| {
                    let saved = lost.saving_at.as_ref().map_or(String::new(), |at| format!("at: {at} or "));
                    vec![
                        lost.target.as_str().into(),
                        print::distance(Some(lost.outage_from), now).into(),
                        Cell::new(print::distance(Some(lost.expires_at), now), Colour::Bad),
                        print::span(lost.without.unsigned_abs()).into(),
                        format!("{saved}duration: {}", lost.saving_duration).into(),
                    ]
                };
                if lost > 0 {
                    let head = ["TARGET", "OUTAGE BEGINS", "TOKEN ENDS", "WITHOUT FOR", "SAVED BY"];
                    print::data(&print::table(&head, &drilled.lost.iter().map(cells).collect::<Vec<_>>()))?;
                }
                print::talk(&format!(
                    "an outage of {}: {} of {} targets keep a valid token throughout",
                    Seconds(drilled.outage),
                    drilled.targets - lost,
                    drilled.targets
                ));
            }
        }
        if lost == 0 { Ok(()) } else { Err(Exit::failed()) }
    }

    fn forecast(&self, seen: &Forecast, now: Timestamp) -> Result<(), Exit> {
        if self.output == Output::Json {
            return print::json(seen);
        }
        let row = |coming: &plan::Coming| {
            let left = coming.left.map_or("-".to_owned(), |left| if left > 0 { print::span(left.unsigned_abs()) } else { "none".into() });
            vec![print::distance(Some(coming.at), now).into(), coming.target.as_str().into(), coming.why.into(), left.into()]
        };
        let mut text = print::table(&["NEXT", "TARGET", "WHY", "LIFE LEFT THEN"], &seen.next.iter().map(row).collect::<Vec<_>>());
        let load = |load: &Load| {
            let peak = load.peak_at.map_or("-".into(), |at| format!("{}/min {}", load.peak_per_minute, print::distance(Some(at), now)));
            let limit = if load.per_second == 0 { "-".to_owned() } else { format!("{}/s", load.per_second) };
            vec![
                format!("{} {}", load.kind, load.name).into(),
                load.calls.to_string().into(),
                peak.into(),
                limit.into(),
                bars(&load.chart).into(),
            ]
        };
        text.push('\n');
        text.push_str(&print::table(
            &["SERVER", "CALLS", "PEAK", "LIMIT", "OVER THE TIME"],
            &seen.loads.iter().map(load).collect::<Vec<_>>(),
        ));
        let tight: Vec<Vec<Cell>> = seen
            .gaps
            .iter()
            .filter(|gap| gap.widest_gap > gap.due_after)
            .map(|gap| {
                vec![
                    gap.target.as_str().into(),
                    Seconds(gap.widest_gap).to_string().into(),
                    Seconds(gap.life).to_string().into(),
                    Seconds(gap.due_after).to_string().into(),
                ]
            })
            .collect();
        if !tight.is_empty() {
            text.push('\n');
            text.push_str(&print::table(&["CRON TOO RARE FOR", "WIDEST GAP", "LIFE", "DUE ANYWAY AFTER"], &tight));
        }
        print::data(&text)?;
        let tightest = seen.tightest.as_ref().map_or(String::new(), |(target, left)| {
            format!("; the least room is {} ({target})", if *left > 0 { print::span(left.unsigned_abs()) } else { "none".into() })
        });
        print::talk(&format!(
            "{} rotations in {}: no token can expire while its API server answers{tightest}",
            seen.rotations, self.horizon
        ));
        Ok(())
    }
}

/// A chart in one line.
fn bars(parts: &[u64]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = parts.iter().copied().max().unwrap_or(0).max(1);
    let bar =
        |calls: &u64| if *calls == 0 { ' ' } else { STEPS[usize::try_from(calls.saturating_mul(7).div_ceil(most)).unwrap_or(7).min(7)] };
    parts.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_with_the_load_and_nothing_is_a_gap() {
        assert_eq!(bars(&[0, 1, 7, 14]), " ▂▅█");
        assert_eq!(bars(&[0, 0]), "  ");
    }
}
