//! `host`: its files are what systemd and polkit take, and say exactly what the schedule needs.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::daemon::{Host, finish, tool};

const SCHEDULE: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, serviceAccount: ci/bot, duration: 1h}
targets:
  - {name: shipped, deliver: [{file: {path: /run/tokenferry/own}}]}
  - {name: group, deliver: [{file: {path: /run/tokenferry/ci/token, mode: \"0640\", group: ci}}]}
  - {name: outside, deliver: [{file: {path: /secure/app one/token, readers: [user:nobody, group:daemon]}}]}
  - name: owner
    deliver: [{file: {path: /srv/app/token, owner: app}}]
    after: [{systemd: {reloadUnit: nginx.service}}, {signal: {unit: haproxy.service, signal: HUP}}, {systemd: {restartUnit: nginx.service}}]
";

#[test]
fn the_files_name_each_folder_group_reader_owner_and_unit_and_nothing_else() {
    let host = Host::new(SCHEDULE);
    let shown = host.json(&["host"]);
    let lines = |key: &str| shown[key].as_str().unwrap().lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        lines("tmpfiles"),
        [
            "d /run/tokenferry/ci 2750 tokenferry ci -",
            "d \"/secure/app one\" 0711 tokenferry tokenferry -",
            "a+ \"/secure/app one\" - - - - g:daemon:x,u:nobody:x,d:g:daemon:r,d:u:nobody:r",
            "d /srv/app 0711 tokenferry tokenferry -",
        ]
    );
    let unit = lines("unit");
    assert_eq!(unit[1], "ReadWritePaths=-\"/secure/app one\" -/srv/app");
    for line in ["CapabilityBoundingSet=CAP_CHOWN", "PrivateUsers=no"] {
        assert!(unit.contains(&line.to_owned()), "{unit:?}");
    }
    assert!(shown["polkit"].as_str().unwrap().contains(r#"{"haproxy.service":["kill"],"nginx.service":["reload","restart"]}"#), "{shown}");
    let plain = Host::new(
        "clusters: {trial: {embedded: {}}}\ntargets: [{name: a, cluster: trial, serviceAccount: ci/a, duration: 1h, deliver: [{file: {path: /run/tokenferry/a}}]}]\n",
    );
    let nothing = plain.run(&["host"]);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("nothing beyond"), "{nothing:?}");
}

#[test]
fn the_textfile_the_monitored_files_and_the_programs_of_alerts_are_told_of() {
    let more = "
metrics: {textfile: /var/lib/prometheus/node-exporter/tokenferry.prom}
alerts: [{exec: {command: [/usr/local/bin/page]}}]
monitor: [{path: /var/lib/agent/token}, {path: /home/ci/token}]
";
    let host = Host::new(&format!("{more}{SCHEDULE}"));
    let shown = host.json(&["host"]);
    let unit = shown["unit"].as_str().unwrap();
    assert!(unit.contains("ReadWritePaths=-\"/secure/app one\" -/srv/app -/var/lib/prometheus/node-exporter\n"), "{unit}");
    let notes = shown["notes"].to_string();
    for note in [
        "as tokenferry: /usr/local/bin/page",
        "setfacl -m u:tokenferry:rwx /var/lib/prometheus/node-exporter",
        "allowed to read /var/lib/agent/token:",
        "the unit's sandbox hides /home/ci/token:",
    ] {
        assert!(notes.contains(note), "no `{note}` in {notes}");
    }
}

#[test]
fn what_is_applied_is_taken_by_systemd_once_and_goes_when_it_is_needed_no_more() {
    let host = Host::new(SCHEDULE);
    let root = host.path("image");
    let shown = root.display().to_string();
    let apply = || host.run(&["host", "--apply", "--root", &shown]);
    let first = apply();
    assert_eq!((first.code, first.stdout.lines().count()), (Some(0), 3), "{first:?}");
    let second = apply();
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), ""), "{second:?}");
    let unit = root.join("etc/systemd/system/tokenferry.service.d/50-schedule.conf");
    assert_eq!(unit.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    // systemd's own reading of the whole: the shipped unit with its drop-in, and the folders below the root.
    let shipped = std::fs::read_to_string(crate::shipped::root().join("systemd/tokenferry.service")).unwrap();
    let service = unit.parent().unwrap().parent().unwrap().join("tokenferry.service");
    std::fs::write(&service, shipped.replace("/usr/local/bin/tokenferry", crate::support::daemon::PROGRAM)).unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&service);
    let done = finish(verify, std::time::Duration::from_secs(60));
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    let (users, groups) = (
        "root:x:0:0::/:/bin/sh\ntokenferry:x:990:990::/:/bin/sh\ndeploy:x:991:991::/:/bin/sh\n",
        "root:x:0:\ntokenferry:x:990:\nci:x:992:\nops:x:993:\n",
    );
    std::fs::write(root.join("etc/passwd"), users).unwrap();
    std::fs::write(root.join("etc/group"), groups).unwrap();
    if rustix::process::geteuid().is_root() {
        tool(Command::new("systemd-tmpfiles").arg(format!("--root={shown}")).args(["--create", "tokenferry-schedule.conf"]));
        let ci = root.join("run/tokenferry/ci").metadata().unwrap();
        assert_eq!((ci.permissions().mode() & 0o7777, std::os::unix::fs::MetadataExt::gid(&ci)), (0o2750, 992));
        let acl = tool(Command::new("getfacl").args(["--numeric", "--omit-header", "--absolute-names"]).arg(root.join("secure/app one")));
        assert!(acl.contains("user:65534:--x") && acl.contains("default:group:1:r--"), "{acl}");
    } else {
        println!("NOT RUN: systemd-tmpfiles needs root");
    }
    let text = host.read("schedule.yaml");
    std::fs::write(host.schedule(), &text[..text.find("  - name: owner").unwrap()]).unwrap();
    assert_eq!(apply().code, Some(0));
    assert!(!root.join("etc/polkit-1/rules.d/50-tokenferry.rules").exists(), "no hook needs a rule any more");
    assert!(!std::fs::read_to_string(unit).unwrap().contains("CAP_CHOWN"));
}
