//! `status --watch`: in one place on a terminal, one after the other elsewhere, and on while the daemon is away.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Host, PROGRAM};
use crate::support::until;

const SCHEDULE: &str = "
clusters: {trial: {embedded: {}}}
targets: [{name: one, cluster: trial, serviceAccount: ci/one, duration: 1h, deliver: [{file: {path: HERE/out/one}}]}]
";

/// The command on a terminal of its own, all that it writes in a file.
fn on_a_terminal(host: &Host) -> Child {
    // Without exec a plain sh stays between, and it is its end by the interrupt that would be seen.
    let command = format!("exec {PROGRAM} --schedule {} status --watch", host.schedule().display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &command]).arg(host.path("screen"));
    script.env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::piped()).stdout(Stdio::null());
    script.spawn().expect("script is missing: apt-get install bsdutils")
}

fn screen(host: &Host) -> String {
    String::from_utf8_lossy(&std::fs::read(host.path("screen")).unwrap_or_default()).into_owned()
}

#[test]
fn on_a_terminal_it_is_shown_in_one_place_and_an_interrupt_leaves_the_terminal_as_it_was() {
    let mut host = Host::new(SCHEDULE);
    host.start();
    until("it is delivered", 60, || host.target("one")["state"] == "fresh");
    let mut shown = on_a_terminal(&host);
    until("it is shown twice", 60, || screen(&host).matches("\x1b[H").count() >= 2);
    let seen = screen(&host);
    assert!(seen.contains("\x1b[?25l") && seen.contains("one") && seen.contains("\x1b[32mfresh"), "{seen:?}");
    assert!(seen.contains("every 2 s; Ctrl-C ends it"), "{seen:?}");
    host.stop();
    until("it says that no daemon runs", 60, || screen(&host).contains("no daemon runs"));
    host.start();
    let before = screen(&host).len();
    until("it shows the new daemon", 60, || {
        let rest = screen(&host);
        rest.len() > before
            && rest.rsplit("\x1b[H").nth(1).is_some_and(|frame| frame.contains("fresh") && !frame.contains("no daemon runs"))
    });
    assert!(shown.try_wait().unwrap().is_none(), "it ended when the daemon did");
    let mut keyboard = shown.stdin.take().unwrap();
    keyboard.write_all(b"\x03").unwrap();
    keyboard.flush().unwrap();
    until("it ends", 30, || shown.try_wait().unwrap().is_some());
    assert_eq!(shown.wait().unwrap().code(), Some(0));
    let seen = screen(&host);
    let end = seen.rfind("\x1b[?25h").expect("the cursor is back");
    assert!(end > seen.rfind("\x1b[H").unwrap() && seen[end..].contains("\x1b[?7h"), "{:?}", &seen[end..]);
}

fn first_lines(host: &Host, arguments: &[&str], count: usize) -> Vec<String> {
    let mut command = host.command(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = (0..count).map(|_| lines.next().unwrap().unwrap()).collect();
    // Nobody reads on: it ends by itself.
    drop(lines);
    let begun = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it goes on although nobody reads");
        std::thread::sleep(Duration::from_millis(50));
    }
    first
}

#[test]
fn elsewhere_it_writes_one_after_the_other_and_ends_when_nobody_reads() {
    let mut host = Host::new(SCHEDULE);
    host.start();
    until("it is delivered", 60, || host.target("one")["state"] == "fresh");
    let table = first_lines(&host, &["status", "--watch"], 8);
    assert_eq!(table.iter().filter(|line| line.starts_with("TARGET")).count(), 2, "{table:?}");
    assert!(table.iter().all(|line| !line.contains('\x1b')), "{table:?}");
    let json = first_lines(&host, &["status", "--watch", "-o", "json"], 2);
    for line in json {
        let status: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["targets"][0]["state"], "fresh");
    }
    assert_eq!(host.run(&["status", "--watch", "none-such"]).code, Some(2));
}
