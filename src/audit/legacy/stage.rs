//! How far a legacy token is on its way out, and whether it may be deleted. Pure: the time and the finds are given.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{Find, Kind};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "stage")]
pub enum Stage {
    /// The API server accepts it.
    Live,
    /// Refused since then; watched until then.
    Observed {
        /// Since when.
        since: Timestamp,
        /// Until when.
        until: Timestamp,
    },
    /// Refused, and somebody used it afterwards: he is without access, or has another way.
    Missed {
        /// Since when it is refused.
        since: Timestamp,
    },
    /// Refused for long enough, and nobody used it.
    Quiet {
        /// Since when.
        since: Timestamp,
    },
    /// No token Secret: it ends with something else.
    Elsewhere,
}

impl Stage {
    /// One word for machines and tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Observed { .. } => "observed",
            Self::Missed { .. } => "missed",
            Self::Quiet { .. } => "quiet",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// How far a find is. `observe`: seconds that it has to be refused without a use.
pub fn stage(find: &Find, now: Timestamp, observe: i64) -> Stage {
    if find.kind != Kind::TokenSecret {
        return Stage::Elsewhere;
    }
    let Some(day) = &find.invalid_since else { return Stage::Live };
    // A label that is no day counts for the API server all the same; nobody knows since when, so it is never quiet.
    let since = find.disabled_at.or_else(|| end_of(day)).unwrap_or(now);
    let noted = match (&find.last_used, find.disabled_at) {
        // We took the label off when we disabled it, so it is of a later use.
        (Some(_), Some(_)) => true,
        // Somebody else disabled it: a use of the same day may have been before or after.
        (Some(used), None) => used >= day,
        (None, _) => false,
    };
    if noted || find.uses.iter().any(|one| one.last > since || one.refused_since > 0) {
        return Stage::Missed { since };
    }
    let until = Timestamp::from_second(since.as_second().saturating_add(observe)).unwrap_or(Timestamp::MAX);
    if now < until { Stage::Observed { since, until } } else { Stage::Quiet { since } }
}

/// Midnight after that day, UTC: labels have no time of day.
fn end_of(day: &str) -> Option<Timestamp> {
    let day: Date = day.parse().ok()?;
    day.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok().map(|midnight| midnight.timestamp())
}

/// What stands in the way of disabling it: those who would be without access at once.
pub fn against_disabling(find: &Find) -> Vec<String> {
    find.live().map(|reference| format!("{reference} hangs on it")).collect()
}

/// What stands in the way of deleting it. `anyway`: a person said that it need not have been watched; who hangs on it
/// is in the way all the same.
pub fn against_deleting(find: &Find, stage: Stage, anyway: bool) -> Vec<String> {
    let mut reasons = against_disabling(find);
    let place = format!("{}/{}", find.namespace, find.secret);
    match stage {
        _ if anyway => {}
        Stage::Quiet { .. } => {}
        Stage::Live => reasons.push(format!(
            "it was never disabled, so nobody knows who misses it: tokenferry legacy disable {place} --apply, and look again later"
        )),
        Stage::Missed { since } => reasons.push(format!(
            "it was used after it was disabled at {since}: find out by whom (legacy plan {place} --audit-log FILE), or take it back (legacy restore {place} --apply)"
        )),
        Stage::Observed { since, until } => reasons.push(format!("it is disabled since {since} and watched until {until} (--observe)")),
        Stage::Elsewhere => reasons.push("it is no token Secret".into()),
    }
    reasons
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::legacy::{How, Reference, Use};

    const DAY: i64 = 86_400;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn disabled(last_used: Option<&str>, by_us: bool) -> Find {
        Find {
            invalid_since: Some("2026-11-01".into()),
            disabled_at: by_us.then(|| at("2026-11-01T12:00:00Z")),
            last_used: last_used.map(str::to_owned),
            ..Find::at("ci", "old", Kind::TokenSecret)
        }
    }

    fn word(find: &Find, now: &str) -> &'static str {
        stage(find, at(now), 7 * DAY).word()
    }

    #[test]
    fn a_disabled_token_is_watched_and_then_quiet() {
        assert_eq!(word(&Find::at("ci", "old", Kind::TokenSecret), "2026-11-20T00:00:00Z"), "live");
        assert_eq!(word(&disabled(None, true), "2026-11-08T11:59:59Z"), "observed");
        assert_eq!(word(&disabled(None, true), "2026-11-08T12:00:00Z"), "quiet");
        assert_eq!(word(&disabled(None, false), "2026-11-08T23:59:59Z"), "observed", "counted from the end of the day");
        assert_eq!(word(&disabled(None, false), "2026-11-09T00:00:00Z"), "quiet");
        assert_eq!(word(&Find::at("ci", "copy", Kind::Copy), "2026-11-20T00:00:00Z"), "elsewhere");
    }

    #[test]
    fn a_use_after_it_was_disabled_is_seen_on_the_same_day_too() {
        assert_eq!(word(&disabled(Some("2026-11-01"), true), "2026-11-20T00:00:00Z"), "missed");
        assert_eq!(word(&disabled(Some("2026-11-01"), false), "2026-11-20T00:00:00Z"), "missed", "before or after: not known");
        assert_eq!(word(&disabled(Some("2026-10-31"), false), "2026-11-20T00:00:00Z"), "quiet");
        let call = |last: &str, refused_since: u64| Use {
            addresses: vec!["192.0.2.1".into()],
            user_agent: "ci".into(),
            first: at("2026-10-01T00:00:00Z"),
            last: at(last),
            count: 1,
            refused_since,
            pod: None,
            certain: true,
        };
        let logged = |last: &str, refused: u64| Find { uses: vec![call(last, refused)], ..disabled(None, true) };
        assert_eq!(word(&logged("2026-11-01T11:00:00Z", 0), "2026-11-20T00:00:00Z"), "quiet");
        assert_eq!(word(&logged("2026-11-01T12:00:01Z", 0), "2026-11-20T00:00:00Z"), "missed");
        assert_eq!(word(&logged("2026-11-01T11:00:00Z", 3), "2026-11-20T00:00:00Z"), "missed", "refused afterwards");
    }

    #[test]
    fn who_hangs_on_it_is_in_the_way_whatever_a_person_says_and_who_is_over_is_not() {
        let reference = |past| Reference { kind: "Deployment".into(), name: "web".into(), how: How::Env, count: 1, past };
        let find = Find { references: vec![reference(false)], ..disabled(None, true) };
        let quiet = stage(&find, at("2026-12-01T00:00:00Z"), DAY);
        assert_eq!(against_deleting(&find, quiet, true), ["Deployment web (env) hangs on it"]);
        let find = Find { references: vec![reference(true)], ..find };
        assert_eq!(against_deleting(&find, quiet, false), Vec::<String>::new());
    }

    #[test]
    fn what_was_never_disabled_or_is_missed_or_still_watched_is_deleted_only_when_a_person_says_so() {
        let live = Find::at("ci", "old", Kind::TokenSecret);
        let now = at("2026-11-02T00:00:00Z");
        for (find, part) in [
            (live, "never disabled"),
            (disabled(None, true), "watched until 2026-11-08T12:00:00Z"),
            (disabled(Some("2026-11-01"), true), "used after it was disabled"),
        ] {
            let stage = stage(&find, now, 7 * DAY);
            let reasons = against_deleting(&find, stage, false);
            assert!(reasons.len() == 1 && reasons[0].contains(part), "{reasons:?}");
            assert!(against_deleting(&find, stage, true).is_empty());
        }
    }

    proptest! {
        #[test]
        fn a_token_is_never_quiet_before_its_time(seconds in 0i64..40 * DAY, observe in 0i64..30 * DAY, by_us: bool) {
            let find = disabled(None, by_us);
            let begin = find.disabled_at.unwrap_or(at("2026-11-02T00:00:00Z"));
            let now = Timestamp::from_second(begin.as_second() + seconds).unwrap();
            prop_assert_eq!(matches!(stage(&find, now, observe), Stage::Quiet { .. }), seconds >= observe);
        }

        #[test]
        fn any_labels_have_a_stage(used in "\\PC{0,12}", day in "\\PC{0,12}") {
            let find = Find { invalid_since: Some(day), last_used: Some(used), ..Find::at("a", "b", Kind::TokenSecret) };
            stage(&find, at("2026-11-02T00:00:00Z"), 0);
        }
    }
}
