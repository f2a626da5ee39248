//! `inspect`: what a token says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::print::{self, Cell, Colour, Output};
use super::{Context, Exit, find};
use crate::audit::inspect::{Inspection, inspect};
use crate::audit::published::{self, Published};

/// Characters of the bar of life.
const BAR: usize = 30;

/// Show what a token says, without showing the token
///
/// From a file in any format, from standard input (-), or the newest one of a target on this host: whose it is,
/// for whom, how long, what it is bound to, and what a person should know about it. The signature is not looked
/// at; `verify` does that.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry inspect /var/run/secrets/kubernetes.io/serviceaccount/token
  kubectl create token builder -n cicd | tokenferry inspect -
  tokenferry inspect --target ci-deployer --watch")]
pub struct Inspect {
    #[command(flatten)]
    source: Source,
    /// Show it again every second, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Which token is meant.
#[derive(Debug, Args)]
pub struct Source {
    /// A file that holds a token, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "target")]
    file: Option<PathBuf>,
    /// The newest token of this target on this host
    #[arg(short, long, value_name = "NAME", conflicts_with = "file", add = super::completions::targets())]
    target: Option<String>,
}

impl Source {
    /// Reads it; its place, for messages, goes with it.
    pub fn read(&self, context: &Context) -> Result<(String, Published), Exit> {
        let path = match (&self.target, &self.file) {
            (Some(name), _) => return newest(context, name),
            (None, Some(file)) => file.as_path(),
            (None, None) => Path::new("-"),
        };
        let (shown, found) = match path.to_str() {
            Some("-") => ("standard input".to_owned(), Published::drain(std::io::stdin().lock())),
            _ => (path.display().to_string(), Published::read(path)),
        };
        found.map(|found| (shown.clone(), found)).map_err(|why| Exit::own(format!("{shown}: {why}")))
    }

    fn is_stream(&self) -> bool {
        self.file.as_deref() == Some(Path::new("-"))
    }
}

/// The newest valid one; where none is, the newest that can be read at all, since that is what one looks for then.
fn newest(context: &Context, name: &str) -> Result<(String, Published), Exit> {
    let places = find::files(context, name)?;
    if let Ok((place, found)) = published::newest(places.clone(), Timestamp::now().as_second()) {
        return Ok((place.display().to_string(), found));
    }
    let (mut readable, mut unreadable) = (Vec::new(), String::new());
    for place in places {
        match Published::read(&place) {
            Ok(found) => readable.push((place.display().to_string(), found)),
            Err(why) => unreadable.push_str(&format!("\n  {}: {why}", place.display())),
        }
    }
    readable
        .into_iter()
        .max_by_key(|(_, found)| found.claims.iat)
        .ok_or_else(|| Exit::own(format!("the target `{name}` has no token on this host:{unreadable}")))
}

impl Inspect {
    /// Does it, without a runtime.
    ///
    /// # Errors
    /// Exit code 1 where there is no token.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        if self.watch && self.source.is_stream() {
            return Err(Exit::usage("--watch reads a file again and again; standard input can be read once"));
        }
        loop {
            let (place, found) = self.source.read(context)?;
            let shown = inspect(&found, Timestamp::now().as_second()).map_err(|why| Exit::own(format!("{place}: {why}")))?;
            let text = match self.output {
                Output::Json => serde_json::to_string_pretty(&shown).map_err(|e| Exit::own(e.to_string()))? + "\n",
                Output::Table => format!("{}{}{}", if self.watch { "\x1b[H\x1b[2J" } else { "" }, table(&place, &shown), warnings(&shown)),
            };
            if !print::flow(text.as_bytes())? || !self.watch {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

/// Every fact on a line of its own.
pub fn table(place: &str, shown: &Inspection) -> String {
    let now = Timestamp::now();
    let when = |time: Option<Timestamp>| time.map(|t| format!("{t} ({})", print::distance(Some(t), now)));
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let mut row = |name: &str, value: Option<String>, colour: Colour| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            rows.push(vec![Cell::new(name, Colour::Faint), Cell::new(printable(&value), colour)]);
        }
    };
    let over = shown.remaining.is_some_and(|left| left <= 0);
    row("from", Some(place.to_owned()), Colour::Plain);
    row("subject", Some(shown.subject.clone()), Colour::Plain);
    row("namespace", shown.namespace.clone(), Colour::Plain);
    row("account", shown.service_account.clone(), Colour::Plain);
    row("issuer", Some(shown.issuer.clone()), Colour::Plain);
    row("audiences", Some(shown.audiences.join(", ")), Colour::Plain);
    row("issued", when(shown.issued_at), Colour::Plain);
    row("not before", when(shown.not_before.filter(|nbf| Some(*nbf) != shown.issued_at)), Colour::Plain);
    row("expires", Some(when(shown.expires_at).unwrap_or_else(|| "never".into())), if over { Colour::Bad } else { Colour::Plain });
    row("meant to end", when(shown.warn_after), Colour::Warn);
    row("life", shown.lifetime.map(|life| life_of(life, shown)), if over { Colour::Bad } else { Colour::Good });
    for bound in &shown.bound_to {
        let uid = if bound.uid.is_empty() { String::new() } else { format!(" ({})", bound.uid) };
        row("bound to", Some(format!("{} {}{uid}", bound.kind, bound.name)), Colour::Plain);
    }
    row("jti", shown.jti.clone(), Colour::Plain);
    row(
        "signed",
        Some(format!("{}{}", shown.algorithm, shown.key_id.as_ref().map(|kid| format!(" by {kid}")).unwrap_or_default())),
        Colour::Plain,
    );
    row("size", Some(format!("{} bytes", shown.bytes)), Colour::Plain);
    rows.iter().map(|cells| print::row(cells, &[12])).collect()
}

fn life_of(life: i64, shown: &Inspection) -> String {
    let span = |seconds: i64| print::span(seconds.unsigned_abs());
    let Some(share) = shown.elapsed else { return span(life) };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // a share of 30
    let full = (share * BAR as f64).round() as usize;
    let bar = if print::is_terminal() { format!("{}{} ", "█".repeat(full), "░".repeat(BAR - full)) } else { String::new() };
    let left = shown.remaining.unwrap_or(0);
    format!("{bar}{:.0} % of {} over, {} left", share * 100.0, span(life), if left > 0 { span(left) } else { "nothing".into() })
}

/// Warnings, a line each.
pub fn warnings(shown: &Inspection) -> String {
    shown.warnings.iter().map(|warning| print::row(&[Cell::new("warning", Colour::Warn), warning.message.clone().into()], &[12])).collect()
}

/// What a token says of itself is text of a stranger: it moves no cursor.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_cannot_write_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
    }
}
