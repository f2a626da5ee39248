//! `completions`: for the shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Exit, print};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tokenferry completions bash > /etc/bash_completion.d/tokenferry")]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    /// Does it.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn run(self) -> Result<(), Exit> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "tokenferry", &mut text);
        print::data(&String::from_utf8_lossy(&text))
    }
}
