//! What is shipped for Prometheus and Grafana: every rule fires and does not fire by the real promtool, the dashboard is
//! what Grafana's own types take, and neither asks for a series that no daemon has.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::shipped::root;
use crate::support::daemon::{Host, finish, tool};
use crate::support::servers::{cluster, program};
use crate::support::until;

fn shipped(name: &str) -> PathBuf {
    root().join("examples/monitoring").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(shipped(name)).unwrap()
}

/// The alerts that promtool is told to expect, firing or not.
fn tested(text: &str, firing: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let Some((_, rest)) = line.split_once("alertname: ") else { continue };
        let fires = lines.get(index + 1).is_some_and(|next| next.contains("exp_alerts"));
        if fires == firing {
            found.insert(rest.trim_end_matches('}').to_owned());
        }
    }
    found
}

#[test]
fn every_rule_fires_and_does_not_fire_by_promtool() {
    let promtool = program("promtool");
    let mut check = Command::new(&promtool);
    check.args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(shipped("tokenferry.rules.yaml"));
    let done = finish(check, Duration::from_secs(60));
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut test = Command::new(&promtool);
    test.args(["test", "rules"]).arg(shipped("tokenferry.rules.test.yaml"));
    let done = finish(test, Duration::from_secs(120));
    assert_eq!(done.code, Some(0), "{done:?}");

    let rules: BTreeSet<String> =
        read("tokenferry.rules.yaml").lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    let tests = read("tokenferry.rules.test.yaml");
    assert!(rules.len() >= 9, "{rules:?}");
    assert_eq!(tested(&tests, true), rules, "each rule has to be shown to fire");
    assert_eq!(tested(&tests, false), rules, "and not to fire");
}

#[test]
fn every_rule_says_what_it_means_and_what_to_do() {
    let text = read("tokenferry.rules.yaml");
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    for rule in rules {
        for key in ["summary: ", "meaning: ", "action: ", "severity: "] {
            assert!(rule.contains(key), "{key} is missing in {rule}");
        }
    }
}

/// Names of series in a text: those of ours, histograms and counters as Prometheus has them.
fn names(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("tokenferry_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        found.insert(rest[..end].to_owned());
    }
    found
}

#[test]
fn the_dashboard_is_what_grafana_takes_and_a_wrong_one_is_refused() {
    let dashboard = program("dashboard");
    let mut command = Command::new(&dashboard);
    command.arg(shipped("tokenferry.dashboard.json"));
    let done = finish(command, Duration::from_secs(60));
    assert_eq!(done.code, Some(0), "{done:?}");
    let queries: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    assert!(queries.len() >= 20, "only {} queries were read", queries.len());
    // Each is an expression of Prometheus, once Grafana has put in what it knows.
    let folder = tempfile::tempdir().unwrap();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (index, query) in queries.iter().enumerate() {
        let expr = query["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$instance", ".*");
        rules += &format!("  - record: q{index}\n    expr: {}\n", serde_json::to_string(&expr).unwrap());
    }
    let file = folder.path().join("queries.yaml");
    std::fs::write(&file, rules).unwrap();
    tool(Command::new(program("promtool")).args(["check", "rules"]).arg(&file));

    let good = read("tokenferry.dashboard.json");
    for (what, wrong) in [
        ("a field that no panel has", good.replacen("\"gridPos\"", "\"gridpos\"", 1)),
        ("a number where a text has to be", good.replacen("\"title\": \"tokenferry\"", "\"title\": 1", 1)),
        ("an option that its panel has not", good.replacen("\"graphMode\"", "\"graphModus\"", 1)),
    ] {
        assert_ne!(wrong, good, "{what}: the text to spoil is not there");
        let file = folder.path().join("wrong.json");
        std::fs::write(&file, wrong).unwrap();
        let mut command = Command::new(&dashboard);
        command.arg(&file);
        assert_eq!(finish(command, Duration::from_secs(60)).code, Some(1), "{what} was taken");
    }
}

/// A daemon that has every series: own credential, failures, limits, alerts, heartbeat, monitored files, a fleet.
fn busy(port: u16) -> Host {
    let mut host = Host::new(&format!(
        "
metrics: {{listen: '127.0.0.1:{port}', textfile: HERE/node/tokenferry.prom}}
alerts: [{{exec: {{command: ['false']}}, repeat: 10s}}]
heartbeat: {{http: {{url: 'http://127.0.0.1:1/'}}, every: 10s}}
fleet: {{lease: {{cluster: prod, namespace: default, name: series}}}}
monitor: [{{path: HERE/none/token, maxAge: 1h}}, {{path: HERE/other, maxAge: 1h}}]
clusters:
  prod: {{kubeconfig: HERE/prod.kubeconfig, own: {{serviceAccount: ferry-series/ferry, duration: 10m}}}}
  trial: {{embedded: {{}}}}
targets:
  - {{name: one, cluster: trial, serviceAccount: ci/one, duration: 10s, rotate: {{at: 30%, splay: 0s}}, compliance: {{maxAge: 9s}}, hosts: ['*'], deliver: [{{file: {{path: HERE/out/one}}}}]}}
  - {{name: broken, cluster: trial, serviceAccount: ci/broken, duration: 1h, hosts: ['*'], deliver: [{{file: {{path: HERE/blocked/token}}}}]}}
"
    ));
    host.write("blocked", "");
    host.write("other", &crate::monitor::token(0, Some(3600)));
    let admin = cluster().kube().admin_kubeconfig.display().to_string();
    assert_eq!(host.run(&["bootstrap", "prod", "--kubeconfig", &admin]).code, Some(0));
    host.start();
    host
}

#[test]
fn no_rule_and_no_panel_asks_for_a_series_that_the_daemon_has_not() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = busy(port);
    let metrics = || tool(Command::new("curl").args(["-sS", "--fail", &format!("http://127.0.0.1:{port}/metrics")]));
    let asked = names(&(read("tokenferry.rules.yaml") + &read("tokenferry.dashboard.json")));
    assert!(asked.len() >= 20, "{asked:?}");
    let series = |text: &str| {
        let lines: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        names(&lines)
    };
    let missing = || asked.difference(&series(&metrics())).cloned().collect::<Vec<_>>();
    let begun = Instant::now();
    while !missing().is_empty() && begun.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(missing(), Vec::<String>::new(), "no daemon has these:\n{}", metrics());
    // What is asked by the control socket is the same.
    let over =
        tool(Command::new("curl").args(["-sS", "--fail", "--unix-socket"]).arg(host.path("control.sock")).arg("http://tokenferry/metrics"));
    assert_eq!(series(&over), series(&metrics()));
    let livez = |path: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "-", "-w", "%{http_code}", "--unix-socket"])
            .arg(host.path("control.sock"))
            .arg(format!("http://tokenferry{path}"));
        tool(&mut curl)
    };
    assert_eq!(livez("/livez"), "ok\n200");
    until("it is ready", 30, || livez("/readyz") == "ok\n200");
    textfile_is_whole(&host);
}

/// Read at any moment it is whole, and soon tells what happened.
fn textfile_is_whole(host: &Host) {
    let path = host.path("node/tokenferry.prom");
    let shown = host.json(&["status"])["daemon"]["textfile"].clone();
    assert!(shown["error"].as_str().unwrap().contains("its folder does not exist: make it"), "{shown}");
    std::fs::create_dir(host.path("node")).unwrap();
    until("it is written once its folder is there", 60, || path.exists());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    let (begun, mut texts, mut reads) = (Instant::now(), BTreeSet::new(), 0);
    while begun.elapsed() < Duration::from_secs(15) {
        let mut text = String::new();
        std::fs::File::open(&path).expect("it is never gone").read_to_string(&mut text).unwrap();
        assert!(text.starts_with("# HELP ") && text.ends_with("# EOF\n") && text.contains("tokenferry_build_info{"), "a part:\n{text}");
        reads += 1;
        texts.insert(text);
    }
    assert!(reads > 1000 && texts.len() >= 4, "{reads} reads, {} texts: it is written with every change", texts.len());
    let names: Vec<String> =
        std::fs::read_dir(host.path("node")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|name| name == "tokenferry.prom" || !name.ends_with(".prom")), "node_exporter would read {names:?}");
    // As node_exporter does, promtool reads it by the text format.
    let mut check = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&path).unwrap())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    check.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    check.wait().unwrap();
    assert!(!said.contains("error while linting") && !said.contains("parsing"), "{said}");
}
