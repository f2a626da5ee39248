use proptest::prelude::*;

use super::*;

/// As `age-keygen` made them.
const KEYS: [(&str, &str); 3] = [
    (
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
        "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
    ),
    (
        "AGE-SECRET-KEY-13SL3YNLM6XQ8C6X2MSP524VZGFY8VG079WJEZTD72SE0E3HPZ9PS9YYXVT",
        "age1xyqna28gdrevazhx0w3mh4der6z9tlp207qkxhad7fpgpqvqpassnyynxk",
    ),
    (
        "AGE-SECRET-KEY-1K3MXZQ3NF5ADK7P3FFXN4RXXVAN8SU7T24ZKRD26M2EATWGM99TS2UWUFJ",
        "age1q7dc9y5u78x787nvueqc8a4x9flc2x52dyr8frz0mn5qkj6tvypq59fddy",
    ),
];

fn identity(at: usize) -> Vec<Identity> {
    Identity::all(KEYS[at].0).unwrap_or_else(|e| panic!("{e}"))
}

fn recipients(at: &[usize]) -> Vec<Recipient> {
    at.iter().map(|at| KEYS[*at].1.parse().unwrap_or_else(|e| panic!("{e}"))).collect()
}

fn opened(at: usize, sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
    open(&identity(at), sealed).map(|plain| plain.to_vec())
}

#[test]
fn each_public_half_belongs_to_its_secret_half() {
    for at in 0..KEYS.len() {
        assert!(identity(at)[0].public() == recipients(&[at])[0].0, "key {at}");
    }
}

#[test]
fn a_text_that_is_no_key_is_refused_whatever_is_wrong_with_it() {
    let (secret, public) = KEYS[0];
    let changed = |text: &str| text.replacen('7', "8", 1);
    for text in
        ["", "age1", public.trim_end_matches('a'), &changed(public), &public.to_uppercase(), secret, "age1pq1qqqq", "ssh-ed25519 AAAA"]
    {
        assert!(text.parse::<Recipient>().is_err(), "{text}");
    }
    for text in ["", "# comment\n", &secret.to_lowercase(), &changed(secret), public, &format!("{secret}\nhello")] {
        assert!(Identity::all(text).is_err(), "{text}");
    }
    assert_eq!(Identity::all(&format!("# created: today\n{secret}\n\n{}\n", KEYS[1].0)).map(|keys| keys.len()), Ok(2));
}

#[test]
fn every_recipient_opens_it_and_nobody_else() {
    let sealed = seal(&recipients(&[0, 1]), b"hello").unwrap();
    assert_eq!((opened(0, &sealed), opened(1, &sealed)), (Ok(b"hello".to_vec()), Ok(b"hello".to_vec())));
    assert_eq!(opened(2, &sealed), Err(NotOpened::OtherKey));
    let both: Vec<Identity> = identity(2).into_iter().chain(identity(1)).collect();
    assert!(open(&both, &sealed).is_ok_and(|plain| *plain == b"hello"));
    assert!(matches!(opened(0, b"-----BEGIN AGE ENCRYPTED FILE-----"), Err(NotOpened::Damaged(_))));
    assert_eq!(opened(0, b"hello"), Err(NotOpened::NotAge));
    assert_ne!(seal(&recipients(&[0]), b"hello"), seal(&recipients(&[0]), b"hello"), "a key of its own each time");
}

#[test]
fn payloads_of_every_length_around_a_chunk_come_back() {
    const CHUNK: usize = 64 << 10;
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7] {
        let plain: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let sealed = seal(&recipients(&[0]), &plain).unwrap();
        assert!(opened(0, &sealed).is_ok_and(|found| found == plain), "{length}");
        // Without its last chunk, without its tag, and with something behind it.
        let chunks = length.div_ceil(CHUNK).max(1);
        let last = length - (chunks - 1) * CHUNK + 16;
        assert!(matches!(opened(0, &sealed[..sealed.len() - last]), Err(NotOpened::Damaged(_))), "{length}");
        assert!(matches!(opened(0, &sealed[..sealed.len() - 1]), Err(NotOpened::Damaged(_))), "{length}");
        assert!(matches!(opened(0, &[&sealed[..], b"x"].concat()), Err(NotOpened::Damaged(_))), "{length}");
    }
}

#[test]
fn a_share_of_small_order_is_no_secret() {
    let sealed = seal(&recipients(&[0]), b"hello").unwrap();
    let text = String::from_utf8_lossy(&sealed).into_owned();
    let share = text.lines().nth(1).unwrap().rsplit(' ').next().unwrap().to_owned();
    let at = text.find(&share).unwrap();
    let mut small = sealed.clone();
    small[at..at + share.len()].copy_from_slice(header::encoded(&[0; 32]).as_bytes());
    assert_eq!(opened(0, &small), Err(NotOpened::Damaged("a recipient in its header is broken")));
}

proptest! {
    #[test]
    fn no_changed_byte_goes_unseen(plain in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>(), bit in 0u8..8) {
        let mut sealed = seal(&recipients(&[0]), &plain).unwrap();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        prop_assert!(opened(0, &sealed).is_err(), "byte {}", at);
    }

    #[test]
    fn any_bytes_can_be_tried(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = opened(0, &bytes);
        let _ = opened(0, &[b"age-encryption.org/v1\n", &bytes[..]].concat());
    }
}
