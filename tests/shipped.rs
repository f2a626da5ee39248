//! What a user starts from works as it stands: the quickstart, every example, the rights in the cluster, the unit.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::daemon::{Done, Host, PROGRAM, finish, tool};
use crate::support::servers::cluster;
use crate::support::until;

/// The repository.
pub fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Takes away what `cargo test` set, so that a command runs as from a shell.
pub fn bare(command: &mut Command) -> &mut Command {
    let names = std::env::vars().map(|(name, _)| name);
    for name in
        names.filter(|n| n.starts_with("CARGO") && !matches!(n.as_str(), "CARGO_HOME" | "CARGO_TARGET_DIR") || n.starts_with("TOKENFERRY"))
    {
        command.env_remove(name);
    }
    command.env_remove("LD_LIBRARY_PATH").stdin(Stdio::null())
}

fn schedules() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "yaml") && !path.ends_with("rbac.yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_example_is_checked_without_a_warning() {
    let files = schedules();
    assert!(files.len() >= 5, "only {} examples found: {files:?}", files.len());
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--strict"]).args(&files);
    let done = finish(command, Duration::from_secs(60));
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn every_example_is_named_by_the_readme_or_the_quickstart() {
    let text = ["README.md", "examples/quickstart"].map(|file| std::fs::read_to_string(root().join(file)).unwrap()).concat();
    let unnamed: Vec<PathBuf> = schedules().into_iter().filter(|f| !text.contains(&*f.file_name().unwrap().to_string_lossy())).collect();
    assert!(unnamed.is_empty(), "nobody finds {unnamed:?}");
}

fn quickstart(folder: &Path, rotations: &str) -> Command {
    let mut command = Command::new(root().join("examples/quickstart"));
    command.arg(folder).arg(rotations);
    bare(&mut command).env("CARGO_TARGET_DIR", Path::new(PROGRAM).ancestors().nth(2).unwrap());
    command
}

fn records(folder: &Path) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(folder.join("state/records")).unwrap().map(|e| e.unwrap().path());
    let texts = files.filter(|f| f.extension().is_some_and(|e| e == "jsonl")).map(|f| std::fs::read_to_string(f).unwrap());
    texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect()
}

fn rotated(folder: &Path, target: &str) -> BTreeSet<String> {
    let lines = records(folder).into_iter().filter(|l| l["kind"] == "rotated" && l["target"] == target);
    lines.map(|l| l["jti"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_quickstart_shows_tokens_that_openssl_accepts_and_a_second_run_mints_no_fresh_one() {
    let folder = tempfile::tempdir().unwrap();
    let done: Done = finish(quickstart(folder.path(), "2"), Duration::from_secs(1800));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.stdout.matches("tokens/clock: a new token; openssl: Verified OK").count(), 2, "{}", done.stdout);
    assert!(done.stderr.contains("every token is fresh"), "{}", done.stderr);
    assert!(rotated(folder.path(), "clock").len() >= 3);
    let deployer = rotated(folder.path(), "deployer");
    assert_eq!(deployer.len(), 1);
    let again = finish(quickstart(folder.path(), "0"), Duration::from_secs(300));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(rotated(folder.path(), "deployer"), deployer);
    let token = std::fs::read_to_string(folder.path().join("tokens/deployer")).unwrap();
    for text in [done.stdout, done.stderr, again.stdout, again.stderr] {
        assert!(!text.contains("eyJhbGci"), "a token was shown:\n{text}");
        assert!(!text.contains(token.rsplit('.').next().unwrap()), "a signature was shown:\n{text}");
    }
}

#[test]
fn the_quickstart_leaves_no_process_behind_when_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = quickstart(folder.path(), "100").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("a new token")), "no token was shown");
    let signal = rustix::process::Signal::INT;
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    until("the quickstart ends", 30, || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let lock = std::fs::File::open(folder.path().join("state/records/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("no daemon holds the records");
}

#[test]
fn a_forged_token_is_not_verified() {
    let folder = tempfile::tempdir().unwrap();
    let done = finish(quickstart(folder.path(), "0"), Duration::from_secs(1800));
    assert_eq!(done.code, Some(0), "{done:?}");
    let verify = |file: &Path| {
        let mut command = Command::new(root().join("examples/verify-token"));
        command.arg(file).arg(folder.path().join("state/embedded/trial/jwks.json"));
        finish(command, Duration::from_secs(20)).code
    };
    let token = folder.path().join("tokens/deployer");
    assert_eq!(verify(&token), Some(0));
    let text = std::fs::read_to_string(&token).unwrap();
    let (signed, _) = text.rsplit_once('.').unwrap();
    let other = std::fs::read_to_string(folder.path().join("tokens/clock")).unwrap();
    let forged = folder.path().join("forged");
    std::fs::write(&forged, format!("{signed}.{}", other.rsplit_once('.').unwrap().1)).unwrap();
    assert_eq!(verify(&forged), Some(1));
}

#[test]
fn the_example_of_rights_lets_the_daemon_mint_for_the_named_account_and_do_nothing_else() {
    let servers = cluster();
    let kube = servers.kube();
    servers.kubectl(&["apply", "-f", &root().join("examples/rbac.yaml").display().to_string()]);
    let may = |verb: &str, what: &str, subresource: &str| {
        let account = "--as=system:serviceaccount:tokenferry:tokenferry";
        let mut command = Command::new(&kube.kubectl);
        command.arg("--kubeconfig").arg(&kube.admin_kubeconfig);
        command.args(["auth", "can-i", verb, what, subresource, "--namespace", "cicd", account]);
        finish(command, Duration::from_secs(60)).stdout.trim() == "yes"
    };
    assert!(may("create", "serviceaccounts/cicd-deployer", "--subresource=token"));
    assert!(!may("create", "serviceaccounts/builder", "--subresource=token"));
    assert!(!may("get", "serviceaccounts/cicd-deployer", "--subresource="));
    assert!(!may("get", "secrets", "--subresource="));
    assert!(!may("create", "pods", "--subresource="));

    let host = Host::new(
        "clusters: {real: {kubeconfig: kubeconfig}}\n\
         defaults: {cluster: real, duration: 1h}\n\
         targets:\n\
         - {name: named, serviceAccount: cicd/cicd-deployer, deliver: [{file: {path: HERE/out/named}}]}\n\
         - {name: unnamed, serviceAccount: cicd/builder, deliver: [{file: {path: HERE/out/unnamed}}]}\n",
    );
    let token = servers.kubectl(&["create", "token", "tokenferry", "--namespace", "tokenferry"]);
    host.write("token", token.trim());
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],\n\
         clusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority: {}}}}}], users: [{{name: u, user: {{tokenFile: token}}}}]}}\n",
        kube.server,
        kube.ca.display()
    );
    host.write("kubeconfig", &kubeconfig);
    let done = host.run(&["once"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(host.records_of("rotated", "named").len(), 1, "{done:?}");
    let refused = host.records_of("failed", "unnamed");
    assert!(refused.iter().any(|l| l["error"].as_str().is_some_and(|e| e.contains("resourceNames [builder]"))), "{refused:?}");
}

/// A unit of ours with the program where it is, and lines of drop-ins after it.
fn unit(folder: &Path, name: &str, more: &str) -> PathBuf {
    let unit = folder.join(name);
    let text = std::fs::read_to_string(root().join("systemd").join(name)).unwrap();
    // verify wants the program to be there.
    std::fs::write(&unit, text.replace("/usr/local/bin/tokenferry", PROGRAM)).unwrap();
    if !more.is_empty() {
        let drop_ins = folder.join(format!("{name}.d"));
        std::fs::create_dir_all(&drop_ins).unwrap();
        std::fs::write(drop_ins.join("50-site.conf"), more).unwrap();
    }
    unit
}

/// How open systemd finds it: 0 is all shut, 10 is open.
fn exposure(unit: &Path) -> f64 {
    let report = tool(Command::new("systemd-analyze").args(["security", "--offline=yes", "--no-pager"]).arg(unit));
    let verdict = report.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
    println!("{verdict}");
    verdict.rsplit(": ").next().and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a score")
}

/// systemd's own reading of units.
fn verify(units: &[PathBuf]) {
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args(units);
    let done = finish(verify, Duration::from_secs(60));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn the_units_are_right_and_well_shut() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenferry.service", "tokenferry@.service", "tokenferry-once@.service"] {
        let unit = unit(folder.path(), name, "");
        let shown = if name.contains('@') { folder.path().join(name.replace('@', "@site")) } else { unit.clone() };
        if shown != unit {
            std::fs::copy(&unit, &shown).unwrap();
        }
        verify(&[shown]);
        let score = exposure(&unit);
        assert!(score <= 1.1, "{name}: {score}");
    }
    let addresses = std::fs::read_to_string(root().join("systemd/drop-ins/addresses.conf")).unwrap();
    let other = tempfile::tempdir().unwrap();
    let score = exposure(&unit(other.path(), "tokenferry.service", &addresses));
    assert!(score <= 1.0, "with the addresses named: {score}");
}

#[test]
fn a_schedule_with_groups_and_readers_opens_the_unit_by_no_more_than_it_must() {
    let target = |place: &str| {
        let host = Host::new(&format!(
            "clusters: {{trial: {{embedded: {{}}}}}}\ntargets: [{{name: a, cluster: trial, serviceAccount: ci/a, duration: 1h, deliver: [{{file: {place}}}]}}]\n"
        ));
        let drop_in = host.json(&["host"])["unit"].as_str().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        exposure(&unit(folder.path(), "tokenferry.service", &drop_in))
    };
    for place in
        ["{path: /run/tokenferry/a/t, mode: \"0640\", group: daemon}", "{path: /secure/t, readers: [\"user:nobody\"]}", "{path: /secure/t}"]
    {
        let score = target(place);
        assert!(score <= 1.3, "{place}: {score}");
    }
}

#[test]
fn units_of_several_instances_are_shut_as_the_one_is() {
    let hardening = |name: &str| -> BTreeSet<String> {
        let text = std::fs::read_to_string(root().join("systemd").join(name)).unwrap();
        let lines = text.lines().skip_while(|line| !line.starts_with("AmbientCapabilities=")).take_while(|line| *line != "[Install]");
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let one = hardening("tokenferry.service");
    assert!(one.len() > 30, "{one:?}");
    for other in ["tokenferry@.service", "tokenferry-once@.service"] {
        assert_eq!(hardening(other), one, "{other}");
    }
}

#[test]
fn the_units_of_the_monthly_report_are_what_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["service", "timer"] {
        let text = std::fs::read_to_string(root().join("systemd/tokenferry-report").with_extension(part)).unwrap();
        std::fs::write(folder.path().join("tokenferry-report").with_extension(part), text.replace("/usr/local/bin/tokenferry", PROGRAM))
            .unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    let file = |part: &str| folder.path().join("tokenferry-report").with_extension(part);
    verify.args(["verify", "--man=no"]).args([file("service"), file("timer")]);
    let done = finish(verify, Duration::from_secs(60));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn the_units_of_the_example_without_hooks_are_what_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["path", "service"] {
        std::fs::copy(root().join("examples/hooks").with_extension(part), folder.path().join("ci-token").with_extension(part)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(folder.path().join("ci-token.path")).arg(folder.path().join("ci-token.service"));
    let done = finish(verify, Duration::from_secs(60));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn the_installer_puts_all_files_in_place_for_a_package() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("release")).unwrap();
    std::fs::copy(PROGRAM, folder.path().join("release/tokenferry")).unwrap();
    let mut install = Command::new(root().join("systemd/install"));
    bare(&mut install).env("CARGO_TARGET_DIR", folder.path()).env("DESTDIR", folder.path().join("package"));
    let done = finish(install, Duration::from_secs(60));
    assert_eq!(done.code, Some(0), "{done:?}");
    for (file, mode) in [
        ("usr/local/bin/tokenferry", 0o755),
        ("etc/systemd/system/tokenferry.service", 0o644),
        ("etc/systemd/system/tokenferry-report.service", 0o644),
        ("etc/systemd/system/tokenferry-report.timer", 0o644),
        ("etc/sysusers.d/tokenferry.conf", 0o644),
        ("etc/tmpfiles.d/tokenferry.conf", 0o644),
    ] {
        let path = folder.path().join("package").join(file);
        let found = std::fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }
}
