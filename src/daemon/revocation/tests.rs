use proptest::prelude::*;

use super::*;
use crate::record::Outcome;
use crate::record::fold::{HookState, PlaceState};
use crate::schedule::check::{self, Sources};

const OVERLAP: i64 = 600;

fn target() -> std::sync::Arc<Target> {
    let text = "version: 1\nclusters: {c: {kubeconfig: /k}}\n\
        targets: [{name: t, cluster: c, serviceAccount: a/b, duration: 1h, revocable: true, deliver: [{file: {path: /run/t}}, {file: {path: /run/u}}], after: [{exec: {command: [x]}}]}]\n";
    let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
    let plan = check::plan(&sources, &std::collections::BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]));
    std::sync::Arc::clone(&plan.targets[0])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn place(target: &Target, index: usize, jti: &str, outcome: Outcome, since: i64) -> PlaceState {
    let place = target.deliver[index].sink.place();
    PlaceState { jti: Some(jti.into()), ..PlaceState::new("file", &place, outcome, at(since)) }
}

fn marker(generation: u64, jti: Option<&str>) -> MarkerState {
    MarkerState {
        cluster: "c".into(),
        namespace: "a".into(),
        name: format!("tokenferry.t.{}", generation % 4),
        uid: format!("uid-{generation}"),
        first: generation,
        generation,
        jti: jti.map(Into::into),
        expires_at: Some(at(3600)),
        asked: None,
        error: None,
    }
}

/// Generation 2 stands at both places since 100, its hook told at 130; generation 1 before it.
fn settled(target: &Target) -> TargetState {
    let hook = &target.after[0];
    TargetState {
        generation: 2,
        jti: Some("j2".into()),
        issued_at: Some(at(90)),
        expires_at: Some(at(3690)),
        places: vec![place(target, 0, "j2", Outcome::Written, 100), place(target, 1, "j2", Outcome::Unchanged, 95)],
        hooks: vec![HookState {
            hook: hook.kind().into(),
            to: hook.to(),
            generation: 2,
            round: 0,
            outcome: Heard::Done,
            since: at(130),
            told_at: Some(at(130)),
            error: None,
        }]
        .into(),
        markers: vec![marker(1, Some("j1")), marker(2, Some("j2"))].into(),
        ..TargetState::default()
    }
}

fn gone(target: &Target, state: &TargetState, now: i64) -> Vec<u64> {
    revocable(target, state, false, now).0.iter().map(|marker| marker.generation).collect()
}

#[test]
fn the_generation_before_goes_when_the_overlap_has_passed_since_the_last_place_and_the_last_hook() {
    let target = target();
    let state = settled(&target);
    assert_eq!(revocable(&target, &state, false, 130 + OVERLAP - 1), (vec![], Some(130 + OVERLAP)));
    assert_eq!(gone(&target, &state, 130 + OVERLAP), [1]);
}

/// What makes a marker that could go stay.
type Spoil = fn(&Target, &mut TargetState);

#[test]
fn g2_nothing_goes_while_a_place_is_behind_or_a_hook_is_not_told_or_the_newest_is_refused_or_over() {
    let target = target();
    let late = 3000;
    let spoil: [(&str, Spoil); 7] = [
        ("owed", |t, s| s.places[1] = place(t, 1, "j1", Outcome::Owed, 100)),
        ("fell back", |t, s| s.places[1] = place(t, 1, "j1", Outcome::FellBack, 100)),
        ("failed", |t, s| s.places[1] = place(t, 1, "j2", Outcome::Failed, 100)),
        ("unknown", |_, s| s.places.truncate(1)),
        ("hook", |_, s| s.hooks.edit()[0].outcome = Heard::Failed),
        ("refused", |_, s| s.rejected_at = Some(at(200))),
        ("over", |_, s| s.expires_at = Some(at(2999))),
    ];
    for (what, spoil) in spoil {
        let mut state = settled(&target);
        spoil(&target, &mut state);
        assert_eq!(revocable(&target, &state, false, late), (vec![], None), "{what}");
        state.markers.edit()[0].asked = Some(Asked::Delivered);
        assert_eq!(gone(&target, &state, late), Vec::<u64>::new(), "{what}: asked for, but not at once");
        state.markers.edit()[0].asked = Some(Asked::Now);
        assert_eq!(gone(&target, &state, late), [1], "{what}: asked for at once");
    }
}

#[test]
fn what_a_person_asks_for_does_not_wait_for_the_overlap_and_the_newest_goes_only_at_once() {
    let target = target();
    let mut state = settled(&target);
    for marker in state.markers.edit().iter_mut() {
        marker.asked = Some(Asked::Delivered);
    }
    assert_eq!(gone(&target, &state, 131), [1]);
    state.markers.edit()[1].asked = Some(Asked::Now);
    assert_eq!(gone(&target, &state, 131), [1, 2]);
}

#[test]
fn a_marker_that_nobody_uses_goes_unless_a_rotation_may_take_it() {
    let target = target();
    let mut state = settled(&target);
    state.markers.edit()[0] = marker(1, None);
    assert_eq!(revocable(&target, &state, true, 2000).0, vec![]);
    assert_eq!(gone(&target, &state, 2000), [1]);
}

proptest! {
    #[test]
    fn g2_the_marker_of_the_token_in_use_never_goes_by_itself(
        now in 0i64..10_000,
        behind in any::<[bool; 2]>(),
        told in any::<bool>(),
        rotating in any::<bool>(),
        generations in proptest::collection::vec((1u64..6, any::<bool>(), any::<bool>()), 0..4),
    ) {
        let target = target();
        let mut state = settled(&target);
        for (index, behind) in behind.into_iter().enumerate() {
            if behind {
                state.places[index] = place(&target, index, "j1", Outcome::Owed, 100);
            }
        }
        if !told {
            state.hooks.edit()[0].outcome = Heard::Pending;
        }
        for (generation, used, asked) in generations.into_iter().filter(|(generation, ..)| *generation > 2) {
            let mut more = marker(generation, used.then_some("jx"));
            more.asked = asked.then_some(Asked::Delivered);
            state.markers.edit().push(more);
        }
        let (go, again) = revocable(&target, &state, rotating, now);
        prop_assert!(go.iter().all(|marker| marker.jti != Some("j2".into())));
        if behind != [false, false] || !told {
            prop_assert!(go.is_empty() && again.is_none());
        }
        prop_assert!(again.is_none_or(|again| again > now));
    }
}
