//! `verify`: whether a token is good.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::inspect::{Source, printable, table, warnings};
use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::audit::inspect::inspect;
use crate::audit::verify::{Expected, Verdict, is_good, verify};
use crate::token::signature::Keys;

/// Check whether a token is good
///
/// Shows what `inspect` shows, then one line for each check with its verdict. Begin and end are always checked;
/// the rest where it is asked for. Exits 1 where a check fails. A check that nothing was given for (a signature
/// without keys) is said to be unchecked and fails nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl get --raw /openid/v1/jwks > jwks.json
  tokenferry verify --target ci-deployer --jwks jwks.json --subject cicd/cicd-deployer --min-remaining 10m
  tokenferry verify ./token --audience https://vault.example.com --max-lifetime 1h && deploy")]
pub struct Verify {
    #[command(flatten)]
    source: Source,
    /// An audience that it has to have; may be given more than once
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// Whose it has to be: NAMESPACE/NAME or the whole sub claim
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Least life left
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_remaining: Option<Duration>,
    /// Most time since it was issued
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Longest life that it may have been given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_lifetime: Option<Duration>,
    /// Public keys (a JSON Web Key Set) one of which has to have signed it
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Verify {
    /// Does it, without a runtime.
    ///
    /// # Errors
    /// Exit code 1 where a check fails or there is no token, 2 where the key set cannot be read.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let keys = self.jwks.as_ref().map(|file| {
            let bytes = std::fs::read(file).map_err(|e| Exit::usage(format!("{}: {e}", file.display())))?;
            Keys::of(&bytes).map_err(|why| Exit::usage(format!("{}: {why}", file.display())))
        });
        let expected = Expected {
            audiences: self.audiences,
            subject: self.subject.map(|subject| match subject.split_once('/') {
                Some((namespace, name)) if !subject.contains(':') => format!("system:serviceaccount:{namespace}:{name}"),
                _ => subject,
            }),
            min_remaining: self.min_remaining.map(|d| d.as_secs()),
            max_age: self.max_age.map(|d| d.as_secs()),
            max_lifetime: self.max_lifetime.map(|d| d.as_secs()),
            keys: keys.transpose()?,
        };
        let (place, found) = self.source.read(context)?;
        let now = Timestamp::now().as_second();
        let shown = inspect(&found, now).map_err(|why| Exit::own(format!("{place}: {why}")))?;
        let checks = verify(&found, &expected, now);
        let good = is_good(&checks);
        match self.output {
            Output::Json => {
                let mut value = serde_json::to_value(&shown).map_err(|e| Exit::own(e.to_string()))?;
                value["checks"] = serde_json::to_value(&checks).map_err(|e| Exit::own(e.to_string()))?;
                value["good"] = good.into();
                print::json(&value)?;
            }
            Output::Table => {
                let rows = checks.iter().map(|check| {
                    let (word, colour) = match check.verdict {
                        Verdict::Good => ("good", Colour::Good),
                        Verdict::Bad => ("BAD", Colour::Bad),
                        Verdict::Unchecked => ("unchecked", Colour::Warn),
                    };
                    print::row(&[Cell::new(word, colour), check.check.into(), printable(&check.detail).into()], &[12, 12])
                });
                print::data(&format!("{}{}{}", table(&place, &shown), warnings(&shown), rows.collect::<String>()))?;
            }
        }
        if good { Ok(()) } else { Err(Exit::failed()) }
    }
}
