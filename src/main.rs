//! The program: private memory, arguments, logs, one command, one exit code.

use tokenferry::cli;
use tokenferry::token::wipe::{Wiping, harden};

/// Every freed block is wiped, so that no library leaves a token behind in memory.
#[global_allocator]
static MEMORY: Wiping = Wiping;

fn main() -> std::process::ExitCode {
    cli::main(harden())
}
