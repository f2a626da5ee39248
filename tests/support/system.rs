//! A real systemd in a Debian tree, booted in namespaces of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::daemon::{PROGRAM, tool};
use crate::shipped::{bare, root};

/// A booted system.
pub struct System {
    folder: PathBuf,
}

fn script() -> Command {
    Command::new(root().join("tests/boot/boot"))
}

impl System {
    /// Boots a system whose folder has that name; nothing of ours is in it yet. `None` where this host cannot, which is
    /// said; every other failure is one of the tests.
    pub fn boot(name: &str) -> Option<Self> {
        Self::begin("start", None, name)
    }

    /// Boots one in a container of systemd-nspawn, whose filter of system calls knows no Landlock.
    pub fn nspawn(name: &str) -> Option<Self> {
        Self::begin("nspawn", None, name)
    }

    /// Boots that suite of Debian.
    pub fn of_suite(suite: &str, name: &str) -> Option<Self> {
        Self::begin("start", Some(suite), name)
    }

    fn begin(how: &str, suite: Option<&str>, name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("NOT RUN: a systemd cannot be booted: that needs root");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("tokenferry-{name}-{}", std::process::id()));
        let owner = std::process::id().to_string();
        for command in [script().arg("install"), script().arg(how).arg(&folder).args(["--owner", &owner])] {
            let done = command.envs(suite.map(|suite| ("TOKENFERRY_BOOT_SUITE", suite))).output().unwrap();
            if done.status.code() == Some(77) {
                println!("NOT RUN: a systemd cannot be booted on this host: {}", String::from_utf8_lossy(&done.stderr));
                return None;
            }
            assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Some(Self { folder })
    }

    /// Installs the program and its units as `systemd/install` does, and makes the users of the tests.
    pub fn install(&self) {
        let release = tempfile::tempdir().unwrap();
        std::fs::create_dir(release.path().join("release")).unwrap();
        std::fs::copy(PROGRAM, release.path().join("release/tokenferry")).unwrap();
        let mut install = Command::new(root().join("systemd/install"));
        tool(bare(&mut install).env("CARGO_TARGET_DIR", release.path()).env("DESTDIR", self.path("/")));
        for command in [&["systemd-sysusers"][..], &["systemd-tmpfiles", "--create", "tokenferry.conf"], &["systemctl", "daemon-reload"]] {
            self.done(command);
        }
        self.done(&["groupadd", "ci"]);
        for (name, group) in [("reader", "ci"), ("stranger", "nogroup"), ("admin", "tokenferry-admin")] {
            self.done(&["useradd", "--groups", group, name]);
        }
    }

    /// Ends it; one that is never told to ends with this process.
    pub fn end(self) {
        tool(script().arg("stop").arg(&self.folder));
    }

    /// Back to the state after the installation.
    pub fn clean(&self) {
        self.run(&["systemctl", "stop", "tokenferry", "tokenferry@edge", "tokenferry-once@edge.timer"]);
        self.run(&["systemctl", "reset-failed"]);
        let left = "/etc/tokenferry /var/lib/tokenferry* /run/tokenferry* /secure /srv/open /etc/systemd/system/tokenferry*.d";
        let more = "/etc/tmpfiles.d/tokenferry-schedule.conf /etc/tmpfiles.d/tokenferry-ci.conf /etc/polkit-1/rules.d/50-tokenferry.rules";
        self.done(&["sh", "-c", &format!("rm -rf {left} {more}; systemd-tmpfiles --create tokenferry.conf; systemctl daemon-reload")]);
    }

    /// A file of the system as this host sees it; not under /run and /tmp, which are the system's own.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.join("root").join(inside.trim_start_matches('/'))
    }

    /// Writes a file of the system.
    pub fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Runs a command in the system, as its root.
    pub fn run(&self, command: &[&str]) -> Output {
        script().arg("run").arg(&self.folder).args(command).output().unwrap()
    }

    /// Runs a command, which has to succeed.
    pub fn done(&self, command: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(command);
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}\n{}", self.journal(&["-n", "40"]));
        stdout.into_owned()
    }

    /// What journalctl has of the service.
    pub fn journal(&self, arguments: &[&str]) -> String {
        self.journal_of("tokenferry", arguments)
    }

    /// What journalctl has of a unit.
    pub fn journal_of(&self, unit: &str, arguments: &[&str]) -> String {
        let run = self.run(&[&["journalctl", "--no-pager", "-u", unit], arguments].concat());
        String::from_utf8_lossy(&run.stdout).into_owned()
    }

    /// A drop-in of the service, in force from its next start on.
    pub fn drop_in(&self, name: &str, text: &str) {
        self.write(&format!("/etc/systemd/system/tokenferry.service.d/{name}.conf"), &format!("[Service]\n{text}\n"));
        self.done(&["systemctl", "daemon-reload"]);
    }

    /// The name of its control group on this host, which all its processes are below.
    pub fn group(&self) -> String {
        let path = std::fs::read_to_string(self.folder.join("cgroup")).unwrap();
        path.trim().rsplit('/').next().unwrap().to_owned()
    }

    /// A property of the service.
    pub fn show(&self, property: &str) -> String {
        self.done(&["systemctl", "show", "--value", "-p", property, "tokenferry"]).trim().to_owned()
    }

    /// What `status` shows; null where it shows nothing.
    pub fn status(&self) -> Value {
        let run = self.run(&["tokenferry", "status", "-o", "json"]);
        serde_json::from_slice(&run.stdout).unwrap_or(Value::Null)
    }

    /// How many records there are of that kind.
    pub fn records(&self, kind: &str) -> usize {
        let run = self.run(&["tokenferry", "records", "--kind", kind, "-o", "json"]);
        String::from_utf8_lossy(&run.stdout).lines().filter(|line| line.contains(&format!("\"kind\":\"{kind}\""))).count()
    }
}
