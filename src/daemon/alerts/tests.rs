use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::after::exec::ExecSpec;
use crate::after::message::Recipient;

const REPEAT: i64 = 60_000;

fn alert(command: &str, on: &[On]) -> AlertSpec {
    let to = Recipient::Exec(ExecSpec { command: vec![command.into()], timeout: Duration::from_secs(5) });
    AlertSpec { on: on.iter().copied().collect(), to, repeat: Duration::from_secs(60) }
}

fn amiss(on: On, target: &str) -> Condition {
    Condition {
        matter: Matter { on, subject: Subject::Target(target.into()) },
        state: "retrying".into(),
        since: Timestamp::UNIX_EPOCH,
        expires_at: None,
        error: None,
        error_kind: None,
    }
}

fn none(_: &Matter) -> bool {
    false
}

fn told(run: &Run) -> (On, bool, Vec<&str>) {
    let name = |condition: &'_ Condition| match &condition.matter.subject {
        Subject::Target(_) => (),
        other => panic!("{other:?}"),
    };
    run.about.iter().for_each(name);
    let names = run.about.iter().filter_map(|c| if let Subject::Target(name) = &c.matter.subject { Some(name.as_str()) } else { None });
    (run.on, run.recovered, names.collect())
}

#[test]
fn what_lasts_is_told_after_a_while_again_after_its_repeat_and_once_when_it_is_over() {
    let page = [alert("page", &[On::Failed, On::Recovered])];
    let mut alerts = Alerts::default();
    alerts.look(vec![amiss(On::Failed, "a")], none, 0);
    assert_eq!(alerts.begin(&page, 0), (vec![], Some(HOLD)));
    let (runs, _) = alerts.begin(&page, HOLD);
    assert_eq!((told(&runs[0]), runs[0].repeated), ((On::Failed, false, vec!["a"]), false));
    assert_eq!(alerts.begin(&page, HOLD + 1).0, [], "one run at a time");
    alerts.ended(&runs[0], None, HOLD + 100);
    assert_eq!(alerts.begin(&page, HOLD + 101), (vec![], Some(HOLD + 100 + REPEAT)));
    let (again, _) = alerts.begin(&page, HOLD + 100 + REPEAT);
    assert_eq!((told(&again[0]), again[0].repeated), ((On::Failed, false, vec!["a"]), true));
    let mut now = HOLD + 200 + REPEAT;
    alerts.ended(&again[0], None, now);
    alerts.look(vec![], none, now);
    assert_eq!(alerts.begin(&page, now), (vec![], Some(now + HOLD)), "the recovery waits for no repeat");
    now += HOLD;
    let (over, _) = alerts.begin(&page, now);
    assert_eq!(told(&over[0]), (On::Failed, true, vec!["a"]));
    alerts.ended(&over[0], None, now);
    alerts.look(vec![], none, now + 1);
    assert_eq!(alerts.begin(&page, now + REPEAT * 9), (vec![], None));
    assert_eq!((alerts.tally(&page[0]).told, alerts.tally(&page[0]).failed), (3, 0));
}

#[test]
fn what_passes_is_not_told_and_what_was_not_told_does_not_recover() {
    let page = [alert("page", &[On::Failed, On::Recovered])];
    let mut alerts = Alerts::default();
    for second in 0..60 {
        let now = second * 1000;
        let lasting = if second % 4 == 0 { vec![amiss(On::Failed, "a")] } else { vec![] };
        alerts.look(lasting, none, now);
        assert_eq!(alerts.begin(&page, now).0, [], "second {second}");
    }
}

#[test]
fn a_word_that_nobody_asked_for_is_not_told_nor_a_recovery() {
    let page = [alert("page", &[On::Failed])];
    let mut alerts = Alerts::default();
    alerts.look(vec![amiss(On::Failed, "a"), amiss(On::Owed, "a")], none, 0);
    let (runs, _) = alerts.begin(&page, HOLD);
    assert_eq!(told(&runs[0]), (On::Failed, false, vec!["a"]));
    alerts.ended(&runs[0], None, HOLD);
    alerts.look(vec![], none, HOLD);
    assert_eq!(alerts.begin(&page, HOLD * 9).0, []);
    alerts.look(vec![], none, HOLD * 9);
    assert_eq!(alerts.begin(&page, HOLD * 99), (vec![], None), "nothing is left of it");
}

#[test]
fn a_fleet_that_fails_makes_one_message_for_each_word() {
    let page = [alert("page", &[On::Failed, On::AtRisk])];
    let mut alerts = Alerts::default();
    let names: Vec<String> = (0..1000).map(|n| format!("t{n:04}")).collect();
    let all = || names.iter().flat_map(|name| [amiss(On::Failed, name), amiss(On::AtRisk, name)]).collect();
    alerts.look(all(), none, 0);
    let (runs, _) = alerts.begin(&page, HOLD);
    assert_eq!((runs.len(), runs[0].on, runs[0].about.len()), (1, On::Failed, 1000));
    alerts.ended(&runs[0], None, HOLD + 1);
    assert_eq!(alerts.begin(&page, HOLD + 1), (vec![], Some(HOLD + GATHER)));
    let (runs, _) = alerts.begin(&page, HOLD + GATHER);
    assert_eq!((runs[0].on, runs[0].about.len()), (On::AtRisk, 1000));
}

#[test]
fn a_run_that_fails_is_made_again_and_delays_no_other_alert() {
    let both = [alert("page", &[On::Failed, On::Recovered]), alert("mail", &[On::Failed])];
    let mut alerts = Alerts::default();
    alerts.look(vec![amiss(On::Failed, "a")], none, 0);
    let (runs, _) = alerts.begin(&both, HOLD);
    assert_eq!(runs.len(), 2);
    alerts.ended(&runs[0], Some("page: no".into()), HOLD + 10);
    alerts.ended(&runs[1], None, HOLD + 10);
    let failed = alerts.tally(&both[0]);
    assert_eq!((failed.failed, failed.error.as_deref(), alerts.tally(&both[1]).told), (1, Some("page: no"), 1));
    let (again, _) = alerts.begin(&both, HOLD + 10 + RETRY);
    assert_eq!(again.iter().map(|run| (run.alert.clone(), run.repeated)).collect::<Vec<_>>()[0], (both[0].key(), false));
    alerts.ended(&again[0], Some("page: no".into()), HOLD + 20 + RETRY);
    // It is over before anybody heard of it.
    alerts.look(vec![], none, HOLD + 30 + RETRY);
    assert!(alerts.begin(&both, 10 * RETRY).0.iter().all(|run| run.alert != both[0].key()));
}

#[test]
fn what_is_undecided_stays_as_it_was() {
    let page = [alert("page", &[On::AtRisk, On::Recovered])];
    let mut alerts = Alerts::default();
    alerts.look(vec![amiss(On::AtRisk, "a")], none, 0);
    let (runs, _) = alerts.begin(&page, HOLD);
    alerts.ended(&runs[0], None, HOLD);
    alerts.look(vec![], |matter| matter.on == On::AtRisk, HOLD + 1);
    assert_eq!(alerts.begin(&page, HOLD * 3).0, []);
    alerts.look(vec![], none, HOLD * 3);
    assert_eq!(alerts.begin(&page, HOLD * 4).0.len(), 1);
}

#[test]
fn after_a_restart_it_is_told_neither_again_nor_anew_and_its_recovery_is_not_lost() {
    let page = [alert("page", &[On::Failed, On::Recovered])];
    let mut alerts = Alerts::default();
    alerts.look(vec![amiss(On::Failed, "a"), amiss(On::Failed, "b")], none, 0);
    let (runs, _) = alerts.begin(&page, HOLD);
    alerts.ended(&runs[0], None, HOLD);
    let memo = serde_json::to_string(&alerts.to_keep()).unwrap();
    let mut alerts = Alerts::remembered(serde_json::from_str(&memo).unwrap());
    alerts.look(vec![amiss(On::Failed, "a")], none, 20_000);
    assert_eq!(alerts.begin(&page, 20_000).0, []);
    let (over, _) = alerts.begin(&page, 20_000 + HOLD);
    assert_eq!(told(&over[0]), (On::Failed, true, vec!["b"]));
    alerts.ended(&over[0], None, 20_000 + HOLD);
    assert_eq!(told(&alerts.begin(&page, HOLD + REPEAT).0[0]), (On::Failed, false, vec!["a"]));
}

#[test]
fn what_a_removed_alert_told_is_forgotten_and_the_others_go_on() {
    let both = [alert("page", &[On::Failed]), alert("mail", &[On::Failed])];
    let mut alerts = Alerts::default();
    alerts.look(vec![amiss(On::Failed, "a")], none, 0);
    for run in alerts.begin(&both, HOLD).0 {
        alerts.ended(&run, None, HOLD);
    }
    alerts.keep_only(&both[..1]);
    assert_eq!(alerts.to_keep().len(), 1);
    assert_eq!(alerts.begin(&both, HOLD * 2).0.len(), 1, "the one that came back tells anew, the other keeps its repeat");
}

/// A run about others may come first, and another one after that.
const SLACK: i64 = 3 * GATHER;

/// What one recipient knows of a target, and when it was told last.
#[derive(Default)]
struct Known {
    last: Option<i64>,
    knows: bool,
    since: Option<i64>,
    over: Option<i64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    /// Seconds go by; targets fail and recover, messages arrive or not and take their time.
    #[test]
    fn nobody_is_told_too_often_too_late_or_of_a_recovery_from_nothing(
        steps in proptest::collection::vec((0_u8..8, 0_u8..10, any::<bool>(), 0_i64..4), 50..300),
    ) {
        let page = [alert("page", &[On::Failed, On::Recovered])];
        let (mut alerts, mut known) = (Alerts::default(), BTreeMap::<String, Known>::new());
        let (mut bad, mut running, mut now, mut failed_at) = (0_u8, None::<(Run, i64)>, 0_i64, i64::MIN / 2);
        for (flip, whether, well, takes) in steps {
            now += 1000;
            if whether == 0 {
                bad ^= 1 << (flip % 3);
            }
            let names: Vec<String> = (0..3).filter(|n| bad & (1 << n) != 0).map(|n| format!("t{n}")).collect();
            alerts.look(names.iter().map(|name| amiss(On::Failed, name)).collect(), none, now);
            for n in 0..3 {
                let entry = known.entry(format!("t{n}")).or_default();
                if bad & (1 << n) != 0 {
                    entry.since.get_or_insert(now);
                    entry.over = None;
                } else {
                    entry.since = None;
                    entry.over.get_or_insert(now);
                }
            }
            if let Some((run, ends)) = running.take() {
                if ends > now {
                    running = Some((run, ends));
                } else {
                    alerts.ended(&run, (!well).then(|| "no".into()), now);
                    if !well {
                        failed_at = now;
                    }
                    for condition in run.about.iter().filter(|_| well) {
                        let Subject::Target(name) = &condition.matter.subject else { unreachable!() };
                        let entry = known.get_mut(name).unwrap();
                        (entry.knows, entry.last) = (!run.recovered, Some(now));
                    }
                }
            }
            let (runs, next) = alerts.begin(&page, now);
            prop_assert!(next.is_none_or(|next| next > now), "it would wake for nothing");
            prop_assert!(runs.len() <= 1 && (runs.is_empty() || running.is_none()), "two runs of one alert");
            for run in runs {
                for condition in &run.about {
                    let Subject::Target(name) = &condition.matter.subject else { unreachable!() };
                    let entry = &known[name];
                    if run.recovered {
                        prop_assert!(entry.knows, "a recovery from nothing");
                        prop_assert!(entry.over.is_some_and(|over| over + HOLD <= now));
                    } else {
                        prop_assert!(entry.since.is_some_and(|since| since + HOLD <= now), "it had not lasted");
                        prop_assert!(!entry.knows || entry.last.is_some_and(|last| last + REPEAT <= now), "told too often");
                    }
                }
                running = Some((run, now + takes * 1000));
            }
            // Nothing was in the way, and it is overdue.
            if running.is_none() && failed_at + RETRY + SLACK < now {
                for entry in known.values() {
                    prop_assert!(entry.knows || entry.since.is_none_or(|since| since + HOLD + SLACK >= now), "told too late");
                    prop_assert!(!entry.knows || entry.over.is_none_or(|over| over + HOLD + SLACK >= now), "recovered too late");
                }
            }
        }
    }
}
