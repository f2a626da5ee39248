//! `get`: the newest valid token on this host.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;
use zeroize::Zeroizing;

use super::token::{Form, hand_out};
use super::{Context, Exit, find, print};
use crate::audit::published::{self, Published, Unusable};
use crate::token::age::Identity;
use crate::token::{Format, Surroundings, render};

/// Print the newest valid token of a target, or among files
///
/// Looks at every file place of the target on this host, primary and fallback, or at the files given, whatever
/// their format, and prints the token issued last among those that are in date. Where none is, it prints nothing
/// to stdout, says on stderr what is wrong with each place, and exits 1. An argument with a slash is a file;
/// files need no schedule and no daemon. Fast enough to be asked for each request: ask again, keep nothing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  printf 'Authorization: Bearer %s' \"$(tokenferry get ci-deployer)\" | curl -H @- https://api.example.com/
  tokenferry get --path ci-deployer
  tokenferry get --identity ~/.age/ci.txt /srv/shared/ci.token.age
  tokenferry get /run/tokenferry/ci/token /var/run/secrets/kubernetes.io/serviceaccount/token
As a credential plugin, in a kubeconfig:
  users:
  - name: ci
    user:
      exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never,
             command: tokenferry, args: [get, ci-deployer, -o, exec-credential]}")]
pub struct Get {
    /// One target, or files (with a slash: ./token)
    #[arg(value_name = "TARGET|FILE", required = true, add = super::completions::targets_and_files())]
    what: Vec<PathBuf>,
    /// File with age keys (AGE-SECRET-KEY-1…) for what is encrypted (`encryptTo`); may be given more than once
    #[arg(short, long = "identity", value_name = "FILE")]
    identities: Vec<PathBuf>,
    /// Print the place instead of the token
    #[arg(long, conflicts_with = "output")]
    path: bool,
    /// How to print the token
    #[arg(short, long, value_enum, default_value = "raw")]
    output: Form,
}

impl Get {
    /// Does it, without a runtime.
    ///
    /// # Errors
    /// Exit code 1 where no place has a valid token, 2 where the schedule has no such target.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let (places, whose, target) = wanted(&self.what, context)?;
        let now = Timestamp::now();
        let mut identities = Vec::new();
        for file in &self.identities {
            identities.extend(keys(file)?);
        }
        let (place, found) = published::newest_with(places, now.as_second(), &identities).map_err(|unusable| none(&whose, &unusable))?;
        if self.path {
            return print::flow(&[place.as_os_str().as_bytes(), b"\n"].concat()).map(|_| ());
        }
        hand_out(&shown(self.output, &place, &found, target.as_deref())?)
    }
}

/// The places meant, how to call them, and the target's name.
fn wanted(what: &[PathBuf], context: &Context) -> Result<(Vec<PathBuf>, String, Option<String>), Exit> {
    let is_file = |path: &PathBuf| path.as_os_str().as_bytes().contains(&b'/');
    match what {
        [name] if !is_file(name) => {
            let name = name.display().to_string();
            let places = find::files(context, &name)?;
            if places.is_empty() {
                return Err(Exit::own(format!("the target `{name}` writes no file on this host")));
            }
            Ok((places, format!("the target `{name}` has no valid token on this host"), Some(name)))
        }
        files if files.iter().all(is_file) => Ok((files.to_vec(), "no valid token".into(), None)),
        _ => Err(Exit::usage("name one target, or files, each with a slash (./token)")),
    }
}

fn keys(file: &Path) -> Result<Vec<Identity>, Exit> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| Exit::usage(format!("the identity {}: {error}", file.display())))?;
    Identity::all(&text).map_err(|why| Exit::usage(format!("the identity {}: {why}", file.display())))
}

fn none(whose: &str, unusable: &[(PathBuf, Unusable)]) -> Exit {
    let lines = unusable.iter().map(|(place, why)| format!("\n  {}: {why}", place.display()));
    Exit::own(format!("{whose}:{}", lines.collect::<String>()))
}

fn shown(form: Form, place: &Path, found: &Published, target: Option<&str>) -> Result<String, Exit> {
    let time = |seconds: Option<i64>| seconds.and_then(|s| Timestamp::from_second(s).ok());
    Ok(match form {
        Form::Raw => found.token.expose().to_owned(),
        Form::Json => json!({
            "token": found.token.expose(),
            "path": place,
            "expiresAt": time(found.claims.exp),
            "issuedAt": time(found.claims.iat),
        })
        .to_string(),
        Form::ExecCredential => {
            let surroundings = Surroundings { target: target.unwrap_or_default().into(), ..Surroundings::default() };
            let payload =
                render(&found.token, &found.claims, &Format::ExecCredential, &surroundings).map_err(|e| Exit::own(e.to_string()))?;
            String::from_utf8_lossy(payload.expose()).into_owned()
        }
    })
}
