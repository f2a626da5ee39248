//! Targets that go: what they left is deleted where the schedule says so and a person reloads, and taken back by
//! `withdraw`; what cannot be deleted now is owed, across restarts too.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::daemon::Host;
use crate::support::servers::Servers;
use crate::support::until;

const HEAD: &str = "
clusters: {trial: {embedded: {}}}
defaults: {cluster: trial, duration: 1h}
targets:
";

fn target(name: &str, more: &str) -> String {
    format!("  - {{name: {name}, serviceAccount: ci/{name}, {more}deliver: [{{file: {{path: HERE/out/{name}}}}}]}}\n")
}

const DELETE: &str = "whenRemoved: delete, ";

fn schedule(targets: &[(&str, &str)]) -> String {
    HEAD.to_owned() + &targets.iter().map(|(name, more)| target(name, more)).collect::<String>()
}

fn started(targets: &[(&str, &str)]) -> Host {
    let mut host = Host::new(&schedule(targets));
    host.start();
    until("all are delivered", 60, || targets.iter().all(|(name, _)| host.records_of("rotated", name).len() == 1));
    host
}

/// What the records say became of the places of a target, in order.
fn partings(host: &Host, target: &str) -> Vec<String> {
    let lines = host.records_of("retired", target);
    let leaves = lines.iter().flat_map(|line| line["leaves"].as_array().cloned().unwrap_or_default());
    leaves.map(|leave| leave["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_removed_target_left_is_deleted_by_an_explicit_reload_where_the_schedule_said_so() {
    let host = started(&[("stays", ""), ("goes", DELETE), ("kept", "")]);
    host.write_schedule(&schedule(&[("stays", ""), ("kept", "")]));
    let verdict = host.json(&["reload"]);
    assert_eq!(verdict["deleting"], json!(["goes"]), "{verdict}");
    until("it is deleted", 30, || !host.path("out/goes").exists());
    until("and recorded", 30, || partings(&host, "goes") == ["owed", "gone"]);
    host.write_schedule(&schedule(&[("stays", "")]));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    assert!(host.path("out/kept").exists(), "`whenRemoved: keep` is the default");
    assert_eq!(host.records_of("retired", "kept").len(), 1);
    assert!(host.path("out/stays").exists());
}

#[test]
fn a_start_and_a_hangup_delete_nothing() {
    let mut host = started(&[("stays", ""), ("goes", DELETE), ("later", DELETE)]);
    host.write_schedule(&schedule(&[("stays", ""), ("later", DELETE)]));
    host.signal(Signal::HUP);
    until("the hangup is heeded", 30, || host.records_of("retired", "goes").len() == 1);
    host.kill();
    host.write_schedule(&schedule(&[("stays", "")]));
    host.start();
    until("stays is looked at", 30, || host.target("stays")["state"] == "fresh");
    assert!(host.path("out/goes").exists() && host.path("out/later").exists());
    assert_eq!(partings(&host, "goes"), [""; 0]);
}

#[test]
fn more_than_one_in_twenty_go_only_when_their_number_is_said() {
    let host = started(&[("a", DELETE), ("b", DELETE), ("c", DELETE)]);
    host.write_schedule(&schedule(&[("c", DELETE)]));
    let refused = host.run(&["reload"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("tokenferry reload --remove 2") && refused.stderr.contains("a, b"), "{refused:?}");
    assert!(host.path("out/a").exists() && host.path("out/b").exists());
    assert_eq!(host.json(&["status"])["targets"].as_array().unwrap().len(), 3, "a refused schedule changes nothing");
    assert_eq!(host.run(&["reload", "--remove", "3"]).code, Some(2));
    let done = host.run(&["reload", "--remove", "2"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    until("both are deleted", 30, || !host.path("out/a").exists() && !host.path("out/b").exists());
    assert!(host.path("out/c").exists());
    assert_eq!(host.records_of("reloaded", "x").len(), 0);
}

#[test]
fn a_place_that_another_target_has_now_is_never_deleted() {
    let host = started(&[("stays", ""), ("old", DELETE)]);
    let moved = "  - {name: new, serviceAccount: ci/old, deliver: [{file: {path: HERE/out/old}}]}\n";
    host.write_schedule(&(schedule(&[("stays", "")]) + moved));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    until("the old target is done with", 30, || partings(&host, "old") == ["owed", "taken"]);
    until("the new one has a token there", 30, || host.target("new")["state"] == "fresh");
    assert!(host.path("out/old").exists());
}

fn vault_schedule(servers: &Servers, targets: &str) -> String {
    let bao = servers.bao();
    format!(
        "
clusters: {{trial: {{embedded: {{}}}}}}
stores: {{vault: {{vault: {{address: '{}', caFile: {}, auth: {{token: {{file: {}}}}}}}}}}}
defaults: {{cluster: trial, duration: 1h}}
targets:
  - {{name: stays, serviceAccount: ci/stays, deliver: [{{file: {{path: HERE/out/stays}}}}]}}
{targets}",
        bao.address,
        bao.ca.display(),
        bao.root_token_file.display(),
    )
}

#[test]
fn g4_a_deletion_that_fails_is_owed_across_a_restart_and_done_when_the_store_is_back() {
    let servers = Servers::start("leaves", &["bao"]);
    let goes = "  - {name: goes, serviceAccount: ci/goes, whenRemoved: delete, deliver: [{vault: {store: vault, path: leaves/goes}}]}\n";
    let mut host = Host::new(&vault_schedule(&servers, goes));
    host.start();
    until("it is delivered", 60, || host.records_of("rotated", "goes").len() == 1);
    servers.kill("bao");
    host.write_schedule(&vault_schedule(&servers, ""));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    let owed = |host: &Host| {
        let status = host.json(&["status"]);
        status["leaving"][0]["name"] == "goes" && status["leaving"][0]["places"][0]["error"].as_str().is_some_and(|e| !e.is_empty())
    };
    until("status says what is owed", 60, || owed(&host));
    assert!(host.run(&["status"]).stdout.contains("what it left at vault/secret/leaves/goes is still to be taken back"));
    host.kill();
    assert!(owed(&host), "the records say so too");
    servers.restart("bao");
    host.start();
    until("it is gone", 90, || partings(&host, "goes").last().is_some_and(|outcome| outcome == "gone"));
    assert!(host.json(&["status"])["leaving"].is_null());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let look = crate::support::within(async {
        crate::sinks::bao::Root::of(servers.bao()).call(reqwest::Method::GET, "secret/metadata/leaves/goes", Value::Null).await
    });
    assert_eq!(runtime.block_on(look).0, 404);
}

#[test]
fn a_withdrawn_target_is_taken_back_and_not_published_again_until_it_is_rotated_by_name_or_its_schedule_changes() {
    let mut host = started(&[("one", ""), ("two", "")]);
    let shown = host.json(&["withdraw", "one", "--dry-run"]);
    assert_eq!(shown["wouldWithdraw"][0]["place"], host.path("out/one").to_str().unwrap(), "{shown}");
    assert!(host.path("out/one").exists());
    let records = host.json(&["withdraw", "one"]);
    assert_eq!((&records[0]["kind"], &records[0]["leaves"][0]["outcome"]), (&json!("retired"), &json!("gone")), "{records}");
    assert!(!host.path("out/one").exists() && host.path("out/two").exists());
    let first = &host.records_of("retired", "one")[0];
    assert!(first["actor"]["command"].as_str().unwrap().contains("withdraw one") && first["reason"] == "withdrawn", "{first}");
    let is_gone = |host: &Host| host.target("one")["state"] == "withdrawn" && !host.path("out/one").exists();
    assert!(is_gone(&host), "{}", host.target("one"));
    // Neither a restart nor a reload nor a rotation of all brings it back.
    host.kill();
    host.start();
    until("two is looked at", 30, || host.target("two")["state"] == "fresh");
    assert!(is_gone(&host));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    assert_eq!(host.run(&["rotate", "--all"]).code, Some(0));
    assert_eq!(host.run(&["status"]).code, Some(0));
    assert!(is_gone(&host));
    assert_eq!(host.run(&["rotate", "one"]).code, Some(0));
    assert!(host.path("out/one").exists());
    assert_eq!(host.target("one")["state"], "fresh");
    assert_eq!(host.records_of("rotated", "one").pop().unwrap()["generation"], 2, "its tokens are counted on");
    assert_eq!(host.run(&["withdraw", "one"]).code, Some(0));
    host.write_schedule(&schedule(&[("one", "labels: {tier: prod}, "), ("two", "")]));
    assert_eq!(host.run(&["reload"]).code, Some(0));
    until("its changed schedule brings it back", 30, || host.path("out/one").exists());
}

#[test]
fn without_a_daemon_withdraw_does_the_work_itself_and_says_what_is_beyond_it() {
    let host = Host::new(&format!(
        "{}  - {{name: told, serviceAccount: ci/told, deliver: [{{command: {{command: [/bin/sh, -c, 'cat > HERE/taken']}}}}]}}\n",
        schedule(&[("one", ""), ("two", ""), ("spoiled", "")])
    ));
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert_eq!(host.run(&["withdraw"]).code, Some(2));
    assert_eq!(host.run(&["withdraw", "nobody"]).code, Some(2));
    let done = host.run(&["withdraw", "one"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("gone") && !host.path("out/one").exists() && host.path("out/two").exists(), "{done:?}");
    assert_eq!(host.target("one")["state"], "withdrawn");
    assert_eq!(host.run(&["once"]).code, Some(0));
    assert!(!host.path("out/one").exists(), "`once` leaves it withdrawn");
    std::fs::write(host.path("out/spoiled"), "somebody's notes").unwrap();
    let left = host.run(&["withdraw", "spoiled"]);
    assert!(left.code == Some(0) && left.stdout.contains("not ours"), "{left:?}");
    assert_eq!(host.read("out/spoiled"), "somebody's notes");
    let told = host.run(&["withdraw", "told"]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(told.stdout.contains("beyond") && told.stdout.contains("cannot be taken back"), "{told:?}");
    let all = host.run(&["withdraw", "--all", "-o", "json"]);
    assert_eq!(all.code, Some(1), "{all:?}");
    assert!(!host.path("out/two").exists());
    assert_eq!(host.run(&["records", "verify"]).code, Some(0));
}
