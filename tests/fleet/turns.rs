//! Who takes targets over looks at their places in turn: reading them never stands in its own way.

use std::time::Duration;

use super::{Fleet, minted};
use crate::support::until;

#[test]
fn who_takes_over_waits_for_its_turn_at_the_api_server_and_mints_nothing_that_is_fresh() {
    let fleet = Fleet::new("fleet-narrow", 12);
    let schedule = fleet.schedule().replace("user.kubeconfig", "user.kubeconfig, limits: {inFlight: 1}");
    let (mut a, mut b) = (fleet.member_with("a", &schedule), fleet.member_with("b", &schedule));
    a.start();
    fleet.served();
    let before = fleet.tokens();
    b.start();
    until("b has its share", 60, || b.alive().len() == 2 && a.serves().len() + b.serves().len() == 12);
    a.host.kill();
    until("b serves all", 60, || b.serves().len() == 12);
    assert_eq!((fleet.tokens(), minted(&[&a, &b])), (before, 12));
}

#[test]
fn who_joins_late_does_not_take_the_lease_that_a_dead_member_left_for_a_sign_of_life() {
    let fleet = Fleet::new("fleet-late", 4);
    let mut a = fleet.member("a");
    a.start();
    fleet.served();
    let before = fleet.tokens();
    a.host.kill();
    std::thread::sleep(Duration::from_secs(12));
    let mut b = fleet.member("b");
    b.start();
    until("b serves all", 60, || b.serves().len() == 4);
    let at = |kind: &str| -> Vec<jiff::Timestamp> {
        b.records(kind).iter().map(|line| line["time"].as_str().unwrap().parse().unwrap()).collect()
    };
    let (joined, taken) = (at("joined")[0], at("takenOver"));
    assert_eq!(taken.len(), 4);
    // By the API server's clock it was dead twelve seconds ago; by what b has heard itself it would live for fifteen more.
    assert!(taken.iter().all(|taken| taken.duration_since(joined).as_secs() < 12), "joined at {joined}, taken over at {taken:?}");
    assert_eq!(fleet.tokens(), before, "no fresh token was minted again");
}
