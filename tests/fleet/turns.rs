//! Who takes targets over looks at their places in turn: reading them never stands in its own way.

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
