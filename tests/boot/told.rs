//! What the service tells and is told: its own journal, and who gave an order.

use serde_json::Value;

use super::{started, system};
use crate::support::until;

#[test]
fn with_a_log_namespace_its_journal_is_one_of_its_own_and_found_by_the_same_fields() {
    let Some(system) = system() else { return };
    system.drop_in("journal", "LogNamespace=tokenferry");
    started(&system);
    until("both are recorded", 30, || system.records("rotated") == 2);
    let own = |more: &[&str]| system.done(&[&["journalctl", "--no-pager", "--namespace=tokenferry", "-o", "json"], more].concat());
    until("it is there", 30, || own(&["TARGET=group"]).contains("\"rotated\""));
    let entry: Value = serde_json::from_str(own(&["TARGET=group"]).lines().last().unwrap()).unwrap();
    assert_eq!(entry["_SYSTEMD_UNIT"], "tokenferry.service");
    let pid = system.show("MainPID");
    assert!(!own(&[&format!("_PID={pid}")]).is_empty());
    let common = system.run(&["journalctl", "--no-pager", "-q", &format!("_PID={pid}")]);
    assert!(common.stdout.is_empty(), "the common journal has it too: {}", String::from_utf8_lossy(&common.stdout));
    system.done(&["systemctl", "stop", "tokenferry"]);
}

/// Who gave the last order for `own`.
fn actor(system: &super::System) -> Value {
    let found = system.done(&["tokenferry", "records", "--target", "own", "--kind", "rotated", "-o", "json"]);
    let last: Value = serde_json::from_str(found.lines().last().unwrap()).unwrap();
    last["actor"].clone()
}

#[test]
fn who_gave_an_order_is_recorded_as_far_as_the_daemons_user_namespace_knows_him() {
    let Some(system) = system() else { return };
    started(&system);
    until("both are recorded", 30, || system.records("rotated") == 2);
    let rotate = |user: &str| system.done(&["setpriv", &format!("--reuid={user}"), "--init-groups", "tokenferry", "rotate", "own"]);
    // Root and the daemon's own user are known to every user namespace.
    rotate("root");
    assert_eq!((&actor(&system)["uid"], &actor(&system)["user"]), (&0.into(), &"root".into()));
    // Another one is not: he is shown as unknown, with the name that his command gave, which proves nothing.
    rotate("admin");
    let found = actor(&system);
    assert_eq!((&found["uid"], found.get("user"), &found["says"]), (&65_534.into(), None, &"admin".into()), "{found}");
    assert_eq!(found["command"], "tokenferry rotate own");
    let shown = system.done(&["tokenferry", "records", "--target", "own", "--kind", "rotated"]);
    assert!(shown.contains("asked by unknown, who says `admin`"), "{shown}");
    // Without a user namespace of its own the daemon knows everybody.
    system.drop_in("users", "PrivateUsers=no");
    system.done(&["systemctl", "restart", "tokenferry"]);
    rotate("admin");
    let found = actor(&system);
    assert_eq!((&found["user"], found.get("says")), (&"admin".into(), None), "{found}");
    assert_ne!(found["uid"], 65_534);
}
