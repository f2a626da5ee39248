//! `exec`: a command on this host. It gets `TOKENFERRY_TARGET`, `TOKENFERRY_GENERATION`, `TOKENFERRY_EXPIRES_AT` and,
//! where the token stands in a file, `TOKENFERRY_PATH`; beside these only `PATH`.

use std::ffi::OsString;
use std::time::Duration;

use super::{Failure, News, Said, child};

/// `exec: {command, timeout}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// After which it is killed.
    pub timeout: Duration,
}

pub(super) async fn run(spec: &ExecSpec, news: &[News]) -> Result<Said, Failure> {
    // Not shared: there is one.
    let Some(news) = news.first() else { return Ok(None) };
    let mut variables: Vec<(&str, OsString)> = vec![
        ("TOKENFERRY_TARGET", news.target.clone().into()),
        ("TOKENFERRY_GENERATION", news.generation.to_string().into()),
        ("TOKENFERRY_ISSUE", news.issue.clone().into()),
    ];
    variables.extend(news.expires_at.map(|at| ("TOKENFERRY_EXPIRES_AT", at.to_string().into())));
    variables.extend(news.path.clone().map(|path| ("TOKENFERRY_PATH", path.into_os_string())));
    child::run(&spec.command, &variables, None, spec.timeout).await
}
