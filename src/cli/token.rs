//! How a command hands a token out.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::{Exit, print};

/// `-o` of commands that give a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The token and nothing else.
    Raw,
    /// With its times.
    Json,
    /// As a credential plugin of client-go answers.
    ExecCredential,
}

impl ValueEnum for Form {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Raw, Self::Json, Self::ExecCredential]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Raw => PossibleValue::new("raw").help("The token and nothing else"),
            Self::Json => PossibleValue::new("json").help("With its times"),
            Self::ExecCredential => PossibleValue::new("exec-credential")
                .alias("execCredential")
                .help("As a credential plugin of kubectl and client-go answers"),
        })
    }
}

/// `-o` of `mint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MintForm {
    /// The token and nothing else.
    Raw,
    /// The TokenRequest.
    Json,
    /// As a credential plugin of client-go answers.
    ExecCredential,
    /// A kubeconfig of its own.
    Kubeconfig,
}

impl ValueEnum for MintForm {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Raw, Self::Json, Self::ExecCredential, Self::Kubeconfig]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Raw => Form::Raw.to_possible_value(),
            Self::Json => Some(PossibleValue::new("json").help("The TokenRequest, as kubectl prints it")),
            Self::ExecCredential => Form::ExecCredential.to_possible_value(),
            Self::Kubeconfig => Some(PossibleValue::new("kubeconfig").help("A kubeconfig that works with this token until it ends")),
        }
    }
}

/// Writes to stdout; a newline follows on a terminal only, since some readers send it along with the token.
pub fn hand_out(text: &str) -> Result<(), Exit> {
    print::data(text)?;
    if print::is_terminal() { print::data("\n") } else { Ok(()) }
}
