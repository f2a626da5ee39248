//! `completions`: for the shell, with the names of the schedule's targets.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{CompleteEnv, Shells};

use super::{Cli, Exit, print};
use crate::daemon::places::Places;
use crate::daemon::read;
use crate::schedule::Target;

/// The variable by which a shell's completion asks this program for candidates.
const VARIABLE: &str = "COMPLETE";

/// zsh loads a file of its search path when a command is completed for the first time, and takes that for the completion.
const ZSH_FIRST: &str = "
if [[ $funcstack[1] = _tokenferry ]]; then
    _clap_dynamic_completer_tokenferry \"$@\"
fi
";

/// Print completions for a shell
///
/// They ask tokenferry itself while you type, so that they know the targets of the schedule that a command is for.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry completions bash > /etc/bash_completion.d/tokenferry\n  tokenferry completions zsh > /usr/local/share/zsh/site-functions/_tokenferry\n  tokenferry completions fish > ~/.config/fish/completions/tokenferry.fish"
)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Does it.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn run(self) -> Result<(), Exit> {
        let name = self.shell.to_string();
        let shells = Shells::builtins();
        let shell = shells.completer(&name).ok_or_else(|| Exit::own(format!("no completions are known for {name}")))?;
        let mut text = Vec::new();
        let written = shell.write_registration(VARIABLE, "tokenferry", "tokenferry", "tokenferry", &mut text);
        written.map_err(|error| Exit::own(format!("completions: {error}")))?;
        if self.shell == Shell::Zsh {
            text.extend_from_slice(ZSH_FIRST.as_bytes());
        }
        print::data(&String::from_utf8_lossy(&text))
    }
}

/// Answers a shell that asks for candidates, and ends; returns at once where none asks.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin("tokenferry").complete();
}

/// Completes names of targets.
pub fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(names)
}

/// Completes names of targets, and files.
pub fn targets_and_files() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut found = names(typed);
        found.extend(PathCompleter::any().complete(typed));
        found
    })
}

/// A schedule that cannot be read offers nothing: a completion is no place for an error.
fn names(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let Ok(accepted) = read::read(&schedule()) else { return Vec::new() };
    let fits = accepted.plan.targets.iter().filter(|target| target.name.starts_with(typed));
    let about = |target: &Target| format!("{}/{}", target.ask.namespace, target.ask.service_account);
    fits.map(|target| CompletionCandidate::new(&*target.name).help(Some(about(target).into()))).collect()
}

/// The schedule of the command line that is being typed, as the command itself would find it.
fn schedule() -> PathBuf {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    let after = |flag: &str| {
        let apart = words.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1].clone());
        apart.or_else(|| words.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('=').map(str::to_owned)))
    };
    let instance = after("--instance");
    let variable = || std::env::var("TOKENFERRY_SCHEDULE").ok().filter(|_| instance.is_none());
    match after("--schedule").or_else(variable) {
        Some(path) => path.into(),
        None => Places::of_this_process(instance.as_deref()).schedule,
    }
}
