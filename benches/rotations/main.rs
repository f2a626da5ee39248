//! Figures, never verdicts of a test: rotations from mint to file against a real API server, beside the loop of
//! `kubectl create token … > file` that tokenferry replaces, in one run. `cargo bench` runs it; README.md beside
//! this folder keeps its results.
//!
//! `cluster` is the API server with its accounts, `daemon` the program under measurement, `process` what the
//! kernel counts, `facts` what the figures depend on, `report` the table.

#![allow(clippy::print_stdout, clippy::print_stderr)] // figures are what it is for

mod cluster;
mod daemon;
mod facts;
mod process;
mod report;
mod scale;

use std::time::Duration;

use cluster::Cluster;
use daemon::{Host, Measured};
use process::Cpu;
use report::{Report, Row, mib, milliseconds};

/// What it was asked for.
struct Options {
    /// Targets, each with an account of its own.
    targets: usize,
    /// Rotations of the kubectl loop, half of them before our side and half after it.
    kubectl: usize,
    /// Rounds of `rotate --all`.
    rounds: usize,
    /// The API server signs with P-256 instead of RSA 2048, which clusters sign with unless told otherwise.
    p256: bool,
    /// Targets of an embedded cluster for what grows with a fleet; 0: that part is left out.
    fleet: usize,
    /// Record lines to fold in that part.
    lines: usize,
}

const USAGE: &str = "usage: cargo bench --bench rotations -- [--targets N] [--kubectl N] [--rounds N] [--p256] [--fleet N] [--lines N]
    --targets 0 leaves the API server out, --fleet 0 what grows with a fleet";

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Self { targets: 1_000, kubectl: 100, rounds: 5, p256: false, fleet: 100_000, lines: 1_000_000 };
        // cargo says `--bench` to every benchmark.
        let mut arguments = arguments.filter(|a| a != "--bench");
        while let Some(argument) = arguments.next() {
            let (place, least) = match argument.as_str() {
                "--targets" => (&mut options.targets, 0),
                "--kubectl" => (&mut options.kubectl, 2),
                "--rounds" => (&mut options.rounds, 1),
                "--fleet" => (&mut options.fleet, 0),
                "--lines" => (&mut options.lines, 1_000),
                "--p256" => {
                    options.p256 = true;
                    continue;
                }
                _ => usage(),
            };
            *place = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n >= least).unwrap_or_else(|| usage());
        }
        options
    }
}

#[allow(clippy::disallowed_methods)] // before there is anything to wipe or to remove
fn usage() -> ! {
    eprintln!("{USAGE}");
    std::process::exit(2)
}

/// What happened between two looks.
struct Span {
    rotations: usize,
    took: Duration,
    cpu: Duration,
    servers: Cpu,
}

impl Span {
    #[allow(clippy::cast_precision_loss)] // counts far below 2^52
    fn per_second(&self) -> f64 {
        self.rotations as f64 / self.took.as_secs_f64()
    }

    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.rotations as f64
    }

    fn joined(self, other: &Self) -> Self {
        Self {
            rotations: self.rotations + other.rotations,
            took: self.took + other.took,
            cpu: self.cpu + other.cpu,
            servers: self.servers + other.servers,
        }
    }
}

fn main() {
    let options = Options::parse(std::env::args().skip(1));
    facts::print(&options);
    if options.targets > 0 {
        against_kubectl(&options);
    }
    if options.fleet > 0 {
        println!();
        scale::run(options.fleet, options.lines);
    }
}

fn against_kubectl(options: &Options) {
    eprintln!("starting etcd and kube-apiserver, creating {} accounts ...", options.targets);
    let cluster = Cluster::start(options.targets, options.p256);
    eprintln!("{} rotations with kubectl ...", options.kubectl);
    let half = options.kubectl / 2;
    let before = kubectl(&cluster, half);
    eprintln!(
        "{} targets with tokenferry: first delivery, {} rounds of `rotate --all`, rest, restart ...",
        options.targets, options.rounds
    );
    let host = Host::new(&cluster, options.targets);
    let ours = daemon::measure(&cluster, &host, options.targets, options.rounds);
    let loops = before.joined(&kubectl(&cluster, half));
    table(options, &ours, &loops).print();
}

fn kubectl(cluster: &Cluster, rotations: usize) -> Span {
    let (servers, children) = (cluster.cpu(), process::children());
    let took = cluster.kubectl_loop(rotations);
    Span { rotations, took, cpu: process::children() - children, servers: cluster.cpu() - servers }
}

/// The figures, with what is to be reached. Ratios hold on any machine; CPU times and memory are this one's.
fn table(options: &Options, ours: &Measured, loops: &Span) -> Report {
    let steady = &ours.steady;
    let ratio = |ours: f64, theirs: f64| format!("{:.0} times", ours / theirs);
    let targets = options.targets;
    let mut report = Report::new(&["what", "tokenferry", "kubectl loop", "ratio", "to reach"]);
    let rate = |what: &str, span: &Span| {
        let row = Row::new(what, format!("{:.0}/s", span.per_second())).beside(format!("{:.1}/s", loops.per_second()));
        row.ratio(ratio(span.per_second(), loops.per_second())).reach("≥ 30 times", span.per_second() >= 30.0 * loops.per_second())
    };
    report.add(rate(&format!("rotations, first delivery of {targets}, start included"), &ours.first));
    report.add(rate(&format!("rotations, `rotate --all`, {} rounds of {targets}", options.rounds), steady));
    let cpu = |what: &str, span: &Span| {
        let row = Row::new(what, format!("{:.2} ms", span.cpu_each())).beside(format!("{:.1} ms", loops.cpu_each()));
        row.ratio(ratio(loops.cpu_each(), span.cpu_each())).reach("≤ 1 ms", span.cpu_each() <= 1.0)
    };
    report.add(cpu("our CPU per rotation, first delivery, start included", &ours.first));
    report.add(cpu("our CPU per rotation, `rotate --all`", steady));
    let command = ours.commands.as_secs_f64() * 1e3 / steady.rotations as f64;
    report.add(Row::new("… and of the `rotate` command itself", format!("{command:.2} ms")));
    let each = |span: &Span| format!("{:.2} ms", span.servers.total().as_secs_f64() * 1e3 / span.rotations as f64);
    report.add(Row::new("CPU of kube-apiserver and etcd per rotation", each(steady)).beside(each(loops)));
    report.add(Row::new("cores busy: ours + servers", busy(steady)).beside(busy(loops)));
    report.add(Row::new(&format!("peak resident memory, {targets} targets"), mib(ours.peak)).reach("≤ 40 MiB", ours.peak <= 40 << 20));
    let again = &ours.again;
    report.add(Row::new(&format!("start with {targets} fresh targets, until ready"), milliseconds(again.ready)));
    let none = again.minted + again.written == 0;
    report.add(Row::new("… tokens minted, files written", format!("{}, {}", again.minted, again.written)).reach("0, 0", none));
    report.add(Row::new("… resident memory at rest", mib(again.resting)));
    report.add(Row::new("… CPU at rest, of one core", format!("{:.2} %", again.idle * 100.0)));
    report
}

fn busy(span: &Span) -> String {
    let cores = |cpu: Duration| cpu.as_secs_f64() / span.took.as_secs_f64();
    format!("{:.2} + {:.2}", cores(span.cpu), cores(span.servers.total()))
}
