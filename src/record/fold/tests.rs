use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::record::hook::{Heard, HookLine};
use crate::record::leave::{LeaveLine, Parting};
use crate::record::line::{Outcome, Proof, Reason, SinkLine};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn sink(place: &str, outcome: Outcome) -> SinkLine {
    let arrived = matches!(outcome, Outcome::Written | Outcome::Unchanged);
    SinkLine {
        sha256: arrived.then(|| format!("sha-of-{place}")),
        attempts: 1,
        kind: (!arrived).then(|| "unavailable".to_owned()),
        error: (!arrived).then(|| format!("{place} does not answer")),
        fallback: (outcome == Outcome::FellBack).then(|| "/fallback".to_owned()),
        ..SinkLine::new("file", place, outcome)
    }
}

fn event(kind: Kind, second: i64, jti: Option<&str>, sinks: Vec<SinkLine>) -> Line {
    Line {
        target: Some("ci".to_owned()),
        jti: jti.map(str::to_owned),
        issued_at: jti.map(|_| at(second)),
        expires_at: jti.map(|_| at(second + 600)),
        granted: jti.map(|_| 600),
        sinks,
        ..Line::new(kind, at(second))
    }
}

fn fold(lines: &[Line]) -> State {
    let mut state = State::default();
    lines.iter().for_each(|line| state.apply(line));
    state
}

#[test]
fn a_rotation_says_which_token_stands_where() {
    let line = Line {
        generation: Some(4),
        reason: Some(Reason::Cron),
        proof: Some(Proof::Online),
        ..event(Kind::Rotated, 100, Some("a"), vec![sink("/x", Outcome::Written), sink("/y", Outcome::FellBack)])
    };
    let state = fold(&[line]);
    let ci = &state.targets["ci"];
    assert_eq!((ci.generation, ci.jti.clone(), ci.expires_at, ci.last_rotation), (4, Some("a".into()), Some(at(700)), Some(at(100))));
    assert_eq!((ci.reason, ci.proven_at), (Some(Reason::Cron), Some(at(100))));
    assert_eq!((ci.places[0].jti.clone(), ci.places[0].sha256.clone()), (Some("a".into()), Some("sha-of-/x".into())));
    assert_eq!((ci.places[1].jti.clone(), ci.places[1].detour.fallback.as_deref(), ci.places[1].owed()), (None, Some("/fallback"), true));
}

#[test]
fn places_that_a_rotation_does_not_list_are_gone() {
    let first = event(Kind::Rotated, 1, Some("a"), vec![sink("/x", Outcome::Written), sink("/y", Outcome::Written)]);
    let second = event(Kind::Rotated, 2, Some("b"), vec![sink("/y", Outcome::Written)]);
    let places: Vec<String> = fold(&[first, second]).targets["ci"].places.iter().map(|place| place.place.to_string()).collect();
    assert_eq!(places, ["/y"]);
}

#[test]
fn a_failed_mint_keeps_the_token_at_hand() {
    let first = event(Kind::Rotated, 1, Some("a"), vec![sink("/x", Outcome::Written)]);
    let failed = Line { error: Some("403".to_owned()), ..event(Kind::Failed, 50, None, Vec::new()) };
    let ci = fold(&[first, failed.clone(), failed]).targets.remove("ci").unwrap();
    assert_eq!((ci.jti.clone(), ci.failures, ci.last_rotation), (Some("a".into()), 2, Some(at(1))));
    assert_eq!(ci.last_error, Some(Box::new(Trouble { at: at(50), error: "403".to_owned() })));
}

#[test]
fn a_token_that_reached_no_place_does_not_count_and_one_that_reached_some_does() {
    let first = event(Kind::Rotated, 1, Some("a"), vec![sink("/x", Outcome::Written), sink("/y", Outcome::Written)]);
    let nowhere = event(Kind::Failed, 2, Some("b"), vec![sink("/x", Outcome::Owed), sink("/y", Outcome::Owed)]);
    let state = fold(&[first.clone(), nowhere]);
    assert_eq!((state.targets["ci"].jti.clone(), state.targets["ci"].places[0].jti.clone()), (Some("a".into()), Some("a".into())));
    let somewhere = event(Kind::Failed, 2, Some("b"), vec![sink("/x", Outcome::Written), sink("/y", Outcome::Owed)]);
    let state = fold(&[first, somewhere]);
    let ci = &state.targets["ci"];
    assert_eq!(
        (ci.jti.clone(), ci.places[0].jti.clone(), ci.places[1].jti.clone()),
        (Some("b".into()), Some("b".into()), Some("a".into()))
    );
    assert_eq!(ci.last_error.as_ref().unwrap().error, "/y does not answer");
}

#[test]
fn an_owed_place_keeps_the_time_at_which_it_became_owed_until_it_is_paid() {
    let failed = |second| event(Kind::Failed, second, Some("a"), vec![sink("/x", Outcome::Written), sink("/y", Outcome::Owed)]);
    let mut state = fold(&[failed(10), failed(20)]);
    assert_eq!((state.targets["ci"].places[1].since, state.targets["ci"].failures), (at(10), 2));
    state.apply(&event(Kind::Paid, 30, Some("a"), vec![sink("/y", Outcome::Written)]));
    let ci = &state.targets["ci"];
    assert_eq!((ci.places[1].since, ci.places[1].jti.clone(), ci.places[1].detour.error.as_deref()), (at(30), Some("a".into()), None));
    assert_eq!((ci.failures, &ci.last_error, ci.places.len()), (0, &None, 2));
}

#[test]
fn a_payment_of_one_of_two_owed_places_leaves_the_trouble_standing() {
    let failed = event(Kind::Failed, 10, Some("a"), vec![sink("/x", Outcome::Owed), sink("/y", Outcome::Owed)]);
    let paid = event(Kind::Paid, 20, Some("a"), vec![sink("/x", Outcome::Written)]);
    let ci = fold(&[failed, paid]).targets.remove("ci").unwrap();
    assert_eq!((ci.jti.clone(), ci.failures, ci.places[1].owed()), (Some("a".into()), 1, true));
}

#[test]
fn an_adopted_token_is_the_newest_and_a_rejected_one_is_marked() {
    let mut state = fold(&[event(Kind::Adopted, 5, Some("b"), vec![sink("/x", Outcome::Unchanged)])]);
    assert_eq!((state.targets["ci"].jti.clone(), state.targets["ci"].last_rotation), (Some("b".into()), Some(at(5))));
    state.apply(&event(Kind::Rejected, 6, Some("c"), Vec::new()));
    assert_eq!(state.targets["ci"].rejected_at, None);
    state.apply(&event(Kind::Rejected, 7, Some("b"), Vec::new()));
    assert_eq!(state.targets["ci"].rejected_at, Some(at(7)));
    state.apply(&event(Kind::Rotated, 8, Some("d"), vec![sink("/x", Outcome::Written)]));
    assert_eq!(state.targets["ci"].rejected_at, None);
}

#[test]
fn a_retired_target_is_gone_and_what_a_person_took_makes_none() {
    let mut state = fold(&[event(Kind::Minted, 1, Some("a"), Vec::new()), event(Kind::Executed, 2, Some("b"), Vec::new())]);
    assert!(state.targets.is_empty());
    state.apply(&event(Kind::Rotated, 3, Some("c"), Vec::new()));
    state.apply(&event(Kind::Retired, 4, None, Vec::new()));
    assert!(state.targets.is_empty());
}

fn retired(reason: Reason, second: i64, outcomes: &[(&str, Outcome)]) -> Line {
    let leaves = outcomes.iter().map(|(place, outcome)| leave(&sink(place, *outcome))).collect();
    Line { reason: Some(reason), leaves, ..event(Kind::Retired, second, None, Vec::new()) }
}

#[test]
fn a_withdrawn_target_is_remembered_until_it_is_rotated_and_what_it_owes_until_it_is_gone() {
    let rotation = Line { generation: Some(7), ..event(Kind::Rotated, 1, Some("a"), vec![sink("/x", Outcome::Written)]) };
    let mut state = fold(&[rotation, retired(Reason::Withdrawn, 2, &[("/x", Outcome::Owed), ("/y", Outcome::Owed)])]);
    assert!(state.is_withdrawn("ci") && !state.targets.contains_key("ci"));
    assert_eq!((state.generation("ci"), state.leavers["ci"].places.len()), (7, 2));
    state.apply(&retired(Reason::Withdrawn, 3, &[("/x", Outcome::Written)]));
    assert_eq!(state.leavers["ci"].places[0].place, "/y");
    state.apply(&retired(Reason::Withdrawn, 4, &[("/y", Outcome::Written)]));
    assert!(state.is_withdrawn("ci"), "nothing is owed, and it stays withdrawn");
    state.apply(&event(Kind::Rotated, 5, Some("b"), vec![sink("/x", Outcome::Written)]));
    assert!(!state.is_withdrawn("ci") && state.leavers.is_empty());
}

#[test]
fn a_place_that_a_target_publishes_again_is_not_owed_any_more_and_another_one_is() {
    let gone = retired(Reason::Removed, 1, &[("/x", Outcome::Owed), ("/y", Outcome::Owed)]);
    let state = fold(&[gone, event(Kind::Rotated, 2, Some("a"), vec![sink("/x", Outcome::Written)])]);
    assert!(!state.is_withdrawn("ci"));
    let owed: Vec<&str> = state.leavers["ci"].places.iter().map(|place| place.place.as_str()).collect();
    assert_eq!(owed, ["/y"]);
}

#[test]
fn the_schedule_in_force_survives_a_checkpoint() {
    let state = fold(&[Line { schedule: Some("abc".to_owned()), ..Line::new(Kind::Reloaded, at(1)) }]);
    assert_eq!(fold(&state.checkpoint(at(2))).schedule.as_deref(), Some("abc"));
}

fn any_sink() -> impl Strategy<Value = SinkLine> {
    let outcomes = [Outcome::Written, Outcome::Unchanged, Outcome::FellBack, Outcome::Owed, Outcome::Failed];
    (0u8..3, proptest::sample::select(outcomes.to_vec())).prop_map(|(place, outcome)| sink(&format!("/{place}"), outcome))
}

fn leave(sink: &SinkLine) -> LeaveLine {
    let outcome = if sink.outcome == Outcome::Written { Parting::Gone } else { Parting::Owed };
    let (sink, place, error) = (sink.sink.clone(), sink.place.clone(), sink.error.clone());
    LeaveLine { sink, place, outcome, sha256: None, error, leftover: None, seals: Default::default() }
}

fn any_line() -> impl Strategy<Value = Line> {
    use Kind::*;
    let kinds = vec![Started, Stopped, Reloaded, ReloadRefused, Rotated, Rotated, Failed, Paid, Adopted, Rejected, Retired, Minted, Gap];
    let token = (proptest::option::of(0u8..4), proptest::option::of(0u64..9), 0i64..10_000);
    let words = (proptest::option::of("[a-z]{1,3}"), proptest::option::of("[a-z]{1,3}"), 0u8..3);
    (proptest::sample::select(kinds), token, words, proptest::collection::vec(any_sink(), 0..4)).prop_map(
        |(kind, (jti, generation, second), (error, schedule, target), sinks)| Line {
            target: Some(format!("t{target}")),
            generation,
            error,
            schedule,
            proof: jti.map(|_| Proof::Claims),
            reason: generation.map(|n| match kind {
                Retired if n % 2 == 0 => Reason::Withdrawn,
                Retired => Reason::Removed,
                _ => Reason::Lifetime,
            }),
            leaves: if kind == Retired { sinks.iter().map(leave).collect() } else { Vec::new() },
            changed: if kind == Reloaded { vec![format!("t{target}")] } else { Vec::new() },
            service_account: generation.map(|n| format!("ns/{n}")),
            labels: jti.map(|n| ("n".to_owned(), n.to_string())).into_iter().collect(),
            ..event(kind, second, jti.map(|n| format!("j{n}")).as_deref(), sinks)
        },
    )
}

proptest! {
    #[test]
    fn a_checkpoint_at_any_point_changes_nothing(lines in proptest::collection::vec(any_line(), 0..24), cut in 0usize..24) {
        let (before, after) = lines.split_at(cut.min(lines.len()));
        let checkpoint = fold(before).checkpoint(at(20_000));
        let texts: Vec<String> = checkpoint.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        let mut lines_again: Vec<Line> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        lines_again.extend_from_slice(after);
        let (straight, over) = (fold(&lines), fold(&lines_again));
        prop_assert_eq!(straight.targets, over.targets);
        prop_assert_eq!(straight.leavers, over.leavers);
        prop_assert_eq!(straight.schedule, over.schedule);
    }

    #[test]
    fn a_checkpoint_has_one_line_per_target_and_an_end_with_their_count(lines in proptest::collection::vec(any_line(), 0..24)) {
        let state = fold(&lines);
        let mut checkpoint = state.checkpoint(at(20_000));
        let end = checkpoint.pop().unwrap();
        prop_assert_eq!((end.kind, end.count), (Kind::CheckpointEnd, Some((state.targets.len() + state.leavers.len()) as u64)));
        let mut names: Vec<&str> = state.targets.keys().map(|name| &**name).collect();
        names.sort_unstable();
        let names = names.into_iter().chain(state.leavers.keys().map(String::as_str));
        prop_assert!(checkpoint.iter().map(|line| line.target.as_deref().unwrap()).eq(names));
    }
}

fn hook(outcome: Heard, round: u64) -> HookLine {
    let error = (outcome == Heard::Failed).then(|| "no".to_owned());
    HookLine { outcome, round, error, ..HookLine::pending("exec", "/bin/x".into()) }
}

fn delivered(kind: Kind, second: i64, generation: u64) -> Line {
    Line {
        generation: Some(generation),
        hooks: vec![hook(Heard::Pending, 0)],
        ..event(kind, second, Some("a"), vec![sink("/x", Outcome::Written)])
    }
}

fn told(second: i64, generation: u64, outcome: Heard, round: u64) -> Line {
    Line { generation: Some(generation), hooks: vec![hook(outcome, round)], ..event(Kind::Told, second, None, Vec::new()) }
}

#[test]
fn a_hook_waits_from_the_delivery_until_it_is_told_of_the_newest_token() {
    let mut state = fold(&[delivered(Kind::Rotated, 1, 1)]);
    assert!(state.untold.contains("ci"));
    state.apply(&told(2, 1, Heard::Failed, 0));
    let failed = state.targets["ci"].hook("exec", "/bin/x").unwrap().clone();
    assert_eq!((failed.outcome, failed.error.as_deref(), state.untold.len()), (Heard::Failed, Some("no"), 1));
    state.apply(&told(3, 1, Heard::Done, 0));
    let done = state.targets["ci"].hook("exec", "/bin/x").unwrap().clone();
    assert_eq!((done.outcome, done.error, done.told_at, state.untold.len()), (Heard::Done, None, Some(at(3)), 0));
    state.apply(&delivered(Kind::Rotated, 4, 2));
    state.apply(&told(5, 1, Heard::Done, 0));
    assert!(state.untold.contains("ci"), "what is said of an older token is nothing for the newest");
}

#[test]
fn a_payment_has_the_hook_told_again_and_a_run_from_before_it_does_not_count() {
    let mut state = fold(&[delivered(Kind::Failed, 1, 1), delivered(Kind::Paid, 2, 1), told(3, 1, Heard::Done, 0)]);
    assert!(state.untold.contains("ci"));
    state.apply(&told(4, 1, Heard::Done, 1));
    assert!(state.untold.is_empty());
}

#[test]
fn hooks_outlive_a_checkpoint_and_a_hook_that_the_target_lost_is_forgotten_with_the_next_token() {
    let state = fold(&[delivered(Kind::Rotated, 1, 1), delivered(Kind::Paid, 2, 1), told(3, 1, Heard::Failed, 1)]);
    let mut again = fold(&state.checkpoint(at(9)));
    assert_eq!((&again.targets, &again.untold), (&state.targets, &state.untold));
    again.apply(&Line { hooks: Vec::new(), ..delivered(Kind::Rotated, 10, 2) });
    assert!(again.targets["ci"].hooks.is_empty() && again.untold.is_empty());
}
