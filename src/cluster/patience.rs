//! How long a server asks us to wait: one reader for API servers and stores alike.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;

/// The longest wish for patience that is honoured: no answer can put a target off for longer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// `Retry-After` as seconds or as a date (RFC 9110 §10.2.3); a date counts from the `date` of the same answer, so
/// that no clock of ours is in it, and means nothing without one. At most [`LONGEST_WAIT`]; `None` for anything else.
pub fn retry_after(wish: &str, date: Option<&str>) -> Option<Duration> {
    let wish = wish.trim();
    if !wish.is_empty() && wish.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(wish.parse().map_or(LONGEST_WAIT, Duration::from_secs).min(LONGEST_WAIT));
    }
    let instant = |text: &str| DateTimeParser::new().parse_timestamp(text.trim()).ok();
    let seconds = instant(wish)?.as_second().checked_sub(instant(date?)?.as_second())?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_read_and_garbage_is_ignored() {
        let date = Some("Wed, 21 Oct 2026 07:28:00 GMT");
        for (wish, wait) in [
            ("7", Some(7)),
            (" 3 ", Some(3)),
            ("0", Some(0)),
            ("99999999999999999999999", Some(600)),
            ("Wed, 21 Oct 2026 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
            ("Wed, 21 Oct 2099 07:27:00 GMT", Some(600)),
            ("", None),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("+5", None),
        ] {
            assert_eq!(retry_after(wish, date), wait.map(Duration::from_secs), "{wish}");
        }
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:30 GMT", None), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_us_panic_or_wait_longer_than_ten_minutes(wish in ".{0,60}", date in ".{0,60}") {
            prop_assert!(retry_after(&wish, Some(&date)).is_none_or(|wait| wait <= LONGEST_WAIT));
        }
    }
}
