//! What takes over a second shows that it goes on.

use std::process::Command;
use std::time::Duration;

use crate::support::daemon::{Host, finish};

/// Its one place takes three seconds.
fn slow() -> Host {
    Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: a, cluster: trial, serviceAccount: ci/a, duration: 1h, deliver: [{command: {command: [sh, -c, 'cat >/dev/null; sleep 3']}}]}]\n",
    )
}

#[test]
fn long_work_says_so_in_lines_where_no_terminal_is_and_nothing_when_told_to_be_quiet() {
    let said = slow().run(&["once", "-o", "json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("rotating what is due ("), "{said:?}");
    assert!(said.stdout.trim_start().starts_with('['), "data stays data: {said:?}");
    let quiet = slow().run(&["-q", "once"]);
    assert!(quiet.code == Some(0) && !quiet.stderr.contains("rotating"), "{quiet:?}");
}

#[test]
fn what_ends_at_once_says_nothing_of_the_kind() {
    let host = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: a, cluster: trial, serviceAccount: ci/a, duration: 1h, deliver: [{file: {path: HERE/out/a}}]}]\n",
    );
    let done = host.run(&["--quiet", "records", "verify"]);
    assert!(!done.stderr.contains("reading every line"), "{done:?}");
}

#[test]
fn a_terminal_shows_a_spinner_and_its_line_is_clean_at_the_end() {
    let host = slow();
    // script(1) runs it on a terminal of its own.
    let mut terminal = Command::new("script");
    let command = format!("{} --schedule {} once", crate::support::daemon::PROGRAM, host.schedule().display());
    terminal.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").stdin(std::process::Stdio::null());
    let shown = finish(terminal, Duration::from_secs(60));
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("rotating what is due"), "{shown:?}");
    let last = shown.stdout.rsplit("rotating what is due").next().unwrap();
    assert!(last.contains("\u{1b}[2K"), "the line is taken away: {last:?}");
}
