//! `encryptTo`: to whom a place's payload is encrypted.

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::schedule::measure::shown;
use crate::token::age::Recipient;

/// The public half of an age key.
#[derive(Debug, Clone)]
pub struct RecipientFile(Recipient);

impl RecipientFile {
    /// All of them, read.
    pub fn all(list: Vec<Self>) -> Vec<Recipient> {
        list.into_iter().map(|one| one.0).collect()
    }
}

impl<'de> Deserialize<'de> for RecipientFile {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
            let why = "a secret key stands here, and whoever read this file has it now: make another, and write its public half (age1…)";
            return Err(de::Error::custom(why));
        }
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format_args!(
                "{} is no public key of age (X25519), or was mistyped: write age1… as `age-keygen` prints it",
                shown(&text)
            ))
        })
    }
}
