//! How the schedule writes amounts: durations (`1h30m`), sizes (`64MiB`) and shares (`80%`), read and printed.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

pub use crate::sink::flaw::shown;

/// A duration in whole seconds, written `90s`, `15m`, `24h`, `1d` or as a sum (`1h30m`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seconds(pub u64);

/// A size in bytes, written `4096B`, `64KiB`, `64MiB` or `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub u64);

/// A share of a whole, from 0 to 1, written `80%` or `66.7%`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Share(pub f64);

/// An amount that cannot be read: what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAmount(String);

const DURATION: &str = "a duration such as `90s`, `15m`, `24h`, `1d` or `1h30m`";
const SIZE: &str = "a size such as `64KiB`, `64MiB` or `1GiB`";
const SHARE: &str = "a share such as `80%`";

const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl std::str::FromStr for Seconds {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadAmount(format!("`{text}` has no unit: write {text}s for seconds, or {text}m, {text}h, {text}d")));
        }
        sum(text, &TIME_UNITS, DURATION).map(Self)
    }
}

impl std::str::FromStr for Bytes {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        sum(text, &SIZE_UNITS, SIZE).map(Self)
    }
}

impl std::str::FromStr for Share {
    type Err = BadAmount;

    fn from_str(text: &str) -> Result<Self, BadAmount> {
        let number = text.strip_suffix('%').ok_or_else(|| match text.parse::<f64>() {
            Ok(value) if value > 0.0 && value <= 1.0 => BadAmount(format!("`{text}` is no share: write {}", Self(value))),
            _ => refused(text, SHARE),
        })?;
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match number.parse::<f64>() {
            Ok(value) if plain && (0.0..=100.0).contains(&value) => Ok(Self(value / 100.0)),
            _ => Err(refused(text, SHARE)),
        }
    }
}

/// Reads `12h30m` and the like: each unit at most once, the larger before the smaller.
fn sum(text: &str, units: &[(&str, u64)], wanted: &str) -> Result<u64, BadAmount> {
    let bad = || refused(text, wanted);
    let (mut total, mut rest, mut units) = (0_u64, text, units);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
        if number.is_empty() {
            return Err(bad());
        }
        let size = units[at].1;
        let amount = number.parse::<u64>().ok().and_then(|n| n.checked_mul(size)).and_then(|n| n.checked_add(total));
        total = amount.ok_or_else(|| BadAmount(format!("{} is too large to count with", shown(text))))?;
        (rest, units) = (after, &units[at + 1..]);
    }
    Ok(total)
}

fn refused(text: &str, wanted: &str) -> BadAmount {
    BadAmount(format!("{} is not {wanted}", shown(text)))
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole_days = self.0 >= 2 * 86_400 && self.0.is_multiple_of(86_400);
        let units = if whole_days { &TIME_UNITS[..1] } else { &TIME_UNITS[1..] };
        print_sum(f, self.0, units, "s")
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = SIZE_UNITS.iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (unit, size) = largest.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.4}", self.0 * 100.0);
        write!(f, "{}%", text.trim_end_matches('0').trim_end_matches('.'))
    }
}

fn print_sum(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], smallest: &str) -> fmt::Result {
    if amount == 0 {
        return write!(f, "0{smallest}");
    }
    let mut rest = amount;
    for (unit, size) in units {
        if rest >= *size {
            write!(f, "{}{unit}", rest / size)?;
            rest %= size;
        }
    }
    Ok(())
}

/// Reads any of the three from the scalar as it was written, number or text.
struct AsWritten<T>(&'static str, std::marker::PhantomData<T>);

impl<'de, T: std::str::FromStr<Err = BadAmount>> Visitor<'de> for AsWritten<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AsWritten(DURATION, std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AsWritten(SIZE, std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AsWritten(SHARE, std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Option<u64> {
        text.parse::<Seconds>().ok().map(|s| s.0)
    }

    #[test]
    fn durations_are_read_as_written() {
        for (text, wanted) in
            [("90s", 90), ("15m", 900), ("24h", 86_400), ("1d", 86_400), ("1h30m", 5_400), ("1d2h3m4s", 93_784), ("0s", 0)]
        {
            assert_eq!(seconds(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "h", "1", "1x", "-1h", "1h 30m", "30m1h", "1h1h", "1.5h", "1H", "99999999999999999999s", "18446744073709551615d", "1h30"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_told_its_unit() {
        assert_eq!(
            "3600".parse::<Seconds>().unwrap_err().to_string(),
            "`3600` has no unit: write 3600s for seconds, or 3600m, 3600h, 3600d"
        );
    }

    #[test]
    fn sizes_and_shares_are_read_as_written() {
        assert_eq!("64MiB".parse::<Bytes>().unwrap(), Bytes(64 << 20));
        assert_eq!(Bytes(64 << 20).to_string(), "64MiB");
        assert_eq!("80%".parse::<Share>().unwrap(), Share(0.8));
        assert!(("66.7%".parse::<Share>().unwrap().0 - 0.667).abs() < 1e-9);
        for text in ["", "%", "80", "-1%", "101%", "1e1%", "nan%", "inf%", "80 %", "8.0.1%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        for text in ["", "64MB", "64", "MiB", "99999999999GiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert!("0.8".parse::<Share>().unwrap_err().to_string().ends_with("write 80%"));
    }

    #[test]
    fn a_long_text_is_never_repeated_whole() {
        let text = "secret".repeat(20);
        let message = text.parse::<Seconds>().unwrap_err().to_string();
        assert!(!message.contains("secretsecretsecret"), "{message}");
    }

    proptest! {
        #[test]
        fn a_printed_duration_is_read_back(amount in any::<u64>()) {
            prop_assert_eq!(Seconds(amount).to_string().parse::<Seconds>().unwrap(), Seconds(amount));
        }

        #[test]
        fn a_printed_size_is_read_back(amount in any::<u64>()) {
            prop_assert_eq!(Bytes(amount).to_string().parse::<Bytes>().unwrap(), Bytes(amount));
        }

        #[test]
        fn a_printed_share_is_read_back(tenths in 0_u32..=1000) {
            let share = Share(f64::from(tenths) / 1000.0);
            prop_assert!((share.to_string().parse::<Share>().unwrap().0 - share.0).abs() < 1e-9);
        }

        #[test]
        fn no_text_breaks_the_readers(text in "\\PC{0,24}") {
            let _ = (text.parse::<Seconds>(), text.parse::<Bytes>(), text.parse::<Share>());
        }
    }
}
