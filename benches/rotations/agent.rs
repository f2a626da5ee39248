//! OpenBao Agent with the Kubernetes secrets engine, which also mints tokens through the TokenRequest API and writes
//! them to files: a template for each target, and a role for each, for templates of one role share one token.

use std::fmt::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bao::Bao;
use super::daemon::{self, Host};
use super::guard::{self, Bound, Folder};
use super::options::Options;
use super::process;
use super::report::{Report, Row, mib};
use super::schedule::Wanted;
use super::servers::{NAMESPACE, Servers, private};

/// Targets of the smaller round.
const FEW: usize = 100;
/// What the daemon may have in flight where nothing else is said.
const IN_FLIGHT: usize = 64;

/// From the start of a process on.
struct Rendered {
    tokens: usize,
    took: Duration,
    cpu: Duration,
    peak: u64,
}

/// Both sides have the same API server, and the same user of it.
pub fn run(report: &mut Report, options: &Options) {
    let most = options.agent;
    let mut servers = Servers::start("etcd,kube,bao", options.p256);
    servers.create_accounts(most);
    let bao = Bao::new(&servers);
    set_up(&bao, &servers, most);
    report.part("from start to all tokens in files, beside OpenBao Agent with the Kubernetes secrets engine");
    for (targets, goal) in [(FEW.min(most), 30.0), (most, 100.0)] {
        let ours = ours(&servers, targets);
        let theirs = theirs(&servers, targets, options.limit);
        rows(report, targets, &ours, &theirs, goal);
    }
}

/// The engine with a role for each account.
fn set_up(bao: &Bao, servers: &Servers, roles: usize) {
    let token = std::fs::read_to_string(servers.minter_token()).expect("it was just written");
    let ca = std::fs::read_to_string(servers.text("/kube/ca")).expect("the servers have a CA");
    bao.write("sys/mounts/kubernetes", &json!({"type": "kubernetes"}));
    let config = json!({"kubernetes_host": servers.text("/kube/server"), "kubernetes_ca_cert": ca, "service_account_jwt": token,
        "disable_local_ca_jwt": true});
    bao.write("kubernetes/config", &config);
    for i in 0..roles {
        let role = json!({"allowed_kubernetes_namespaces": [NAMESPACE], "service_account_name": format!("account-{i}"), "token_default_ttl": "1h"});
        bao.write(&format!("kubernetes/roles/account-{i}"), &role);
    }
}

fn ours(servers: &Servers, targets: usize) -> Rendered {
    let kubeconfig = servers.minter_kubeconfig();
    let mut host = Host::new(|folder| Wanted::of_server(&kubeconfig, IN_FLIGHT, folder, targets, targets));
    let daemon = host.start(None);
    let took = daemon::since(daemon.begun(), host.delivered(targets));
    let (cpu, peak) = (daemon.cpu(), daemon.memory("VmHWM"));
    daemon.stop();
    Rendered { tokens: targets, took, cpu, peak }
}

fn theirs(servers: &Servers, targets: usize, limit: Duration) -> Rendered {
    let folder = Folder::in_memory();
    let out = folder.path().join("out");
    std::fs::create_dir(&out).expect("the folder is empty");
    let file = folder.path().join("agent.hcl");
    private(&file, &config(servers, targets, &out));
    let log = std::fs::File::create(folder.path().join("log")).expect("memory is left");
    let mut agent = guard::bound(Path::new(servers.text("/bao/bin")));
    agent.args(["agent", "-log-level=warn", "-config"]).arg(&file).env("HOME", folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let mut agent = Bound(agent.stderr(log).spawn().expect("bao runs"));
    let pid = agent.0.id();
    let (mut tokens, mut took, mut cpu, mut peak) = (0, Duration::ZERO, Duration::ZERO, 0);
    while tokens < targets && begun.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(50));
        if let Some(status) = agent.0.try_wait().expect("it is our child") {
            panic!("OpenBao Agent ended with {status}:\n{}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        }
        // They are renamed into place, and have other names before.
        let names = std::fs::read_dir(&out).expect("it is there").flatten().map(|e| e.file_name());
        tokens =
            names.filter(|name| name.to_str().is_some_and(|n| n.strip_prefix('t').is_some_and(|n| n.parse::<usize>().is_ok()))).count();
        (took, cpu, peak) = (begun.elapsed(), process::cpu(pid), process::memory(pid, "VmHWM").unwrap_or(peak));
    }
    Rendered { tokens, took, cpu, peak }
}

fn config(servers: &Servers, targets: usize, out: &Path) -> String {
    let (address, ca, token) = (servers.text("/bao/address"), servers.text("/bao/ca"), servers.text("/bao/rootTokenFile"));
    let mut text = format!("vault {{\n  address = {address:?}\n  ca_cert = {ca:?}\n}}\n");
    let _ = writeln!(text, "auto_auth {{\n  method \"token_file\" {{\n    config = {{ token_file_path = {token:?} }}\n  }}\n}}");
    for i in 0..targets {
        let secret = format!(
            "{{{{ with secret \"kubernetes/creds/account-{i}\" \"kubernetes_namespace={NAMESPACE}\" }}}}{{{{ .Data.service_account_token }}}}{{{{ end }}}}"
        );
        let place = out.join(format!("t{i}"));
        let _ = writeln!(text, "template {{\n  contents = {secret:?}\n  destination = {place:?}\n  perms = \"0600\"\n}}");
    }
    text
}

fn rows(report: &mut Report, targets: usize, ours: &Rendered, theirs: &Rendered, goal: f64) {
    let all = theirs.tokens == targets;
    // Its cost per token grows with the number of tokens, so the rule of three is kind to it.
    let whole = theirs.took.as_secs_f64() * targets as f64 / theirs.tokens.max(1) as f64;
    let ratio = whole / ours.took.as_secs_f64();
    let said = if all {
        format!("{:.1} s", theirs.took.as_secs_f64())
    } else {
        format!("{} of {targets} in {:.0} s", theirs.tokens, theirs.took.as_secs_f64())
    };
    let times = format!("{}{ratio:.0} times", if all { "" } else { "more than " });
    let row = Row::new(format!("{targets} targets"), format!("{:.2} s", ours.took.as_secs_f64())).beside(said).ratio(times);
    report.add(row.reach(&format!("≥ {goal:.0} times"), ratio >= goal));
    let cpu = |side: &Rendered| format!("{:.2} s", side.cpu.as_secs_f64());
    report.add(Row::new("… CPU time (OpenBao's own server not counted)", cpu(ours)).beside(cpu(theirs)));
    report.add(Row::new("… peak resident memory", mib(ours.peak)).beside(mib(theirs.peak)));
}
