//! The tarball: what is in it, that it installs, and that a program which needs a later libc than promised gets into none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{System, TRIAL, copy};
use crate::shipped::{bare, root};
use crate::support::daemon::{Done, finish, tool};
use crate::support::{tools, until};

/// Packs that program as it stands, for that libc; `None`: for the promised one.
fn packed(program: &Path, glibc: Option<&str>) -> Done {
    let mut build = Command::new(root().join("packaging/build"));
    bare(build.arg("tarball"));
    build.env("PATH", tools::path()).env("PROGRAM", program).env("VERSION", "0.1.0").env("FAST", "1");
    if let Some(glibc) = glibc {
        build.env("GLIBC", glibc);
    }
    finish(build, Duration::from_secs(600))
}

/// Packs a program that is made for the libc of this host, whichever that is.
pub(super) fn pack(program: &Path, folder: &Path) -> PathBuf {
    let done = packed(program, Some("99"));
    assert_eq!(done.code, Some(0), "{done:?}");
    let names = done.stdout.lines().filter_map(|line| Some(line.split_once("  ./")?.1));
    let name = { names }.find(|name| name.starts_with("tokenferry-0.1.0-") && name.ends_with(".tar.gz")).expect("its hash is printed");
    std::fs::rename(root().join("target/package").join(name), folder.join(name)).unwrap();
    folder.join(name)
}

#[test]
fn a_program_that_needs_a_later_libc_than_promised_gets_into_no_tarball() {
    let program = &super::packed().versions[0].program;
    // Rust's own library takes what a libc of 2.34 and later has; cargo-zigbuild is what makes it do without.
    let done = packed(program, None);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("needs GLIBC_2.") && done.stderr.contains("later than 2.28"), "{done:?}");
    let done = packed(program, Some("2.4"));
    assert!(done.code == Some(1) && done.stderr.contains("later than 2.4"), "{done:?}");
}

#[test]
fn the_tarball_holds_the_program_its_service_pages_completions_and_examples_and_installs_them() {
    let tarball = &super::packed().tarball;
    let files = tool(Command::new("tar").arg("-tzf").arg(tarball));
    let name = tarball.file_name().unwrap().to_str().unwrap().strip_suffix(".tar.gz").unwrap();
    let files: BTreeSet<&str> = files.lines().filter(|file| !file.ends_with('/')).map(|file| file.strip_prefix(name).unwrap()).collect();
    let ours = tool(Command::new("find").args(["LICENSE", "README.md", "examples", "systemd", "-type", "f"]).current_dir(root()));
    let made = ["tokenferry", "sbom.cdx.json", "schedule.schema.json", "completions/bash", "completions/zsh", "completions/fish"];
    let pages = ["man/man1/tokenferry-rotate.1.gz", "man/man5/tokenferry-schedule.5.gz", "man/man8/tokenferry.8.gz"];
    for file in ours.lines().chain(made).chain(pages) {
        assert!(files.contains(format!("/{file}").as_str()), "no {file}: {files:?}");
    }
    let known: BTreeSet<&str> = ours.lines().chain(made).collect();
    let more: Vec<&&str> = files.iter().filter(|file| !file.starts_with("/man/") && !known.contains(&file[1..])).collect();
    assert!(more.is_empty(), "and nothing else: {more:?}");

    let Some(system) = System::boot("tarball") else { return };
    copy(&system, tarball, "tokenferry.tar.gz");
    system.done(&["sh", "-ec", &format!("cd /root; tar -xzf tokenferry.tar.gz; {name}/systemd/install")]);
    assert_eq!(system.done(&["tokenferry", "--version"]).trim(), format!("tokenferry {}", env!("CARGO_PKG_VERSION")));
    system.done(&["rm", "-r", &format!("/root/{name}")]);
    for file in [
        "/usr/local/share/bash-completion/completions/tokenferry",
        "/usr/local/share/zsh/site-functions/_tokenferry",
        "/usr/local/share/fish/vendor_completions.d/tokenferry.fish",
        "/usr/local/share/tokenferry/schedule.schema.json",
    ] {
        system.done(&["test", "-s", file]);
    }
    for page in ["tokenferry-rotate.1", "tokenferry-schedule.5", "tokenferry.8"] {
        let (name, section) = page.rsplit_once('.').unwrap();
        assert!(system.done(&["man", section, name]).lines().count() > 10, "{page}");
    }
    system.write("/etc/tokenferry/schedule.yaml", TRIAL);
    system.done(&["systemctl", "enable", "--now", "tokenferry"]);
    until("both are served", 60, || system.records("rotated") == 2);
    system.end();
}
