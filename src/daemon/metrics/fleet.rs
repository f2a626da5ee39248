//! The fleet, in metrics: who lives, who owns how much, and what was handed over.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::daemon::status::Status;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Member {
    member: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Way {
    way: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Owner {
    target: String,
    member: String,
}

/// Nothing, where there is no fleet.
pub(super) fn register(registry: &mut Registry, status: &Status) {
    let Some(fleet) = status.daemon.as_ref().and_then(|daemon| daemon.fleet.as_ref()) else { return };
    let (alive, targets) = (Family::<Member, Gauge>::default(), Family::<Member, Gauge>::default());
    let same = Family::<Member, Gauge>::default();
    let ours = fleet.members.iter().find(|member| member.name == fleet.member).map(|member| &member.schedule);
    for member in &fleet.members {
        let of = Member { member: member.name.clone() };
        alive.get_or_create(&of).set(i64::from(member.alive));
        targets.get_or_create(&of).set(i64::try_from(member.targets).unwrap_or(i64::MAX));
        same.get_or_create(&of).set(i64::from(ours == Some(&member.schedule)));
    }
    registry.register("fleet_member_alive", "1 for each member of the fleet whose Lease holds, 0 where it ran out", alive);
    registry.register("fleet_member_targets", "Targets that the member owns, of this daemon's schedule", targets);
    registry.register("fleet_member_same_schedule", "1 where the member has the schedule that this daemon has", same);
    let owners = Family::<Owner, Gauge>::default();
    for target in &status.targets {
        if let Some(owner) = &target.owner {
            owners.get_or_create(&Owner { target: target.name.to_string(), member: owner.clone() }).set(1);
        }
    }
    registry.register("target_owner", "1 with the member of the fleet that serves the target", owners);
    let moved = Family::<Way, Counter>::default();
    moved.get_or_create(&Way { way: "takenOver" }).inc_by(fleet.taken_over);
    moved.get_or_create(&Way { way: "handedOver" }).inc_by(fleet.handed_over);
    registry.register("fleet_handovers", "Targets taken over from other members and handed over to them, since the start", moved);
    let joined = Gauge::<i64>::default();
    joined.set(i64::from(fleet.joined && fleet.error.is_none()));
    registry.register("fleet_joined", "1 where this daemon is a member and hears of the others", joined);
}
