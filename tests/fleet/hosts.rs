//! What stands on a host belongs to it; and what a fleet tells of itself besides `status`.

use std::process::Command;

use super::{Fleet, Member};
use crate::support::daemon::tool;
use crate::support::until;

#[test]
fn a_target_with_files_is_served_on_each_host_that_it_names_and_on_no_other() {
    let fleet = Fleet::new("fleet-hosts", 3);
    let files = "  - {name: files, hosts: [\"runner-*\"], deliver: [{file: {path: out/files}}]}\n";
    let schedule = fleet.schedule() + files;
    let mut members = ["runner-1", "runner-2", "web-1"].map(|name| fleet.member_with(name, &schedule));
    members.iter_mut().for_each(Member::start);
    until("they know each other", 60, || members.iter().all(|member| member.alive().len() == 3));
    until("all is shared out", 60, || {
        members.iter().map(|member| member.serves().iter().filter(|name| *name != "files").count()).sum::<usize>() == 3
    });
    let [first, second, web] = &members;
    until("both runners have their own", 60, || first.host.path("out/files").exists() && second.host.path("out/files").exists());
    assert_ne!(first.host.read("out/files"), second.host.read("out/files"), "each host has a token of its own");
    assert!(!web.host.path("out/files").exists());
    let names = |member: &Member| {
        let rows = member.status()["targets"].as_array().unwrap().clone();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(names(first).contains(&"files".to_owned()) && !names(web).contains(&"files".to_owned()));
    let order = web.host.run(&["rotate", "files"]);
    assert!(order.code == Some(5) && order.stderr.contains("files is served by hosts that match runner-*: ask there"), "{order:?}");
    // One who goes takes nobody's files along.
    members[0].host.kill();
    until("the others serve what is shared", 60, || {
        members[1..].iter().map(|member| member.serves().iter().filter(|name| *name != "files").count()).sum::<usize>() == 3
    });
    assert!(!members[2].host.path("out/files").exists());
}

#[test]
fn doctor_and_metrics_tell_of_a_member_with_another_schedule() {
    let fleet = Fleet::new("fleet-told", 4);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let schedule = format!("metrics: {{listen: '127.0.0.1:{port}'}}\n{}", fleet.schedule());
    let (mut a, mut b) = (fleet.member_with("a", &schedule), fleet.member("b"));
    a.start();
    until("a is a member", 60, || a.is_joined());
    let doctor = a.host.run(&["doctor", "-o", "json"]);
    assert!(doctor.stdout.contains("members with a Lease: 1, with this schedule and version: 1"), "{doctor:?}");
    b.start();
    until("a knows b", 60, || a.alive().len() == 2);
    let doctor = a.host.run(&["doctor"]);
    assert!(doctor.stdout.contains("member b has another schedule than this one"), "{doctor:?}");
    let metrics = tool(Command::new("curl").args(["-sS", "--fail", &format!("http://127.0.0.1:{port}/metrics")]));
    for line in [
        "tokenferry_fleet_member_alive{member=\"b\"} 1",
        "tokenferry_fleet_member_same_schedule{member=\"a\"} 1",
        "tokenferry_fleet_member_same_schedule{member=\"b\"} 0",
        "tokenferry_fleet_member_targets{member=\"a\"} 4",
    ] {
        assert!(metrics.contains(line), "no `{line}` in:\n{metrics}");
    }
}
