//! Times as lines have them, read without the questions that times of other hands ask.

use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Reads a time: for `deserialize_with`.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    Moment::deserialize(deserializer).map(|moment| moment.0)
}

/// The same, where there may be none.
pub(super) fn read_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<Moment>::deserialize(deserializer)?.map(|moment| moment.0))
}

struct Moment(Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;

        impl Visitor<'_> for Reading {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
                ours(text.as_bytes()).map_or_else(|| text.parse().map_err(E::custom), Ok).map(Moment)
            }
        }

        deserializer.deserialize_str(Reading)
    }
}

/// A time written as `1970-01-01T00:00:00.000000000Z`, with as many digits after the point as there are, or none; nothing
/// where it is written in another way, or is none.
fn ours(text: &[u8]) -> Option<Timestamp> {
    let (whole, rest) = text.split_at_checked(19)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1] = *whole else { return None };
    let year = number(&[y0, y1, y2, y3])?;
    let (month, day) = (number(&[m0, m1])?, number(&[d0, d1])?);
    let (hour, minute, second) = (number(&[h0, h1])?, number(&[n0, n1])?, number(&[s0, s1])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is for those who know what to make of it.
    if !(1..=longest).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanosecond = match rest {
        [b'Z'] => 0,
        [b'.', digits @ .., b'Z'] if (1..=9).contains(&digits.len()) => number(digits)? * 10_i32.pow(9 - digits.len() as u32),
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    Timestamp::new(seconds, nanosecond).ok()
}

/// At most nine digits.
fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0')))
}

/// Days since 1970-01-01. Years are counted from March, so that a leap day is the last of its year.
fn days(year: i32, month: i32, day: i32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 153 days in five months from March or August on; 719,468 days from 0000-03-01 to 1970-01-01.
    i64::from(365 * year + leaps + (153 * month + 2) / 5 + day - 1) - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_time_that_is_written_is_read_without_asking_further() {
        for second in [-62_167_219_200, -1, 0, 951_782_400, 4_107_542_399, 253_402_207_200] {
            for nanosecond in [0, 1, 120_000_000, 999_999_999] {
                let time = Timestamp::new(second, nanosecond).unwrap();
                let text = time.to_string();
                assert_eq!(ours(text.as_bytes()), (!text.starts_with('-')).then_some(time), "{text}");
            }
        }
    }

    #[test]
    fn each_day_of_four_centuries_is_itself() {
        for day in 0..146_097 {
            let time = Timestamp::from_second(day * 86_400).unwrap();
            assert_eq!(ours(time.to_string().as_bytes()), Some(time));
        }
    }

    #[test]
    fn what_is_no_time_of_ours_is_left_to_those_who_know_all_of_them() {
        for text in ["2026-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z"]
        {
            assert_eq!((ours(text.as_bytes()), text.parse::<Timestamp>().ok()), (None, None), "{text}");
        }
        let others =
            ["2026-01-01T00:00:60Z", "2026-01-01T00:00:00+00:00", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00,5Z", "2026-01-01T00Z"];
        for text in others {
            assert_eq!(ours(text.as_bytes()), None, "{text}");
            let read: Timestamp = read(serde_json::Value::from(text)).unwrap();
            assert_eq!(read, text.parse::<Timestamp>().unwrap(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_read_that_is_read_otherwise_elsewhere(second in -62_167_219_200_i64..253_402_207_200, nanosecond in 0..1_000_000_000, at in 0_usize..30, byte in 32_u8..127) {
            let mut text = Timestamp::new(second, nanosecond).unwrap().to_string().into_bytes();
            prop_assert_eq!(ours(&text), std::str::from_utf8(&text).unwrap().parse().ok());
            if let Some(changed) = text.get_mut(at) {
                *changed = byte;
            }
            if let Some(time) = ours(&text) {
                prop_assert_eq!(Some(time), std::str::from_utf8(&text).unwrap().parse().ok());
            }
        }
    }
}
