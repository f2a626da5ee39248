//! Signed heads: beside `records-N.jsonl` stands `records-N.jsonl.sig` with one JSON line for each head that was made
//! durable, `{"seq","head","time","signature"}`. Whoever can write the folder can write a whole new chain; without the
//! key its heads stay unsigned.
//!
//! The signature is ECDSA on P-256 with SHA-256 (FIPS 186-5, ASN.1 as in RFC 3279), in base64, over
//! `tokenferry head SEQ HASH` without a newline:
//! ```text
//! openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
//! printf 'tokenferry head %s %s' SEQ HASH | openssl dgst -sha256 -verify public.pem -signature <(base64 -d <<<SIGNATURE)
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::verify::Broken;
use super::{Seal, link, seal_of};
use crate::record::files::{self, Raw, Reader};

/// What follows the name of a records file in that of its signatures.
pub(in crate::record) const BESIDE: &str = ".sig";
/// An uncompressed P-256 key as SubjectPublicKeyInfo (RFC 5480): this prefix, then the point.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// Why a key cannot be used. Never with a byte of it.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It cannot be read.
    #[error("cannot read the key {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else stands there.
    #[error("{} is no {what}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What was expected, and how to make one.
        what: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
struct SignedHead {
    seq: u64,
    head: String,
    time: Timestamp,
    signature: String,
}

fn message(seq: u64, head: &str) -> Vec<u8> {
    format!("tokenferry head {seq} {head}").into_bytes()
}

/// The line that says whose head this is, newline included. The key is read anew each time: it may be replaced.
///
/// # Errors
/// [`BadKey`].
pub(in crate::record) fn sign(key: &Path, seq: u64, head: &str) -> Result<String, BadKey> {
    let signature = STANDARD.encode(sign_bytes(key, &message(seq, head))?);
    let line = SignedHead { seq, head: head.to_owned(), time: Timestamp::now(), signature };
    Ok(serde_json::to_string(&line).expect("it has nothing that JSON cannot say") + "\n")
}

/// A detached signature over bytes (ECDSA P-256 with SHA-256, DER), as
/// `openssl dgst -sha256 -verify public.pem -signature FILE.sig FILE` checks it.
///
/// # Errors
/// [`BadKey`].
pub fn sign_bytes(key: &Path, bytes: &[u8]) -> Result<Vec<u8>, BadKey> {
    let unusable = || BadKey::NotAKey {
        path: key.to_owned(),
        what: "P-256 key in PKCS#8 PEM: `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` makes one",
    };
    let document = pem(key, "PRIVATE KEY")?.ok_or_else(unusable)?;
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &document, &random).map_err(|_| unusable())?;
    Ok(pair.sign(&random, bytes).map_err(|_| unusable())?.as_ref().to_vec())
}

/// What `public.pem` holds.
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads one, as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    /// [`BadKey`].
    pub fn read(path: &Path) -> Result<Self, BadKey> {
        let what = "P-256 public key in PEM: `openssl pkey -in KEY -pubout` prints one";
        let unusable = || BadKey::NotAKey { path: path.to_owned(), what };
        let document = pem(path, "PUBLIC KEY")?.ok_or_else(unusable)?;
        document.strip_prefix(&SPKI_P256).filter(|point| point.len() == 65).map(|point| Self(point.to_vec())).ok_or_else(unusable)
    }

    fn signed(&self, line: &SignedHead) -> bool {
        let Ok(signature) = STANDARD.decode(&line.signature) else { return false };
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0).verify(&message(line.seq, &line.head), &signature).is_ok()
    }
}

/// The bytes between the PEM lines of that label (RFC 7468), where they stand there.
fn pem(path: &Path, label: &str) -> Result<Option<Zeroizing<Vec<u8>>>, BadKey> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|source| BadKey::Unreadable { path: path.to_owned(), source })?;
    let between = text.split_once(&format!("-----BEGIN {label}-----")).and_then(|(_, rest)| rest.split_once("-----END "));
    let Some((body, _)) = between else { return Ok(None) };
    let body = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
    Ok(STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new))
}

/// What the signatures of a folder amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// Heads that were signed.
    pub heads: u64,
    /// `seq` of the last of them: it covers every line before it.
    pub seq: u64,
}

/// Checks every signature of a folder against the key and the lines, and that the last line is covered.
///
/// # Errors
/// [`Broken`], with file and line of the first signature that does not fit, or with the first line that none covers.
pub fn verify_signatures(directory: &Path, key: &PublicKey) -> Result<Signed, Broken> {
    let files = files::list(directory).map_err(|source| Broken::Unreadable { path: directory.to_owned(), source })?;
    let (mut found, mut last) = (Signed { heads: 0, seq: 0 }, 0);
    for file in files {
        let mut beside = file.path.clone().into_os_string();
        beside.push(BESIDE);
        let beside = PathBuf::from(beside);
        let heads = signed_heads(&beside, key)?;
        let unreadable = |source| Broken::Unreadable { path: file.path.clone(), source };
        let mut reader = Reader::open(&file.path).map_err(unreadable)?;
        let mut text = Vec::with_capacity(1024);
        let mut seen = 0;
        while reader.next(&mut text).map_err(unreadable)? == Raw::Line {
            let Some(link) = link(&text) else { continue };
            last = link.seq;
            let Some((number, head)) = heads.get(&link.seq) else { continue };
            if seal_of(&text) != Seal::Fits(head) {
                return Err(Broken::Signature { file: beside, line: *number, why: "was made over another line than stands there" });
            }
            seen += 1;
            found = Signed { heads: found.heads + 1, seq: link.seq };
        }
        // A signature tells of a line: where that is gone, lines were cut off.
        if seen < heads.len() {
            let (number, _) = heads.last_key_value().map(|(_, at)| at.clone()).unwrap_or_default();
            return Err(Broken::Signature { file: beside, line: number, why: "was made over a line that is gone" });
        }
    }
    if found.seq < last { Err(Broken::Unsigned { first: found.seq + 1, last }) } else { Ok(found) }
}

/// Signed heads of one file by `seq`, with the line that says so.
fn signed_heads(beside: &Path, key: &PublicKey) -> Result<BTreeMap<u64, (u64, String)>, Broken> {
    let text = match std::fs::read_to_string(beside) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(Broken::Unreadable { path: beside.to_owned(), source }),
    };
    let mut heads = BTreeMap::new();
    for (line, number) in text.lines().zip(1..) {
        // What a crash cut off says nothing; a later head covers its line.
        let Ok(signed) = serde_json::from_str::<SignedHead>(line) else { continue };
        if !key.signed(&signed) {
            return Err(Broken::Signature {
                file: beside.to_owned(),
                line: number,
                why: "does not fit: another key made it, or it was changed",
            });
        }
        heads.insert(signed.seq, (number, signed.head));
    }
    Ok(heads)
}
