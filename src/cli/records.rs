//! `records`: the history, and that nobody changed it.

mod joined;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::json;

use super::print::{self, Cell, Colour, Output};
use super::{Context, Exit};
use crate::daemon::named::Named;
use crate::record::chain::{self, Broken, PublicKey, Signed};
use crate::record::query::{self, Query};
use crate::record::{Kind, Line, Outcome, ReadError, Verified, word};
use crate::schedule::measure;

/// How often a followed history is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Columns of the table; the last one is as wide as it needs.
const WIDTHS: [usize; 5] = [20, 13, 22, 9, 20];

/// Show what happened, or check that nobody changed it
///
/// Reads the records folder beside a running daemon, without its lock; works with no daemon as well. `-o json`
/// prints the lines as they were written, one a line.
///
/// With `--audit-log` each rotation is set beside its TokenRequest in the API server's audit log (by Audit-Id and by the
/// token's id), TokenRequests for our accounts that no record names are told, and so is which target's tokens were seen
/// in use. Give the logs of every API server of the cluster. A log covers from its first to its last event, without
/// lines that cannot be read: what it does not cover is said to be unknown. Exits 1 where a rotation is missing or
/// contradicts its event, or a TokenRequest (a kubelet's for its Pods excepted) has no record; unused targets, and what
/// is unknown, fail nothing.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  tokenferry records --since 24h --kind failed
  tokenferry records -f -o json | jq -c 'select(.kind == \"rotated\") | {time, target, expiresAt}'
  tokenferry records head > /mnt/elsewhere/head
  tokenferry records verify --head \"$(cat /mnt/elsewhere/head)\"
  tokenferry records verify --public-key /mnt/elsewhere/records.pem
  tokenferry records --audit-log /var/log/kubernetes/audit.log --since 24h
  zcat audit-*.log.gz | tokenferry records --audit-log - -o json | jq '.mints'")]
pub struct Records {
    #[command(subcommand)]
    check: Option<Check>,
    /// Go on showing what is recorded, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// From then on: a time (2026-01-31T08:00:00Z), a day (2026-01-31) or a distance (24h)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before then, written likewise
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only about this target (a name or glob); may be given more than once
    #[arg(short, long = "target", value_name = "NAME", add = super::completions::targets())]
    targets: Vec<String>,
    /// Only of this kind, such as rotated or failed; may be given more than once
    #[arg(short, long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<Kind>,
    /// Only about the token with this jti
    #[arg(long)]
    jti: Option<String>,
    /// The API server's audit log, or - for standard input: joins the history with it; may be given more than once
    #[arg(long = "audit-log", value_name = "FILE", conflicts_with_all = ["follow", "kinds"])]
    logs: Vec<PathBuf>,
    /// Whose logs those are, by the cluster's name in the schedule [default: the cluster whose records join]
    #[arg(long, value_name = "NAME", requires = "logs")]
    cluster: Option<String>,
    /// Another records folder than the schedule's, such as a copy
    #[arg(long = "records", value_name = "DIR", global = true)]
    folder: Option<PathBuf>,
    /// How to show it; json is one line for each record
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Check {
    /// Check every line against the chain of hashes; exits 1 at the first damage, naming file and line
    Verify {
        /// A head noted earlier: the folder has to hold its line, so that lines cut off at the end show
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<String>,
        /// The public half of `records.signingKey` in PEM: every signed head is checked, and that one covers the last line
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
    },
    /// Print the hash of the last line, to be noted where nobody can change it
    Head,
}

impl Records {
    /// Does it, without a runtime.
    ///
    /// # Errors
    /// Exit code 1 where records cannot be read or are damaged, 4 where this user may not read them.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let folder = self.folder.clone().unwrap_or_else(|| folder(context));
        match &self.check {
            Some(Check::Verify { head, public_key }) => {
                let _shown = context.progress("reading every line of the records");
                verify(&folder, head.as_deref(), public_key.as_deref(), self.output)
            }
            Some(Check::Head) => head(&folder, self.output),
            None => self.show(folder, context),
        }
    }

    fn show(self, folder: PathBuf, context: &Context) -> Result<(), Exit> {
        let query = Query { since: self.since, until: self.until, targets: self.targets, kinds: self.kinds, jti: self.jti };
        if !self.logs.is_empty() {
            let wish = joined::Wish { logs: self.logs, records: folder, query, cluster: self.cluster, output: self.output };
            return joined::show(wish, context);
        }
        let folder = &folder;
        let mut lines = query::lines(folder, query).map_err(|e| unreadable(&e))?;
        if self.output == Output::Table {
            let head = ["TIME", "KIND", "TARGET", "REASON", "EXPIRES", "WHAT"].map(|h| Cell::new(h, Colour::Faint));
            print::data(&print::row(&head, &WIDTHS))?;
        }
        loop {
            for line in lines.by_ref() {
                let line = line.map_err(|e| unreadable(&e))?;
                let text = match self.output {
                    Output::Json => serde_json::to_string(&line).map_err(|e| Exit::own(e.to_string()))? + "\n",
                    Output::Table => print::row(&row(&line), &WIDTHS),
                };
                if !print::flow(text.as_bytes())? {
                    return Ok(());
                }
            }
            if !self.follow || self.until.is_some_and(|until| Timestamp::now() >= until) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The schedule's folder, else the default one. A broken schedule hides no history.
fn folder(context: &Context) -> PathBuf {
    Named::by(&context.schedule(None)).records.unwrap_or_else(|| context.places.records.clone())
}

fn verify(folder: &Path, head: Option<&str>, public_key: Option<&Path>, output: Output) -> Result<(), Exit> {
    let key = public_key.map(PublicKey::read).transpose().map_err(|error| Exit::own(super::error::chain(&error)))?;
    let checked = chain::verify(folder, head).and_then(|found| Ok((found, key.map(|key| signatures(folder, &key)).transpose()?)));
    match checked {
        Ok((found, signed)) => match output {
            Output::Json => print::json(&json!({
                "sound": true, "files": found.files, "lines": found.lines, "anchor": found.anchor, "seq": found.seq, "head": found.head,
                "signedHeads": signed.map(|signed| signed.heads),
                "torn": found.torn.map(|torn| json!({"file": torn.file, "bytes": torn.bytes})),
            })),
            Output::Table => {
                if let Some(torn) = found.torn {
                    print::talk(&format!("{}: {} bytes at its end are no whole line yet; no damage", torn.file.display(), torn.bytes));
                }
                let (lines, files) = (counted(found.lines, "line"), counted(found.files, "file"));
                let signed = signed.map(|signed| format!("signed: {}\n", counted(signed.heads, "head"))).unwrap_or_default();
                print::data(&format!("sound: {lines} in {files}, up to seq {}\nhead: {}\n{signed}", found.seq, found.head))
            }
        },
        Err(broken) if denied(&broken) => Err(refused(folder)),
        Err(broken) => {
            if output == Output::Json {
                let (file, line) = match &broken {
                    Broken::Line { file, line, .. } | Broken::Signature { file, line, .. } => (Some(file), Some(line)),
                    _ => (None, None),
                };
                print::json(&json!({"sound": false, "file": file, "line": line, "damage": broken.to_string()}))?;
            }
            Err(Exit::own(super::error::chain(&broken)))
        }
    }
}

/// Beside a running daemon the last line may be a moment older than its signature: that is looked at twice.
fn signatures(folder: &Path, key: &PublicKey) -> Result<Signed, Broken> {
    match chain::verify_signatures(folder, key) {
        Err(Broken::Unsigned { .. }) => {
            std::thread::sleep(LOOK_EVERY);
            chain::verify_signatures(folder, key)
        }
        other => other,
    }
}

fn head(folder: &Path, output: Output) -> Result<(), Exit> {
    let state = crate::record::read(folder).map_err(|e| unreadable(&e))?;
    match output {
        Output::Json => print::json(&json!({"head": state.head, "seq": state.seq, "time": state.time})),
        Output::Table => print::data(&format!("{}\n", state.head)),
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn denied(broken: &Broken) -> bool {
    matches!(broken, Broken::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
}

fn unreadable(error: &ReadError) -> Exit {
    match error {
        ReadError::Unreadable { path, source } if source.kind() == std::io::ErrorKind::PermissionDenied => refused(path),
        other => Exit::own(super::error::chain(other)),
    }
}

fn refused(path: &Path) -> Exit {
    Exit { code: 4, message: Some(format!("records at {} are its owner's alone; read them as that user, or with sudo", path.display())) }
}

fn row(line: &Line) -> Vec<Cell> {
    let whole = |time: Timestamp| time.round(jiff::Unit::Second).unwrap_or(time).to_string();
    let colour = match line.kind {
        Kind::Told | Kind::Revoking | Kind::Monitored if line.error.is_some() => Colour::Warn,
        Kind::Rehearsed if line.error.is_some() || line.sinks.iter().any(|sink| sink.outcome == Outcome::Failed) => Colour::Bad,
        Kind::Rehearsed => Colour::Good,
        Kind::Rotated | Kind::Paid | Kind::Cleared | Kind::Adopted | Kind::Told | Kind::Revoked => Colour::Good,
        Kind::Failed | Kind::Rejected | Kind::Gap | Kind::ReloadRefused => Colour::Bad,
        _ => Colour::Plain,
    };
    vec![
        whole(line.time).into(),
        Cell::new(word(line.kind), colour),
        line.target.as_deref().unwrap_or("-").into(),
        line.reason.map_or_else(|| "-".into(), word).into(),
        line.expires_at.map_or_else(|| "-".into(), whole).into(),
        what(line).into(),
    ]
}

/// The rest in words: places, errors, what a reload changed, who asked.
fn what(line: &Line) -> String {
    let mut parts = Vec::new();
    for sink in &line.sinks {
        let outcome = word(sink.outcome);
        let towards = if line.kind == Kind::Cleared { "; no copy any more at" } else { " to" };
        let instead = sink.fallback.as_ref().map(|place| format!("{towards} {place}")).unwrap_or_default();
        let why = sink.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        parts.push(format!("{}={outcome}{instead}{why}", sink.place));
    }
    for left in &line.leaves {
        let outcome = word(left.outcome);
        let why = left.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        parts.push(format!("{}={outcome}{why}", left.place));
    }
    for hook in line.hooks.iter().filter(|_| line.kind == Kind::Told) {
        let outcome = word(hook.outcome);
        parts.push(format!("{} {}={outcome}", hook.hook, hook.to));
    }
    for marker in line.markers.iter().filter(|_| matches!(line.kind, Kind::Revoking | Kind::Revoked)) {
        let verified = match marker.verified {
            Some(Verified::Refused) => ", and the token refused",
            _ => "",
        };
        let gone = if line.kind == Kind::Revoked { " is gone" } else { " is to go" };
        parts.push(format!("generation {}: Secret {}/{}{gone}{verified}", line.generation.unwrap_or(0), marker.namespace, marker.name));
    }
    parts.extend(line.monitored.as_ref().map(|file| format!("{}={}", file.path.display(), word(file.state))));
    if let Some(fleet) = &line.fleet {
        let said = [("from", &fleet.from), ("to", &fleet.to)].into_iter().filter_map(|(way, who)| Some(format!("{way} {}", who.as_ref()?)));
        parts.push(std::iter::once(format!("{} of fleet {}", fleet.member, fleet.lease)).chain(said).collect::<Vec<_>>().join(", "));
    }
    parts.extend(line.error.clone());
    for (names, sign) in [(&line.added, '+'), (&line.removed, '-'), (&line.changed, '~')] {
        parts.extend(names.iter().take(10).map(|name| format!("{sign}{name}")));
        parts.extend((names.len() > 10).then(|| format!("{sign}{} more", names.len() - 10)));
    }
    parts.extend(line.count.filter(|_| line.kind == Kind::Gap).map(|count| format!("{count} lines lost")));
    parts.extend(line.actor.as_ref().map(|actor| format!("asked by {}", actor.who())));
    parts.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(text.into()).map_err(|_| "kinds are rotated, failed, paid, cleared, adopted, rejected, told, revoking, revoked, retired, rehearsed, started, stopped, reloaded, reloadRefused, minted, executed, monitored, joined, left, takenOver, handedOver, gap, checkpoint and checkpointEnd".into())
}

fn hash(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if good { Ok(text) } else { Err("a head is 64 hex digits, as `tokenferry records head` prints".into()) }
}

/// A time, a day or a local time (of this host's zone), or a distance back from now.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return local.to_zoned(TimeZone::system()).map(|zoned| zoned.timestamp()).map_err(|e| e.to_string());
    }
    let ago = text.parse::<measure::Seconds>().ok().and_then(|seconds| i64::try_from(seconds.0).ok());
    let time = ago.and_then(|ago| Timestamp::from_second(Timestamp::now().as_second().checked_sub(ago)?).ok());
    time.ok_or_else(|| "a time such as 2026-01-31T08:00:00Z, a day such as 2026-01-31, or a distance such as 24h".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_absolute_local_or_a_distance() {
        assert_eq!(moment("2026-01-31T08:00:00Z").unwrap().to_string(), "2026-01-31T08:00:00Z");
        let day = moment("2026-01-31").unwrap();
        assert_eq!(day, "2026-01-31T00:00:00".parse::<DateTime>().unwrap().to_zoned(TimeZone::system()).unwrap().timestamp());
        let ago = Timestamp::now().as_second() - moment("1h30m").unwrap().as_second();
        assert!((5400..5410).contains(&ago), "{ago}");
        for bad in ["", "yesterday", "5", "999999999999999d", "2026-13-01"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn kinds_are_written_as_in_the_records() {
        assert_eq!(kind("reloadRefused"), Ok(Kind::ReloadRefused));
        assert!(kind("Rotated").is_err());
    }

    #[test]
    fn nothing_in_a_record_breaks_out_of_its_row() {
        let line = Line { error: Some("a\nb\x1b[31m".into()), ..Line::new(Kind::Failed, Timestamp::UNIX_EPOCH) };
        let row = print::row(&row(&line), &WIDTHS);
        assert_eq!((row.lines().count(), row.contains('\x1b')), (1, false), "{row}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_says_what_to_write(text in "\\PC{0,24}") {
            let _ = moment(&text);
        }
    }
}
