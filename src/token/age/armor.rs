//! Bytes as text (C2SP, age.md, "ASCII armor"): PEM with lines of 64 columns, one spelling only.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::NotOpened;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";
const COLUMNS: usize = 64;

/// The text of sealed bytes.
pub fn encoded(sealed: &[u8]) -> String {
    let body = STANDARD.encode(sealed);
    let mut text = String::with_capacity(body.len() + body.len() / COLUMNS + BEGIN.len() + END.len() + 4);
    text.push_str(BEGIN);
    text.push('\n');
    for line in body.as_bytes().chunks(COLUMNS) {
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// Bytes of such a text about that many sealed ones.
pub fn size(sealed: u64) -> u64 {
    let body = sealed.div_ceil(3).saturating_mul(4);
    body.saturating_add(body.div_ceil(COLUMNS as u64)).saturating_add((BEGIN.len() + END.len() + 2) as u64)
}

/// The sealed bytes; `None` where it is no such text. White space may stand before and after it, as stores add and take it.
///
/// # Errors
/// [`NotOpened::Damaged`] where it begins as one and is none.
pub fn decoded(text: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, NotOpened> {
    let broken = NotOpened::Damaged("its armour is cut or was changed");
    let Some(rest) = text.trim_ascii().strip_prefix(BEGIN.as_bytes()) else { return Ok(None) };
    let rest = std::str::from_utf8(rest).map_err(|_| broken)?;
    let body = rest.strip_suffix(END).ok_or(broken)?;
    let mut joined = String::with_capacity(body.len());
    let mut lines = body.lines().peekable();
    if lines.next().is_none_or(|rest| !rest.is_empty()) {
        return Err(broken);
    }
    while let Some(line) = lines.next() {
        let is_whole = line.len() == COLUMNS || lines.peek().is_none() && (1..COLUMNS).contains(&line.len());
        if !is_whole {
            return Err(broken);
        }
        joined.push_str(line);
    }
    STANDARD.decode(joined).map(|bytes| Some(Zeroizing::new(bytes))).map_err(|_| broken)
}
