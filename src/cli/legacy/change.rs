//! `legacy disable`, `delete` and `restore`: what they are asked, and how the outcome is shown.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::super::kubeconfig::Reach;
use super::super::print::{self, Cell, Colour, Output};
use super::super::reload::duration;
use super::super::{Context, Exit};
use super::names;
use crate::audit::legacy::backup::{self, BackupError, Recipients};
use crate::audit::legacy::change::{self, Backup, Manner, Outcome, Stop};

/// Mark a token invalid: the API server refuses it within 10 s; reversible
///
/// By the label kubernetes.io/legacy-token-invalid-since, which the API server heeds since Kubernetes 1.28; only for
/// Secrets of the type kubernetes.io/service-account-token. The label of the last use is taken off and kept in an
/// annotation, so that a use after this shows in `legacy list` on the same day. Refused while something names the Secret,
/// unless --anyway says to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry legacy disable cicd/old-token             what would be done
  tokenferry legacy disable cicd/old-token --apply
  tokenferry legacy restore cicd/old-token --apply     the way back")]
pub struct Disable {
    /// The Secrets: NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "SECRET", required = true)]
    secrets: Vec<String>,
    /// Do it although something names the Secret
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    how: How,
}

/// Delete a token that was disabled and not missed, with an encrypted backup
///
/// The backup is on the disk before anything is deleted; who holds the key brings it back with one command. Nothing is
/// deleted while a pod, a workload or another account names the Secret, and, unless --anyway says to, none that was never
/// disabled, that was used after that, or that is disabled for less than --observe. Of several named all go or none.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  age-keygen -o key.txt                                a key for backups, once; keep it elsewhere
  tokenferry legacy delete cicd/old-token --backup old.age --backup-recipient \"$(age-keygen -y key.txt)\" --apply
  tokenferry legacy restore old.age --identity key.txt --apply     the way back")]
pub struct Delete {
    /// The Secrets: NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "SECRET", required = true)]
    secrets: Vec<String>,
    /// Where the backup goes: a new file
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
    /// Whom it is encrypted to (age1…); may be given more than once
    #[arg(long = "backup-recipient", value_name = "RECIPIENT")]
    recipients: Vec<String>,
    /// How long it has to be disabled without being used
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
    observe: Duration,
    /// Do it although it was not disabled, not watched for long enough, or is missed
    #[arg(long)]
    anyway: bool,
    #[command(flatten)]
    how: How,
}

/// Take the way back: enable a disabled token, or bring deleted ones back from their backup
///
/// A token that is brought back is the same one, and is tried: whoever has it can go on with it. That needs its account to
/// be the same as before (its UID); the token of an account that was made anew is dead for good.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry legacy restore cicd/old-token --apply                 one that is disabled
  tokenferry legacy restore old.age --identity key.txt --apply     those that were deleted")]
pub struct Restore {
    /// Disabled Secrets (NAMESPACE/NAME, or NAME with -n); or, with --identity, one backup
    #[arg(value_name = "SECRET | FILE", required = true)]
    what: Vec<String>,
    /// The file with the key that opens the backup (AGE-SECRET-KEY-1…)
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Bring them back as they were when they were deleted: disabled
    #[arg(long, requires = "identity")]
    disabled: bool,
    #[command(flatten)]
    how: How,
}

/// What they share.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.help("Namespace of the Secrets [default: the context's]")))]
struct How {
    #[command(flatten)]
    reach: Reach,
    /// Do it; else it is only said what would be done
    #[arg(long)]
    apply: bool,
    /// How to show the outcome
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl How {
    fn manner(&self, anyway: bool, observe: Duration) -> Manner {
        let observe = i64::try_from(observe.as_secs()).unwrap_or(i64::MAX);
        Manner { apply: self.apply, anyway, now: Timestamp::now(), observe }
    }

    fn told(&self, outcomes: &[Outcome]) -> Result<(), Exit> {
        match self.output {
            Output::Json => print::json(&outcomes)?,
            Output::Table => {
                let rows: Vec<Vec<Cell>> = outcomes.iter().flat_map(rows).collect();
                print::data(&print::table(&["SECRET", "OUTCOME", ""], &rows))?;
            }
        }
        if !self.apply {
            print::talk("tokenferry: nothing was changed; --apply does it");
        }
        if outcomes.iter().any(|one| one.outcome == "refused") { Err(Exit::failed()) } else { Ok(()) }
    }
}

/// One row for each note, the Secret in the first.
fn rows(one: &Outcome) -> Vec<Vec<Cell>> {
    let colour = match one.outcome {
        "refused" => Colour::Bad,
        "unchanged" => Colour::Faint,
        "wouldDisable" | "wouldEnable" | "wouldDelete" | "wouldRestore" => Colour::Warn,
        _ => Colour::Good,
    };
    let first = [format!("{}/{}", one.namespace, one.secret).into(), Cell::new(one.outcome, colour)];
    let mut notes = one.notes.iter().map(|note| Cell::from(note.as_str()));
    let mut rows = vec![first.into_iter().chain([notes.next().unwrap_or_else(|| "".into())]).collect()];
    rows.extend(notes.map(|note| vec!["".into(), "".into(), note]));
    rows
}

fn stopped(stop: Stop) -> Exit {
    let code = match &stop {
        Stop::Usage(_) => 2,
        Stop::NotAllowed(_) => 4,
        Stop::Backup(BackupError::NotARecipient(_) | BackupError::SecretHalf | BackupError::Exists(_) | BackupError::NoIdentity(_)) => 2,
        Stop::Failed(_) | Stop::Backup(_) => 1,
    };
    Exit { code, message: Some(stop.to_string()) }
}

impl Disable {
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let names = names(&self.how.reach, &self.secrets)?;
        let cluster = self.how.reach.cluster(context)?;
        let manner = self.how.manner(self.anyway, Duration::ZERO);
        self.how.told(&change::disable(&cluster, &names, manner).await.map_err(stopped)?)
    }
}

impl Delete {
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let names = names(&self.how.reach, &self.secrets)?;
        let (Some(path), false) = (&self.backup, self.recipients.is_empty()) else {
            return Err(Exit::usage(
                "nothing is deleted without a backup: --backup FILE --backup-recipient age1…\nmake a key once (age-keygen -o key.txt), keep it elsewhere, and name its public half: --backup-recipient \"$(age-keygen -y key.txt)\"",
            ));
        };
        let recipients = Recipients::of(&self.recipients).map_err(|error| stopped(error.into()))?;
        let cluster = self.how.reach.cluster(context)?;
        let manner = self.how.manner(self.anyway, self.observe);
        let backup = Backup { path, recipients: &recipients };
        self.how.told(&change::delete(&cluster, &names, backup, manner).await.map_err(stopped)?)
    }
}

impl Restore {
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let manner = self.how.manner(false, Duration::ZERO);
        let outcomes = match (&self.identity, self.what.as_slice()) {
            (Some(identity), [file]) => {
                let secrets = backup::open(Path::new(file), identity).map_err(|error| stopped(error.into()))?;
                let cluster = self.how.reach.cluster(context)?;
                change::restore(&cluster, secrets, self.disabled, manner).await.map_err(stopped)?
            }
            (Some(_), _) => return Err(Exit::usage("--identity opens one backup: name one file")),
            (None, [file, ..]) if Path::new(file).is_file() => {
                return Err(Exit::usage(format!("{file} is a backup; name the file with the key that opens it: --identity key.txt")));
            }
            (None, secrets) => {
                let names = names(&self.how.reach, secrets)?;
                let cluster = self.how.reach.cluster(context)?;
                change::enable(&cluster, &names, manner).await.map_err(stopped)?
            }
        };
        self.how.told(&outcomes)
    }
}
