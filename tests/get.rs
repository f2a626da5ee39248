//! `get`: the newest valid token, or a clear word and nothing on stdout.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::daemon::{Host, PROGRAM, finish, tool};
use crate::support::servers::cluster;

const TWO_PLACES: &str = "clusters: {trial: {embedded: {}}}
targets:
- name: ci
  cluster: trial
  serviceAccount: cicd/bot
  duration: 1h
  deliver:
  - file: {path: HERE/out/token}
  - file: {path: HERE/out/token.env, format: {env: {name: T}}}
    fallback: [{file: {path: HERE/out/spare}}]
";

/// A token that nobody signed, with these times.
fn forged(iat: i64, exp: i64) -> String {
    let (header, claims) =
        (URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{iat},"exp":{exp}}}"#)));
    format!("{header}.{claims}.c2ln")
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[test]
fn a_targets_token_comes_bare_with_its_place_and_times_on_request() {
    let host = Host::new(TWO_PLACES);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let done = host.run(&["get", "ci"]);
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(0), host.read("out/token").as_str(), ""));
    assert!(!done.stdout.ends_with('\n'), "a newline would be sent along");
    let place = host.run(&["get", "--path", "ci"]);
    assert_eq!(place.stdout, format!("{}\n", host.path("out/token").display()));
    let told = host.json(&["get", "ci"]);
    assert_eq!((told["token"].as_str(), told["path"].as_str()), (Some(done.stdout.as_str()), host.path("out/token").to_str()));
    let time = |key: &str| told[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    assert_eq!(time("expiresAt") - time("issuedAt"), 3600);
}

#[test]
fn a_newer_token_in_the_fallback_wins_and_an_expired_one_never_does() {
    let host = Host::new(TWO_PLACES);
    assert_eq!(host.run(&["once"]).code, Some(0));
    std::fs::write(host.path("out/spare"), forged(now() + 5, now() + 60)).unwrap();
    assert_eq!(host.run(&["get", "--path", "ci"]).stdout, format!("{}\n", host.path("out/spare").display()));
    std::fs::write(host.path("out/spare"), forged(now() + 5, now())).unwrap();
    assert_eq!(host.run(&["get", "--path", "ci"]).stdout, format!("{}\n", host.path("out/token").display()));
    std::fs::remove_file(host.path("out/token")).unwrap();
    let from_env = host.run(&["get", "ci"]);
    assert_eq!(format!("T={}\n", from_env.stdout), host.read("out/token.env"));
}

#[test]
fn a_consumer_needs_neither_daemon_nor_a_good_schedule_once_there_were_some() {
    let mut host = Host::new(TWO_PLACES);
    host.start();
    assert_eq!(host.run(&["get", "ci"]).stdout, host.read("out/token"), "by the daemon");
    // It tells places, all of them and in order, and no tokens.
    let socket = host.path("control.sock");
    let ask = |query: &str| {
        tool(Command::new("curl").args(["-sS", "--unix-socket"]).arg(&socket).arg(format!("http://tokenferry/places{query}")))
    };
    let files = ["token", "token.env", "spare"].map(|name| host.path(&format!("out/{name}")));
    assert_eq!(serde_json::from_str::<Value>(&ask("?target=ci")).unwrap(), serde_json::json!({"target": "ci", "files": files}));
    assert!(ask("?target=nobody").contains("error") && ask("").contains("name one target"));
    // The index beside the records names the places: for everyone, and while the schedule is broken.
    let index = host.path("state/records-places.jsonl");
    assert_eq!(std::fs::metadata(&index).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(host.stop(), Some(0));
    let text = host.read("schedule.yaml");
    std::fs::write(host.schedule(), format!("{text}  broken: [\n")).unwrap();
    assert_eq!(host.run(&["get", "ci"]).stdout, host.read("out/token"), "by the index");
    std::fs::remove_file(&index).unwrap();
    let refused = host.run(&["get", "ci"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    std::fs::write(host.schedule(), text).unwrap();
    assert_eq!(host.run(&["get", "ci"]).stdout, host.read("out/token"), "by the schedule");
}

#[test]
fn a_reload_moves_the_places_in_the_index_too() {
    let mut host = Host::new(TWO_PLACES);
    host.start();
    host.write_schedule(&TWO_PLACES.replace("HERE/out/token}", "HERE/out/moved}"));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    assert!(host.read("state/records-places.jsonl").contains("out/moved"));
}

#[test]
fn a_daemon_that_hangs_holds_no_consumer_up() {
    let mut host = Host::new(TWO_PLACES);
    host.start();
    host.signal(rustix::process::Signal::STOP);
    let begun = Instant::now();
    let done = host.run(&["get", "ci"]);
    host.signal(rustix::process::Signal::CONT);
    assert_eq!(done.stdout, host.read("out/token"));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[test]
fn it_is_fast_enough_to_be_called_for_each_request() {
    let host = Host::new(TWO_PLACES);
    assert_eq!(host.run(&["once"]).code, Some(0));
    let one = |arguments: &[&str]| {
        let begun = Instant::now();
        assert!(host.command(arguments).output().unwrap().status.success());
        begun.elapsed()
    };
    // The least of many, beside that of a call that does nothing: others share the machine.
    let (mut least, mut nothing) = (Duration::MAX, Duration::MAX);
    for _ in 0..30 {
        nothing = nothing.min(one(&["--version"]));
        least = least.min(one(&["get", "ci"]));
    }
    println!("get takes {least:?} as built for tests, {nothing:?} of it to start a process");
    assert!(least < nothing * 3 + Duration::from_millis(20), "{least:?}, and a call that does nothing {nothing:?}");
}

#[test]
fn nothing_valid_is_exit_1_with_every_place_named_and_no_output() {
    let host = Host::new(TWO_PLACES);
    std::fs::write(host.path("out/token"), forged(now() - 7200, now() - 3600)).unwrap();
    std::fs::write(host.path("out/token.env"), "T=hello\n").unwrap();
    let done = host.run(&["get", "ci"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    let expired = format!("{}: expired since {}", host.path("out/token").display(), jiff::Timestamp::from_second(now() - 3600).unwrap());
    for said in ["`ci` has no valid token", &expired[..expired.len() - 4], "token.env: no token in it", "out/spare: does not exist"] {
        assert!(done.stderr.contains(said), "{said}: {}", done.stderr);
    }
}

#[test]
fn files_need_no_schedule_whatever_is_among_them() {
    let host = Host::new("targets: []");
    let fifo = host.path("fifo");
    tool(Command::new("mkfifo").arg(&fifo));
    let good = host.write("good.json", &format!("{{\"token\":\"{}\"}}", forged(now(), now() + 60)));
    let mut command = Command::new(PROGRAM);
    command.args(["--schedule", "/nonexistent.yaml", "get", "--path"]).args([&fifo, &host.path("out"), Path::new("/nonexistent/x"), &good]);
    let done = finish(command, Duration::from_secs(10));
    assert_eq!((done.code, done.stdout), (Some(0), format!("{}\n", good.display())), "{}", done.stderr);
    let mut command = Command::new(PROGRAM);
    command.args(["--schedule", "/nonexistent.yaml", "get"]).args([&fifo, &host.path("out"), Path::new("/nonexistent/x")]);
    let done = finish(command, Duration::from_secs(10));
    assert_eq!((done.code, done.stdout.as_str(), done.stderr.matches("is no regular file").count()), (Some(1), "", 2), "{}", done.stderr);
}

#[test]
fn the_folder_that_a_kubelet_mounts_is_as_good_as_any() {
    let host = Host::new("targets: []");
    // As the kubelet lays it out: TOKEN -> ..data/TOKEN, ..data -> ..TIME.
    let mounted = host.path("serviceaccount");
    std::fs::create_dir_all(mounted.join("..2026_01_31")).unwrap();
    std::fs::write(mounted.join("..2026_01_31/token"), forged(now(), now() + 600)).unwrap();
    std::os::unix::fs::symlink("..2026_01_31", mounted.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/token", mounted.join("token")).unwrap();
    let older = host.write("older", &forged(now() - 60, now() + 6000));
    let get = |files: &[&Path]| {
        let mut command = Command::new(PROGRAM);
        command.args(["--schedule", "/nonexistent.yaml", "get", "--path"]).args(files);
        finish(command, Duration::from_secs(10)).stdout
    };
    let token = mounted.join("token");
    assert_eq!(get(&[&older, &token]), format!("{}\n", token.display()));
    assert_eq!(get(&[&token, &older]), format!("{}\n", token.display()));
    std::fs::write(mounted.join("..2026_01_31/token"), forged(now() - 700, now() - 100)).unwrap();
    assert_eq!(get(&[&token, &older]), format!("{}\n", older.display()));
}

#[test]
fn every_format_that_a_place_may_have_is_read() {
    let formats = ["raw", "json", "execCredential", "{env: {name: KUBE_TOKEN}}"];
    let target = |(number, format): (usize, &&str)| {
        format!(
            "- {{name: t-{number}, cluster: trial, serviceAccount: cicd/bot, duration: 1h, deliver: [{{file: {{path: HERE/out/{number}, format: {format}}}}}]}}\n"
        )
    };
    let targets: String = formats.iter().enumerate().map(target).collect();
    let host = Host::new(&format!("clusters: {{trial: {{embedded: {{}}}}}}\ntargets:\n{targets}"));
    assert_eq!(host.run(&["once"]).code, Some(0));
    for (number, format) in formats.iter().enumerate() {
        let done = host.run(&["get", &format!("t-{number}")]);
        assert!(host.read(&format!("out/{number}")).contains(&done.stdout) && done.stdout.starts_with("eyJ"), "{format}: {done:?}");
    }
}

/// A large schedule that names no place of the daemon's, with the index of it that a daemon leaves, both as a
/// user of the host sees them.
fn fleet(count: usize) -> Host {
    use std::os::unix::fs::MetadataExt;
    let host = Host::new("targets: []");
    std::fs::write(host.path("out/token"), forged(now(), now() + 600)).unwrap();
    let mut text = "version: 1\nclusters: {trial: {embedded: {}}}\ntargets:\n".to_owned();
    let mut names = Vec::new();
    for number in 0..count {
        let file = format!("/run/tokenferry/fleet/{number}/token");
        text += &format!(
            "  - name: t-{number}\n    cluster: trial\n    serviceAccount: ns-{number}/bot\n    duration: 1h\n    deliver:\n      - file: {{path: {file}}}\n"
        );
        names.push((format!("t-{number}"), file));
    }
    std::fs::write(host.schedule(), text).unwrap();
    names[count * 7 / 9].1 = host.path("out/token").display().to_string();
    names.sort();
    let meta = std::fs::metadata(host.schedule()).unwrap();
    let stamp = serde_json::json!({"bytes": meta.len(), "seconds": meta.mtime(), "nanoseconds": meta.mtime_nsec()});
    let mut index = serde_json::json!({"version": 2, "schedule": host.schedule(), "stamp": stamp, "socket": null}).to_string() + "\n";
    for (name, file) in names {
        index += &(format!("{{\"name\":\"{name}\",\"files\":[\"{file}\"]}}") + "\n");
    }
    std::fs::create_dir_all(host.path("xdg/tokenferry")).unwrap();
    std::fs::write(host.path("xdg/tokenferry/records-places.jsonl"), index).unwrap();
    std::fs::set_permissions(host.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    host
}

#[test]
fn among_a_hundred_thousand_targets_none_is_read_but_the_one() {
    use std::os::unix::process::CommandExt;
    let host = fleet(100_000);
    let one = |arguments: &[&str], code: i32| {
        let mut command = host.command(arguments);
        command.env("XDG_STATE_HOME", host.path("xdg")).env("XDG_RUNTIME_DIR", host.path("xdg")).current_dir("/");
        if rustix::process::geteuid().is_root() {
            // The default places of root are the system's, not a test's to write to.
            command.uid(65_534).gid(65_534);
        }
        let begun = Instant::now();
        let done = finish(command, Duration::from_secs(60));
        assert_eq!(done.code, Some(code), "{arguments:?}: {done:?}");
        (begun.elapsed(), done.stdout)
    };
    let get = ["get", "--path", "t-77777"];
    let found = format!("{}\n", host.path("out/token").display());
    let (mut least, mut nothing) = (Duration::MAX, Duration::MAX);
    for _ in 0..20 {
        nothing = nothing.min(one(&["--version"], 0).0);
        let (took, place) = one(&get, 0);
        assert_eq!(place, found);
        least = least.min(took);
    }
    println!("get takes {least:?} among 100,000 targets as built for tests, {nothing:?} of it to start a process");
    assert!(least < nothing * 3 + Duration::from_millis(20), "{least:?}, and a call that does nothing {nothing:?}");
    // Written since, the schedule is looked through for the places of the daemon, and still not planned.
    let text = host.read("schedule.yaml") + "# changed\n  broken: [\n";
    std::fs::write(host.schedule(), text).unwrap();
    let (looked, place) = one(&get, 0);
    assert_eq!(place, found);
    let (called, _) = one(&["reload"], 3);
    println!("with a schedule that was changed {looked:?}, and a reload that finds nobody {called:?}");
}

#[test]
fn a_file_of_another_user_is_not_readable_and_said_to_be() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT RUN: a_file_of_another_user_is_not_readable_and_said_to_be: needs root to act as another user");
        return;
    }
    let host = Host::new("targets: []");
    std::fs::set_permissions(host.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let private = host.write("private", &forged(now(), now() + 60));
    let mut command = Command::new(PROGRAM);
    let done = finish(
        {
            command.arg("get").arg(&private).current_dir("/").uid(65_534).gid(65_534);
            command
        },
        Duration::from_secs(10),
    );
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(done.stderr.contains("private: not readable by this user"), "{}", done.stderr);
}

#[test]
fn names_that_are_neither_target_nor_file_are_bad_usage() {
    let host = Host::new(TWO_PLACES);
    for (arguments, said) in [
        (vec!["get"], "TARGET|FILE"),
        (vec!["get", "nobody"], "no target `nobody`; a file is written with a slash, such as ./nobody"),
        (vec!["get", "Token.txt"], "./Token.txt"),
        (vec!["get", "ci", "./x"], "name one target, or files"),
        (vec!["get", "ci", "--path", "-o", "json"], "cannot be used with"),
    ] {
        let done = host.run(&arguments);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(done.stderr.contains(said), "{arguments:?}: {}", done.stderr);
    }
}

#[test]
fn kubectl_takes_it_as_its_credential_plugin() {
    let kube = cluster().kube();
    let host = Host::new(&format!(
        "clusters: {{real: {{kubeconfig: {}}}}}\ntargets:\n- {{name: ci, cluster: real, serviceAccount: cicd/cicd-deployer, duration: 10m, deliver: [{{file: {{path: HERE/out/token}}}}]}}\n",
        kube.minter_kubeconfig.display()
    ));
    assert_eq!(host.run(&["once"]).code, Some(0));
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": kube.server, "certificate-authority": kube.ca}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": PROGRAM,
            "args": ["--schedule", host.schedule(), "get", "ci", "-o", "execCredential"],
        }}}],
    });
    let path = host.write("kubeconfig", &config.to_string());
    let asked = || {
        let said = tool(Command::new(&kube.kubectl).arg("--kubeconfig").arg(&path).args(["auth", "whoami", "-o", "json"]));
        let user = &serde_json::from_str::<Value>(&said).unwrap()["status"]["userInfo"];
        assert_eq!(user["username"], "system:serviceaccount:cicd:cicd-deployer");
        user["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap().to_owned()
    };
    let before = asked();
    assert_eq!(host.run(&["once", "--force"]).code, Some(0));
    let after = asked();
    let jti = host.json(&["inspect", host.path("out/token").to_str().unwrap()])["jti"].as_str().unwrap().to_owned();
    assert_eq!((before != after, after), (true, format!("JTI={jti}")));
}
