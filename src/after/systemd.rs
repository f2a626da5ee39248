//! `systemd`: a unit that is reloaded or restarted, by `systemctl`, which goes over D-Bus. The daemon's user needs a
//! polkit rule for `org.freedesktop.systemd1.manage-units` with that unit and verb.

use std::time::Duration;

use super::{Failure, Said, child};

/// `systemd: {reloadUnit | restartUnit, timeout}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdSpec {
    /// What is done to it.
    pub verb: Verb,
    /// The unit.
    pub unit: String,
    /// How long the unit may take.
    pub timeout: Duration,
}

/// What is done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It reads its files again.
    Reload,
    /// It is stopped and started.
    Restart,
}

impl Verb {
    /// As `systemctl` calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

pub(super) async fn order(spec: &SystemdSpec) -> Result<Said, Failure> {
    systemctl(&[spec.verb.word(), "--", &spec.unit], spec.timeout).await
}

/// Runs `systemctl`; nobody is there to be asked for a password.
pub(super) async fn systemctl(arguments: &[&str], timeout: Duration) -> Result<Said, Failure> {
    let command: Vec<String> = ["systemctl", "--no-ask-password", "--no-pager"].iter().chain(arguments).map(|s| (*s).to_owned()).collect();
    child::run(&command, &[], None, timeout).await.map_err(|failure| {
        let denied = ["authentication required", "Access denied", "not authorized"].iter().any(|sign| failure.0.contains(sign));
        let hint = "; our user needs a polkit rule for org.freedesktop.systemd1.manage-units with this unit and verb";
        Failure(if denied { failure.0 + hint } else { failure.0 })
    })
}
