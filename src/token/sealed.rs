//! Payloads that only the holders of a key can read: age, as text. Whoever reads the place without the key learns how
//! long it is, when the token was issued and when it ends, and nothing of whose it is, not by trying names either: a mark
//! is made with the public halves of those to whom it is sealed, which stand in the schedule, and in no sealed payload.

use ring::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::age::{self, Identity, NoRandom, NotOpened, Recipient};
use super::payload::{Part, Payload};
use super::render::hex;

/// The stanza of the header that says whose it is. Other readers pass over what they do not know (C2SP, age.md).
const STANZA: &str = "tokenferry";
/// Bytes of a tag: nobody guesses one, and nobody learns from one.
const TAG: usize = 8;

/// What a sealed payload says to everybody, so that we know our own without the key. Its tags vouch for it towards those
/// who know its recipients, and tell others nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The token's `iat`, unix seconds.
    pub issued_at: i64,
    /// The token's `exp`, unix seconds.
    pub expires_at: i64,
    /// One for each recipient.
    tags: Vec<String>,
}

impl Mark {
    /// The mark of sealed bytes, where they have one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut words = age::note(bytes, STANZA)?.into_iter();
        let mut second = || words.next()?.parse().ok();
        let (issued_at, expires_at) = (second()?, second()?);
        Some(Self { issued_at, expires_at, tags: words.collect() })
    }

    fn words(&self) -> Vec<String> {
        let said = [STANZA.to_owned(), self.issued_at.to_string(), self.expires_at.to_string()];
        said.into_iter().chain(self.tags.iter().cloned()).collect()
    }
}

/// What makes and knows the marks of one target: a key for each recipient, from his public half and what the target asks
/// for. One recipient that is still the same is enough, so that they can be changed one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seals(Vec<String>);

impl Seals {
    /// `ask`: what the target asks for, as the records name it.
    pub fn new<'r>(recipients: impl IntoIterator<Item = &'r Recipient>, ask: &str) -> Self {
        Self(recipients.into_iter().map(|recipient| hex(signed(recipient.public(), ask).as_ref())).collect())
    }

    /// Whether there is nothing that it would know.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mark of a token that was issued then and ends then, unix seconds.
    pub fn mark(&self, issued_at: i64, expires_at: i64) -> Mark {
        Mark { issued_at, expires_at, tags: self.tags(issued_at, expires_at).collect() }
    }

    /// Whether it is one of its marks.
    pub fn know(&self, mark: &Mark) -> bool {
        self.tags(mark.issued_at, mark.expires_at).any(|tag| mark.tags.contains(&tag))
    }

    fn tags(&self, issued_at: i64, expires_at: i64) -> impl Iterator<Item = String> {
        self.0.iter().map(move |key| hex(&signed(key.as_bytes(), &format!("{issued_at} {expires_at}")).as_ref()[..TAG]))
    }
}

fn signed(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// Whether bytes are an age file, as text or bare.
pub fn is_sealed(bytes: &[u8]) -> bool {
    age::is_one(bytes)
}

/// Seals a payload, each part by itself: what stands beside a token tells of its cluster and namespace.
///
/// # Errors
/// [`NoRandom`].
pub fn seal(payload: &Payload, recipients: &[Recipient], mark: &Mark) -> Result<Payload, NoRandom> {
    let one = |part: &Part| Ok(Part::new(part.name.clone(), age::seal_text(recipients, &mark.words(), part.expose())?));
    let parts = payload.parts().iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(Payload::of(parts, payload.dress()))
}

/// Bytes that a payload of so many bytes has once it is sealed to so many recipients.
pub fn size(plain: u64, recipients: usize) -> u64 {
    // Seconds have ten digits in this era.
    let mark = Mark { issued_at: 1_000_000_000, expires_at: 1_000_000_000, tags: vec!["0".repeat(2 * TAG); recipients] };
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
    use proptest::prelude::*;

    use super::*;
    use crate::token::payload::Dress;

    /// As `age-keygen` made it.
    const KEY: (&str, &str) = (
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
        "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
    );
    const OTHER: &str = "age1xyqna28gdrevazhx0w3mh4der6z9tlp207qkxhad7fpgpqvqpassnyynxk";

    fn recipients() -> Vec<Recipient> {
        vec![KEY.1.parse().unwrap()]
    }

    fn seals(ask: &str, to: &[&str]) -> Seals {
        let to: Vec<Recipient> = to.iter().map(|one| one.parse().unwrap()).collect();
        Seals::new(&to, ask)
    }

    fn mark() -> Mark {
        seals("0123456789abcdef", &[KEY.1]).mark(1_700_000_000, 1_700_003_600)
    }

    #[test]
    fn whose_it_is_only_those_can_tell_who_know_to_whom_it_is_sealed() {
        let both = [KEY.1, OTHER];
        let sealed =
            seal(&Payload::new(b"a token".to_vec()), &both.map(|one| one.parse().unwrap()), &seals("a", &both).mark(7, 8)).unwrap();
        let mark = Mark::of(sealed.expose()).unwrap();
        // Neither what was asked for nor to whom it is sealed stands there, in any spelling.
        let bare = age::bare(sealed.expose()).unwrap();
        for recipient in both.map(|one| one.parse::<Recipient>().unwrap()) {
            let public = recipient.public();
            for spelt in [hex(public).into_bytes(), age_base64(public), public.to_vec()] {
                assert!(!bare.windows(spelt.len()).any(|part| part == spelt.as_slice()));
            }
        }
        assert!(seals("a", &both).know(&mark));
        assert!(!seals("b", &both).know(&mark), "another target's");
        assert!(!seals("a", &[]).know(&mark), "who knows no recipient and guesses what was asked for can check no guess");
        // One that stays is enough to change the others.
        assert!(seals("a", &[OTHER]).know(&mark) && seals("a", &[KEY.1]).know(&mark));
        assert!(!seals("a", &["age1q7dc9y5u78x787nvueqc8a4x9flc2x52dyr8frz0mn5qkj6tvypq59fddy"]).know(&mark));
    }

    #[test]
    fn marks_of_two_targets_or_two_recipients_or_two_tokens_have_nothing_in_common() {
        let tags = |ask: &str, to: &str, issued_at: i64| seals(ask, &[to]).mark(issued_at, 3_600).tags;
        let all = [tags("a", KEY.1, 1), tags("b", KEY.1, 1), tags("a", OTHER, 1), tags("a", KEY.1, 2)].concat();
        assert!(all.iter().all(|tag| tag.len() == 2 * TAG), "{all:?}");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len(), "{all:?}");
        // Without a key the ask itself makes no tag.
        let guess = |key: &[u8]| hex(&signed(key, "1 3600").as_ref()[..TAG]);
        assert!(!all.contains(&guess(b"a")) && !all.contains(&guess(b"")));
        assert_eq!(seals("a", &[KEY.1]), serde_json::from_str(&serde_json::to_string(&seals("a", &[KEY.1])).unwrap()).unwrap());
    }

    #[test]
    fn times_that_somebody_changed_are_not_ours_any_more() {
        let changed = Mark { issued_at: 1_800_000_000, ..mark() };
        assert!(seals("0123456789abcdef", &[KEY.1]).know(&mark()) && !seals("0123456789abcdef", &[KEY.1]).know(&changed));
    }

    fn age_base64(bytes: &[u8]) -> Vec<u8> {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes).into_bytes()
    }

    #[test]
    fn only_the_key_opens_it_and_everybody_reads_its_mark() {
        let payload = Payload::new(b"a token".to_vec());
        let sealed = seal(&payload, &recipients(), &mark()).unwrap();
        let text = std::str::from_utf8(sealed.expose()).unwrap();
        assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n") && text.ends_with("-----END AGE ENCRYPTED FILE-----\n"), "{text}");
        assert!(is_sealed(sealed.expose()) && !is_sealed(payload.expose()));
        assert_eq!(Mark::of(sealed.expose()), Some(mark()));
        assert_eq!(Mark::of(text.trim().as_bytes()), Some(mark()), "stores take the last newline away");
        let keys = Identity::all(KEY.0).unwrap();
        assert_eq!(open(&keys, sealed.expose()).unwrap().as_slice(), b"a token");
        // Each time another one: what was recorded of it tells it from every other.
        assert_ne!(seal(&payload, &recipients(), &mark()).unwrap().sha256(), sealed.sha256());
    }

    #[test]
    fn a_changed_mark_or_a_cut_armour_is_damage() {
        let sealed = seal(&Payload::new(b"a token".to_vec()), &recipients(), &mark()).unwrap();
        let keys = Identity::all(KEY.0).unwrap();
        let bare = age::bare(sealed.expose()).unwrap();
        let at = bare.windows(10).position(|ten| ten == b"1700003600").unwrap();
        let mut changed = bare.to_vec();
        changed[at] = b'9';
        assert_eq!(open(&keys, &changed), Err(NotOpened::Damaged("its header was changed")));
        assert_eq!(Mark::of(&changed).unwrap().expires_at, 9_700_003_600);
        let text = sealed.expose();
        for broken in [&text[..text.len() - 40], &text[..80], &[&text[..36], &text[37..]].concat()] {
            assert!(matches!(open(&keys, broken), Err(NotOpened::Damaged(_))), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn of_a_directory_every_file_is_sealed_for_each_tells_something_of_the_cluster() {
        let part = |name: &str| Part::new(name, name.as_bytes().to_vec());
        let payload = Payload::of(vec![part("ca.crt"), part("namespace"), part("token")], Dress::default());
        let sealed = seal(&payload, &recipients(), &mark()).unwrap();
        assert!(sealed.parts().iter().all(|part| is_sealed(part.expose()) && Mark::of(part.expose()) == Some(mark())));
        assert_eq!(sealed.parts().iter().map(|part| part.name.as_str()).collect::<Vec<_>>(), ["ca.crt", "namespace", "token"]);
    }

    proptest! {
        #[test]
        fn the_size_is_known_before(length in 0usize..70_000, count in 1usize..4) {
            let all = vec![recipients()[0].clone(); count];
            let mark = Seals::new(&all, "a").mark(1_700_000_000, 1_700_003_600);
            let sealed = seal(&Payload::new(vec![b'x'; length]), &all, &mark).unwrap();
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
