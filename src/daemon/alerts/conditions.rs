//! What is amiss? Pure: from records, plan and the time, target by target, and from what the daemon knows of itself.

use jiff::Timestamp;

use super::{Condition, Matter, Subject};
use crate::daemon::monitor::{Monitored, Verdict};
use crate::daemon::own;
use crate::daemon::step::{self, Standing};
use crate::record::append::Health;
use crate::record::fold::{State, TargetState};
use crate::record::word;
use crate::schedule::alerts::On;
use crate::schedule::{Plan, Target, own as own_target};
use crate::token::mask::mask;

/// Characters of a failure that are told.
const SHOWN: usize = 400;

/// What the loop knows of a target beside its records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Doing {
    /// Whether it is being rotated.
    pub rotating: bool,
    /// Tries that failed since the last that did not.
    pub failures: u32,
}

/// What is amiss with a target.
pub fn of_target(target: &Target, records: &State, doing: Doing, plan: &Plan, now: Timestamp, amiss: &mut Vec<Condition>) {
    if records.is_withdrawn(&target.name) {
        return;
    }
    let state = records.target(&target.name);
    let own = own_target::cluster_of(&target.name);
    let trouble = state.and_then(|state| state.last_error.as_ref());
    let error = trouble.map(|trouble| told(&trouble.error));
    let about = |on: On, word: String, since: Timestamp| Condition {
        matter: Matter { on, subject: Subject::Target(target.name.to_string()) },
        state: word,
        since,
        expires_at: state.and_then(|state| state.expires_at),
        error: error.clone(),
        error_kind: None,
    };
    let danger = step::danger(target, state, doing.rotating, doing.failures, now);
    match (danger, own) {
        (Some(danger), None) => amiss.push(about(danger_word(danger), word(danger), since(danger, target, state, now))),
        (danger, Some(cluster)) if danger.is_some() || trouble.is_some_and(|trouble| own::is_refused(&trouble.error)) => {
            let word = word(danger.unwrap_or(Standing::Retrying));
            let since = danger.map_or(now, |danger| since(danger, target, state, now));
            let subject = Subject::Cluster(cluster.to_owned());
            let told = about(On::OwnCredential, word, since);
            let error = Some(with_way_back(told.error.as_deref(), cluster, plan));
            amiss.push(Condition { matter: Matter { on: On::OwnCredential, subject }, error, ..told });
        }
        _ => {}
    }
    if step::is_failing(state, doing.failures) {
        let word = word(danger.unwrap_or(Standing::Retrying));
        amiss.push(about(On::Failed, word, trouble.map_or(now, |trouble| trouble.at)));
    }
    let owed = state.into_iter().flat_map(|state| &state.places).filter(|place| place.owed());
    if let Some(place) = owed.min_by_key(|place| place.since) {
        let error = place.detour.error.as_ref().map(|error| told(&format!("{}: {error}", place.place)));
        let kind = place.detour.kind.clone();
        amiss.push(Condition { error, error_kind: kind, ..about(On::Owed, word(place.outcome), place.since) });
    }
}

/// The last failure, and what brings the credential back.
fn with_way_back(error: Option<&str>, cluster: &str, plan: &Plan) -> String {
    match error {
        Some(error) if own::is_refused(error) => error.to_owned(),
        other => format!("{}; renew it with `{}`", other.unwrap_or("it was not renewed in time"), own::command(cluster, &plan.path)),
    }
}

/// Whether a rotation that is under way leaves open if that is amiss: a token that is about to end may be replaced now.
pub fn is_open(matter: &Matter, rotating: impl Fn(&str) -> bool) -> bool {
    match (&matter.on, &matter.subject) {
        (On::AtRisk, Subject::Target(name)) => rotating(name),
        (On::OwnCredential, Subject::Cluster(cluster)) => rotating(&own_target::name_of(cluster)),
        _ => false,
    }
}

fn danger_word(danger: Standing) -> On {
    match danger {
        Standing::Rejected => On::Rejected,
        Standing::Expired => On::Expired,
        _ => On::AtRisk,
    }
}

fn since(danger: Standing, target: &Target, state: Option<&TargetState>, now: Timestamp) -> Timestamp {
    let since = match danger {
        Standing::Rejected => state.and_then(|state| state.rejected_at),
        Standing::Expired => state.and_then(|state| state.expires_at),
        _ => state.and_then(step::life).and_then(|life| Timestamp::from_second(crate::schedule::timing::at_risk_from(target, life)).ok()),
    };
    since.unwrap_or(now)
}

/// Where records cannot be written, or lines were lost lately.
pub fn of_records(health: &Health, lost_lately: bool, now: Timestamp) -> Option<Condition> {
    if health.error.is_none() && !lost_lately {
        return None;
    }
    let (waiting, lost) = (health.waiting, health.lost);
    let why = health.error.as_deref().unwrap_or("they can be written again");
    Some(Condition {
        error: Some(told(&format!("{why} ({waiting} lines wait, {lost} lost)"))),
        ..of_daemon(On::RecordsLost, "recordsLost", now)
    })
}

/// Where the schedule file is refused.
pub fn of_schedule(refused: &crate::daemon::status::Refused) -> Condition {
    let first = refused.problems.iter().find(|problem| problem.severity == crate::schedule::Severity::Error);
    let error = first.map(|problem| told(&problem.to_string()));
    Condition { error, ..of_daemon(On::ScheduleRefused, "scheduleRefused", refused.since) }
}

pub(super) fn of_daemon(on: On, state: &str, since: Timestamp) -> Condition {
    let matter = Matter { on, subject: Subject::Daemon };
    Condition { matter, state: state.into(), since, expires_at: None, error: None, error_kind: None }
}

/// Where a monitored file holds no good token.
pub fn of_monitored(file: &Monitored) -> Option<Condition> {
    let on = match file.state {
        Verdict::Fresh => return None,
        Verdict::Expired => On::Expired,
        Verdict::TooOld => On::AtRisk,
        Verdict::Missing | Verdict::Unreadable | Verdict::NoToken | Verdict::NotYetValid | Verdict::Endless => On::Failed,
    };
    Some(Condition {
        matter: Matter { on, subject: Subject::File(file.path.clone()) },
        state: word(file.state),
        since: file.since,
        expires_at: file.expires_at,
        error: file.reason.as_deref().map(told),
        error_kind: None,
    })
}

/// A failure, fit to be told to anybody.
pub(super) fn told(error: &str) -> String {
    mask(error).chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::record::{Kind, Line, Outcome, Reason, SinkLine};
    use crate::schedule::check::{Sources, plan};

    fn planned() -> Plan {
        let text = "version: 1\nclusters: {prod: {kubeconfig: /k, own: {serviceAccount: f/f, duration: 12h}}}\n\
            targets: [{name: ci, cluster: prod, serviceAccount: a/b, duration: 1h, deliver: [{file: {path: /run/t}}]}]\n";
        let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
        let plan = plan(&sources, &std::collections::BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]));
        own_target::join(plan, Path::new("/state"))
    }

    fn target(own: bool) -> Arc<Target> {
        Arc::clone(planned().target(if own { "own/prod" } else { "ci" }).unwrap())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn line(kind: Kind, target: &Target, second: i64, error: Option<&str>) -> Line {
        let outcome = if error.is_some() { Outcome::Owed } else { Outcome::Written };
        let sink = SinkLine {
            kind: error.map(|_| "unavailable".into()),
            error: error.map(Into::into),
            ..SinkLine::new("file", "/run/t", outcome)
        };
        Line {
            target: Some(target.name.to_string()),
            reason: Some(Reason::New),
            jti: (kind == Kind::Rotated).then(|| "j".into()),
            issued_at: (kind == Kind::Rotated).then(|| at(0)),
            expires_at: (kind == Kind::Rotated).then(|| at(3600)),
            sinks: if kind == Kind::Rotated { vec![sink] } else { Vec::new() },
            error: error.map(Into::into),
            ..Line::new(kind, at(second))
        }
    }

    fn amiss(target: &Target, lines: &[Line], now: i64) -> Vec<(On, Subject, String, i64)> {
        let mut state = State::default();
        lines.iter().for_each(|line| state.apply(line));
        let mut amiss = Vec::new();
        of_target(target, &state, Doing::default(), &planned(), at(now), &mut amiss);
        amiss.into_iter().map(|one| (one.matter.on, one.matter.subject, one.state, one.since.as_second())).collect()
    }

    #[test]
    fn a_target_is_amiss_by_its_records_and_the_time_and_each_word_says_since_when() {
        let ci = target(false);
        let it = || Subject::Target("ci".into());
        let rotated = || line(Kind::Rotated, &ci, 1, None);
        assert_eq!(amiss(&ci, &[], 10), []);
        assert_eq!(amiss(&ci, &[rotated()], 3_239), []);
        assert_eq!(amiss(&ci, &[rotated()], 3_240), [(On::AtRisk, it(), "atRisk".into(), 3_240)]);
        assert_eq!(amiss(&ci, &[rotated()], 3_700), [(On::Expired, it(), "expired".into(), 3_600)]);
        assert_eq!(amiss(&ci, &[rotated(), line(Kind::Failed, &ci, 90, Some("503"))], 100), [(On::Failed, it(), "retrying".into(), 90)]);
        let late = amiss(&ci, &[rotated(), line(Kind::Failed, &ci, 3_300, Some("503"))], 3_300);
        assert_eq!(late.iter().map(|one| one.0).collect::<Vec<_>>(), [On::AtRisk, On::Failed]);
        let rejected = line(Kind::Rejected, &ci, 50, None);
        assert_eq!(amiss(&ci, &[rotated(), rejected], 60), [(On::Rejected, it(), "rejected".into(), 50)]);
        assert_eq!(amiss(&ci, &[line(Kind::Rotated, &ci, 7, Some("down"))], 60), [(On::Owed, it(), "owed".into(), 7)]);
    }

    #[test]
    fn an_own_credential_has_a_word_of_its_own_and_one_that_is_refused_is_told_before_it_ends() {
        let own = target(true);
        let it = || Subject::Cluster("prod".into());
        let rotated = || line(Kind::Rotated, &own, 1, None);
        assert_eq!(amiss(&own, &[rotated()], 1_799), []);
        assert_eq!(amiss(&own, &[rotated()], 1_800), [(On::OwnCredential, it(), "atRisk".into(), 1_800)]);
        let refused = line(Kind::Failed, &own, 60, Some("renew it with `tokenferry bootstrap prod`"));
        let told = amiss(&own, &[rotated(), refused], 70);
        assert_eq!(told[0], (On::OwnCredential, it(), "retrying".into(), 70));
        let way = |error: Option<&str>| with_way_back(error, "prod", &planned());
        assert_eq!(way(None), "it was not renewed in time; renew it with `tokenferry bootstrap prod --schedule /etc/s.yaml`");
        assert_eq!(way(Some("use `tokenferry bootstrap x`")), "use `tokenferry bootstrap x`");
        let passing = line(Kind::Failed, &own, 60, Some("503: away"));
        assert_eq!(amiss(&own, &[rotated(), passing], 70), [(On::Failed, Subject::Target("own/prod".into()), "retrying".into(), 60)]);
    }

    #[test]
    fn what_is_told_of_a_failure_is_masked_and_one_line() {
        let said = told("no eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl\nmore");
        assert!(!said.contains("c2lnbmF0dXJl") && !said.contains('\n'), "{said}");
    }

    #[test]
    fn records_that_cannot_be_written_and_lines_that_were_lost_lately_are_amiss() {
        let health = |error: Option<&str>, lost| Health {
            lost,
            waiting: 3,
            error: error.map(Into::into),
            unsigned: None,
            head: String::new(),
            seq: 1,
        };
        assert_eq!(of_records(&health(None, 7), false, at(1)), None);
        assert!(of_records(&health(Some("full"), 0), false, at(1)).unwrap().error.unwrap().contains("full (3 lines wait, 0 lost)"));
        assert!(of_records(&health(None, 7), true, at(1)).is_some());
    }
}
