//! Is all well? What a token says (`inspect`), whether it is good (`verify`), which rights a schedule needs (`rbac`),
//! what is wrong with host, cluster and stores (`doctor`), what a schedule needs of this host (`host`), what will happen
//! (`plan`), what happened and whether that kept the limits (`report`), what the daemon needs before it can begin
//! (`bootstrap`), which tokens live too long and how they end (`legacy`), what the API server wrote down (`trail`), and
//! whether that and the records agree (`join`).
//!
//! Everything here decides and shows, and no token byte is in what is shown. Nothing changes anything but `bootstrap`
//! and `legacy`, which a person asks to.

pub mod bootstrap;
pub mod doctor;
pub mod host;
pub mod inspect;
pub mod join;
pub mod legacy;
pub mod plan;
pub mod rbac;
pub mod report;
pub mod trail;
pub mod verify;

pub use crate::daemon::published;

/// An error with its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
