//! Bytes sealed to somebody's key: the file format age-encryption.org/v1 with X25519 recipients
//! (C2SP, age.md), as the tools `age` and `rage` read and write it.
//!
//! The crate of that name brings eighty others, a language negotiator and pre-releases among them; the format is small,
//! and the primitives are those that this program has anyway (ring), with one more for the curve.

mod armor;
mod bech32;
mod header;
mod stream;

use curve25519_dalek::montgomery::MontgomeryPoint;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{aead, hkdf, hmac};
use zeroize::Zeroizing;

use header::{Header, Stanza};

const X25519: &str = "X25519";
const WRAP: &[u8] = b"age-encryption.org/v1/X25519";
/// Bytes of the key that each recipient gets in a wrapping of his own.
const FILE_KEY: usize = 16;
const NONCE: usize = 16;

/// The public half of a key: `age1…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient([u8; 32]);

/// The secret half: `AGE-SECRET-KEY-1…`. It has neither `Debug` nor `Display`.
pub struct Identity(Zeroizing<[u8; 32]>);

/// A text that is no key. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no age key of the type X25519 (age1…, AGE-SECRET-KEY-1…)")]
pub struct NotAKey;

/// The system has no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandom;

/// Why sealed bytes cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// They begin otherwise.
    #[error("it does not begin as an age file of version 1 does")]
    NotAge,
    /// No key fits.
    #[error("it was not encrypted to any of these keys")]
    OtherKey,
    /// Cut or changed.
    #[error("{0}")]
    Damaged(&'static str),
}

impl Recipient {
    /// Its bytes. They are no secret, and stand in nothing that is sealed to it.
    pub fn public(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::str::FromStr for Recipient {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        // Upper case is for the secret half.
        let bytes = if text.starts_with("age1") { bech32::decode("age", text) } else { None };
        Ok(Self(*bytes.ok_or(NotAKey)?))
    }
}

impl Identity {
    /// The keys of a file as `age-keygen` writes it: one a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`NotAKey`] where there is a line that is none, or no key at all.
    pub fn all(text: &str) -> Result<Vec<Self>, NotAKey> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let one = |line: &str| {
            let bytes = if line.starts_with("AGE-SECRET-KEY-1") { bech32::decode("age-secret-key-", line) } else { None };
            bytes.map(Self).ok_or(NotAKey)
        };
        let keys: Vec<Self> = lines.map(one).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(NotAKey) } else { Ok(keys) }
    }

    fn public(&self) -> [u8; 32] {
        MontgomeryPoint::mul_base_clamped(*self.0).to_bytes()
    }

    /// The file key, where the stanza is for this key.
    fn unwrap(&self, stanza: &Stanza) -> Result<Option<Zeroizing<Vec<u8>>>, NotOpened> {
        let broken = NotOpened::Damaged("a recipient in its header is broken");
        let share = match stanza.arguments.as_slice() {
            [share] => header::decoded(share).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).ok_or(broken)?,
            _ => return Err(broken),
        };
        if stanza.body.len() != FILE_KEY + aead::CHACHA20_POLY1305.tag_len() {
            return Err(broken);
        }
        let shared = shared(*self.0, share).ok_or(broken)?;
        let key = wrapping_key(&shared, &share, &self.public());
        let mut body = Zeroizing::new(stanza.body.clone());
        let opened = cipher(&key).open_in_place(zero_nonce(), aead::Aad::empty(), &mut body).map(|plain| plain.to_vec());
        Ok(opened.ok().map(Zeroizing::new))
    }
}

/// X25519 (RFC 7748). None where all bits are zero: a share that somebody chose so that the secret is no secret.
fn shared(secret: [u8; 32], share: [u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
    let shared = Zeroizing::new(MontgomeryPoint(share).mul_clamped(secret).to_bytes());
    shared.iter().any(|byte| *byte != 0).then_some(shared)
}

/// Seals bytes: the secret half of any of the recipients opens them.
///
/// # Errors
/// [`NoRandom`].
pub fn seal(recipients: &[Recipient], plain: &[u8]) -> Result<Vec<u8>, NoRandom> {
    sealed(recipients, &[], plain)
}

/// Seals bytes as text, with a word of ours in the header for everybody to read: a stanza of its own, its kind first.
/// None of its words may be empty or hold a space.
///
/// # Errors
/// [`NoRandom`].
pub fn seal_text(recipients: &[Recipient], note: &[String], plain: &[u8]) -> Result<Vec<u8>, NoRandom> {
    sealed(recipients, note, plain).map(|bytes| armor::encoded(&bytes).into_bytes())
}

/// How long that text will be.
pub fn size_as_text(plain: u64, recipients: usize, note: &[String]) -> u64 {
    // `-> X25519 SHARE`, its body, and the line that signs them: 32 bytes are 43 digits of base64.
    const STANZA: u64 = 10 + 43 + 1 + 43 + 1;
    const SIGNED: u64 = 4 + 43 + 1;
    let note: u64 = if note.is_empty() { 0 } else { note.iter().map(|word| word.len() as u64 + 1).sum::<u64>() + 4 };
    let header = header::VERSION.len() as u64 + (recipients as u64).saturating_mul(STANZA) + note + SIGNED;
    armor::size(header.saturating_add(NONCE as u64).saturating_add(stream::size(plain)))
}

/// Whether bytes begin as an age file does, as text or bare.
pub fn is_one(bytes: &[u8]) -> bool {
    bytes.starts_with(header::VERSION) || !matches!(armor::decoded(bytes), Ok(None))
}

/// The words of the stanza of that kind, which everybody can read. Nothing vouches for them but who holds a key.
pub fn note(bytes: &[u8], kind: &str) -> Option<Vec<String>> {
    let bare = bare(bytes).ok()?;
    let header = header::read(&bare).ok()?;
    header.stanzas.into_iter().find(|stanza| stanza.kind == kind).map(|stanza| stanza.arguments)
}

/// What stands in the text, where it is one.
///
/// # Errors
/// [`NotOpened::Damaged`].
pub fn bare(bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    Ok(armor::decoded(bytes)?.unwrap_or_else(|| Zeroizing::new(bytes.to_vec())))
}

fn sealed(recipients: &[Recipient], note: &[String], plain: &[u8]) -> Result<Vec<u8>, NoRandom> {
    let random = SystemRandom::new();
    let file_key = Zeroizing::new(filled::<FILE_KEY>(&random)?);
    let mut stanzas = Vec::new();
    for recipient in recipients {
        let secret = Zeroizing::new(filled::<32>(&random)?);
        let share = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        let shared = shared(*secret, recipient.0).ok_or(NoRandom)?;
        let key = wrapping_key(&shared, &share, &recipient.0);
        let mut body = file_key.to_vec();
        cipher(&key).seal_in_place_append_tag(zero_nonce(), aead::Aad::empty(), &mut body).map_err(|_| NoRandom)?;
        stanzas.push(Stanza { kind: X25519.into(), arguments: vec![header::encoded(&share)], body });
    }
    if let Some((kind, arguments)) = note.split_first() {
        stanzas.push(Stanza { kind: kind.clone(), arguments: arguments.to_vec(), body: Vec::new() });
    }
    let mut sealed = header::written(&stanzas, |unsigned| hmac::sign(&mac_key(&*file_key), unsigned).as_ref().to_vec());
    let nonce = filled::<NONCE>(&random)?;
    sealed.extend_from_slice(&nonce);
    stream::seal(&cipher(&payload_key(&*file_key, &nonce)), plain, &mut sealed).map_err(|_| NoRandom)?;
    Ok(sealed)
}

/// Opens what was sealed to one of the keys, as text or bare.
///
/// # Errors
/// [`NotOpened`].
pub fn open(identities: &[Identity], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    let sealed = bare(sealed)?;
    let Header { stanzas, unsigned, mac, rest } = header::read(&sealed)?;
    let mut found = None;
    for stanza in stanzas.iter().filter(|stanza| stanza.kind == X25519) {
        for identity in identities {
            found = found.or(identity.unwrap(stanza)?);
        }
    }
    let file_key = found.ok_or(NotOpened::OtherKey)?;
    hmac::verify(&mac_key(&file_key), unsigned, &mac).map_err(|_| NotOpened::Damaged("its header was changed"))?;
    let (nonce, rest) = rest.split_at_checked(NONCE).ok_or(NotOpened::Damaged("it is cut after its header"))?;
    stream::open(&cipher(&payload_key(&file_key, nonce)), rest)
}

fn filled<const N: usize>(random: &SystemRandom) -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

fn derived(salt: &[u8], secret: &[u8], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let labels = [label];
    let filled = extracted.expand(&labels, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *key));
    filled.expect("HKDF-SHA-256 gives 32 bytes whatever it is given");
    key
}

fn wrapping_key(shared: &[u8; 32], share: &[u8; 32], recipient: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    derived(&[*share, *recipient].concat(), shared, WRAP)
}

fn mac_key(file_key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &*derived(&[], file_key, b"header"))
}

fn payload_key(file_key: &[u8], nonce: &[u8]) -> Zeroizing<[u8; 32]> {
    derived(nonce, file_key, b"payload")
}

fn cipher(key: &[u8; 32]) -> aead::LessSafeKey {
    aead::LessSafeKey::new(aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key).expect("a key of ChaCha20-Poly1305 has 32 bytes"))
}

/// Each wrapping key is used once.
fn zero_nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

#[cfg(test)]
mod tests;
