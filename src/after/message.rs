//! A message in JSON for a person or a machine: a command gets it on its standard input, a server as the body of a
//! request. The same programs and requests as hooks, told of something else than a fresh token.

use std::ffi::OsString;

use super::exec::ExecSpec;
use super::http::{self, HttpSpec};
use super::{Failure, Said, child, short};
use crate::token::render::hex;

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A command on this host.
    Exec(ExecSpec),
    /// A server.
    Http(HttpSpec),
}

/// What it is told. No secret stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// For the environment of a command.
    pub variables: Vec<(&'static str, String)>,
    /// All of it.
    pub body: serde_json::Value,
}

impl Recipient {
    /// The key that names it in a schedule.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Http(_) => "http",
        }
    }

    /// Tells it from others; shows nothing of what may be a secret.
    pub fn key(&self) -> String {
        let whole = match self {
            Self::Exec(spec) => format!("exec\0{}", spec.command.join("\0")),
            Self::Http(spec) => format!("http\0{}\0{}", spec.method, spec.url),
        };
        hex(&ring::digest::digest(&ring::digest::SHA256, whole.as_bytes()).as_ref()[..16])
    }

    /// Its name for people, bounded, without what may be a secret.
    pub fn to(&self) -> String {
        match self {
            Self::Exec(spec) => short(&spec.command.join(" ")),
            Self::Http(spec) => short(&format!("{} {}", spec.method, spec.server())),
        }
    }
}

/// Makes one attempt to hand it over. When this is dropped the command is ended with its whole process group.
///
/// # Errors
/// [`Failure`], in words.
pub async fn hand(to: &Recipient, message: &Message) -> Result<Said, Failure> {
    match to {
        Recipient::Exec(spec) => {
            let variables: Vec<(&str, OsString)> = message.variables.iter().map(|(name, value)| (*name, value.into())).collect();
            let input = format!("{}\n", message.body);
            child::run(&spec.command, &variables, Some(input.as_bytes()), spec.timeout).await
        }
        Recipient::Http(spec) => http::send(spec, spec.server(), &message.body).await,
    }
}
