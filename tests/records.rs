//! The records folder under kills, full disks and meddling: needs no server. What needs root says so loudly.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test says what it did not run, and its figures

#[path = "records/crash.rs"]
mod crash;
#[path = "records/files.rs"]
mod files;
#[path = "records/full.rs"]
mod full;
#[path = "records/support.rs"]
mod support;
