//! How long a server asks us to wait: `Retry-After` in both of its forms (RFC 9110 §10.2.3).

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// Longest patience that anybody can ask of us.
pub const LONGEST: Duration = Duration::from_secs(600);

/// The wait that a `Retry-After` asks for, at most [`LONGEST`]; `None` where it is garbage, which is counted
/// ([`Upstream::note_garbled`](super::Upstream::note_garbled)) and not obeyed. A date is taken relative to the
/// answer's own `Date`, so that no clock has to be right; without one the local clock is all there is.
pub fn wish(value: &str, date: Option<&str>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has ask for very much.
        return Some(value.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let instant = |text: &str| DateTimeParser::new().parse_timestamp(text.trim()).ok();
    let now = date.map_or_else(|| Some(Timestamp::now()), instant)?;
    let seconds = instant(value)?.as_second().checked_sub(now.as_second())?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_garbage_is_ignored() {
        let date = Some("Wed, 21 Oct 2026 07:28:00 GMT");
        for (value, wait) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("86400", Some(600)),
            ("99999999999999999999999", Some(600)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("Wed, 21 Oct 2099 07:27:00 GMT", Some(600)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wish(value, date), wait.map(Duration::from_secs), "{value}");
        }
        assert_eq!(wish("Wed, 21 Oct 2015 07:28:30 GMT", None), Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn nothing_makes_us_panic_or_wait_longer_than_ten_minutes(value in ".{0,60}", date in ".{0,60}") {
            prop_assert!(wish(&value, Some(&date)).is_none_or(|wait| wait <= LONGEST));
        }
    }
}
