//! What is delivered: one or more named parts, and what a place that has types and labels shall say of them.

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use zeroize::Zeroizing;

use super::kubeconfig::{Entries, Unmergeable};
use super::render::hex;

/// Bytes to deliver: wiped when dropped, never printed.
#[derive(Clone)]
pub struct Payload {
    parts: Vec<Part>,
    dress: Dress,
    entries: Option<Entries>,
}

/// One part of a payload.
#[derive(Clone)]
pub struct Part {
    /// As a file or a key of a Secret is called; empty where the place names it.
    pub name: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl Part {
    /// A part of that name; takes the bytes over.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes: Zeroizing::new(bytes) }
    }

    /// The bytes, for the one place that has to write them.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

/// How a Kubernetes Secret with this payload is typed and labelled; nothing for most formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dress {
    /// `type` of the Secret; `Opaque` when absent.
    pub kind: Option<&'static str>,
    /// Labels that its readers look for.
    pub labels: &'static [(&'static str, &'static str)],
}

impl Payload {
    /// One part, which the place names. Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self::of(vec![Part::new("", bytes)], Dress::default())
    }

    /// Several named parts.
    pub fn of(parts: Vec<Part>, dress: Dress) -> Self {
        Self { parts, dress, entries: None }
    }

    /// Entries to be merged into whatever kubeconfig the place holds.
    pub fn merging(entries: Entries) -> Self {
        let whole = Part::new("", entries.whole().as_bytes().to_vec());
        Self { parts: vec![whole], dress: Dress::default(), entries: Some(entries) }
    }

    /// The bytes of the first part, for places that hold one.
    pub fn expose(&self) -> &[u8] {
        self.parts.first().map(Part::expose).unwrap_or_default()
    }

    /// All parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Type and labels for a Kubernetes Secret.
    pub fn dress(&self) -> Dress {
        self.dress
    }

    /// Whether it is merged into what the place holds.
    pub fn merges(&self) -> bool {
        self.entries.is_some()
    }

    /// The bytes that a place of one part shall hold, where it holds these now.
    ///
    /// # Errors
    /// [`Unmergeable`] where the payload is to be merged into something that is no kubeconfig.
    pub fn onto(&self, held: Option<&[u8]>) -> Result<Zeroizing<Vec<u8>>, Unmergeable> {
        match (&self.entries, held) {
            (Some(entries), Some(held)) => entries.merged(held),
            _ => Ok(Zeroizing::new(self.expose().to_vec())),
        }
    }

    /// SHA-256, in hex: names the payload in records without showing it. Of one part the bytes alone; of named ones
    /// each name and length too, so that no two payloads share it.
    pub fn sha256(&self) -> String {
        hex(&self.digest())
    }

    /// The bytes of that hash.
    pub fn digest(&self) -> [u8; SHA256_OUTPUT_LEN] {
        let mut digest = Context::new(&SHA256);
        for part in &self.parts {
            if !part.name.is_empty() {
                digest.update(format!("{}\0{}\0", part.name, part.bytes.len()).as_bytes());
            }
            digest.update(&part.bytes);
        }
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest.finish().as_ref());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bounds_of_parts_are_part_of_the_hash() {
        let sha = |parts: &[(&str, &str)]| {
            Payload::of(parts.iter().map(|(name, text)| Part::new(*name, text.as_bytes().to_vec())).collect(), Dress::default()).sha256()
        };
        assert_ne!(sha(&[("a", "xy"), ("b", "")]), sha(&[("a", "x"), ("b", "y")]));
        assert_ne!(sha(&[("a", "x")]), sha(&[("b", "x")]));
        assert_eq!(sha(&[("", "abc")]), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
