//! Whether a token was signed by a key that we are told of: a JSON Web Key Set (RFC 7517) against the algorithms
//! with which Kubernetes signs (RFC 7518 §3): RS256, ES256, ES384 and ES512.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p521::ecdsa::signature::Verifier;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;

use super::claims::{Header, NotAToken, parts};

/// Public keys.
#[derive(Debug, Clone)]
pub struct Keys(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    kid: Option<String>,
    public: Public,
}

#[derive(Debug, Clone)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An uncompressed point.
    P384(Vec<u8>),
    /// An uncompressed point. ring knows nothing of this curve.
    P521(Vec<u8>),
}

/// The text is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Not the JSON of one.
    #[error("it is no JSON Web Key Set (line {line}, column {column}); `kubectl get --raw /openid/v1/jwks` prints one")]
    Json {
        /// Where the JSON breaks.
        line: usize,
        /// Where the JSON breaks.
        column: usize,
    },
    /// Nothing in it that can check a signature.
    #[error("it has no key for RS256, ES256, ES384 or ES512")]
    None,
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// No JWT.
    #[error("{0}")]
    NotAToken(#[from] NotAToken),
    /// Its signature is not base64url.
    #[error("its signature is not base64url")]
    Encoding,
    /// `none`, HS256 and whatever else.
    #[error("it is signed with {0}, which is not checked here (RS256, ES256, ES384 and ES512 are)")]
    Algorithm(String),
    /// The key set does not have the key that the token names.
    #[error("the key set has no {alg} key {}; it was signed by another issuer, or the keys were rotated", kid.as_deref().map_or_else(|| "at all".to_owned(), |kid| format!("`{kid}`")))]
    NoKey {
        /// The token's algorithm.
        alg: String,
        /// The token's key.
        kid: Option<String>,
    },
    /// Somebody else signed, or the token was changed.
    #[error("the signature is not that of the key")]
    Wrong,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    #[serde(default)]
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Keys {
    /// Reads a key set. Keys of other kinds, or for encryption, are passed over (RFC 7517 §5).
    ///
    /// # Errors
    /// [`BadKeys`].
    pub fn of(text: &[u8]) -> Result<Self, BadKeys> {
        let set: Set = serde_json::from_slice(text).map_err(|e| BadKeys::Json { line: e.line(), column: e.column() })?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(key).collect();
        if keys.is_empty() { Err(BadKeys::None) } else { Ok(Self(keys)) }
    }

    /// Checks a token's signature. The key is the one that the token names; where it names none, each fitting one
    /// is tried. The key decides the algorithm, never the token alone.
    ///
    /// # Errors
    /// [`NotSigned`].
    pub fn check(&self, token: &str) -> Result<Header, NotSigned> {
        let header = Header::of(token)?;
        let (_, _, signature) = parts(token)?;
        let signed = &token.as_bytes()[..token.len() - signature.len() - 1];
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| NotSigned::Encoding)?;
        if !["RS256", "ES256", "ES384", "ES512"].contains(&header.alg.as_str()) {
            return Err(NotSigned::Algorithm(header.alg.chars().take(20).collect()));
        }
        let named = |key: &&Key| header.kid.is_none() || key.kid == header.kid;
        let mut fitting = self.0.iter().filter(named).filter(|key| key.algorithm() == header.alg).peekable();
        if fitting.peek().is_none() {
            return Err(NotSigned::NoKey { alg: header.alg, kid: header.kid });
        }
        if fitting.any(|key| key.signed(signed, &signature)) { Ok(header) } else { Err(NotSigned::Wrong) }
    }
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self.public {
            Public::Rsa { .. } => "RS256",
            Public::P256(_) => "ES256",
            Public::P384(_) => "ES384",
            Public::P521(_) => "ES512",
        }
    }

    fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let result = match &self.public {
            Public::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature),
            Public::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Public::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature),
            Public::P521(point) => return es512(point, message, signature),
        };
        result.is_ok()
    }
}

fn es512(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
    let signature = p521::ecdsa::Signature::from_slice(signature);
    key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
}

fn key(jwk: Jwk) -> Option<Key> {
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?.trim_end_matches('=')).ok();
    let point = |size: usize| {
        let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
        // Coordinates have the full width of the curve (RFC 7518 §6.2.1.2).
        (x.len() == size && y.len() == size).then(|| [vec![4], x, y].concat())
    };
    let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => {
            let (n, e) = (bytes(&jwk.n)?, bytes(&jwk.e)?);
            // ring takes numbers without leading zeros; some writers leave the sign's one there.
            let first = n.iter().position(|byte| *byte != 0)?;
            Public::Rsa { n: n[first..].to_vec(), e }
        }
        ("EC", Some("P-256")) => Public::P256(point(32)?),
        ("EC", Some("P-384")) => Public::P384(point(48)?),
        ("EC", Some("P-521")) => Public::P521(point(66)?),
        _ => return None,
    };
    Some(Key { kid: jwk.kid, public })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair};

    use super::*;

    /// RFC 7515, appendices A.2 and A.3: the same payload signed with RS256 and with ES256.
    const RSA: &str = concat!(
        r#"{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL"#,
        r#"-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV"#,
        r#"MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"#
    );
    const P256: &str =
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
    const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const RS256: &str = concat!(
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAyn",
        "RFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnv",
        "Wh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    const ES256: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn set(keys: &[&str]) -> Keys {
        Keys::of(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes()).unwrap()
    }

    fn rs256() -> String {
        format!("eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.{RS256}")
    }

    fn es256() -> String {
        format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.{ES256}")
    }

    /// A key pair's token and its JWK.
    fn signed(algorithm: &'static EcdsaSigningAlgorithm, alg: &str, crv: &str, kid: &str) -> (String, String) {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let text = format!("{}.{PAYLOAD}", URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#)));
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(&random, text.as_bytes()).unwrap());
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        (format!("{text}.{signature}"), format!(r#"{{"kty":"EC","use":"sig","crv":"{crv}","kid":"{kid}","x":"{x}","y":"{y}"}}"#))
    }

    #[test]
    fn the_examples_of_the_standard_are_good() {
        let keys = set(&[RSA, P256]);
        assert_eq!(keys.check(&rs256()).unwrap().alg, "RS256");
        assert_eq!(keys.check(&es256()).unwrap().alg, "ES256");
    }

    /// RFC 7515, appendix A.4.
    const P521: &str = concat!(
        r#"{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","#,
        r#""y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}"#
    );
    const ES512: &str = concat!(
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YB",
        "JZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn"
    );

    #[test]
    fn es512_is_good_and_no_other_payload_signature_or_length_is() {
        let keys = set(&[P256, P521]);
        assert_eq!(keys.check(ES512).unwrap().alg, "ES512");
        let (rest, signature) = ES512.rsplit_once('.').unwrap();
        assert_eq!(keys.check(&ES512.replace("UGF5bG9hZA", "UGF5bG9hZB")), Err(NotSigned::Wrong));
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[100] ^= 1;
        for changed in [&bytes[..], &bytes[..131], &[]] {
            assert_eq!(keys.check(&format!("{rest}.{}", URL_SAFE_NO_PAD.encode(changed))), Err(NotSigned::Wrong));
        }
        assert!(matches!(set(&[P256]).check(ES512), Err(NotSigned::NoKey { .. })));
    }

    #[test]
    fn es384_is_good_and_every_changed_part_is_not() {
        let (token, jwk) = signed(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384", "k");
        let keys = set(&[&jwk]);
        assert_eq!(keys.check(&token).unwrap().kid.as_deref(), Some("k"));
        let other = token.replace(PAYLOAD, &URL_SAFE_NO_PAD.encode(r#"{"iss":"mallory"}"#));
        assert_eq!(keys.check(&other), Err(NotSigned::Wrong));
        let cut = &token[..token.len() - 4];
        assert_eq!(keys.check(cut), Err(NotSigned::Wrong));
    }

    #[test]
    fn the_named_key_decides_and_another_one_does_not_do() {
        let (token, jwk) = signed(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256", "one");
        let (_, impostor) = signed(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256", "one");
        let (_, two) = signed(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256", "two");
        assert!(set(&[&two, &jwk]).check(&token).is_ok());
        assert_eq!(set(&[&impostor]).check(&token), Err(NotSigned::Wrong));
        let missing = set(&[&two]).check(&token).unwrap_err();
        assert_eq!(missing, NotSigned::NoKey { alg: "ES256".into(), kid: Some("one".into()) });
        assert!(missing.to_string().contains("no ES256 key `one`"), "{missing}");
    }

    #[test]
    fn a_token_cannot_choose_another_algorithm_than_its_key_has() {
        // An RS256 header over the P-256 key's kid, and no signature at all.
        let header = |alg: &str| URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
        let keys = set(&[P256]);
        let as_rsa = format!("{}.{PAYLOAD}.{ES256}", header("RS256"));
        assert!(matches!(keys.check(&as_rsa), Err(NotSigned::NoKey { .. })));
        for alg in ["none", "HS256", "PS512"] {
            let forged = format!("{}.{PAYLOAD}.{ES256}", header(alg));
            assert_eq!(keys.check(&forged), Err(NotSigned::Algorithm(alg.into())));
        }
    }

    #[test]
    fn keys_of_other_kinds_are_passed_over_and_nothing_left_is_told() {
        let odd = [
            r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#,
            r#"{}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
            r#"{"kty":"RSA","use":"enc","n":"AQ","e":"AQAB"}"#,
        ];
        assert!(set(&[odd[0], odd[1], odd[2], P256]).check(&es256()).is_ok());
        let text = format!("{{\"keys\":[{}]}}", odd.join(","));
        assert_eq!(Keys::of(text.as_bytes()).unwrap_err(), BadKeys::None);
        assert_eq!(Keys::of(b"{\n]").unwrap_err(), BadKeys::Json { line: 2, column: 1 });
    }

    proptest! {
        #[test]
        fn no_signature_but_the_right_one_is_good(signature in proptest::collection::vec(any::<u8>(), 0..100)) {
            let token = format!("eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.{}", URL_SAFE_NO_PAD.encode(signature));
            prop_assert!(set(&[P256]).check(&token).is_err());
        }

        #[test]
        fn whatever_is_no_key_set_is_refused_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Keys::of(&bytes).is_err());
        }
    }
}
