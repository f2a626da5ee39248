//! When is a token due? Pure: from its real life, its target and a stable name of this host. Times are
//! seconds since 1970.
//!
//! The stable offset spreads targets that would all be due at once. It comes from a hash of host and target,
//! so it is the same after a restart; it makes times by lifetime earlier and cron times later.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::schedule::cron::CronRule;
use crate::schedule::own;
use crate::schedule::plan::{Rotate, Target, Window};

/// Most seconds of offset where `splay` is not set.
pub const DEFAULT_SPLAY: u64 = 900;

/// A cron time that is more seconds past than this was missed, not just late.
const LATE: i64 = 60;

/// When a token was issued and until when it is good, by its own `iat` and `exp`: servers shorten what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// `iat`.
    pub issued_at: i64,
    /// `exp`.
    pub expires_at: i64,
}

impl Life {
    /// Seconds from issue to end; 0 where the claims run backwards.
    pub fn seconds(self) -> i64 {
        self.expires_at.saturating_sub(self.issued_at).max(0)
    }
}

/// Why a rotation comes when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The share `at` of its life is over.
    Lifetime,
    /// A cron time.
    Cron,
    /// A cron time that passed while nobody rotated.
    Missed,
}

/// Seconds that have to be left after the latest time that a rotation by lifetime may begin: what a real
/// cluster needs at least, and what a trial with seconds of life can spare.
pub fn room(life_seconds: i64) -> i64 {
    if life_seconds >= 600 { 60 } else { 1 }
}

/// When the token is due by its life: `iat` + `at` × life, earlier by the stable offset, moved into the window
/// before where that costs less than half of the life. Always in `[iat, exp)`, given any life at all.
pub fn due_by_lifetime(target: &Target, life: Life, host: &str) -> i64 {
    let seconds = life.seconds();
    let share = fraction(host, &target.name);
    let at = scaled(seconds, target.rotate.at);
    let splay = lifetime_splay(&target.rotate, seconds);
    let latest = seconds.saturating_sub(room(seconds)).max(0);
    let due = life.issued_at.saturating_add(at.saturating_sub(scaled(splay, share)).min(latest));
    match &target.rotate.window {
        Some(window) => into_window(window, due, life, splay, share),
        None => due,
    }
}

/// Most seconds by which the offset makes a time by lifetime earlier: never more than half of the time until then.
pub fn lifetime_splay(rotate: &Rotate, life_seconds: i64) -> i64 {
    let most = rotate.splay.map_or_else(|| (life_seconds / 10).min(signed(DEFAULT_SPLAY)), signed);
    most.min(scaled(life_seconds, rotate.at) / 2)
}

/// The first cron time after `after`, with its offset. `None` without cron.
pub fn next_cron(target: &Target, after: i64, host: &str) -> Option<i64> {
    let next = |rule: &CronRule| Some(rule.next(Timestamp::from_second(after).ok()?)?.as_second() + cron_offset(target, rule, host));
    target.rotate.cron.iter().filter_map(next).min()
}

/// Seconds by which a target is later than its cron rule: a stable share of a tenth of the gap, at most
/// [`DEFAULT_SPLAY`], or of `splay`; never so late that it meets the rule's next time.
pub fn cron_offset(target: &Target, rule: &CronRule, host: &str) -> i64 {
    scaled(cron_splay(&target.rotate, rule), fraction(host, &target.name))
}

/// Most seconds by which the offset makes a time of this rule later.
pub fn cron_splay(rotate: &Rotate, rule: &CronRule) -> i64 {
    let gap = signed(rule.gap());
    let most = rotate.splay.map_or_else(|| (gap / 10).min(signed(DEFAULT_SPLAY)), signed);
    most.min(gap / 2)
}

/// Whether a cron time passed since the token was issued, and with it its offset. A token issued less than a
/// minute before a cron time serves it: the clocks of servers differ by as much.
pub fn missed_cron(target: &Target, life: Life, now: i64, host: &str) -> bool {
    next_cron_of(target, life, host).is_some_and(|due| due <= now)
}

/// When the token is rotated next and why; in the past where it is overdue. A missed cron time counts as now.
pub fn next_rotation(target: &Target, life: Life, now: i64, host: &str) -> (i64, Why) {
    let lifetime = due_by_lifetime(target, life, host);
    match next_cron_of(target, life, host) {
        Some(cron) if cron < lifetime && cron < now.saturating_sub(LATE) => (now.min(lifetime), Why::Missed),
        Some(cron) if cron < lifetime => (cron, Why::Cron),
        _ => (lifetime, Why::Lifetime),
    }
}

/// From when on a token that was not rotated counts as at risk: a tenth of its life before its end, yet not
/// before half of what is left after it was due. The daemon's own credential counts so at half of its life: with it
/// all targets of its cluster end.
pub fn at_risk_from(target: &Target, life: Life) -> i64 {
    let seconds = life.seconds();
    if own::cluster_of(&target.name).is_some() {
        return life.issued_at.saturating_add(seconds / 2);
    }
    let due = scaled(seconds, target.rotate.at);
    let tenth = seconds - (seconds / 10).max(1).min(seconds);
    life.issued_at.saturating_add(tenth.max(due + (seconds - due) / 2).min(seconds))
}

/// The first cron time that this token does not serve.
fn next_cron_of(target: &Target, life: Life, host: &str) -> Option<i64> {
    let next = |rule: &CronRule| {
        let served = life.issued_at.saturating_add(60.min(signed(rule.gap()) / 4));
        Some(rule.next(Timestamp::from_second(served).ok()?)?.as_second() + cron_offset(target, rule, host))
    };
    target.rotate.cron.iter().filter_map(next).min()
}

/// A share in [0, 1) that host and target always have.
fn fraction(host: &str, target: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("{host}\0{target}").as_bytes());
    let bytes = digest.as_ref();
    f64::from(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) / (f64::from(u32::MAX) + 1.0)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // `as` saturates; lives are far below 2^52
fn scaled(seconds: i64, share: f64) -> i64 {
    (seconds as f64 * share) as i64
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Moves a time back to the end of the window before it, where that lies past half of the life.
fn into_window(window: &Window, due: i64, life: Life, splay: i64, share: f64) -> i64 {
    let half = life.issued_at.saturating_add(life.seconds() / 2);
    match last_window(window, due) {
        Some((_, close)) if due < close => due,
        // spread inside the window's last minutes, so that its end is no rush hour
        Some((open, close)) if close > half => (close - 1 - scaled(splay.min((close - open) / 2), share)).max(half),
        _ => due,
    }
}

/// The last window that opened at or before a time: when it opened, when it closes.
fn last_window(window: &Window, at: i64) -> Option<(i64, i64)> {
    let today = Timestamp::from_second(at).ok()?.to_zoned(window.zone.clone()).date();
    for back in 0..=8 {
        let day = today.checked_sub(jiff::Span::new().days(back)).ok()?;
        if !window.days[usize::try_from(day.weekday().to_monday_zero_offset()).unwrap_or(0)] {
            continue;
        }
        let end_day = if window.to <= window.from { day.tomorrow().ok()? } else { day };
        let open = instant(day, window.from, &window.zone)?;
        if open <= at {
            return Some((open, instant(end_day, window.to, &window.zone)?));
        }
    }
    None
}

fn instant(day: jiff::civil::Date, minute: u16, zone: &TimeZone) -> Option<i64> {
    let time = Time::new(i8::try_from(minute / 60).ok()?, i8::try_from(minute % 60).ok()?, 0, 0).ok()?;
    Some(zone.to_zoned(day.to_datetime(time)).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Ask;
    use crate::schedule::plan::{Compliance, Terms};
    use proptest::prelude::*;

    const IAT: i64 = 1_780_308_000; // 2026-06-01T10:00:00Z, a Monday

    fn target(name: &str, rotate: Rotate) -> Target {
        let terms = Terms {
            labels: Default::default(),
            cluster: "prod".into(),
            revocable: false,
            overlap: 0,
            rotate,
            suspend: false,
            prove: true,
            prove_every: 3600,
            compliance: Compliance::default(),
            when_removed: crate::schedule::plan::WhenRemoved::Keep,
            after: Vec::new(),
            hosts: Vec::new(),
        };
        let ask = Ask { namespace: "a".into(), service_account: "b".into(), duration: 3600, audiences: Vec::new(), bound_to: None };
        Target { name: name.into(), terms: terms.into(), ask, deliver: Vec::new(), first: false, line: 1 }
    }

    fn rotate(at: f64) -> Rotate {
        Rotate { at, cron: Vec::new(), splay: Some(0), window: None }
    }

    fn cron(texts: &[&str], splay: Option<u64>) -> Target {
        let rules = texts.iter().map(|text| CronRule::new(text, TimeZone::UTC).unwrap()).collect();
        target("ci", Rotate { cron: rules, splay, ..rotate(0.8) })
    }

    fn window(from: u16, to: u16, days: [bool; 7]) -> Target {
        target("ci", Rotate { window: Some(Window { from, to, days, zone: TimeZone::UTC }), ..rotate(0.8) })
    }

    fn life(seconds: i64) -> Life {
        Life { issued_at: IAT, expires_at: IAT + seconds }
    }

    #[test]
    fn a_token_is_due_at_its_share_of_the_real_life() {
        assert_eq!(due_by_lifetime(&target("ci", rotate(0.8)), life(3600), "h"), IAT + 2880);
        assert_eq!(due_by_lifetime(&target("ci", rotate(0.5)), life(10), "h"), IAT + 5);
    }

    #[test]
    fn the_offset_makes_it_earlier_by_a_tenth_of_the_life_or_a_quarter_of_an_hour_at_most() {
        let spread = |seconds: i64| -> Vec<i64> {
            let due = |i: i32| due_by_lifetime(&target(&format!("t{i}"), Rotate { splay: None, ..rotate(0.8) }), life(seconds), "h");
            (0..400).map(due).map(|due| IAT + seconds * 4 / 5 - due).collect()
        };
        for (seconds, most) in [(3600, 360), (86_400, 900)] {
            let offsets = spread(seconds);
            assert!(offsets.iter().all(|offset| (0..=most).contains(offset)), "{seconds}");
            assert!(*offsets.iter().max().unwrap() > most * 9 / 10 && *offsets.iter().min().unwrap() < most / 10, "{seconds}");
        }
    }

    #[test]
    fn two_hosts_have_two_timetables() {
        let target = target("ci", Rotate { splay: None, ..rotate(0.8) });
        assert_ne!(due_by_lifetime(&target, life(86_400), "a"), due_by_lifetime(&target, life(86_400), "b"));
    }

    #[test]
    fn a_time_outside_the_window_moves_back_to_its_end() {
        // life 36 h from Monday 10:00: due Tuesday 14:48, the window before closed Tuesday 06:00, half of life is over at 04:00
        let due = due_by_lifetime(&window(22 * 60, 6 * 60, [true; 7]), life(36 * 3600), "h");
        assert_eq!(due, IAT + 20 * 3600 - 1);
    }

    #[test]
    fn a_time_inside_the_window_stays() {
        let due = due_by_lifetime(&window(14 * 60, 16 * 60, [true; 7]), life(36 * 3600), "h");
        assert_eq!(due, IAT + 36 * 3600 * 4 / 5);
    }

    #[test]
    fn a_window_before_half_of_the_life_moves_nothing() {
        let mondays = [true, false, false, false, false, false, false];
        assert_eq!(due_by_lifetime(&window(10 * 60, 12 * 60, mondays), life(36 * 3600), "h"), IAT + 36 * 3600 * 4 / 5);
        assert_eq!(due_by_lifetime(&window(10 * 60, 12 * 60, [false; 7]), life(36 * 3600), "h"), IAT + 36 * 3600 * 4 / 5);
    }

    #[test]
    fn cron_comes_on_top_and_later_by_its_offset() {
        let exact = cron(&["0 14 * * *", "0 12 * * *"], Some(0));
        assert_eq!(next_cron(&exact, IAT, "h"), Some(IAT + 2 * 3600));
        assert_eq!(next_rotation(&exact, life(86_400), IAT, "h"), (IAT + 2 * 3600, Why::Cron));
        let spread = cron(&["0 12 * * *"], None);
        let offset = cron_offset(&spread, &spread.rotate.cron[0], "h");
        assert!((1..=900).contains(&offset));
        assert_eq!(next_rotation(&spread, life(86_400), IAT, "h"), (IAT + 2 * 3600 + offset, Why::Cron));
        // between the cron time and the offset it is still to come
        assert_eq!(next_rotation(&spread, life(86_400), IAT + 2 * 3600 + 1, "h"), (IAT + 2 * 3600 + offset, Why::Cron));
    }

    #[test]
    fn expiry_overrides_cron() {
        assert_eq!(next_rotation(&cron(&["0 12 * * *"], Some(0)), life(3600), IAT, "h"), (IAT + 2880, Why::Lifetime));
    }

    #[test]
    fn missed_cron_times_are_made_up_once_and_now() {
        let target = cron(&["0 12 * * *"], Some(0));
        let now = IAT + 3 * 86_400;
        let long = life(10 * 86_400);
        assert!(missed_cron(&target, long, now, "h"));
        assert_eq!(next_rotation(&target, long, now, "h"), (now, Why::Missed));
        let fresh = Life { issued_at: now, expires_at: now + 10 * 86_400 };
        assert!(!missed_cron(&target, fresh, now + 60, "h"));
        assert_eq!(next_rotation(&target, fresh, now, "h"), (now + 2 * 3600, Why::Cron));
    }

    #[test]
    fn a_cron_time_that_came_just_now_was_not_missed() {
        let target = cron(&["0 12 * * *"], Some(0));
        assert_eq!(next_rotation(&target, life(86_400), IAT + 2 * 3600 + 5, "h"), (IAT + 2 * 3600, Why::Cron));
    }

    #[test]
    fn a_token_from_a_server_whose_clock_is_behind_serves_the_cron_time_all_the_same() {
        let target = cron(&["0 10 * * *"], Some(0));
        let behind = Life { issued_at: IAT - 30, expires_at: IAT + 86_400 };
        assert!(!missed_cron(&target, behind, IAT + 5, "h"));
    }

    #[test]
    fn a_target_is_at_risk_in_the_last_tenth_or_later_where_it_is_due_later() {
        assert_eq!(at_risk_from(&target("ci", rotate(0.8)), life(3600)), IAT + 3240);
        assert_eq!(at_risk_from(&target("ci", rotate(0.95)), life(86_400)), IAT + 82_080 + 2160);
        assert_eq!(at_risk_from(&target("ci", rotate(0.8)), life(10)), IAT + 9);
    }

    fn any_window() -> impl Strategy<Value = Option<Window>> {
        let zones = prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("America/St_Johns"), Just("Pacific/Apia")];
        let window = (0_u16..1440, 0_u16..1440, any::<[bool; 7]>(), zones).prop_map(|(from, to, days, zone)| Window {
            from,
            to,
            days,
            zone: TimeZone::get(zone).unwrap(),
        });
        proptest::option::of(window)
    }

    proptest! {
        #[test]
        fn due_lies_always_within_the_life(
            at in 0.001_f64..0.9999, seconds in 1_i64..100_000_000, start in 0_i64..4_000_000_000,
            splay in proptest::option::of(0_u64..1_000_000_000), window in any_window(), name in "[a-z]{1,8}", host in "[a-z]{0,8}",
        ) {
            let target = target(&name, Rotate { at, cron: Vec::new(), splay, window });
            let life = Life { issued_at: start, expires_at: start + seconds };
            let due = due_by_lifetime(&target, life, &host);
            prop_assert!(due >= start && due < start + seconds, "{} {}", due - start, seconds);
            prop_assert_eq!(due, due_by_lifetime(&target, life, &host));
            let risk = at_risk_from(&target, life);
            prop_assert!(risk >= due && risk <= start + seconds);
        }

        #[test]
        fn a_window_only_makes_it_earlier_and_never_before_half_of_the_life(
            at in 0.5_f64..0.99, seconds in 600_i64..10_000_000, window in any_window(), name in "[a-z]{1,8}",
        ) {
            let free = target(&name, Rotate { at, cron: Vec::new(), splay: None, window: None });
            let bound = target(&name, Rotate { window, ..free.rotate.clone() });
            let (free, bound) = (due_by_lifetime(&free, life(seconds), "h"), due_by_lifetime(&bound, life(seconds), "h"));
            prop_assert!(bound <= free);
            prop_assert!(bound == free || bound >= IAT + seconds / 2);
        }

        #[test]
        fn nothing_overflows_whatever_the_claims_say(issued_at in any::<i64>(), expires_at in any::<i64>(), now in any::<i64>()) {
            let target = cron(&["0 12 * * *"], None);
            let life = Life { issued_at, expires_at };
            let _ = (next_rotation(&target, life, now, "h"), at_risk_from(&target, life), missed_cron(&target, life, now, "h"));
        }

        #[test]
        fn a_rotation_is_never_later_than_by_lifetime(seconds in 600_i64..10_000_000, now in 0_i64..10_000_000) {
            let target = cron(&["*/7 3 * * 1-5", "0 12 1 * *"], None);
            let (due, _) = next_rotation(&target, life(seconds), IAT + now, "h");
            prop_assert!(due <= due_by_lifetime(&target, life(seconds), "h"));
        }
    }
}
