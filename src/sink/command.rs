//! `command`: a program takes the payload on its standard input. The way to CI systems and stores that have no sink.
//!
//! The payload never stands in an argument or in the environment. A program that ends with 0 has taken it; what it
//! wrote may be written again after a restart, so it has to be one that sets, not one that adds.

mod child;

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::sink::kinds::Sink;
use crate::sink::{Context, Failure, FailureKind, Ours, Put, Removal, Stores};
use crate::token::Payload;

/// Life of a program where `timeout` is absent.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// `command: {command, timeout}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program, by path or as `PATH` finds it, and its arguments. No shell stands in between.
    pub command: Vec<String>,
    /// How long it may take; then it and everything that it started is killed.
    pub timeout: Duration,
}

impl CommandSpec {
    /// As one would type it, for records and messages.
    pub fn shown(&self) -> String {
        let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&b));
        let quoted = |word: &String| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) };
        self.command.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// Whether the program is there and may be run, in words.
    ///
    /// # Errors
    /// `Local` where it is not.
    pub fn look(&self) -> Result<String, Failure> {
        let program = self.command.first().map(String::as_str).unwrap_or_default();
        if is_program(program) {
            Ok(format!("{program} is there"))
        } else {
            Err(Failure::new(FailureKind::Local, format!("{program} is not there, or may not be run")))
        }
    }
}

/// One attempt: runs the program, hands it the payload, waits for its end.
///
/// # Errors
/// `Local` where it cannot be run; `Refused` where it says that the request is wrong (sysexits(3): 64, 65, 77, 78);
/// else `Unavailable`: it failed or took too long. The message has the end of what it said, without secrets.
pub(super) async fn put(spec: &CommandSpec, payload: &Payload, context: Context<'_>) -> Result<Put, Failure> {
    child::run(spec, payload, context.target).await.map(|()| Put::Written)
}

/// Whether the program is there. It is not run: nobody knows what it does without a token.
///
/// # Errors
/// `Local` where it is not.
pub(super) fn probe(spec: &CommandSpec) -> Result<String, Failure> {
    spec.look().map(|there| format!("{there}; it was not run"))
}

impl Sink for CommandSpec {
    fn name(&self) -> String {
        self.shown()
    }

    /// Nobody knows what a program did with a token.
    fn is_readable(&self) -> bool {
        false
    }

    fn put<'a>(&'a self, payload: &'a Payload, context: Context<'a>, _: &'a Stores) -> BoxFuture<'a, Result<Put, Failure>> {
        Box::pin(put(self, payload, context))
    }

    fn probe<'a>(&'a self, _: &'a Payload, _: Context<'a>, _: &'a Stores) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(std::future::ready(probe(self)))
    }

    fn held<'a>(&'a self, _: &'a Stores, _: Duration) -> BoxFuture<'a, Result<Option<Payload>, Failure>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn remove<'a>(&'a self, _: Ours<'a>, _: &'a Stores, _: Duration) -> BoxFuture<'a, Result<Removal, Failure>> {
        Box::pin(std::future::ready(Ok(Removal::Left)))
    }
}

fn is_program(program: &str) -> bool {
    let runs = |path: &Path| path.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    if program.contains('/') {
        return runs(Path::new(program));
    }
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| runs(&folder.join(program))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let spec = CommandSpec { command: ["gh", "secret", "set", "A B", "it's", ""].map(String::from).to_vec(), timeout: TIMEOUT };
        assert_eq!(spec.shown(), "gh secret set 'A B' 'it'\\''s' ''");
    }
}
