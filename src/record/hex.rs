//! A text that nearly always is so many bytes in hex: a hash, a UUID.

use std::fmt;

use crate::token::render::{digits, hex};

/// Such a text, kept as these bytes. Sixteen of them are those of a UUID, with its dashes. Any other text is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex<const N: usize>(Kept<N>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept<const N: usize> {
    Bytes([u8; N]),
    Text(Box<str>),
}

/// Bytes of a UUID, and where the groups of its digits stand in its text, a dash before each but the first.
const UUID: usize = 16;
const GROUPS: [std::ops::Range<usize>; 5] = [0..8, 9..13, 14..18, 19..23, 24..36];

impl<const N: usize> From<&str> for Hex<N> {
    fn from(text: &str) -> Self {
        Self(bytes(text).map_or_else(|| Kept::Text(text.into()), Kept::Bytes))
    }
}

/// The bytes, where each text of them is this one.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (text, mut bytes) = (text.as_bytes(), [0; N]);
    if N != UUID {
        fill(&mut bytes, (text.len() == 2 * N).then_some(text)?)?;
        return Some(bytes);
    }
    if text.len() != GROUPS[4].end || GROUPS[1..].iter().any(|group| text[group.start - 1] != b'-') {
        return None;
    }
    let mut rest = &mut bytes[..];
    for group in GROUPS {
        let (some, more) = rest.split_at_mut(group.len() / 2);
        fill(some, &text[group])?;
        rest = more;
    }
    Some(bytes)
}

/// Fills in so many bytes, two digits for each. A start reads millions: by a table, and what is no digit is asked about once.
fn fill(bytes: &mut [u8], digits: &[u8]) -> Option<()> {
    let mut seen = 0;
    for (at, byte) in bytes.iter_mut().enumerate() {
        let (high, low) = (VALUES[usize::from(digits[2 * at])], VALUES[usize::from(digits[2 * at + 1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16).then_some(())
}

/// What each sign is worth as a digit; more than any where it is none.
static VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        values[digits(value)[1] as usize] = value;
        value += 1;
    }
    values
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::Text(text) => f.write_str(text),
            Kept::Bytes(bytes) if N == UUID => {
                let parts = [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]];
                f.write_str(&parts.map(hex).join("-"))
            }
            Kept::Bytes(bytes) => f.write_str(&hex(bytes)),
        }
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Hex<N> {
    fn eq(&self, other: &[u8; N]) -> bool {
        matches!(&self.0, Kept::Bytes(known) if known == other)
    }
}

impl<const N: usize> PartialEq<str> for Hex<N> {
    fn eq(&self, other: &str) -> bool {
        match &self.0 {
            Kept::Bytes(known) => bytes(other).as_ref() == Some(known),
            Kept::Text(text) => **text == *other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_uuids_take_no_room_beside_their_own() {
        let uuid = Hex::<16>::from("0b8f0e3c-9f2d-4c1e-8a51-00ff7a6b5c4d");
        assert!(matches!(uuid.0, Kept::Bytes(_)));
        assert!(matches!(Hex::<8>::from("0123456789abcdef").0, Kept::Bytes(_)));
        assert_eq!((size_of::<Option<Hex<8>>>(), size_of::<Option<Hex<16>>>(), size_of::<Option<Hex<32>>>()), (24, 24, 40));
    }

    fn stays(text: &str) {
        let (ask, id, hash) = (Hex::<8>::from(text), Hex::<16>::from(text), Hex::<32>::from(text));
        assert_eq!([ask.to_string(), id.to_string(), hash.to_string()], [text, text, text]);
        assert!(ask == *text && id == *text && hash == *text);
        let other = format!("{text}.");
        assert!(ask != *other && id != *other && hash != *other);
    }

    #[test]
    fn a_text_of_another_form_is_kept_as_it_is() {
        for text in ["", "-", "a", "0123456789ABCDEF", "0B8F0E3C-9F2D-4C1E-8A51-00FF7A6B5C4D", "0b8f0e3c9f2d-4c1e-8a51--00ff7a6b5c4d", "é"]
        {
            stays(text);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_text_stays_what_it_is(hex in "[0-9a-f]{15,17}|[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{4}-[0-9a-f]{4}-[0-9a-f]{12}", any in ".{0,40}") {
            stays(&hex);
            stays(&any);
        }
    }
}
