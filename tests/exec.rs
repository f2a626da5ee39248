//! `exec`: a command with a token of its own, and nothing left behind.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::{Done, Host, finish};
use crate::support::servers::cluster;
use crate::support::until;

const SCHEDULE: &str = "clusters: {trial: {embedded: {}}}
targets:
- {name: ci, cluster: trial, serviceAccount: cicd/bot, duration: 1h, audiences: [own], deliver: [{file: {path: HERE/out/token}}]}
";

fn host() -> Host {
    let host = Host::new(SCHEDULE);
    std::fs::create_dir(host.path("run")).unwrap();
    host
}

/// The command; the host's own folder is the runtime folder.
fn exec(host: &Host, arguments: &[&str]) -> Command {
    let mut command = host.command(&[&["exec"], arguments].concat());
    command.env("XDG_RUNTIME_DIR", host.path("run"));
    command
}

fn run(host: &Host, arguments: &[&str]) -> Done {
    finish(exec(host, arguments), Duration::from_secs(60))
}

/// On the embedded cluster.
fn trial<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&["cicd/bot", "--cluster", "trial"], rest].concat()
}

fn rooms(host: &Host) -> Vec<PathBuf> {
    std::fs::read_dir(host.path("run")).unwrap().map(|e| e.unwrap().path()).collect()
}

#[test]
fn kubectl_works_under_it_with_a_kubeconfig_that_holds_no_token() {
    let (host, kube) = (host(), cluster().kube());
    let (config, kubectl) = (kube.minter_kubeconfig.display().to_string(), kube.kubectl.display().to_string());
    let script = format!("'{kubectl}' auth whoami -o json && grep -c eyJ \"$KUBECONFIG\"");
    let done =
        run(&host, &["cicd/cicd-deployer", "--kubeconfig", &config, "--duration", "10m", "--with-kubeconfig", "--", "sh", "-c", &script]);
    // grep finds no token, counts 0 and exits 1.
    assert_eq!(done.code, Some(1), "{done:?}");
    let said: Value = serde_json::from_str(done.stdout.trim_end().trim_end_matches('0')).unwrap_or_else(|e| panic!("{e}: {done:?}"));
    assert_eq!(said["status"]["userInfo"]["username"], "system:serviceaccount:cicd:cicd-deployer");
    assert!(done.stderr.contains("the token of cicd/cicd-deployer is removed here; a copy would be good until"), "{}", done.stderr);
    assert_eq!(rooms(&host), Vec::<PathBuf>::new());
}

#[test]
fn the_token_is_in_a_private_file_and_nowhere_else() {
    let host = host();
    let script = "stat -c '%a %U' \"$TOKENFERRY_TOKEN_FILE\" \"$(dirname \"$TOKENFERRY_TOKEN_FILE\")\"; env | grep -cE 'eyJ[A-Za-z0-9]{9}'; tr '\\0' '\\n' < /proc/$PPID/cmdline | grep -cE 'eyJ[A-Za-z0-9]{9}'; cp \"$TOKENFERRY_TOKEN_FILE\" \"$0\"";
    let copy = host.path("copy").display().to_string();
    let done = run(&host, &trial(&["--", "sh", "-c", script, &copy]));
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    assert_eq!(done.stdout, format!("600 {0}700 {0}0\n0\n", user), "{done:?}");
    let seen = host.json(&["inspect", &copy]);
    assert_eq!((seen["subject"].as_str(), seen["lifetime"].as_i64()), (Some("system:serviceaccount:cicd:bot"), Some(3600)));
    assert!(!done.stderr.contains("eyJ"));
}

#[test]
fn a_target_brings_its_settings_and_flags_replace_them() {
    let host = host();
    let script = ["--env", "JWT", "--", "sh", "-c", "test \"$JWT\" = \"$(cat \"$TOKENFERRY_TOKEN_FILE\")\" && printf %s \"$JWT\""];
    for (flags, audience, lifetime) in [(&[][..], "own", 3600), (&["--audience", "other", "--duration", "20s"], "other", 20)] {
        let done = run(&host, &[&["--target", "ci"], flags, &script].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        let token = host.write("copy", &done.stdout);
        let seen = host.json(&["inspect", token.to_str().unwrap()]);
        assert_eq!((seen["audiences"][0].as_str(), seen["lifetime"].as_i64()), (Some(audience), Some(lifetime)));
    }
}

#[test]
fn codes_are_the_commands_own_or_say_what_kept_it_from_running() {
    let host = host();
    let plain = host.write("no-program", "x").display().to_string();
    for (command, code) in [
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["true"], 0),
        (vec!["sh", "-c", "kill -9 $$"], 137),
        (vec!["./no-such-command"], 127),
        (vec!["no-such-command"], 127),
        (vec![&plain], 126),
    ] {
        let done = run(&host, &trial(&[&["--"], &command[..]].concat()));
        assert_eq!(done.code, Some(code), "{command:?}: {done:?}");
    }
    for (arguments, code) in [
        (vec!["cicd/bot", "--kubeconfig", "/nonexistent", "--", "true"], 125),
        // No token is minted for a command that is not there.
        (vec!["cicd/bot", "--kubeconfig", "/nonexistent", "--", "./no-such-command"], 127),
        (vec!["cicd/bot", "--kubeconfig", "/nonexistent", "--", "no-such-command"], 127),
        (vec!["cicd/bot", "--cluster", "trial", "--duration", "5s", "--", "true"], 125),
        (vec!["cicd/bot", "--cluster", "none", "--", "true"], 2),
        (vec!["--target", "none", "--", "true"], 2),
        (vec!["--target", "ci", "--cluster", "trial", "--", "true"], 2),
        (vec!["cicd/bot", "--cluster", "trial"], 2),
        (vec!["cicd/bot", "--cluster", "trial", "--env", "1X", "--", "true"], 2),
        (vec!["cicd/bot", "--cluster", "trial", "--with-kubeconfig", "--", "true"], 2),
    ] {
        let done = run(&host, &arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}: {done:?}");
        assert!(!done.stderr.is_empty(), "{arguments:?}");
    }
    assert_eq!(rooms(&host), Vec::<PathBuf>::new());
}

#[test]
fn a_command_that_outlives_its_token_finds_the_next_one_in_the_same_file() {
    let host = host();
    let script = "first=$(cat \"$TOKENFERRY_TOKEN_FILE\"); while now=$(cat \"$TOKENFERRY_TOKEN_FILE\"); do
        [ -n \"$now\" ] || exit 3; [ \"$now\" = \"$first\" ] || break; sleep 0.1; done; printf '%s %s' \"$first\" \"$now\"";
    let done = run(&host, &trial(&["--duration", "10s", "--", "sh", "-c", script]));
    assert_eq!(done.code, Some(0), "{done:?}");
    let (first, second) = done.stdout.split_once(' ').unwrap();
    let issued = |text: &str| {
        let file = host.write("copy", text);
        host.json(&["inspect", file.to_str().unwrap()])["issuedAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
    };
    let apart = issued(second) - issued(first);
    assert!((7..=9).contains(&apart), "replaced after {apart} s of 10");
}

#[test]
fn signals_go_to_the_command_and_its_end_comes_back() {
    let host = host();
    for (signal, ending, code) in [
        (rustix::process::Signal::TERM, "trap 'exit 5' TERM", 5),
        (rustix::process::Signal::INT, "trap 'exit 6' INT", 6),
        (rustix::process::Signal::USR1, "trap 'exit 8' USR1", 8),
        (rustix::process::Signal::HUP, ":", 129),
    ] {
        let ready = host.path("ready");
        let script = format!("{ending}; : > \"$0\"; while :; do sleep 0.05; done");
        // A session of its own, so that no terminal of the test's is in the way.
        let mut command = Command::new("setsid");
        let inner = exec(&host, &trial(&["--", "sh", "-c", &script, ready.to_str().unwrap()]));
        command.arg("-w").arg(inner.get_program()).args(inner.get_args()).env("XDG_RUNTIME_DIR", host.path("run"));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until("the command runs", 30, || ready.exists());
        let room = rooms(&host).pop().expect("a room while it runs");
        let pid: i32 = room.file_name().unwrap().to_str().unwrap().split('-').nth(3).unwrap().parse().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal:?}");
        assert_eq!(rooms(&host), Vec::<PathBuf>::new());
        std::fs::remove_file(&ready).unwrap();
    }
}

#[test]
fn what_a_kill_leaves_is_swept_by_the_next_run() {
    let host = host();
    let script = "echo $$; exec sleep 60";
    let mut child = exec(&host, &trial(&["--", "sh", "-c", script])).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let left = rooms(&host);
    assert_eq!(left.len(), 1);
    // While it lives no other run touches its room.
    assert_eq!(run(&host, &trial(&["--", "true"])).code, Some(0));
    assert_eq!(rooms(&host), left);
    child.kill().unwrap();
    child.wait().unwrap();
    let orphan = rustix::process::Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(orphan, rustix::process::Signal::KILL).unwrap();
    assert_eq!(rooms(&host), left);
    assert_eq!(run(&host, &trial(&["--", "true"])).code, Some(0));
    assert_eq!(rooms(&host), Vec::<PathBuf>::new());
}

#[test]
fn when_the_token_dies_is_said_once_and_only_where_there_is_one() {
    let host = host();
    let plain = host.write("no-program", "x").display().to_string();
    for (command, times) in [(vec!["true"], 1), (vec!["sh", "-c", "exit 9"], 1), (vec![plain.as_str()], 1), (vec!["no-such-command"], 0)] {
        let done = run(&host, &trial(&[&["--duration", "1h", "--"], &command[..]].concat()));
        assert_eq!(done.stderr.matches("a copy would be good until").count(), times, "{command:?}: {done:?}");
        assert!(times == 0 || done.stderr.contains("(in 59m") || done.stderr.contains("(in 1h"), "{done:?}");
    }
}

#[test]
fn a_folder_on_a_disk_is_passed_over_for_one_in_memory() {
    let host = host();
    let disk = tempfile::Builder::new().prefix("tokenferry-disk-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command =
        exec(&host, &trial(&["--", "sh", "-c", "printf %s \"$TOKENFERRY_TOKEN_FILE\"; stat -f -c ' %T' \"$TOKENFERRY_TOKEN_FILE\""]));
    command.env("XDG_RUNTIME_DIR", disk.path());
    let done = finish(command, Duration::from_secs(60));
    let (place, kind) = done.stdout.trim_end().rsplit_once(' ').unwrap_or_else(|| panic!("{done:?}"));
    assert_eq!((done.code, kind), (Some(0), "tmpfs"), "{done:?}");
    assert!(place.starts_with("/run/user/") || place.starts_with("/dev/shm/"), "{place}");
    assert!(!std::path::Path::new(place).exists());
    assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0);
}

#[test]
fn the_commands_own_words_and_input_pass_through_untouched() {
    let host = host();
    let mut command = exec(&host, &trial(&["--", "sh", "-c", "cat; printf '%s|' \"$@\"; echo err >&2", "sh", "--target", "-h", "a  b"]));
    let input = host.write("input", "from stdin|");
    command.stdin(std::fs::File::open(input).unwrap());
    let done = finish(command, Duration::from_secs(60));
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "from stdin|--target|-h|a  b|"), "{done:?}");
    assert!(done.stderr.starts_with("err\n"), "{done:?}");
}

#[test]
fn the_commands_files_have_the_callers_umask() {
    let host = host();
    let made = host.path("made");
    let inner = exec(&host, &trial(&["--", "touch", made.to_str().unwrap()]));
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 0022; exec \"$0\" \"$@\""])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("XDG_RUNTIME_DIR", host.path("run"));
    assert_eq!(finish(command, Duration::from_secs(30)).code, Some(0));
    assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o644);
}
