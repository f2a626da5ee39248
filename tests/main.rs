//! All integration tests, in one binary: it is linked once, and its servers are started once.
//!
//! One file for each behaviour. Real servers stand behind all of them; what needs root or mounts says NOT RUN
//! where it cannot run, and a missing server is a failure.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test says what it did not run, and its figures
#![allow(missing_docs)]

use tokenferry::token::wipe::Wiping;

// As in the program: tests that search memory for tokens see what it would leave.
#[global_allocator]
static MEMORY: Wiping = Wiping;

mod bad_schedules;
mod exec;
mod file;
mod get;
mod history;
mod inspect;
mod mint;
mod records;
mod sinks;
mod support;
