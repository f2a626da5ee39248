//! Named readers by POSIX ACL, on files and directories, beside default ACLs of their folders.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::daemon::{Host, tool};
use crate::support::until;

fn schedule(place: &str) -> String {
    format!(
        "clusters: {{trial: {{embedded: {{}}}}}}\ntargets:\n- {{name: ci, cluster: trial, serviceAccount: cicd/bot, duration: 1h, deliver: [{place}]}}\n"
    )
}

/// As a program of that user and group reads it; the standard library drops all other groups.
fn reads(path: &Path, uid: u32, gid: u32) -> bool {
    let mut command = Command::new("cat");
    command.arg(path).current_dir("/").uid(uid).gid(gid);
    command.output().unwrap().status.success()
}

fn acl(path: &Path) -> String {
    tool(Command::new("getfacl").args(["--omit-header", "--numeric", "--absolute-names"]).arg(path))
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn ready(test: &str, host: &Host) -> bool {
    let root = rustix::process::geteuid().is_root();
    let probe = host.write("probe", "");
    let acls = Command::new("setfacl").args(["-m", "u:4711:r"]).arg(probe).output().is_ok_and(|o| o.status.success());
    if !root || !acls {
        let _ = std::io::stderr().write_all(format!("\nNOT RUN: {test}: needs root, setfacl and a file system with ACLs\n").as_bytes());
    }
    std::fs::set_permissions(host.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    root && acls
}

#[test]
fn readers_and_nobody_else_read_a_file_whatever_its_mode() {
    let host = Host::new(&schedule("{file: {path: HERE/out/token, readers: [\"user:4711\", \"group:4712\"]}}"));
    if !ready("readers_and_nobody_else_read_a_file_whatever_its_mode", &host) {
        return;
    }
    assert_eq!(host.run(&["once"]).code, Some(0));
    let token = host.path("out/token");
    assert_eq!(acl(&token), "user::rw- user:4711:r-- group::--- group:4712:r-- mask::r-- other::---");
    assert!(reads(&token, 4711, 99) && reads(&token, 99, 4712));
    assert!(!reads(&token, 99, 99) && !reads(&token, 99, 0), "the mode 0600 holds for all others, the group among them");
}

#[test]
fn a_default_acl_of_the_folder_neither_adds_readers_nor_shuts_them_out() {
    let host = Host::new(&schedule("{file: {path: HERE/out/token, readers: [\"user:4711\"]}}"));
    if !ready("a_default_acl_of_the_folder_neither_adds_readers_nor_shuts_them_out", &host) {
        return;
    }
    tool(Command::new("setfacl").args(["-d", "-m", "u:4999:rw,m::---"]).arg(host.path("out")));
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert_eq!(acl(&host.path("out/token")), "user::rw- user:4711:r-- group::--- mask::r-- other::---");
    assert!(reads(&host.path("out/token"), 4711, 99) && !reads(&host.path("out/token"), 4999, 99));
}

#[test]
fn without_readers_a_default_acl_counts_as_the_mode_allows_and_a_conflict_is_told() {
    let host = Host::new(&schedule("{file: {path: HERE/out/token, mode: \"0640\"}}, {file: {path: HERE/out/shut}}"));
    if !ready("without_readers_a_default_acl_counts_as_the_mode_allows_and_a_conflict_is_told", &host) {
        return;
    }
    tool(Command::new("setfacl").args(["-d", "-m", "u:4711:r"]).arg(host.path("out")));
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert!(reads(&host.path("out/token"), 4711, 99) && !reads(&host.path("out/shut"), 4711, 99));
    let again = host.run(&["once"]);
    assert_eq!(
        (again.code, host.records_of("rotated", "ci").len(), host.records_of("paid", "ci").len()),
        (Some(0), 1, 0),
        "it is right as it is"
    );
    assert!(again.stderr.contains("names readers whom the mode 0600 shuts out"), "{}", again.stderr);
}

#[test]
fn an_acl_that_somebody_changes_is_put_right_without_a_new_mint() {
    let mut host = Host::new(&schedule("{file: {path: HERE/out/token, readers: [\"user:4711\"]}}, {file: {path: HERE/out/plain}}"));
    if !ready("an_acl_that_somebody_changes_is_put_right_without_a_new_mint", &host) {
        return;
    }
    host.start();
    until("it is delivered", 30, || host.records_of("rotated", "ci").len() == 1);
    let (token, right) = (host.path("out/token"), acl(&host.path("out/token")));
    tool(Command::new("setfacl").args(["-m", "u:4999:rw"]).arg(&token));
    until("the readers are as wished", 60, || acl(&token) == right);
    tool(Command::new("setfacl").args(["-b"]).arg(&token));
    until("the readers are back", 60, || acl(&token) == right);
    tool(Command::new("setfacl").args(["-m", "u:4999:r"]).arg(host.path("out/plain")));
    until("nobody reads what nobody was named for", 60, || !reads(&host.path("out/plain"), 4999, 99));
    assert_eq!(host.records_of("rotated", "ci").len(), 1);
}

#[test]
fn readers_read_every_file_of_a_directory() {
    let host =
        Host::new(&schedule("{directory: {path: HERE/out/ci, readers: [\"user:4711\"], files: {token: raw, namespace: namespace}}}"));
    if !ready("readers_read_every_file_of_a_directory", &host) {
        return;
    }
    assert_eq!(host.run(&["once"]).code, Some(0));
    for name in ["token", "namespace"] {
        let path = host.path("out/ci").join(name);
        assert!(reads(&path, 4711, 99) && !reads(&path, 99, 99), "{name}");
    }
}

#[test]
fn a_file_system_without_acls_is_told_and_nothing_is_published() {
    let host = Host::new(&schedule("{file: {path: HERE/out/ram/token, readers: [\"user:4711\"]}}"));
    if !ready("a_file_system_without_acls_is_told_and_nothing_is_published", &host) {
        return;
    }
    let ram = host.path("out/ram");
    std::fs::create_dir(&ram).unwrap();
    // ramfs knows no extended attributes.
    if !Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(&ram).status().unwrap().success() {
        let _ = std::io::stderr().write_all(b"\nNOT RUN: a_file_system_without_acls_is_told_and_nothing_is_published: cannot mount\n");
        return;
    }
    let done = host.run(&["once"]);
    let left = std::fs::read_dir(&ram).unwrap().count();
    tool(Command::new("umount").arg(&ram));
    assert_eq!((done.code, left), (Some(1), 0), "{done:?}");
    let told = host.records_of("failed", "ci")[0]["sinks"][0]["error"].as_str().unwrap().to_owned();
    assert!(told.contains("keeps no ACLs, so `readers` cannot be set there"), "{told}");
}
