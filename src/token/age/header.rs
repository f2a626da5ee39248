//! The header of an age file: a line of the version, a stanza for each recipient, a line that signs them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::NotOpened;

/// How each begins.
pub const VERSION: &[u8] = b"age-encryption.org/v1\n";
const END: &[u8] = b"---";
/// Columns of a line of a stanza's body; a shorter one, perhaps empty, is the last.
const COLUMNS: usize = 64;

/// What one recipient needs.
pub struct Stanza {
    /// `X25519`, …
    pub kind: String,
    /// What follows it.
    pub arguments: Vec<String>,
    /// The wrapped file key.
    pub body: Vec<u8>,
}

/// A header that was read.
pub struct Header<'s> {
    /// One for each recipient.
    pub stanzas: Vec<Stanza>,
    /// What is signed.
    pub unsigned: &'s [u8],
    /// By what.
    pub mac: Vec<u8>,
    /// What follows the header.
    pub rest: &'s [u8],
}

/// The bytes of a header; `mac` signs them.
pub fn written(stanzas: &[Stanza], mac: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = VERSION.to_vec();
    for stanza in stanzas {
        let head = format!("-> {} {}\n", stanza.kind, stanza.arguments.join(" "));
        bytes.extend_from_slice(head.as_bytes());
        let body = encoded(&stanza.body);
        for line in body.as_bytes().chunks(COLUMNS) {
            bytes.extend_from_slice(line);
            bytes.push(b'\n');
        }
        if body.len().is_multiple_of(COLUMNS) {
            bytes.push(b'\n');
        }
    }
    bytes.extend_from_slice(END);
    let mac = format!(" {}\n", encoded(&mac(&bytes)));
    bytes.extend_from_slice(mac.as_bytes());
    bytes
}

/// Reads one.
///
/// # Errors
/// [`NotOpened::NotAge`], [`NotOpened::Damaged`].
pub fn read(sealed: &[u8]) -> Result<Header<'_>, NotOpened> {
    let broken = NotOpened::Damaged("its header is cut or was changed");
    let mut rest = sealed.strip_prefix(VERSION).ok_or(NotOpened::NotAge)?;
    let mut stanzas = Vec::new();
    loop {
        let at = sealed.len() - rest.len();
        let (line, after) = line(rest).ok_or(broken)?;
        rest = after;
        if let Some(mac) = line.strip_prefix("--- ") {
            let mac = decoded(mac).filter(|mac| mac.len() == 32).ok_or(broken)?;
            return Ok(Header { stanzas, unsigned: &sealed[..at + END.len()], mac, rest });
        }
        let mut words = line.strip_prefix("-> ").ok_or(broken)?.split(' ').map(str::to_owned);
        let kind = words.next().ok_or(broken)?;
        let arguments: Vec<String> = words.collect();
        if kind.is_empty() || arguments.iter().any(String::is_empty) {
            return Err(broken);
        }
        let mut body = String::new();
        loop {
            let (line, after) = self::line(rest).ok_or(broken)?;
            rest = after;
            body.push_str(line);
            match line.len() {
                COLUMNS => {}
                0..COLUMNS => break,
                _ => return Err(broken),
            }
        }
        stanzas.push(Stanza { kind, arguments, body: decoded(&body).ok_or(broken)? });
    }
}

/// The next line, visible ASCII and spaces only, and what follows it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    line.bytes().all(|b| (0x20..0x7f).contains(&b)).then_some((line, &bytes[end + 1..]))
}

/// Base64 without padding, the one spelling that it has.
pub fn encoded(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// The way back.
pub fn decoded(text: &str) -> Option<Vec<u8>> {
    STANDARD_NO_PAD.decode(text).ok()
}
