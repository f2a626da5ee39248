//! What a token says of itself: header and claims of a JWT (RFC 7519), as Kubernetes writes them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};

/// The text is no token that we can read. Says where, never what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    /// Not three parts with dots between.
    #[error("it is not three parts with dots between, so it is no JWT")]
    Shape,
    /// A part is not base64url.
    #[error("its {0} is not base64url")]
    Encoding(&'static str),
    /// A part is not the JSON that it should be.
    #[error("its {part} is not the JSON of a token (line {line}, column {column})")]
    Json {
        /// Header or payload.
        part: &'static str,
        /// Where the JSON breaks.
        line: usize,
        /// Where the JSON breaks.
        column: usize,
    },
}

/// JOSE header (RFC 7515 §4).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// Signature algorithm.
    pub alg: String,
    /// Which key signed.
    pub kid: Option<String>,
}

/// The claims that Kubernetes puts into a ServiceAccount token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Claims {
    /// Issuer.
    #[serde(default)]
    pub iss: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default)]
    pub sub: String,
    /// Audiences; a single text counts as a list of one (RFC 7519 §4.1.3).
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Issued at. Absent in legacy tokens.
    #[serde(default, deserialize_with = "seconds")]
    pub iat: Option<i64>,
    /// Good until. Absent in legacy tokens.
    #[serde(default, deserialize_with = "seconds")]
    pub exp: Option<i64>,
    /// Good from.
    #[serde(default, deserialize_with = "seconds")]
    pub nbf: Option<i64>,
    /// Identity of this token (Kubernetes 1.30 and later).
    pub jti: Option<String>,
    /// What Kubernetes adds.
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
}

/// The claim `kubernetes.io`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Kubernetes {
    /// Namespace of the account.
    #[serde(default)]
    pub namespace: String,
    /// The account.
    #[serde(default)]
    pub serviceaccount: Object,
    /// The Pod that it is bound to.
    pub pod: Option<Object>,
    /// The Secret that it is bound to.
    pub secret: Option<Object>,
    /// The Node that it is bound to, or that its Pod runs on.
    pub node: Option<Object>,
    /// For tokens extended to a year: when they were meant to end.
    pub warnafter: Option<i64>,
}

/// What a legacy token says beside `iss` and `sub`: flat claims, and no end.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct LegacyClaims {
    /// Namespace of the account and the Secret.
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    /// The Secret that it stands in, and dies with.
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    /// The account.
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    /// That very account.
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub account_uid: String,
}

/// An object that a token names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Object {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its UID.
    #[serde(default)]
    pub uid: String,
}

impl Claims {
    /// Reads the payload of a JWT. The signature is not looked at.
    ///
    /// # Errors
    /// [`NotAToken`]; it never quotes the text.
    pub fn of(token: &str) -> Result<Self, NotAToken> {
        let (_, payload, _) = parts(token)?;
        decode("payload", payload)
    }

    /// Seconds that the token was given, where it says so.
    pub fn lifetime(&self) -> Option<i64> {
        Some(self.exp?.saturating_sub(self.iat?))
    }
}

impl LegacyClaims {
    /// Reads them; none where the token is no legacy one.
    pub fn of(token: &str) -> Option<Self> {
        let (_, payload, _) = parts(token).ok()?;
        decode::<Self>("payload", payload).ok().filter(|claims| !claims.secret.is_empty())
    }
}

impl Header {
    /// Reads the header of a JWT.
    ///
    /// # Errors
    /// [`NotAToken`]; it never quotes the text.
    pub fn of(token: &str) -> Result<Self, NotAToken> {
        let (header, _, _) = parts(token)?;
        decode("header", header)
    }
}

/// Header, payload and signature, as written.
///
/// # Errors
/// [`NotAToken::Shape`] where there are not three parts.
pub fn parts(token: &str) -> Result<(&str, &str, &str), NotAToken> {
    let mut split = token.split('.');
    match (split.next(), split.next(), split.next(), split.next()) {
        (Some(header), Some(payload), Some(signature), None) if !header.is_empty() && !payload.is_empty() => {
            Ok((header, payload, signature))
        }
        _ => Err(NotAToken::Shape),
    }
}

fn decode<T: serde::de::DeserializeOwned>(part: &'static str, text: &str) -> Result<T, NotAToken> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| NotAToken::Encoding(part))?;
    serde_json::from_slice(&bytes).map_err(|e| NotAToken::Json { part, line: e.line(), column: e.column() })
}

/// Read as it comes: a rotation reads every token that it mints, and to hold what may be either costs more than all the rest.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut many: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(one) = many.next_element()? {
                all.push(one);
            }
            Ok(all)
        }
    }
    from.deserialize_any(Either)
}

/// NumericDate may carry a fraction (RFC 7519 §2); whole seconds are enough here.
fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(from)?;
    #[allow(clippy::cast_possible_truncation)] // `as` saturates
    Ok(number.and_then(|n| n.as_i64().or_else(|| n.as_f64().map(|f| f as i64))))
}
