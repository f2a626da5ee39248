//! The loop that rotate-external-token.sh and its like are: a process, a handshake and a request for each token.

use std::path::Path;
use std::time::{Duration, Instant};

use super::daemon::{self, Host};
use super::guard::{self, Folder};
use super::options::Options;
use super::process::{self, Cpu};
use super::report::{Report, Row, mib};
use super::schedule::Wanted;
use super::servers::{NAMESPACE, Servers};

/// Neither side proves the tokens.
const LOOP: &str = "i=0; while [ $i -lt \"$COUNT\" ]; do \
    \"$KUBECTL\" --kubeconfig \"$KUBECONFIG\" create token \"account-$((i % ACCOUNTS))\" -n \"$NAMESPACE\" --duration 1h > \"$OUT/$((i % ACCOUNTS))\" || exit 1; \
    i=$((i + 1)); done";
/// Targets, each with an account of its own.
const TARGETS: usize = 1_000;
/// What the daemon may have in flight where nothing else is said.
const IN_FLIGHT: usize = 64;

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

/// Measures both sides: half of the loop, ours, the other half.
pub fn run(report: &mut Report, options: &Options) {
    report.part("rotations beside a loop of `kubectl create token … > file`");
    let targets = TARGETS.min(options.targets);
    let mut servers = Servers::start("etcd,kube", options.p256);
    servers.create_accounts(targets);
    let half = options.kubectl / 2;
    let before = kubectl(&servers, half);
    let kubeconfig = servers.minter_kubeconfig();
    let mut host = Host::new(|folder| Wanted::of_server(&kubeconfig, IN_FLIGHT, folder, targets, targets));

    let at = servers.cpu();
    let daemon = host.start(None);
    let took = daemon::since(daemon.begun(), host.delivered(targets));
    let first = Span { rotations: targets, took, cpu: daemon.cpu(), servers: servers.cpu() - at };

    let (at, cpu) = (servers.cpu(), daemon.cpu());
    let took = (0..options.rounds).map(|_| host.rotate_all(targets)).sum();
    let steady = Span { rotations: targets * options.rounds, took, cpu: daemon.cpu() - cpu, servers: servers.cpu() - at };
    let peak = daemon.memory("VmHWM");
    daemon.stop();

    let loops = before.joined(&kubectl(&servers, half));
    rows(report, &first, &steady, &loops);
    report.add(Row::new(format!("peak resident memory, {targets} targets"), mib(peak)).reach("≤ 40 MiB", peak <= 40 << 20));
}

fn kubectl(servers: &Servers, rotations: usize) -> Span {
    let (at, children) = (servers.cpu(), process::children());
    let out = Folder::in_memory();
    let mut shell = guard::bound(Path::new("sh"));
    shell.args(["-c", LOOP]).env("COUNT", rotations.to_string()).env("ACCOUNTS", servers.accounts.to_string());
    shell.env("KUBECTL", servers.text("/kube/kubectl")).env("KUBECONFIG", servers.minter_kubeconfig());
    shell.env("NAMESPACE", NAMESPACE).env("OUT", out.path());
    let begun = Instant::now();
    assert!(shell.status().expect("sh runs").success(), "the kubectl loop failed");
    let took = begun.elapsed();
    Span { rotations, took, cpu: process::children() - children, servers: servers.cpu() - at }
}

fn rows(report: &mut Report, first: &Span, steady: &Span, loops: &Span) {
    let times = |ours: f64, theirs: f64| format!("{:.0} times", ours / theirs);
    let rate = |what: String, span: &Span| {
        let row = Row::new(what, format!("{:.0}/s", span.per_second())).beside(format!("kubectl {:.1}/s", loops.per_second()));
        row.ratio(times(span.per_second(), loops.per_second())).reach("≥ 40 times", span.per_second() >= 40.0 * loops.per_second())
    };
    report.add(rate(format!("first delivery of {}, start included", first.rotations), first));
    report.add(rate(format!("`rotate --all`, {} in rounds of {}", steady.rotations, first.rotations), steady));
    let cpu = |what: &str, span: &Span| {
        let row = Row::new(what, format!("{:.2} ms", span.cpu_each())).beside(format!("kubectl {:.1} ms", loops.cpu_each()));
        row.ratio(times(loops.cpu_each(), span.cpu_each()))
    };
    report.add(cpu("our CPU per rotation, first delivery, start included", first));
    report.add(cpu("our CPU per rotation, `rotate --all`", steady).reach("≤ 0.2 ms", steady.cpu_each() <= 0.2));
    let each = |span: &Span| format!("{:.2} ms", span.servers.total().as_secs_f64() * 1e3 / span.rotations as f64);
    report.add(Row::new("CPU of kube-apiserver and etcd per rotation", each(steady)).beside(each(loops)));
    report.add(Row::new("cores busy: ours + servers", busy(steady)).beside(busy(loops)));
}

fn busy(span: &Span) -> String {
    let cores = |cpu: Duration| cpu.as_secs_f64() / span.took.as_secs_f64();
    format!("{:.2} + {:.2}", cores(span.cpu), cores(span.servers.total()))
}
