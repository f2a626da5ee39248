//! The payload: chunks of 64 KiB, each sealed under a counter that says too whether it is the last one (STREAM).

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::error::Unspecified;
use zeroize::Zeroizing;

use super::NotOpened;

const CHUNK: usize = 64 << 10;
const TAG: usize = 16;

fn nonce(counter: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&counter.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// How long the sealed chunks are.
pub fn size(plain: u64) -> u64 {
    let chunks = plain.div_ceil(CHUNK as u64).max(1);
    plain.saturating_add(chunks.saturating_mul(TAG as u64))
}

/// Appends the sealed chunks.
pub fn seal(key: &LessSafeKey, plain: &[u8], to: &mut Vec<u8>) -> Result<(), Unspecified> {
    let mut rest = plain;
    for counter in 0.. {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK));
        let last = after.is_empty();
        let mut chunk = chunk.to_vec();
        key.seal_in_place_append_tag(nonce(counter, last), Aad::empty(), &mut chunk)?;
        to.extend_from_slice(&chunk);
        rest = after;
        if last {
            break;
        }
    }
    Ok(())
}

/// Opens all of them; nothing is given out where one is missing, changed or added.
pub fn open(key: &LessSafeKey, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let broken = NotOpened::Damaged("it is cut, or was changed");
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    let mut rest = sealed;
    for counter in 0.. {
        let (chunk, after) = rest.split_at(rest.len().min(CHUNK + TAG));
        let last = after.is_empty();
        let mut chunk = Zeroizing::new(chunk.to_vec());
        let opened = key.open_in_place(nonce(counter, last), Aad::empty(), &mut chunk).map_err(|_| broken)?;
        // An empty chunk is the one of an empty payload.
        if opened.is_empty() && counter > 0 {
            return Err(broken);
        }
        plain.extend_from_slice(opened);
        rest = after;
        if last {
            break;
        }
    }
    Ok(plain)
}
