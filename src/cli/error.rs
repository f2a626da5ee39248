//! How a command ends when it does not end well.

use std::process::ExitCode;

pub use crate::audit::with_causes as chain;
use crate::daemon::RunError;
use crate::daemon::control::CallError;
use crate::record::{OpenError, ReadError};
use crate::schedule::Problem;

/// A failed command: its exit code and, unless everything was said already, what to print.
#[derive(Debug)]
pub struct Exit {
    /// 1 failed, 2 refused, 3 no daemon, 4 not allowed, 5 to be asked elsewhere; `exec` has more.
    pub code: u8,
    /// What to say on stderr; nothing where the output said it.
    pub message: Option<String>,
}

impl Exit {
    /// It ran, but a check or a required place failed; the output said which.
    pub fn failed() -> Self {
        Self { code: 1, message: None }
    }

    /// Something of our own went wrong.
    pub fn own(message: impl Into<String>) -> Self {
        Self { code: 1, message: Some(message.into()) }
    }

    /// Bad usage, or a refused schedule.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: Some(message.into()) }
    }

    /// Another member of the fleet has to be asked.
    pub fn elsewhere(message: impl Into<String>) -> Self {
        Self { code: 5, message: Some(message.into()) }
    }

    /// A schedule with these problems.
    pub fn refused(problems: &[Problem]) -> Self {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Self { code: 2, message: Some(lines.join("\n")) }
    }

    /// Prints what is left to say.
    pub fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            let message = crate::token::mask::mask(&message).into_owned();
            for line in message.lines() {
                // `file:line:column: error: …` says by itself what it is.
                let prefix = if line.contains(": error: ") || line.contains(": warning: ") { "" } else { "tokenferry: " };
                super::print::talk(&format!("{prefix}{line}"));
            }
        }
        ExitCode::from(self.code)
    }
}

impl From<RunError> for Exit {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Refused(problems) => Self::refused(&problems),
            RunError::Records(busy @ OpenError::Busy { .. }) => Self::usage(busy.to_string()),
            // Starting again mends it as little as a schedule that is refused.
            RunError::Records(OpenError::Read(newer @ ReadError::Newer { .. })) => Self::usage(newer.to_string()),
            RunError::Records(other) => Self::own(chain(&other)),
            RunError::Host(message) => Self::own(message),
        }
    }
}

impl From<CallError> for Exit {
    fn from(error: CallError) -> Self {
        let code = match error {
            CallError::Nobody(_) => 3,
            CallError::NotAllowed(_) => 4,
            CallError::Late(_) | CallError::Broken(..) => 1,
            CallError::Refused(400 | 404, _) => 2,
            CallError::Refused(421, _) => 5,
            CallError::Refused(..) => 1,
        };
        Self { code, message: Some(error.to_string()) }
    }
}
