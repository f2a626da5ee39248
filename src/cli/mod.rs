//! What does a person type? One thin file for each command, and what they share.

mod bootstrap;
mod check;
mod choose;
mod completions;
mod doctor;
mod dry_run;
mod error;
mod exec;
mod find;
mod get;
mod host;
mod inspect;
mod journal;
mod kubeconfig;
mod legacy;
mod logs;
mod man;
mod mint;
mod once;
mod plan;
mod print;
mod progress;
mod rbac;
mod records;
mod reload;
mod report;
mod revoke;
mod rotate;
mod run;
mod schema;
mod status;
mod tell;
mod token;
mod verify;
mod whence;
mod withdraw;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

pub use error::Exit;
use progress::Progress;

use crate::daemon::files::Index;
use crate::daemon::named::Named;
use crate::daemon::own;
use crate::daemon::places::Places;
use crate::daemon::read::Accepted;
use crate::daemon::scene::Scene;
use crate::record::fold::State;
use crate::sink::file;

/// Carries short-lived Kubernetes ServiceAccount tokens to the systems outside the cluster that need them.
///
/// A schedule file names targets: whose token, where it goes, when it is rotated. The daemon mints each token
/// through the TokenRequest API, writes it whole or not at all, and records every rotation.
#[derive(Debug, Parser)]
#[command(name = "tokenferry", version, max_term_width = 100, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  tokenferry check schedule.yaml          every problem of a schedule, offline
  tokenferry once schedule.yaml           rotate what is due, then exit
  tokenferry run schedule.yaml            keep it fresh
  tokenferry status                       how every target stands
  tokenferry rotate ci-deployer           now
  tokenferry get ci-deployer              the newest valid token on this host

Exit codes: 0 done; 1 ran, but something failed or is owed; 2 bad usage or a refused schedule;
3 no daemon to ask; 4 not allowed to; 5 another member of the fleet serves it: ask there.")]
pub struct Cli {
    /// The schedule file [default: /etc/tokenferry/schedule.yaml]
    #[arg(long, global = true, value_name = "FILE", env = "TOKENFERRY_SCHEDULE")]
    schedule: Option<PathBuf>,
    /// Another instance on this host: /etc/tokenferry/NAME.yaml, tokenferry-NAME in the default places
    #[arg(long, global = true, value_name = "NAME")]
    instance: Option<String>,
    /// How logs are written [default: journald under systemd, text elsewhere]
    #[arg(long, global = true, value_enum, value_name = "FORM")]
    log: Option<logs::Form>,
    /// Say more (-v) or much more (-vv)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only what failed
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Once(once::Once),
    Check(check::Check),
    Plan(plan::Plan),
    Status(status::Status),
    Rotate(rotate::Rotate),
    Revoke(revoke::Revoke),
    Reload(reload::Reload),
    Withdraw(withdraw::Withdraw),
    Mint(mint::Mint),
    Exec(exec::Exec),
    Rbac(rbac::Rbac),
    Report(report::Report),
    Legacy(legacy::Legacy),
    Doctor(doctor::Doctor),
    Host(host::Host),
    Bootstrap(bootstrap::Bootstrap),
    Completions(completions::Completions),
    Man(man::Man),
    Schema(schema::Schema),
    #[command(flatten)]
    Plain(Plain),
}

/// Commands that only read what is on this host: they start no runtime, no TLS and no logs, so that they can be
/// asked for each request. `verify` starts what it needs where it is to ask somebody.
#[derive(Debug, Subcommand)]
enum Plain {
    Get(get::Get),
    Inspect(inspect::Inspect),
    Verify(verify::Verify),
    Records(records::Records),
}

impl Plain {
    fn run(self, context: &Context) -> Result<(), Exit> {
        match self {
            Self::Get(command) => command.run(context),
            Self::Inspect(command) => command.run(context),
            Self::Verify(command) => command.run(context),
            Self::Records(command) => command.run(context),
        }
    }
}

/// What every command has at hand.
pub struct Context {
    schedule: Option<PathBuf>,
    places: Places,
    quiet: bool,
}

impl Context {
    /// Shows that something goes on, until it is dropped. `what` in the -ing form.
    fn progress(&self, what: &str) -> Progress {
        Progress::begin(what, self.quiet)
    }

    /// The same on a terminal, and nothing elsewhere: for commands of pipelines, whose talk is somebody else's log.
    fn spinner(&self, what: &str) -> Progress {
        Progress::begin(what, self.quiet || !print::is_watched())
    }

    /// The schedule: the command's own argument, the flag, the variable, the default place.
    fn schedule(&self, own: Option<&PathBuf>) -> PathBuf {
        own.or(self.schedule.as_ref()).cloned().unwrap_or_else(|| self.places.schedule.clone())
    }

    /// A schedule and what the records say of it, where no daemon is asked.
    fn scene(&self, accepted: Accepted) -> Result<(Scene, State), Exit> {
        let records = self.places.by(&accepted.plan).records;
        let state = match crate::record::read(&records) {
            Ok(state) => state,
            Err(_) if !records.exists() => State::default(),
            Err(error) => return Err(Exit::own(error::chain(&error))),
        };
        Ok((Scene::new(Arc::new(own::join(accepted.plan, &records)), &records, None), state))
    }

    /// The control socket: the schedule's, where it can be read and names one, else the default place.
    fn socket(&self) -> PathBuf {
        self.daemon().0
    }

    /// Where to ask a daemon, and the index that one left. Nothing is planned, and where the index stands at its
    /// default place and the schedule was not written since, the schedule is not even opened.
    fn daemon(&self) -> (PathBuf, Option<Index>) {
        let schedule = self.schedule(None);
        let or_default = |socket: Option<PathBuf>| socket.unwrap_or_else(|| self.places.socket.clone());
        if let Some(index) = Index::open(&self.places.records, &schedule).filter(Index::is_current) {
            return (or_default(index.socket().map(Into::into)), Some(index));
        }
        let Named { socket, records } = Named::by(&schedule);
        (or_default(socket), Index::open(records.as_ref().unwrap_or(&self.places.records), &schedule))
    }
}

/// Runs the program: parses arguments, starts logs, does the command, prints the error chain once.
pub fn main(hardened: std::io::Result<()>) -> ExitCode {
    completions::answer();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own printing goes to the right stream; a closed pipe is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // The instance was named on purpose, the variable perhaps for another command: the flag wins.
    let from_flag = std::env::args_os().any(|a| a == "--schedule" || a.to_string_lossy().starts_with("--schedule="));
    let schedule = cli.schedule.filter(|_| from_flag || cli.instance.is_none());
    let context = Context { schedule, quiet: cli.quiet, places: Places::of_this_process(cli.instance.as_deref()) };
    let result = match cli.command {
        Command::Plain(command) => command.run(&context),
        command => {
            logs::start(cli.log, cli.verbose, cli.quiet);
            if let Err(error) = hardened {
                tracing::warn!(%error, "this process could not be kept from writing core files");
            }
            dispatch(command, &context)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

/// Runs what waits for others, on threads and with TLS that are started for it.
fn on_runtime<T>(work: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    on(Builder::new_multi_thread(), work)
}

/// The same on this thread alone: between its waits a rotation takes a tenth of a millisecond, and to hand it from thread
/// to thread costs more than that. Files and DNS have threads of their own.
fn on_one_thread<T>(work: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    on(Builder::new_current_thread(), work)
}

fn on<T>(mut builder: Builder, work: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| Exit::own("the TLS provider was set twice"))?;
    let runtime = builder.enable_all().max_blocking_threads(file::THREADS).build();
    let runtime = runtime.map_err(|error| Exit::own(format!("the runtime cannot start: {error}")))?;
    let result = runtime.block_on(work);
    // A thread that hangs in a dead file system must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Each on its own terms: what waits for others gets threads, `run` and `once` only once they have confined themselves.
fn dispatch(command: Command, context: &Context) -> Result<(), Exit> {
    match command {
        Command::Run(command) => command.run(context),
        Command::Once(command) => command.run(context),
        Command::Check(command) => command.run(context),
        Command::Plan(command) => command.run(context),
        Command::Status(command) => on_runtime(command.run(context)),
        Command::Rotate(command) => on_runtime(command.run(context)),
        Command::Revoke(command) => on_runtime(command.run(context)),
        Command::Reload(command) => on_runtime(command.run(context)),
        Command::Withdraw(command) => on_runtime(command.run(context)),
        Command::Mint(command) => on_runtime(command.run(context)),
        Command::Exec(command) => on_runtime(command.run(context)),
        Command::Rbac(command) => on_runtime(command.run(context)),
        Command::Report(command) => on_runtime(command.run(context)),
        Command::Legacy(command) => on_runtime(command.run(context)),
        Command::Doctor(command) => on_runtime(command.run(context)),
        Command::Host(command) => command.run(context),
        Command::Bootstrap(command) => on_runtime(command.run(context)),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Plain(command) => command.run(context),
    }
}
