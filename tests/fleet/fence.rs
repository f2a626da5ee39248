//! What keeps an older token from going over a newer one, each alone: the look at what stands there, and the leave that an
//! owner asks before its write. A member's places are behind a way of their own here, which can be cut while it mints.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::tunnel::Tunnel;
use super::{Fleet, Member};
use crate::support::servers::{cluster, kubeconfig};
use crate::support::until;

/// A fleet whose Secrets are in a cluster `store`, as it is called.
fn schedule(fleet: &Fleet) -> String {
    let text = fleet.schedule().replace("  meet: ", "  store: {kubeconfig: store.kubeconfig}\n  meet: ");
    text.replace("kubernetesSecret: {", "kubernetesSecret: {cluster: store, ")
}

/// A member of it, and its way to the Secrets.
fn member(fleet: &Fleet, name: &str) -> (Member, Tunnel) {
    let member = fleet.member_with(name, &schedule(fleet));
    let store = Tunnel::to(cluster().kube().server.trim_start_matches("https://"));
    let user: Value = serde_json::from_str(&member.host.read("user.kubeconfig")).unwrap();
    // What `rbac` prints for three clusters of these names is meant for three.
    let who = format!("--user=admin.{}", member.host.folder.path().file_name().unwrap().to_string_lossy());
    fleet.kubectl(&["create", "rolebinding", &format!("secrets-{name}"), "--clusterrole=edit", &who]);
    member.host.write("store.kubeconfig", &kubeconfig(&store.url(), &cluster().kube().ca, user["users"][0]["user"].clone()));
    (member, store)
}

/// Two that have shared all out, a target of the first one's, and the first one's way to the Secrets.
fn two(fleet: &Fleet) -> (Member, Tunnel, Member, Tunnel, String) {
    let ((mut a, of_a), (mut b, of_b)) = (member(fleet, "a"), member(fleet, "b"));
    a.start();
    until("a is a member", 60, || a.is_joined());
    fleet.served();
    b.start();
    until("all is shared out", 60, || a.serves().len() + b.serves().len() == fleet.targets && !a.serves().is_empty() && b.is_joined());
    let mine = a.serves().remove(0);
    (a, of_a, b, of_b, mine)
}

/// What became of a target's places at a member, newest last.
fn outcomes(at: &Member, target: &str) -> Vec<(String, String)> {
    let lines = at.host.records().into_iter().filter(|line| line["target"] == target && !line["sinks"].is_null());
    let sinks = lines.flat_map(|line| line["sinks"].as_array().unwrap().clone());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    sinks.map(|sink| (word(&sink["outcome"]), word(&sink["kind"]))).collect()
}

#[test]
fn an_owner_that_goes_on_without_its_lease_leaves_the_newer_token_of_who_took_over() {
    let fleet = Fleet::new("fleet-fence", 4);
    let (a, store, b, _way, target) = two(&fleet);
    // It mints a token and cannot bring it.
    store.cut(true);
    a.rotate(&target);
    until("the token is owed", 60, || outcomes(&a, &target).last().is_some_and(|(outcome, _)| outcome == "owed"));
    a.tunnel.cut(true);
    until("b serves all", 60, || b.serves().len() == 4);
    let taken = fleet.tokens();
    assert_eq!(b.rotate(&target).code, Some(0), "{}", b.host.log());
    let newer = fleet.tokens();
    assert!(newer[&target].1 > taken[&target].1);
    // Its Lease cannot be reached, so it goes on: what stands there alone can tell it that it is late.
    store.cut(false);
    let refused = || outcomes(&a, &target).iter().any(|(_, kind)| kind == "superseded");
    until("a has tried it", 120, || refused() || fleet.tokens()[&target] != newer[&target]);
    assert_eq!(fleet.tokens()[&target], newer[&target], "an older token stands where a newer one stood: {}", a.host.log());
    assert!(refused(), "{}", a.host.log());
}

#[test]
fn an_owner_that_was_stopped_with_a_token_in_its_hand_asks_before_it_writes() {
    let fleet = Fleet::new("fleet-leave", 4);
    let (a, store, b, _way, target) = two(&fleet);
    let before = fleet.tokens();
    store.cut(true);
    a.rotate(&target);
    until("the token is owed", 60, || outcomes(&a, &target).last().is_some_and(|(outcome, _)| outcome == "owed"));
    a.host.signal(Signal::STOP);
    until("b serves all", 60, || b.serves().len() == 4);
    // Awake again, it could write at once, and learns only a while later that its Lease ran out. A call to the Leases has
    // 5 s, a new connection among them: where it could not be made, an owner goes on.
    store.cut(false);
    a.tunnel.slow(Duration::from_millis(800));
    a.host.signal(Signal::CONT);
    std::thread::sleep(Duration::from_secs(4));
    a.tunnel.slow(Duration::ZERO);
    until("a knows that it was away", 60, || !a.records("left").is_empty());
    until("a has its share again", 60, || a.serves().contains(&target));
    let learned = |line: &Value| line["target"] == *target && line["jti"] == before[&target].0.as_str();
    let looked = || a.records("adopted").iter().chain(&a.records("paid")).any(learned);
    until("it has looked at the place", 60, || looked() || fleet.tokens() != before);
    assert_eq!(fleet.tokens(), before, "nobody minted anew, and what it had in its hand was not written");
}
