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

mod alerts;
mod api_faults;
mod architecture;
mod audit_log;
mod bad_days;
mod bad_schedules;
mod boot;
mod bootstrap;
mod calls;
mod canary;
mod command;
mod consumers;
mod directory;
mod doctor;
mod endpoints;
mod exec;
mod failback;
mod faults;
mod file;
mod fleet;
mod fuzz;
mod get;
mod heads;
mod herd;
mod history;
mod hooks;
mod host;
mod hostile;
mod hung;
mod inspect;
mod kills;
mod kubeconfigs;
mod leaves;
mod legacy;
mod lifetime;
mod logins;
mod long_form;
mod manuals;
mod metrics;
mod mint;
mod monitor;
mod monitoring;
mod mutations;
mod own;
mod packages;
mod pipelines;
mod plan;
mod power;
mod probes;
mod progress;
mod proof;
mod rbac;
mod readers;
mod readme;
mod records;
mod rehearsal;
mod reload;
mod report;
mod revoke;
mod rights;
mod rollout;
mod secrecy;
mod shell_ways;
mod shipped;
mod signature;
mod simulation;
mod sinks;
mod status;
mod story;
mod support;
mod systemd_notify;
mod told;
mod trial;
mod typing;
mod upgrades;
mod walls;
