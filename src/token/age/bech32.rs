//! Keys as text: Bech32 (BIP 173) of 32 bytes.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM: usize = 6;

/// The 32 bytes behind that prefix, which is in lower case. None where the text is of one case no more, has another
/// prefix, or its checksum is wrong.
pub fn decode(prefix: &str, text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mixed = text.bytes().any(|b| b.is_ascii_lowercase()) && text.bytes().any(|b| b.is_ascii_uppercase());
    let text = Zeroizing::new(text.to_ascii_lowercase());
    let data = text.strip_prefix(prefix)?.strip_prefix('1').filter(|_| !mixed)?;
    let values: Option<Vec<u8>> =
        data.bytes().map(|b| ALPHABET.iter().position(|a| *a == b).and_then(|at| u8::try_from(at).ok())).collect();
    let values = Zeroizing::new(values?);
    let expanded = prefix.bytes().map(|b| b >> 5).chain([0]).chain(prefix.bytes().map(|b| b & 31));
    if values.len() < CHECKSUM || polymod(expanded.chain(values.iter().copied())) != 1 {
        return None;
    }
    bytes(&values[..values.len() - CHECKSUM])
}

/// Groups of five bits as bytes; what is left over is less than five zeros.
fn bytes(values: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let (mut held, mut bits, mut at) = (0u32, 0, 0);
    let mut bytes = Zeroizing::new([0; 32]);
    for value in values {
        held = (held << 5) | u32::from(*value);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = u8::try_from((held >> bits) & 0xff).ok()?;
            held &= (1 << bits) - 1;
            at += 1;
        }
    }
    (at == bytes.len() && bits < 5 && held == 0).then_some(bytes)
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = ((sum & 0x1ff_ffff) << 5) ^ u32::from(value);
        GENERATOR.iter().enumerate().fold(sum, |sum, (bit, word)| if (top >> bit) & 1 == 1 { sum ^ word } else { sum })
    })
}
