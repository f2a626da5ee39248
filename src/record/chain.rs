//! The chain: each line's `hash` covers the line and the hash before it, so that a changed, cut, dropped
//! or reordered line shows.
//!
//! `hash` is the SHA-256, in lower-case hex, of the line's own bytes without the newline and without
//! `,"hash":"…"`, which is always the last key; `previous`, the hash of the line before, is among the
//! bytes. Anyone can check a line:
//! ```text
//! sed -n 7p FILE | sed -E 's/,"hash":"[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum
//! ```
//! (`jq -cj 'del(.hash)'` gives the same bytes.) The first line of a file follows the last one of the file
//! before it. The `previous` of the first file that is kept anchors the rest: removing old files whole is
//! no damage. Whoever can write the folder can write a whole new chain; against that stands a head that
//! was noted elsewhere (`--head`), or a key that signs each head (`signed`).

mod signed;
mod verify;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::line::Line;
use crate::token::render::digits;

pub(super) use signed::{BESIDE, sign};
pub use signed::{BadKey, PublicKey, Signed, sign_bytes, verify_signatures};
pub use verify::{Broken, Damage, Torn, Verified, verify};

/// `previous` of the very first line.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const KEY: &[u8] = br#","hash":""#;
const CLOSE: &[u8] = br#""}"#;
const HEX: usize = 64;

/// Gives a line its place in the chain and writes it, newline included, to the end of `out`.
pub(super) fn seal(line: &mut Line, seq: u64, previous: &str, out: &mut Vec<u8>) {
    line.seq = seq;
    previous.clone_into(&mut line.previous);
    line.hash.clear();
    let start = out.len();
    serde_json::to_writer(&mut *out, line).expect("a line has nothing that JSON cannot say, and memory takes every write");
    out.truncate(out.len() - KEY.len() - CLOSE.len());
    line.hash = hash_of(&out[start..]);
    out.extend_from_slice(KEY);
    out.extend_from_slice(line.hash.as_bytes());
    out.extend_from_slice(CLOSE);
    out.push(b'\n');
}

/// The hash of a line of which `body` is all before `,"hash":`.
fn hash_of(body: &[u8]) -> String {
    String::from_utf8(hex_of(body).to_vec()).expect("hex digits are ASCII")
}

fn hex_of(body: &[u8]) -> [u8; HEX] {
    let mut context = Context::new(&SHA256);
    context.update(body);
    context.update(b"}");
    let mut hex = [0; HEX];
    for (at, byte) in context.finish().as_ref().iter().enumerate() {
        hex[2 * at..][..2].copy_from_slice(&digits(*byte));
    }
    hex
}

/// What a line's own hash says of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seal<'a> {
    /// The line is as it was written; its hash.
    Fits(&'a str),
    /// The line ends in a hash that is not its own.
    Wrong,
    /// The line does not end as every line does.
    Missing,
}

/// Checks a line, its newline taken off, against its own hash.
pub(super) fn seal_of(text: &[u8]) -> Seal<'_> {
    let parts = text.len().checked_sub(KEY.len() + HEX + CLOSE.len()).map(|at| text.split_at(at));
    let Some((body, rest)) = parts else { return Seal::Missing };
    let stated = rest.strip_prefix(KEY).and_then(|rest| rest.strip_suffix(CLOSE)).and_then(|hex| std::str::from_utf8(hex).ok());
    match stated {
        None => Seal::Missing,
        Some(stated) if stated.as_bytes() == hex_of(body) => Seal::Fits(stated),
        Some(_) => Seal::Wrong,
    }
}

/// What binds a line to its neighbours, whatever else later versions put in it.
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    pub version: u32,
    pub time: Timestamp,
    pub seq: u64,
    pub previous: String,
    pub hash: String,
}

/// The version of a line, however much of the rest is another in later versions.
pub(super) fn version(text: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_slice::<Versioned>(text).ok().map(|line| line.version)
}

/// The links of a line, or nothing where it is no line of the records.
pub(super) fn link(text: &[u8]) -> Option<Link> {
    serde_json::from_slice(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::line::Kind;

    fn sealed(seq: u64, previous: &str) -> (Line, Vec<u8>) {
        let mut line =
            Line { error: Some("a \"quoted\" ,\"hash\":\" line\nof two".to_owned()), ..Line::new(Kind::Stopped, Timestamp::UNIX_EPOCH) };
        let mut text = Vec::new();
        seal(&mut line, seq, previous, &mut text);
        assert_eq!(text.pop(), Some(b'\n'));
        (line, text)
    }

    #[test]
    fn a_line_fits_its_own_hash_and_comes_back_as_it_was() {
        let (line, text) = sealed(7, GENESIS);
        assert_eq!(seal_of(&text), Seal::Fits(&line.hash));
        assert_eq!(serde_json::from_slice::<Line>(&text).unwrap(), line);
        assert_eq!((line.seq, line.previous.as_str()), (7, GENESIS));
    }

    #[test]
    fn the_hash_is_that_of_the_line_without_its_last_key() {
        let (line, text) = sealed(1, GENESIS);
        let text = String::from_utf8(text).unwrap();
        let bare = text.replace(&format!(",\"hash\":\"{}\"", line.hash), "");
        let digest = ring::digest::digest(&SHA256, bare.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(line.hash, hex);
    }

    #[test]
    fn every_single_changed_byte_shows() {
        let (_, text) = sealed(1, GENESIS);
        for at in 0..text.len() {
            let mut changed = text.clone();
            changed[at] ^= 1;
            assert!(!matches!(seal_of(&changed), Seal::Fits(_)), "byte {at}");
        }
    }

    #[test]
    fn the_hash_before_is_covered() {
        assert_ne!(sealed(1, GENESIS).0.hash, sealed(1, &"1".repeat(64)).0.hash);
    }

    #[test]
    fn a_line_too_short_for_a_hash_misses_it() {
        for text in [&b""[..], b"{}", b"\xff", b"{\"hash\":\"\"}"] {
            assert_eq!(seal_of(text), Seal::Missing);
        }
    }
}
