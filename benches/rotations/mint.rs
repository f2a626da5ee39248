//! From mint to published file beside the API server's own ceiling: wrk posts the same TokenRequest for the same
//! accounts, as the same user, over as many connections.

use std::time::Duration;

use super::daemon::Host;
use super::options::Options;
use super::process;
use super::report::{Report, Row};
use super::schedule::Wanted;
use super::servers::{NAMESPACE, Servers};
use super::wrk::{self, Load, Ran};

/// Accounts; targets share them.
const ACCOUNTS: usize = 1_000;
/// Where the servers are and where the client is, when they are to have a core each.
const CORES: (usize, usize) = (0, 1);

/// Measures all of it.
pub fn run(report: &mut Report, options: &Options) {
    wrk::install();
    let mut servers = Servers::start("etcd,kube", options.p256);
    servers.create_accounts(ACCOUNTS.min(options.targets));
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        report.part("mint to published file on tmpfs: API server and etcd on one core, the client on another");
        pin(&servers, Some(CORES.0));
        for connections in [1, 8, 32, 64] {
            compare(report, options, &servers, connections, Some(CORES.1));
        }
        pin(&servers, None);
    } else {
        report.add(Row::new("with a core for each side: NOT RUN, there is one core", ""));
    }
    report.part("mint to published file on tmpfs: all share the cores");
    for connections in [8, 32, 64] {
        compare(report, options, &servers, connections, None);
    }
}

fn pin(servers: &Servers, core: Option<usize>) {
    for server in ["kube", "etcd", "controllerManager"] {
        process::pin(servers.pid(server), core);
    }
}

fn compare(report: &mut Report, options: &Options, servers: &Servers, connections: usize, core: Option<usize>) {
    // Fewer for the slow single connection, so that every turn takes about as long.
    let targets = if connections == 1 { options.targets / 2 } else { options.targets };
    let kubeconfig = servers.minter_kubeconfig();
    let mut host = Host::new(|folder| Wanted::of_server(&kubeconfig, connections, folder, targets, servers.accounts));
    let daemon = host.start(core);
    host.delivered(targets);
    let script = requests(servers);
    let load = Load { server: servers.text("/kube/server"), connections, turn: options.turn, script: &script, core };
    let (mut ours, mut theirs, mut cpu) = (Ran::default(), Ran::default(), Duration::ZERO);
    for round in 0..options.rounds * 2 {
        // A B B A …: what drifts drifts for both.
        if round.div_ceil(2) % 2 == 0 {
            theirs = theirs.and(wrk::run(&load, servers.folder()));
        } else {
            let before = daemon.cpu();
            ours = ours.and(Ran { requests: targets, took: host.rotate_all(targets) });
            cpu += daemon.cpu() - before;
        }
    }
    daemon.stop();
    let (ratio, goal) = (ours.per_second() / theirs.per_second(), if core.is_some() { 0.97 } else { 0.93 });
    let each = cpu.as_secs_f64() * 1e3 / ours.requests as f64;
    let row = Row::new(format!("{connections} connections"), format!("{:.0}/s, {each:.2} ms CPU each", ours.per_second()));
    let row = row.beside(format!("wrk {:.0}/s", theirs.per_second())).ratio(format!("{ratio:.3}"));
    report.add(row.reach(&format!("≥ {goal}"), ratio >= goal));
}

/// The same request as ours, byte for byte in what the server has to do for it.
fn requests(servers: &Servers) -> String {
    let token = std::fs::read_to_string(servers.minter_token()).expect("it was just written");
    let accounts = servers.accounts;
    format!(
        r#"
local headers = {{["Authorization"] = "Bearer {token}", ["Content-Type"] = "application/json"}}
local body = '{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{{"audiences":[],"boundObjectRef":null,"expirationSeconds":3600}}}}'
requests = {{
  function(round)
    return "POST", "/api/v1/namespaces/{NAMESPACE}/serviceaccounts/account-" .. round % {accounts} .. "/token?timeout=14s", headers, body
  end,
}}
"#
    )
}
