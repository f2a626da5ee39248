//! The last line before the log: text that looks like a credential is taken out.
//!
//! Tokens have types that cannot be printed; this is for what libraries say. It takes too much rather than
//! too little.

use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::Range;

const REMOVED: &str = "[token removed]";
/// Bytes of one line that are kept while it is waited for its end; the rest of a longer line is left out.
const LONGEST_LINE: usize = 256 << 10;

/// Headers and fields whose value is a credential; compared without case.
const NAMES: [&str; 9] = [
    "authorization",
    "x-vault-token",
    "x-amz-security-token",
    "client_token",
    "secret_id",
    "secretaccesskey",
    "sessiontoken",
    "aws_secret_access_key",
    "aws_session_token",
];
/// Schemes of an `Authorization` header, whose credential follows after a space.
const SCHEMES: [&str; 5] = ["bearer", "basic", "negotiate", "token", "aws4-hmac-sha256"];

/// Which bytes something secret may begin with: one of the shapes that [`secret`] knows, `bearer`, or a name.
static BEGINS: [bool; 256] = begins();

const fn begins() -> [bool; 256] {
    let (shapes, mut begins, mut at) = (b"eZ1khsbrB", [false; 256], 0);
    while at < shapes.len() {
        begins[shapes[at] as usize] = true;
        at += 1;
    }
    at = 0;
    while at < NAMES.len() {
        let first = NAMES[at].as_bytes()[0];
        begins[first as usize] = true;
        begins[first.to_ascii_uppercase() as usize] = true;
        at += 1;
    }
    begins
}

/// `text` with everything that looks like a JWT (also in base64, or as a printed list of bytes), a Vault
/// token, or the value of a header or field that carries credentials, replaced.
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let (mut kept, mut at) = (0, 0);
    while at < text.len() {
        // Most bytes of a log line begin nothing.
        if !BEGINS[usize::from(text.as_bytes()[at])] {
            at += 1;
            continue;
        }
        match secret(text, at) {
            Some(range) => {
                masked.push_str(&text[kept..range.start]);
                masked.push_str(REMOVED);
                (kept, at) = (range.end, range.end);
            }
            None => at += 1,
        }
    }
    if kept == 0 { Cow::Borrowed(text) } else { Cow::Owned(masked + &text[kept..]) }
}

/// Ranges of the text that have the shape of a JWT, whole ones only: three parts.
pub(crate) fn jwts(text: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(start) = text[at..].find("eyJ").map(|found| at + found) {
            let end = start + run(&text.as_bytes()[start..], |b| is_base64url(b) || b == b'.');
            at = end;
            let candidate = text[start..end].trim_end_matches('.');
            if crate::token::claims::parts(candidate).is_ok_and(|(_, _, signature)| !signature.is_empty()) {
                return Some(candidate);
            }
        }
        None
    })
}

/// What is secret from exactly `at` on. All shapes begin and end with ASCII, so the ranges cut no character.
fn secret(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text.as_bytes()[at..];
    let before = at.checked_sub(1).map(|before| text.as_bytes()[before]);
    let apart = !before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let length = match rest[0] {
        b'e' => jwt(rest),
        b'Z' => long(rest, b"ZXlK", 20, is_base64),
        b'1' if apart => listed(rest),
        // How Amazon EKS is logged in to.
        b'k' => long(rest, b"k8s-aws-v1.", 20, is_base64url),
        b'h' if apart => [b"hvs.", b"hvb.", b"hvr."].into_iter().find_map(|prefix| long(rest, prefix, 8, is_base64url)),
        b's' | b'b' | b'r' if apart && rest.get(1) == Some(&b'.') => long(rest, &rest[..2], 24, |b| b.is_ascii_alphanumeric()),
        _ => None,
    };
    if let Some(length) = length {
        return Some(at..at + length);
    }
    apart.then(|| named(rest)).flatten().map(|range| at + range.start..at + range.end)
}

/// `eyJ` begins every JSON object in base64: a JWT, or what is left of one.
fn jwt(rest: &[u8]) -> Option<usize> {
    long(rest, b"eyJ", 8, |b| is_base64url(b) || b == b'.')
}

/// `[101, 121, 74, …]`: how Rust prints the bytes of a JWT.
fn listed(rest: &[u8]) -> Option<usize> {
    long(rest, b"101, 121, 74", 8, |b| b.is_ascii_digit() || b == b',' || b == b' ')
}

fn long(rest: &[u8], prefix: &[u8], least: usize, part: impl Fn(u8) -> bool) -> Option<usize> {
    let tail = run(rest.strip_prefix(prefix)?, part);
    (tail >= least).then_some(prefix.len() + tail)
}

/// The value after `NAME:`, `NAME=`, `"NAME": "` or a scheme. A short word without a scheme is prose.
fn named(rest: &[u8]) -> Option<Range<usize>> {
    let word = |name: &str, from: usize| rest.get(from..from + name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()));
    let scheme = |from: usize| {
        let length = SCHEMES.iter().find(|name| word(name, from))?.len();
        (rest.get(from + length) == Some(&b' ')).then_some(from + length + 1)
    };
    let value = |from: usize, least: usize| {
        let length = run(&rest[from..], is_credential);
        (length >= least).then_some(from..from + length)
    };
    let Some(name) = NAMES.iter().find(|name| word(name, 0)) else {
        return word("bearer ", 0).then(|| value(7, 16)).flatten();
    };
    let gap = run(&rest[name.len()..], |b| matches!(b, b' ' | b'"' | b'\'' | b':' | b'=' | b'\\' | b'>' | b'('));
    let from = name.len() + gap;
    if gap == 0 {
        return None;
    }
    match scheme(from) {
        // Everything that belongs to the header: `Credential=…, SignedHeaders=…, Signature=…`.
        Some(_) if word("aws4", from) => Some(from..from + run(&rest[from..], |b| is_credential(b) || matches!(b, b' ' | b',' | b';'))),
        Some(after) => value(after, 1),
        None => value(from, 16),
    }
}

fn run(bytes: &[u8], part: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|b| part(**b)).count()
}

fn is_base64url(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

fn is_base64(b: u8) -> bool {
    is_base64url(b) || matches!(b, b'+' | b'/' | b'=')
}

/// RFC 6750 `b64token`.
fn is_credential(b: u8) -> bool {
    is_base64(b) || matches!(b, b'.' | b'~')
}

/// Passes whole lines on, masked. A line without an end waits for it, also when flushed: half a token could
/// not be told from text. What is left when it is dropped is passed on then.
pub struct MaskingWriter<W: Write> {
    to: W,
    line: Vec<u8>,
    cut: bool,
}

impl<W: Write> MaskingWriter<W> {
    /// In front of `to`.
    pub fn new(to: W) -> Self {
        Self { to, line: Vec::new(), cut: false }
    }

    fn pass(&mut self, end: &str) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let cut = if std::mem::take(&mut self.cut) { " [line cut]" } else { "" };
        let text = String::from_utf8_lossy(&line);
        // In one write, so that lines of several threads do not mix.
        self.to.write_all(format!("{}{cut}{end}", mask(&text)).as_bytes())
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE.saturating_sub(self.line.len());
        self.cut |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl<W: Write> Write for MaskingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.hold(end);
                    self.pass("\n")?;
                }
                None => self.hold(piece),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W: Write> Drop for MaskingWriter<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Nobody is left to tell.
            let _ = self.pass("");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6YTpiIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ";

    #[test]
    fn credentials_of_every_shape_are_removed() {
        let bytes = format!("{:?}", JWT.as_bytes());
        let base64 = "ZXlKaGJHY2lPaUpTVXpJMU5pSXNJbXRwWkNJNklqRWlmUS5leUp6";
        for (text, expected) in [
            (format!("got {JWT}, sent"), "got [token removed], sent"),
            (format!("prefix{JWT}"), "prefix[token removed]"),
            (format!("body: {bytes}"), "body: [[token removed]]"),
            (format!("token: {base64}"), "token: [token removed]"),
            ("use hvs.CAESIJ0kqZ_u-3".into(), "use [token removed]"),
            ("Bearer: k8s-aws-v1.aHR0cHM6Ly9zdHMuZXUtY2VudHJhbC0x".into(), "Bearer: [token removed]"),
            ("use s.abcdefghijklmnopqrstuvwx!".into(), "use [token removed]!"),
            ("Authorization: Basic dXNlcjpw".into(), "Authorization: Basic [token removed]"),
            ("\"authorization\": \"Bearer opaque\"".into(), "\"authorization\": \"Bearer [token removed]\""),
            ("bearer 0123456789abcdef0123".into(), "bearer [token removed]"),
            ("authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=ab12\nnext".into(), "authorization: [token removed]\nnext"),
            ("{\"client_token\":\"0123456789abcdefg\"}".into(), "{\"client_token\":\"[token removed]\"}"),
            ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY".into(), "aws_secret_access_key = [token removed]"),
        ] {
            assert_eq!(mask(&text), expected);
        }
    }

    #[test]
    fn prose_stays_as_it_is() {
        for text in
            ["keys.abcdefghijklmnopqrstuvwxyz", "authorization: denied by policy", "bearer token missing", "eyJ", "é: 101, 121, 7", "s. of"]
        {
            assert!(matches!(mask(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn half_a_jwt_is_removed_too() {
        assert_eq!(mask(&JWT[..40]), REMOVED);
    }

    #[test]
    fn a_line_without_end_is_cut_and_masked_up_to_the_cut() {
        let mut out = Vec::new();
        let mut writer = MaskingWriter::new(&mut out);
        writer.write_all(&vec![b'.'; LONGEST_LINE - 60]).unwrap();
        writer.write_all(JWT.as_bytes()).unwrap();
        writer.write_all(b"\nnext\n").unwrap();
        drop(writer);
        assert!(String::from_utf8(out).unwrap().ends_with("[token removed] [line cut]\nnext\n"));
    }

    proptest! {
        #[test]
        fn no_jwt_survives_wherever_it_is_split_across_writes(
            before in "[ -~äé]{0,40}", after in "[ -~äé\n]{0,40}", cuts in proptest::collection::vec(0usize..400, 0..8), flush: bool,
        ) {
            let text = format!("{before} {JWT}\n{after}");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut out = Vec::new();
            let mut writer = MaskingWriter::new(&mut out);
            for pair in cuts.windows(2) {
                writer.write_all(&text.as_bytes()[pair[0]..pair[1]]).unwrap();
                if flush {
                    writer.flush().unwrap();
                }
            }
            drop(writer);
            let out = String::from_utf8(out).unwrap();
            prop_assert!(out.contains(REMOVED), "{out}");
            for part in JWT.split('.') {
                prop_assert!(!out.contains(part), "{out}");
            }
        }

        #[test]
        fn any_text_can_be_masked(text in "\\PC{0,200}") {
            mask(&text);
        }
    }
}
