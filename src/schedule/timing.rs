//! When is a token due? Pure: from its real life, its target and a stable name of this host. Times are
//! seconds since 1970.
//!
//! The stable offset spreads targets that would all be due at once. It comes from a hash of host and target,
//! so it is the same after a restart; it makes times by lifetime earlier and cron times later.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::schedule::cron::CronRule;
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
/// before half of what is left after it was due.
pub fn at_risk_from(target: &Target, life: Life) -> i64 {
    let seconds = life.seconds();
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
