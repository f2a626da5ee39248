//! Bad days of a fleet: a clock that is off, another version, two fleets at one Lease name, orders at the wrong member. Each
//! is said, and told by an alert once it lasts; nothing is lost and nothing fresh is minted again.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{Fleet, Member, minted, two};
use crate::support::{faketime, until};

/// A fleet whose members tell of trouble into one file.
fn telling(fleet: &Fleet, told: &Path) -> String {
    let alert = format!("alerts: [{{on: [fleetTrouble, recovered], exec: {{command: [sh, -c, 'cat >> {}']}}}}]\n", told.display());
    fleet.schedule().replacen("clusters:", &format!("{alert}clusters:"), 1)
}

/// Of whom something was told: the member, or null for the one that tells; and whether it was over.
fn told(file: &Path) -> Vec<(Value, bool, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let one = |message: Value| {
        assert_eq!(message["alert"], "fleetTrouble", "{message}");
        let over = message["recovered"] == true;
        let about = message["about"].as_array().unwrap().clone();
        about.into_iter().map(move |one| (one["member"].clone(), over, one["error"].as_str().unwrap_or_default().to_owned()))
    };
    messages.flat_map(one).collect()
}

fn warnings(at: &Member, of: &str) -> String {
    let members = at.status()["daemon"]["fleet"]["members"].as_array().unwrap().clone();
    members.iter().find(|member| member["name"] == of).map(|member| member["warnings"].to_string()).unwrap_or_default()
}

#[test]
fn a_member_whose_clock_is_ten_minutes_off_is_told_of_once_and_takes_nothing_over_and_mints_nothing_again() {
    let fleet = Fleet::new("fleet-clock", 8);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let schedule = telling(&fleet, &file);
    let mut a = fleet.member_with("a", &schedule);
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    let before = fleet.tokens();
    let mut b = fleet.member_with("b", &schedule);
    let library = faketime().display().to_string();
    b.host.start_with(&[
        ("TOKENFERRY_MEMBER", "b"),
        ("LD_PRELOAD", &library),
        ("FAKETIME", "+600s"),
        ("FAKETIME_NO_CACHE", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    until("both know each other", 90, || a.alive().len() == 2 && b.alive().len() == 2);
    until("all is shared out", 60, || a.serves().len() + b.serves().len() == 8 && !b.serves().is_empty());
    until("a says whose clock is wrong", 60, || warnings(&a, "b").contains("s ahead of ours"));
    until("so does b, the other way round", 60, || warnings(&b, "a").contains("s behind ours"));
    until("it is told of", 90, || told(&file).iter().any(|(member, over, error)| member == "b" && !over && error.contains("clock")));
    // Longer than a Lease: nobody is dead whose clock is wrong.
    assert_eq!((a.alive().len(), b.alive().len()), (2, 2));
    assert!(!a.host.log().contains("is dead") && !b.host.log().contains("is dead"), "{}\n{}", a.host.log(), b.host.log());
    assert_eq!(fleet.tokens(), before, "no fresh token was minted again");
    assert_eq!(minted(&[&a, &b]), 8);
    // A fresh token stands where it is asked for, whatever that clock says.
    let mine = b.serves();
    assert_eq!(b.rotate(&mine[0]).code, Some(0), "{}", b.host.log());
    assert!(fleet.tokens()[&mine[0]].1 >= before[&mine[0]].1);
    assert_eq!(b.host.stop(), Some(0));
    until("it is told that it is over", 90, || told(&file).iter().any(|(member, over, _)| member == "b" && *over));
    let once = told(&file).iter().filter(|(member, over, _)| member == "b" && !over).count();
    assert_eq!(once, 1, "{:?}", told(&file));
}

#[test]
fn a_member_that_is_cut_off_from_its_lease_tells_so_once_it_lasts_and_that_it_is_over() {
    let fleet = Fleet::new("fleet-alert", 2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let mut a = fleet.member_with("a", &telling(&fleet, &file));
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    assert_eq!(told(&file), []);
    a.tunnel.cut(true);
    until("it is told", 90, || !told(&file).is_empty());
    let (member, over, error) = told(&file).remove(0);
    assert!(member.is_null() && !over && error.contains("does not answer"), "{member} {over} {error}");
    a.tunnel.cut(false);
    until("its end is told", 90, || told(&file).len() == 2);
    assert!(told(&file)[1].1);
}

#[test]
fn a_member_of_another_version_is_told_of() {
    let fleet = Fleet::new("fleet-version", 2);
    let mut a = fleet.member("a");
    a.start();
    until("a is a member", 60, || a.is_joined());
    // No other version of the program is at hand: its Lease is what we know of one.
    let mut lease: Value = serde_json::from_str(&fleet.kubectl(&["get", "lease", "ferry.a", "-o", "json"])).unwrap();
    lease["metadata"]["name"] = "ferry.old".into();
    lease["metadata"]["annotations"]["tokenferry/version"] = "0.0.1".into();
    lease["spec"]["holderIdentity"] = "old_1".into();
    for grown in ["resourceVersion", "uid", "creationTimestamp", "managedFields"] {
        lease["metadata"].as_object_mut().unwrap().remove(grown);
    }
    let written = a.host.write("old.json", &lease.to_string());
    fleet.kubectl(&["create", "-f", written.to_str().unwrap()]);
    let warned = format!("it runs version 0.0.1, we run {}: bring all members to one", env!("CARGO_PKG_VERSION"));
    until("a says so", 30, || warnings(&a, "old").contains(&warned));
    until("its Lease runs out", 60, || a.alive() == ["a"]);
    until("a serves all again", 60, || a.serves().len() == 2);
}

#[test]
fn two_fleets_at_one_lease_name_are_told_so_and_each_serves_all_of_its_own() {
    let fleet = Fleet::new("fleet-two", 6);
    let mut a = fleet.member("a");
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    let other = fleet.schedule().replace("name: t", "name: u");
    let mut b = fleet.member_with("b", &other);
    b.start();
    until("both know each other", 60, || a.alive().len() == 2 && b.alive().len() == 2);
    for (at, of) in [(&a, "b"), (&b, "a")] {
        let said = warnings(at, of);
        assert!(said.contains("two fleets use one Lease name; give each its own `fleet.lease.name`"), "{said}");
    }
    until("each serves all of its own", 60, || a.serves().len() == 6 && b.serves().len() == 6);
    assert_eq!((minted(&[&a]), minted(&[&b])), (6, 6), "and nothing of the other's");
    let names: BTreeSet<String> = b.serves().into_iter().collect();
    assert!(names.iter().all(|name| name.starts_with('u')), "{names:?}");
}

#[test]
fn an_order_about_what_another_member_serves_names_that_member_and_changes_nothing() {
    let fleet = Fleet::new("fleet-orders", 6);
    let (a, b) = two(&fleet);
    let (here, there) = (a.serves(), b.serves());
    let before = fleet.tokens();
    let theirs = there[0].as_str();
    let place = format!("{theirs} is served by member b of the fleet: ask there");
    for order in [&["rotate", theirs][..], &["withdraw", theirs], &["revoke", theirs], &["revoke", theirs, "--now"]] {
        let done = a.host.run(order);
        assert!(done.code == Some(5) && done.stdout.is_empty() && done.stderr.contains(&place), "{order:?}: {done:?}");
    }
    let nobody = a.host.run(&["rotate", "nobody"]);
    assert!(nobody.code == Some(2) && nobody.stderr.contains("no target of the schedule is meant"), "{nobody:?}");
    assert_eq!(fleet.tokens(), before);
    // With one of ours: that is done, and the other is named.
    let both = a.host.run(&["rotate", &here[0], theirs]);
    assert!(both.code == Some(5) && both.stdout.contains(&here[0]) && both.stderr.contains(&place), "{both:?}");
    let after = fleet.tokens();
    assert!(after[&here[0]] != before[&here[0]] && after[theirs] == before[theirs]);
    // Of a glob each member does its own, and says what it does not.
    let all = a.host.run(&["rotate", "t*", "-o", "json"]);
    assert!(all.code == Some(0) && all.stderr.contains("served by member b"), "{all:?}");
    let answer: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!((answer["asked"].as_array().unwrap().len(), answer["elsewhere"].as_array().unwrap().len()), (here.len(), there.len()));
    assert!(answer["elsewhere"].as_array().unwrap().iter().all(|one| one["member"] == "b"), "{answer}");
    assert!(there.iter().all(|name| fleet.tokens()[name] == before[name]));
}
