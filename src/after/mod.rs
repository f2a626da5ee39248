//! Who is told? Hooks that run once a fresh token stands at its places: a command, a signal, a unit, a request, a
//! rollout restart. One file for each, one variant of [`HookSpec`].
//!
//! A hook makes one attempt and says what came of it; when it is tried again is the loop's affair. It is told where
//! the token stands, never what it is. An attempt may be made twice for one token: after a crash nobody knows
//! whether the first one was done.

mod child;
pub mod exec;
pub mod http;
pub mod message;
pub mod rollout;
pub mod signal;
pub mod systemd;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::cluster::Clusters;
use crate::token::mask;
use crate::token::render::hex;

/// The settings of one hook, as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookSpec {
    /// A command on this host.
    Exec(exec::ExecSpec),
    /// A signal to a process or unit.
    Signal(signal::SignalSpec),
    /// A systemd unit that is reloaded or restarted.
    Systemd(systemd::SystemdSpec),
    /// A request.
    Http(http::HttpSpec),
    /// Workloads whose Pods are replaced, a few at a time.
    RolloutRestart(rollout::RolloutSpec),
}

/// What became of a hook for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Heard {
    /// It has still to be told.
    Pending,
    /// It was told.
    Done,
    /// It was told in vain; it is tried again.
    Failed,
}

/// What a hook is told of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whose token.
    pub target: String,
    /// Which of its tokens.
    pub generation: u64,
    /// How often this token arrived somewhere after the first time: places that were owed it got it later.
    pub round: u64,
    /// Its `jti`, or a hash where a cluster gives none.
    pub issue: String,
    /// Its `exp`.
    pub expires_at: Option<jiff::Timestamp>,
    /// The first file that it stands in.
    pub path: Option<PathBuf>,
}

/// A failed attempt. No secret stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a hook said, bounded and masked; often nothing.
pub type Said = Option<String>;

impl HookSpec {
    /// The key that names the hook in a schedule.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Signal(_) => "signal",
            Self::Systemd(_) => "systemd",
            Self::Http(_) => "http",
            Self::RolloutRestart(_) => "rolloutRestart",
        }
    }

    /// Who is told, as people and records name it. Two hooks with the same kind and name are the same work.
    pub fn to(&self) -> String {
        let name = match self {
            Self::Exec(spec) => spec.command.join(" "),
            Self::Signal(spec) => spec.to(),
            Self::Systemd(spec) => format!("{} {}", spec.verb.word(), spec.unit),
            Self::Http(spec) => format!("{} {}", spec.method, spec.shown()),
            Self::RolloutRestart(spec) => spec.to(),
        };
        short(&name)
    }

    /// Work with this key never overlaps.
    pub fn key(&self) -> String {
        format!("{} {}", self.kind(), self.to())
    }

    /// Whether one run serves all targets that wait for it.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Signal(_) | Self::Systemd(_) | Self::RolloutRestart(_))
    }

    /// Shortest time from the beginning of one run to that of the next.
    pub fn gap(&self) -> Duration {
        if let Self::RolloutRestart(spec) = self { spec.min_gap } else { Duration::ZERO }
    }

    /// Whether it only waits and may be left at any time, to be taken up again.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::RolloutRestart(_) | Self::Http(_))
    }
}

/// Makes one attempt to tell a hook of these tokens: of several only where it is shared.
///
/// # Errors
/// [`Failure`], in words.
pub fn tell<'a>(spec: &'a HookSpec, news: &'a [News], clusters: &'a Clusters) -> BoxFuture<'a, Result<Said, Failure>> {
    match spec {
        HookSpec::Exec(spec) => Box::pin(exec::run(spec, news)),
        HookSpec::Signal(spec) => Box::pin(signal::send(spec)),
        HookSpec::Systemd(spec) => Box::pin(systemd::order(spec)),
        HookSpec::Http(spec) => Box::pin(http::request(spec, news)),
        HookSpec::RolloutRestart(spec) => Box::pin(rollout::restart(spec, news, clusters)),
    }
}

/// A name of bounded length that still tells two from each other.
fn short(name: &str) -> String {
    const LONGEST: usize = 160;
    let masked: String = mask::mask(name).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if masked.chars().count() <= LONGEST {
        return masked;
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    format!("{}… ({})", masked.chars().take(LONGEST - 12).collect::<String>(), &hex(digest.as_ref())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_and_still_differ() {
        let one = short(&format!("/bin/x {}a", "y".repeat(300)));
        let other = short(&format!("/bin/x {}b", "y".repeat(300)));
        assert!(one.chars().count() < 170 && one != other, "{one}");
    }

    #[test]
    fn a_name_shows_no_token() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl";
        assert!(!short(&format!("/bin/x {jwt}")).contains("c2lnbmF0dXJl"));
    }
}
