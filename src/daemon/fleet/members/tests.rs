use proptest::prelude::*;

use super::*;

/// Any time of day: it must not matter.
const WALL: i64 = 1_800_000_000_000;

fn said(member: &str) -> Said {
    let text = |text: &str| text.to_owned();
    Said {
        member: text(member),
        run: format!("{member}-run"),
        daemon: text("d"),
        schedule: text("s1"),
        version: text("1.0.0"),
        kin: text("aa bb"),
    }
}

/// A Lease of that member as written for the n-th time.
fn lease(said: Said, n: u64) -> Lease {
    let mut body = serde_json::json!({
        "metadata": {
            "name": format!("f.{}", said.member), "uid": "u", "resourceVersion": n.to_string(), "labels": {"tokenferry/fleet": "f"},
            "annotations": {"tokenferry/daemon": said.daemon, "tokenferry/schedule": said.schedule, "tokenferry/version": said.version,
                "tokenferry/kin": said.kin},
        },
        "spec": {"holderIdentity": format!("{}_{}", said.member, said.run)},
    });
    body["type"] = "ADDED".into();
    let line = serde_json::json!({"type": "MODIFIED", "object": body}).to_string();
    match crate::cluster::lease::event(line.as_bytes(), "f") {
        Ok(Some(crate::cluster::lease::Event::Written(lease))) => lease,
        other => panic!("{other:?}"),
    }
}

/// A member `a` that has just joined, beside `b`, at 0.
fn two() -> Members {
    let mut members = Members::new(said("a"));
    members.listed(vec![lease(said("b"), 1)], 0, 0, WALL);
    members.renewed("2", 0, 0);
    members
}

/// Time passes, and our own renewals come back, up to that time.
fn pass(members: &mut Members, from: i64, to: i64) {
    for now in (from..=to).step_by(1_000) {
        if now % RENEW == 0 {
            members.renewed(&format!("{}", 1_000 + now), now, now);
            members.written(lease(said("a"), 1_000 + now.unsigned_abs()), now, WALL);
        }
        members.tick(now);
    }
}

fn alive(members: &Members, name: &str) -> bool {
    members.view().members.iter().any(|seen| seen.name == name && seen.alive)
}

fn targets() -> Vec<String> {
    (0..100).map(|n| format!("target-{n}")).collect()
}

#[test]
fn nobody_owns_anything_before_it_is_a_member() {
    let mut members = Members::new(said("a"));
    assert!(targets().iter().all(|target| members.view().owner(target).is_none()));
    assert_eq!(members.pass(members.term(), 0), Pass::Stop);
    members.listed(Vec::new(), 0, 0, WALL);
    members.renewed("1", 0, 0);
    assert!(targets().iter().all(|target| members.view().is_ours(target)));
    assert_eq!(members.pass(members.term(), 0), Pass::Go);
}

#[test]
fn each_target_has_one_owner_and_both_members_agree_on_it() {
    let (a, mut b) = (two(), Members::new(said("b")));
    b.listed(vec![lease(said("a"), 2)], 0, 0, WALL);
    b.renewed("3", 0, 0);
    let ours = targets().iter().filter(|target| a.view().is_ours(target) != b.view().is_ours(target)).count();
    assert_eq!(ours, 100);
    assert!(targets().iter().any(|target| a.view().is_ours(target)) && targets().iter().any(|target| b.view().is_ours(target)));
}

#[test]
fn a_member_whose_lease_does_not_change_is_dead_after_fifteen_seconds_and_not_before() {
    let mut members = two();
    pass(&mut members, 1_000, LEASE - 1_000);
    assert!(alive(&members, "b"));
    pass(&mut members, LEASE, LEASE);
    assert!(!alive(&members, "b"));
    assert!(targets().iter().all(|target| members.view().is_ours(target)));
    members.written(lease(said("b"), 9), LEASE + 1, WALL);
    assert!(alive(&members, "b"), "who writes lives");
}

/// That Lease, written then by the API server's clock.
fn written(mut lease: Lease, at: i64) -> Lease {
    lease.written = Some(at);
    lease
}

#[test]
fn who_joins_knows_by_the_api_servers_clock_who_is_dead_already() {
    // The API server's clock is a year off: only differences count.
    let server = WALL - 31_536_000_000;
    let mut members = Members::new(said("a"));
    let others = [("b", 14_000), ("c", 12_000), ("d", 600_000), ("e", 3_000)];
    members.listed(others.map(|(name, ago)| written(lease(said(name), 1), server - ago)).into(), 0, 0, WALL);
    members.joins(Some(server), 0);
    members.renewed("2", 0, 0);
    let dead_at = |name: &str| {
        (0..=LEASE).step_by(1_000).find(|now| {
            let mut members = members.clone();
            pass(&mut members, 1_000, *now);
            !alive(&members, name)
        })
    };
    assert_eq!(dead_at("c"), Some(PATIENCE), "twelve seconds and five are more than fifteen");
    assert_eq!((dead_at("b"), dead_at("d")), (Some(PATIENCE), Some(PATIENCE)), "each gets the time to show itself");
    assert_eq!(dead_at("e"), Some(LEASE - 2_000), "its Lease may have been written up to a second later than it says");
    members.written(lease(said("b"), 9), 4_000, WALL);
    pass(&mut members, 4_000, LEASE);
    assert!(alive(&members, "b"), "who writes lives");
}

#[test]
fn whoever_is_a_member_goes_by_what_it_has_heard_itself() {
    let mut members = Members::new(said("a"));
    members.listed(vec![written(lease(said("b"), 1), WALL)], 0, 0, WALL);
    members.renewed("2", 0, 0);
    members.joins(Some(WALL + 600_000), 0);
    pass(&mut members, 1_000, LEASE - 1_000);
    assert!(alive(&members, "b"));
}

#[test]
fn a_lease_that_is_given_up_is_free_at_once() {
    let mut members = two();
    let turns = members.turns();
    members.gone(&lease(said("b"), 1), 1);
    assert!(members.turns() > turns && targets().iter().all(|target| members.view().is_ours(target)));
}

#[test]
fn while_nothing_is_heard_nobody_dies_and_afterwards_everybody_has_his_time_again() {
    let mut members = two();
    let hour = 3_600_000;
    for now in (1_000..hour).step_by(1_000) {
        members.failed(now, "away");
        members.tick(now);
    }
    assert!(alive(&members, "b"), "the API server is away: nobody takes over");
    assert_eq!(members.pass(members.term(), hour), Pass::Go, "and owners go on");
    members.listed(vec![lease(said("a"), 2), lease(said("b"), 1)], hour, hour, WALL);
    pass(&mut members, hour + 1_000, hour + LEASE - 1_000);
    assert!(alive(&members, "b"), "it had no chance to say that it lives");
    pass(&mut members, hour + LEASE, hour + LEASE);
    assert!(!alive(&members, "b"));
}

#[test]
fn who_was_dead_before_an_outage_is_dead_after_it() {
    let mut members = two();
    pass(&mut members, 1_000, LEASE);
    assert!(!alive(&members, "b"));
    members.listed(vec![lease(said("a"), 2), lease(said("b"), 1)], 900_000, 900_000, WALL);
    assert!(!alive(&members, "b"));
}

#[test]
fn what_was_stopped_for_a_while_writes_nothing_that_it_began_before() {
    let mut members = two();
    pass(&mut members, 1_000, 12_000);
    let term = members.term();
    assert_eq!(members.pass(term, 21_000), Pass::Go);
    assert_eq!(members.pass(term, 60_000), Pass::Wait, "its Lease may have run out");
    members.renewed("99", 60_000, 60_100);
    assert_eq!(members.pass(term, 60_200), Pass::Stop);
    assert_eq!(members.pass(members.term(), 60_200), Pass::Go, "what begins now is another matter");
}

#[test]
fn what_was_stopped_for_less_than_its_lease_goes_on_once_that_is_renewed() {
    let mut members = two();
    let term = members.term();
    assert_eq!(members.pass(term, 14_000), Pass::Wait);
    members.renewed("99", 14_000, 14_100);
    assert_eq!(members.pass(term, 14_200), Pass::Go);
}

#[test]
fn a_lease_that_another_daemon_renews_is_lost_with_all_that_it_was_good_for() {
    let mut members = two();
    let term = members.term();
    let other = Said { run: "other".into(), ..said("a") };
    members.written(lease(other.clone(), 1), 1, WALL);
    assert_eq!(members.pass(term, 1), Pass::Go, "what stood there before ours is no news");
    members.written(lease(other, 3), 2, WALL);
    assert!(members.is_lost() && members.pass(term, 2) == Pass::Stop);
    assert!(targets().iter().all(|target| !members.view().is_ours(target)));
    assert!(members.view().trouble.unwrap().contains("another daemon is member a too"));
}

#[test]
fn a_lease_that_somebody_deleted_is_lost_unless_the_list_was_asked_for_before_it_was_made() {
    let mut members = Members::new(said("a"));
    members.renewed("2", 1_000, 1_200);
    members.listed(Vec::new(), 900, 1_300, WALL);
    assert!(!members.is_lost());
    members.listed(Vec::new(), 1_300, 1_400, WALL);
    assert!(members.is_lost());
}

#[test]
fn who_has_another_schedule_serves_its_own_and_is_told_of() {
    let mut members = two();
    let other = Said { schedule: "s2".into(), ..said("c") };
    members.written(lease(other.clone(), 5), 1, WALL);
    assert!(targets().iter().all(|target| members.view().owner(target) != Some("c")));
    let warnings = |members: &Members, name: &str| members.view().members.into_iter().find(|seen| seen.name == name).unwrap().warnings;
    assert!(warnings(&members, "c")[0].contains("it has another schedule (s2, ours is s1)"));
    members.written(lease(Said { kin: "cc".into(), ..other }, 6), 2, WALL);
    assert!(warnings(&members, "c")[0].contains("two fleets use one Lease name"));
    members.announce("s2", "aa");
    assert!(targets().iter().any(|target| members.view().owner(target) == Some("c")), "now it has ours");
    members.written(lease(Said { schedule: "s2".into(), version: "2.0.0".into(), ..said("b") }, 7), 3, WALL);
    assert!(warnings(&members, "b")[0].contains("runs version 2.0.0, we run 1.0.0"));
    assert!(targets().iter().any(|target| members.view().owner(target) == Some("b")), "another version serves the same targets");
}

#[test]
fn a_clock_that_is_off_is_told_of_and_changes_nothing() {
    let mut members = two();
    let mut wrong = lease(said("b"), 2);
    for (n, off) in [(2u64, 600_000), (3, -600_000), (4, 600_000)] {
        wrong.record = n.to_string();
        wrong.renewed = Some(WALL + off);
        members.written(wrong.clone(), i64::try_from(n).unwrap() * 1_000, WALL);
        assert!(alive(&members, "b"));
        let seen = members.view().members.into_iter().find(|seen| seen.name == "b").unwrap();
        assert!(seen.warnings[0].contains("its clock is 600 s"), "{:?}", seen.warnings);
    }
    pass(&mut members, 5_000, 4_000 + LEASE - 1_000);
    assert!(alive(&members, "b"), "dead by no clock but ours");
    pass(&mut members, 4_000 + LEASE, 4_000 + LEASE);
    assert!(!alive(&members, "b"));
}

#[test]
fn the_leases_of_those_who_are_dead_for_long_are_removed() {
    let mut members = two();
    pass(&mut members, 1_000, LEASE);
    assert!(members.forgotten(LEASE).is_empty());
    let late = LEASE + FORGOTTEN;
    pass(&mut members, LEASE + 1_000, late);
    assert_eq!(members.forgotten(late).iter().map(|lease| lease.said.member.as_str()).collect::<Vec<_>>(), ["b"]);
}

proptest! {
    /// Whatever happens, in whatever order: who hears nothing kills nobody, what is not ours is not written, and nobody
    /// is dead who wrote within a Lease's time.
    #[test]
    fn whatever_happens_the_rules_hold(steps in proptest::collection::vec((0u8..8, 0i64..20_000), 1..200)) {
        let mut members = two();
        let (mut now, mut n, mut last) = (0i64, 10u64, 0i64);
        for (what, pause) in steps {
            now += pause;
            n += 1;
            let before = members.view();
            match what {
                0 => { members.written(lease(said("b"), n), now, WALL); last = now; }
                1 => members.renewed(&n.to_string(), now, now),
                2 => members.failed(now, "away"),
                3 => members.written(lease(Said { run: "other".into(), ..said("a") }, n), now, WALL),
                4 => { members.gone(&lease(said("b"), n), now); last = i64::MIN / 2; }
                5 => members.written(lease(said("a"), n), now, WALL),
                _ => members.tick(now),
            }
            let view = members.view();
            if before.members.iter().any(|seen| seen.name == "b" && seen.alive) && !alive(&members, "b") {
                prop_assert!(what == 4 || (members.hears(now) && now - last >= LEASE));
            }
            prop_assert!(view.member || targets().iter().take(5).all(|target| !view.is_ours(target)));
            prop_assert!(before.term == view.term || members.pass(before.term, now) == Pass::Stop);
            if members.pass(members.term(), now) == Pass::Go {
                prop_assert!(view.member);
            }
        }
    }
}
