//! Hooks: who has to be told of a fresh token is told, at least once, one at a time, and without the token; what a
//! hook does wrong harms nobody.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::daemon::Host;
use crate::support::until;

/// Targets of an embedded cluster, each with its own hooks.
fn schedule(targets: &[(&str, &str)]) -> String {
    let mut text = "clusters: {trial: {embedded: {}}}\ndefaults: {cluster: trial, duration: 1h}\ntargets:\n".to_owned();
    for (name, after) in targets {
        text += &format!(
            "  - name: {name}\n    serviceAccount: ci/{name}\n    deliver: [{{file: {{path: HERE/out/{name}}}}}]\n    after: [{after}]\n"
        );
    }
    text
}

fn shell(script: &str) -> String {
    format!("{{exec: {{command: [sh, -c, '{script}']}}}}")
}

fn told(host: &Host, target: &str, outcome: &str) -> Vec<Value> {
    let mut lines = host.records_of("told", target);
    lines.retain(|line| line["hooks"][0]["outcome"] == outcome);
    lines
}

fn lines(host: &Host, name: &str) -> usize {
    std::fs::read_to_string(host.path(name)).unwrap_or_default().lines().count()
}

fn alive(pid: &str) -> bool {
    // A zombie that nobody waits for is dead too.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_command_learns_where_the_token_stands_and_never_what_it_is() {
    let mut host = Host::new(&schedule(&[("ci", &shell("env > HERE/seen.new; mv HERE/seen.new HERE/seen"))]));
    host.start_with(&[("MY_SECRET", "hidden"), ("NOTIFY_SOCKET", "/nonexistent")]);
    until("the hook is recorded", 60, || told(&host, "ci", "done").len() == 1);
    let seen = host.read("seen");
    let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.retain(|name| !matches!(*name, "PWD" | "_" | "SHLVL" | "OLDPWD"));
    names.sort_unstable();
    assert_eq!(
        names,
        ["PATH", "TOKENFERRY_EXPIRES_AT", "TOKENFERRY_GENERATION", "TOKENFERRY_ISSUE", "TOKENFERRY_PATH", "TOKENFERRY_TARGET"]
    );
    assert!(seen.contains(&format!("TOKENFERRY_PATH={}\n", host.path("out/ci").display())), "{seen}");
    assert!(seen.contains("TOKENFERRY_TARGET=ci\n") && seen.contains("TOKENFERRY_GENERATION=1\n") && seen.contains("PWD=/\n"), "{seen}");
    assert!(!seen.contains("eyJ"), "{seen}");
    let line = told(&host, "ci", "done").pop().unwrap();
    assert_eq!((&line["generation"], &line["jti"]), (&1.into(), &host.records_of("rotated", "ci")[0]["jti"]));
    assert_eq!(host.target("ci")["hooks"][0]["outcome"], "done");
    assert_eq!(host.stop(), Some(0));
    host.start();
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    until("it is told of the second token too", 60, || told(&host, "ci", "done").len() == 2);
    assert!(host.read("seen").contains("TOKENFERRY_GENERATION=2\n"));
    assert_eq!(told(&host, "ci", "done").len(), 2, "a restart tells nobody anew");
}

#[test]
fn a_hook_that_fails_is_shown_tried_again_and_mints_nothing() {
    let script = "echo oh $(cat HERE/out/ci) >&2; echo x >> HERE/tries; test -e HERE/mended";
    let mut host = Host::new(&schedule(&[("ci", &shell(script)), ("other", &shell("true"))]));
    host.start();
    until("it was tried three times", 120, || lines(&host, "tries") >= 3);
    until("the failure is recorded, and the other target's hook done", 60, || {
        !told(&host, "ci", "failed").is_empty() && !told(&host, "other", "done").is_empty()
    });
    let hook = host.target("ci")["hooks"][0].clone();
    assert_eq!((&hook["outcome"], &hook["generation"]), (&"failed".into(), &1.into()));
    assert!(hook["error"].as_str().unwrap().contains("ended with code 1: oh [token removed]"), "{hook}");
    assert_eq!(host.target("ci")["state"], "fresh");
    let shown = host.run(&["status"]);
    assert!(shown.code == Some(0) && shown.stdout.contains("ci: exec sh -c"), "{shown:?}");
    host.write("mended", "");
    until("it is done", 120, || told(&host, "ci", "done").len() == 1);
    assert_eq!(told(&host, "ci", "failed").len(), 1, "the same failure is recorded once");
    assert!(told(&host, "ci", "done")[0]["hooks"][0]["attempts"].as_u64() >= Some(4));
    assert_eq!(host.records_of("rotated", "ci").len(), 1, "a hook never mints");
    assert!(host.target("ci")["hooks"][0]["error"].is_null());
    for text in [host.log(), host.records().iter().map(Value::to_string).collect()] {
        assert!(!text.contains("eyJ"), "what the hook said holds a token");
    }
}

#[test]
fn hooks_that_hang_fork_flood_and_read_their_input_are_survived() {
    let limited = |script: &str| format!("{{exec: {{command: [sh, -c, '{script}'], timeout: 2s}}}}");
    let hang = limited("sleep 1000 & echo $! > HERE/grandchild; echo $$ > HERE/child; trap \"\" TERM; while true; do sleep 1; done");
    let fork = limited("sleep 1000 & echo $! > HERE/left; exit 0");
    let mut host = Host::new(&schedule(&[
        ("hang", &hang),
        ("fork", &fork),
        ("flood", &limited("yes eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl")),
        ("input", &limited("cat; echo end of input")),
        ("fine", &shell("true")),
    ]));
    host.start();
    until("every hook was heard of", 180, || {
        ["hang", "flood"].iter().all(|name| !told(&host, name, "failed").is_empty())
            && ["fork", "input", "fine"].iter().all(|name| !told(&host, name, "done").is_empty())
    });
    for name in ["hang", "flood"] {
        let line = told(&host, name, "failed").remove(0);
        let error = line["hooks"][0]["error"].as_str().unwrap();
        assert!(error.contains("did not end within 2 s and was killed") && error.len() < 1000, "{error}");
        assert!(!error.contains("c2lnbmF0dXJl"), "{error}");
    }
    assert_eq!(told(&host, "input", "done")[0]["hooks"][0]["said"], "end of input");
    let left = host.read("left");
    until("what a hook leaves behind is gone", 30, || !alive(&left));
    // The hanging one may be at its next try: the first try's processes are what is looked for.
    let first = [host.read("child"), host.read("grandchild")];
    until("the group of a hanging hook is gone", 60, || !alive(&first[0]) && !alive(&first[1]));
    for name in ["hang", "fork", "flood", "input", "fine"] {
        assert_eq!(host.target(name)["state"], "fresh");
    }
    assert!(host.stop().is_some());
}

#[test]
fn g4_a_hook_that_was_not_done_at_a_kill_is_told_after_the_start_and_the_token_stays() {
    let script = "echo x >> HERE/runs; test -e HERE/quick || sleep 60";
    let mut host = Host::new(&schedule(&[("ci", &shell(script))]));
    host.start();
    until("the hook runs", 60, || lines(&host, "runs") == 1);
    host.kill();
    host.write("quick", "");
    let token = host.read("out/ci");
    host.start();
    until("it is told again", 60, || told(&host, "ci", "done").len() == 1);
    assert_eq!((lines(&host, "runs"), host.records_of("rotated", "ci").len()), (2, 1));
    assert_eq!(host.read("out/ci"), token);
    // Done is done, also for the start after.
    host.kill();
    host.start();
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    until("the next token is told", 60, || told(&host, "ci", "done").len() == 2);
    assert_eq!(lines(&host, "runs"), 3);
}

#[test]
fn a_failing_hook_of_an_older_token_gives_way_to_that_of_the_newest() {
    let script = "echo $TOKENFERRY_GENERATION >> HERE/runs; test $TOKENFERRY_GENERATION = 2";
    let mut host = Host::new(&schedule(&[("ci", &shell(script))]));
    host.start();
    until("it fails for the first token", 60, || told(&host, "ci", "failed").len() == 1);
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    until("it is done for the second", 60, || told(&host, "ci", "done").len() == 1);
    let runs = host.read("runs");
    assert!(runs.ends_with("2\n") && runs.matches('2').count() == 1, "{runs}");
}

#[test]
fn runs_of_the_same_command_never_overlap_whoever_is_rotated() {
    let script = "mkdir HERE/lock || echo overlap >> HERE/bad; sleep 0.2; rmdir HERE/lock; echo x >> HERE/runs";
    let hook = shell(script);
    let mut host = Host::new(&schedule(&[("a", &hook), ("b", &hook), ("c", &hook)]));
    host.start();
    for _ in 0..3 {
        assert_eq!(host.run(&["rotate", "--all"]).code, Some(0));
    }
    until("all are told", 120, || {
        let status = host.json(&["status"]);
        status["targets"].as_array().unwrap().iter().all(|t| t["hooks"][0]["outcome"] == "done" && t["hooks"][0]["generation"] == 4)
    });
    assert!(!host.path("bad").exists());
    assert!(lines(&host, "runs") >= 3);
}

#[test]
fn a_place_that_gets_its_token_later_is_told_of_then() {
    let text = schedule(&[("ci", &shell("echo $TOKENFERRY_GENERATION >> HERE/runs"))])
        .replace("deliver: [", "deliver: [{file: {path: HERE/far/ci}}, ");
    let mut host = Host::new(&text);
    // No folder, so that nothing can be put into it.
    host.write("far", "");
    host.start();
    until("it is told of what arrived", 60, || told(&host, "ci", "done").len() == 1);
    assert_eq!(host.records_of("failed", "ci")[0]["hooks"][0]["outcome"], "pending");
    std::fs::remove_file(host.path("far")).unwrap();
    until("it is told of the place that was owed", 120, || told(&host, "ci", "done").len() == 2);
    assert_eq!(host.read("runs"), "1\n1\n");
    assert_eq!(told(&host, "ci", "done")[1]["hooks"][0]["round"], 1);
}

#[test]
fn once_tells_hooks_before_it_ends_and_its_code_says_when_one_failed() {
    let host = Host::new(&schedule(&[("good", &shell("echo x >> HERE/runs")), ("bad", &shell("test -e HERE/mended"))]));
    let done = host.run(&["once"]);
    assert!(done.code == Some(1) && done.stdout.contains("exec sh -c"), "{done:?}");
    assert_eq!((lines(&host, "runs"), told(&host, "bad", "failed").len()), (1, 1));
    host.write("mended", "");
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!((told(&host, "bad", "done").len(), host.records_of("rotated", "bad").len(), lines(&host, "runs")), (1, 1, 1));
}

#[test]
fn a_new_hook_waits_for_the_next_token_and_a_removed_one_is_forgotten() {
    let mut host = Host::new(&schedule(&[("ci", &shell("false"))]));
    host.start();
    until("the old hook fails", 60, || told(&host, "ci", "failed").len() == 1);
    host.write_schedule(&schedule(&[("ci", &shell("echo x >> HERE/runs"))]));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    assert!(host.target("ci")["hooks"][0]["outcome"].is_null());
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    until("the new hook is told", 60, || told(&host, "ci", "done").len() == 1);
    assert_eq!((lines(&host, "runs"), told(&host, "ci", "done")[0]["generation"].as_u64()), (1, Some(2)));
}

/// A server that answers with these codes in turn, then 204; gives what it was sent.
fn server(codes: &'static [u16]) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut codes = codes.iter();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !text.contains("\r\n\r\n") || !text.ends_with('}') {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                }
            }
            seen.lock().unwrap().push(text);
            let code = codes.next().copied().unwrap_or(204);
            let _ = write!(stream, "HTTP/1.1 {code} X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (port, asked)
}

#[test]
fn a_request_says_whose_token_is_fresh_and_is_sent_again_until_it_is_taken() {
    let (port, asked) = server(&[500, 302]);
    let mut host =
        Host::new(&schedule(&[("ci", &format!("{{http: {{url: 'http://127.0.0.1:{port}/changed?key=hidden', method: PUT}}}}"))]));
    host.start();
    until("it is taken", 120, || told(&host, "ci", "done").len() == 1);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3);
    assert!(asked[0].starts_with("PUT /changed?key=hidden HTTP/1.1"), "{}", asked[0]);
    let body: Value = serde_json::from_str(asked[0].split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        (&body["target"], &body["generation"], &body["path"]),
        (&"ci".into(), &1.into(), &host.path("out/ci").display().to_string().into())
    );
    assert!(asked.iter().all(|text| !text.contains("eyJ")));
    let failed = told(&host, "ci", "failed").remove(0);
    assert!(failed["hooks"][0]["error"].as_str().unwrap().contains("/changed: it answered 500"), "{failed}");
    for text in [host.log(), host.records().iter().map(Value::to_string).collect()] {
        assert!(!text.contains("hidden"), "the query of the address is nobody's to read");
    }
}

#[test]
fn a_signal_reaches_the_process_of_a_pid_file_and_a_stale_file_is_told() {
    let mut host = Host::new(&schedule(&[("ci", "{signal: {pidFile: HERE/pid, signal: SIGHUP}}")]));
    host.start();
    until("the missing file is told", 60, || told(&host, "ci", "failed").len() == 1);
    let script = format!(
        "trap 'echo got >> {0}/got' HUP; echo $$ > {0}/pid.new; mv {0}/pid.new {0}/pid; while :; do sleep 0.1; done",
        host.folder.path().display()
    );
    let mut reader = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    until("the signal arrived", 120, || lines(&host, "got") == 1);
    until("that is recorded", 60, || told(&host, "ci", "done").len() == 1);
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert_eq!(host.run(&["rotate", "ci"]).code, Some(0));
    until("the stale file is told", 60, || host.target("ci")["hooks"][0]["error"].as_str().is_some_and(|e| e.contains("stale")));
}

#[test]
fn a_unit_is_reloaded_restarted_or_signalled_by_systemctl_and_a_refusal_names_the_rule() {
    let hooks = "{systemd: {reloadUnit: nginx}}, {systemd: {restartUnit: app@1.service}}, {signal: {unit: haproxy.service, signal: USR2}}";
    let mut host = Host::new(&schedule(&[("a", hooks), ("b", "{systemd: {reloadUnit: denied.service}}")]));
    std::fs::create_dir(host.path("bin")).unwrap();
    let tool = host.write("bin/systemctl", &format!(
        "#!/bin/sh\necho \"$@\" >> {0}/orders\ncase $* in *denied*) echo 'Failed to reload denied.service: Interactive authentication required.' >&2; exit 4;; esac\n",
        host.folder.path().display()
    ));
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", host.path("bin").display(), std::env::var("PATH").unwrap());
    host.start_with(&[("PATH", &path)]);
    until("all are told", 60, || told(&host, "a", "done").len() == 3 && told(&host, "b", "failed").len() == 1);
    let mut orders: Vec<String> = host.read("orders").lines().filter(|line| !line.contains("denied")).map(str::to_owned).collect();
    orders.sort();
    assert_eq!(
        orders,
        [
            "--no-ask-password --no-pager kill --kill-who=main --signal=SIGUSR2 -- haproxy.service",
            "--no-ask-password --no-pager reload -- nginx.service",
            "--no-ask-password --no-pager restart -- app@1.service",
        ]
    );
    let error = told(&host, "b", "failed")[0]["hooks"][0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("polkit rule for org.freedesktop.systemd1.manage-units"), "{error}");
}
