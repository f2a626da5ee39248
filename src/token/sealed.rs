//! Payloads that only the holders of a key can read: age, as text. Whoever reads the place without the key learns how
//! long it is, when the token was issued and when it ends, and by which target's settings it was written.

use zeroize::Zeroizing;

use super::age::{self, Identity, NoRandom, NotOpened, Recipient};
use super::payload::{Part, Payload};
use super::render::{FilePart, Format};

/// The stanza of the header that says whose it is. Other readers pass over what they do not know (C2SP, age.md).
const STANZA: &str = "tokenferry";

/// What a sealed payload says to everybody, so that we know our own without the key. It is not signed for us: it is a
/// name tag, not a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What its target asks for, as the records name it.
    pub ask: String,
    /// The token's `iat`, unix seconds.
    pub issued_at: i64,
    /// The token's `exp`, unix seconds.
    pub expires_at: i64,
}

impl Mark {
    /// The mark of sealed bytes, where they have one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let words = age::note(bytes, STANZA)?;
        let [ask, issued_at, expires_at] = <[String; 3]>::try_from(words).ok()?;
        Some(Self { ask, issued_at: issued_at.parse().ok()?, expires_at: expires_at.parse().ok()? })
    }

    fn words(&self) -> Vec<String> {
        vec![STANZA.to_owned(), self.ask.clone(), self.issued_at.to_string(), self.expires_at.to_string()]
    }
}

/// Whether bytes are an age file, as text or bare.
pub fn is_sealed(bytes: &[u8]) -> bool {
    age::is_one(bytes)
}

/// Seals a payload: each part that holds a secret by itself. What the kubelet puts beside a token is none.
///
/// # Errors
/// [`NoRandom`].
pub fn seal(payload: &Payload, format: &Format, recipients: &[Recipient], mark: &Mark) -> Result<Payload, NoRandom> {
    let is_open = |name: &str| match format {
        Format::Files(files) => matches!(files.get(name), Some(FilePart::Ca | FilePart::Namespace)),
        _ => false,
    };
    let one = |part: &Part| -> Result<Part, NoRandom> {
        let bytes = if is_open(&part.name) { part.expose().to_vec() } else { age::seal_text(recipients, &mark.words(), part.expose())? };
        Ok(Part::new(part.name.clone(), bytes))
    };
    let parts = payload.parts().iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Payload::of(parts, payload.dress()))
}

/// Bytes that a payload of so many bytes has once it is sealed to so many recipients.
pub fn size(plain: u64, recipients: usize) -> u64 {
    // `ask` is 16 hex digits, and seconds have ten of this era.
    let mark = Mark { ask: "0".repeat(16), issued_at: 1_000_000_000, expires_at: 1_000_000_000 };
    age::size_as_text(plain, recipients, &mark.words())
}

/// Opens sealed bytes, as text or bare.
///
/// # Errors
/// [`NotOpened`].
pub fn open(identities: &[Identity], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
    age::open(identities, bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::token::payload::Dress;

    /// As `age-keygen` made it.
    const KEY: (&str, &str) = (
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
        "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
    );

    fn recipients() -> Vec<Recipient> {
        vec![KEY.1.parse().unwrap()]
    }

    fn mark() -> Mark {
        Mark { ask: "0123456789abcdef".into(), issued_at: 1_700_000_000, expires_at: 1_700_003_600 }
    }

    #[test]
    fn only_the_key_opens_it_and_everybody_reads_its_mark() {
        let payload = Payload::new(b"a token".to_vec());
        let sealed = seal(&payload, &Format::Raw, &recipients(), &mark()).unwrap();
        let text = std::str::from_utf8(sealed.expose()).unwrap();
        assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n") && text.ends_with("-----END AGE ENCRYPTED FILE-----\n"), "{text}");
        assert!(is_sealed(sealed.expose()) && !is_sealed(payload.expose()));
        assert_eq!(Mark::of(sealed.expose()), Some(mark()));
        assert_eq!(Mark::of(text.trim().as_bytes()), Some(mark()), "stores take the last newline away");
        let keys = Identity::all(KEY.0).unwrap();
        assert_eq!(open(&keys, sealed.expose()).unwrap().as_slice(), b"a token");
        // Each time another one: what was recorded of it tells it from every other.
        assert_ne!(seal(&payload, &Format::Raw, &recipients(), &mark()).unwrap().sha256(), sealed.sha256());
    }

    #[test]
    fn a_changed_mark_or_a_cut_armour_is_damage() {
        let sealed = seal(&Payload::new(b"a token".to_vec()), &Format::Raw, &recipients(), &mark()).unwrap();
        let keys = Identity::all(KEY.0).unwrap();
        let bare = age::bare(sealed.expose()).unwrap();
        let at = bare.windows(10).position(|ten| ten == b"1700003600").unwrap();
        let mut changed = bare.to_vec();
        changed[at] = b'9';
        assert_eq!(open(&keys, &changed), Err(NotOpened::Damaged("its header was changed")));
        assert_eq!(Mark::of(&changed).unwrap().expires_at, 9_700_003_600, "it is a name tag, not a proof");
        let text = sealed.expose();
        for broken in [&text[..text.len() - 40], &text[..80], &[&text[..36], &text[37..]].concat()] {
            assert!(matches!(open(&keys, broken), Err(NotOpened::Damaged(_))), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn of_a_directory_what_is_no_secret_stays_readable() {
        let files = BTreeMap::from([
            ("token".to_owned(), FilePart::Token(Format::Raw)),
            ("ca.crt".to_owned(), FilePart::Ca),
            ("namespace".to_owned(), FilePart::Namespace),
        ]);
        let part = |name: &str| Part::new(name, name.as_bytes().to_vec());
        let payload = Payload::of(vec![part("ca.crt"), part("namespace"), part("token")], Dress::default());
        let sealed = seal(&payload, &Format::Files(files), &recipients(), &mark()).unwrap();
        let open: Vec<&str> = sealed.parts().iter().filter(|p| !is_sealed(p.expose())).map(|p| p.name.as_str()).collect();
        assert_eq!(open, ["ca.crt", "namespace"]);
        // Without files of its own every part is a secret.
        let sealed = seal(&payload, &Format::Raw, &recipients(), &mark()).unwrap();
        assert!(sealed.parts().iter().all(|p| is_sealed(p.expose())));
    }

    proptest! {
        #[test]
        fn the_size_is_known_before(length in 0usize..70_000, count in 1usize..4) {
            let all = vec![recipients()[0].clone(); count];
            let sealed = seal(&Payload::new(vec![b'x'; length]), &Format::Raw, &all, &mark()).unwrap();
            prop_assert_eq!(sealed.expose().len() as u64, size(length as u64, count));
        }

        #[test]
        fn whatever_bytes_stand_there_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
            let bytes = if head { [b"-----BEGIN AGE ENCRYPTED FILE-----\n".as_slice(), &bytes].concat() } else { bytes };
            let _ = (Mark::of(&bytes), is_sealed(&bytes));
            prop_assert!(open(&Identity::all(KEY.0).unwrap(), &bytes).is_err());
        }
    }
}
