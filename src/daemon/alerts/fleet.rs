//! What is amiss with a fleet? Pure. It is told once it has lasted for a term of a Lease: one renewal may fail, and a
//! reload goes from member to member. That a member is dead its own silence tells (`heartbeat`): its targets are served.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::conditions::{of_daemon, told};
use super::{Condition, Matter, Subject};
use crate::daemon::fleet::members::LEASE;
use crate::daemon::fleet::view::View;
use crate::schedule::alerts::On;

/// What was seen to be amiss, and since when.
#[derive(Debug, Default)]
pub struct Troubles {
    since: BTreeMap<Subject, Timestamp>,
    /// Whether it is not known yet how others do.
    joining: bool,
}

impl Troubles {
    /// What is amiss now: with ourselves as a member, and with each other member as we see it. `None`: there is no fleet.
    pub fn amiss(&mut self, view: Option<&View>, now: Timestamp) -> Vec<Condition> {
        self.joining = view.is_some_and(|view| !view.member && view.trouble.is_none());
        let own = view.and_then(|view| Some((Subject::Daemon, view.trouble.clone()?)));
        let odd = view.into_iter().flat_map(|view| &view.members).filter(|seen| !seen.warnings.is_empty());
        let others = odd.map(|seen| (Subject::Member(seen.name.clone()), seen.warnings.join("; ")));
        let found: BTreeMap<Subject, String> = own.into_iter().chain(others).collect();
        self.since.retain(|subject, _| found.contains_key(subject));
        let mut amiss = Vec::new();
        for (subject, why) in found {
            let since = self.since.entry(subject.clone()).or_insert(now);
            // The clock may have been put back.
            *since = (*since).min(now);
            if now.as_millisecond() - since.as_millisecond() >= LEASE {
                let matter = Matter { on: On::FleetTrouble, subject };
                amiss.push(Condition { matter, error: Some(told(&why)), ..of_daemon(On::FleetTrouble, "fleetTrouble", *since) });
            }
        }
        amiss
    }

    /// Whether nobody knows yet if it is amiss: it has not lasted, or this daemon has just started.
    pub fn is_open(&self, matter: &Matter) -> bool {
        matter.on == On::FleetTrouble && (self.joining || self.since.contains_key(&matter.subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::alerts::{Alerts, HOLD};
    use crate::daemon::fleet::view::Seen;

    fn seen(name: &str, warnings: &[&str]) -> Seen {
        let warnings = warnings.iter().map(|&warning| warning.to_owned()).collect();
        Seen { name: name.into(), alive: true, schedule: "s".into(), version: "1".into(), warnings }
    }

    fn view(trouble: Option<&str>, warnings: &[&str]) -> View {
        let members = vec![seen("a", &[]), seen("b", warnings)];
        View { me: "a".into(), member: true, trouble: trouble.map(Into::into), members, ..View::default() }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn told(amiss: &[Condition]) -> Vec<(Subject, String, i64)> {
        let one = |c: &Condition| (c.matter.subject.clone(), c.error.clone().unwrap(), c.since.as_millisecond());
        amiss.iter().map(one).collect()
    }

    #[test]
    fn what_lasts_for_a_term_is_amiss_each_with_whose_it_is_and_why() {
        let mut troubles = Troubles::default();
        let bad = view(Some("its API server does not answer"), &["it has another schedule", "its clock is 600 s ahead of ours"]);
        assert_eq!(troubles.amiss(Some(&view(None, &[])), at(0)), []);
        assert_eq!(troubles.amiss(Some(&bad), at(1_000)), []);
        assert_eq!(troubles.amiss(Some(&bad), at(1_000 + LEASE - 1)), []);
        let expected = [
            (Subject::Daemon, "its API server does not answer".to_owned(), 1_000),
            (Subject::Member("b".into()), "it has another schedule; its clock is 600 s ahead of ours".to_owned(), 1_000),
        ];
        assert_eq!(told(&troubles.amiss(Some(&bad), at(1_000 + LEASE))), expected);
        // What changes in between does not begin anew; what was over does.
        let other = view(Some("403"), &[]);
        assert_eq!(told(&troubles.amiss(Some(&other), at(1_001 + LEASE))), [(Subject::Daemon, "403".to_owned(), 1_000)]);
        assert_eq!(troubles.amiss(Some(&bad), at(1_002 + LEASE)).len(), 1);
        assert_eq!(troubles.amiss(None, at(1_003 + LEASE)), [], "the schedule has no fleet any more");
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_hide_it_for_longer_than_a_term() {
        let mut troubles = Troubles::default();
        let bad = view(Some("403"), &[]);
        troubles.amiss(Some(&bad), at(10_000_000));
        assert_eq!(troubles.amiss(Some(&bad), at(1_000)), []);
        assert_eq!(troubles.amiss(Some(&bad), at(1_000 + LEASE)).len(), 1);
    }

    #[test]
    fn after_a_restart_what_was_told_is_neither_over_nor_told_again_before_it_is_known() {
        let page = crate::schedule::alerts::AlertSpec {
            on: On::ALL.into(),
            to: crate::after::message::Recipient::Exec(crate::after::exec::ExecSpec {
                command: vec!["page".into()],
                timeout: std::time::Duration::from_secs(1),
            }),
            repeat: std::time::Duration::from_secs(3_600),
        };
        let page = [page];
        let bad = view(Some("403"), &["it has another schedule"]);
        let (mut alerts, mut troubles) = (Alerts::default(), Troubles::default());
        let look = |alerts: &mut Alerts, troubles: &mut Troubles, view: &View, now: i64| {
            let amiss = troubles.amiss(Some(view), at(now));
            alerts.look(amiss, |matter| troubles.is_open(matter), now);
            let (runs, _) = alerts.begin(&page, now);
            runs.iter().for_each(|run| alerts.ended(run, None, now));
            runs.iter().map(|run| (run.recovered, run.about.len())).collect::<Vec<_>>()
        };
        for now in [0, LEASE] {
            assert_eq!(look(&mut alerts, &mut troubles, &bad, now), []);
        }
        assert_eq!(look(&mut alerts, &mut troubles, &bad, LEASE + HOLD), [(false, 2)]);
        // A run later nobody knows at first, then it lasts on.
        let (mut alerts, mut troubles) = (Alerts::remembered(alerts.to_keep()), Troubles::default());
        let joining = View { me: "a".into(), ..View::default() };
        let begun = LEASE + 60_000;
        for (view, after) in [(&joining, 0), (&joining, 20_000), (&bad, 21_000), (&bad, 30_000), (&bad, 60_000)] {
            assert_eq!(look(&mut alerts, &mut troubles, view, begun + after), [], "{after}");
        }
        let good = view(None, &[]);
        assert_eq!(look(&mut alerts, &mut troubles, &good, begun + 61_000), []);
        assert_eq!(look(&mut alerts, &mut troubles, &good, begun + 61_000 + HOLD), [(true, 2)]);
        assert_eq!(look(&mut alerts, &mut troubles, &good, begun + 120_000), []);
    }
}
