//! What a token says of itself, and what a person should know about it.

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::published::Published;
use crate::token::Claims;
use crate::token::claims::{Header, NotAToken, Object};

/// Longer lives are worth a word: nothing that is rotated needs them. Seconds.
const LONG: i64 = 24 * 3600;
/// Proxies that limit headers to 4 KiB refuse larger tokens.
const LARGE: usize = 4096;

/// A token, without the token.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Signature algorithm.
    pub algorithm: String,
    /// Which key signed.
    pub key_id: Option<String>,
    /// Who issued it.
    pub issuer: String,
    /// Whose it is.
    pub subject: String,
    /// Namespace of the account.
    pub namespace: Option<String>,
    /// Name of the account.
    pub service_account: Option<String>,
    /// For whom.
    pub audiences: Vec<String>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// From when it is good.
    pub not_before: Option<Timestamp>,
    /// Until when it is good.
    pub expires_at: Option<Timestamp>,
    /// When an extended token was meant to end.
    pub warn_after: Option<Timestamp>,
    /// Seconds of life that it was given.
    pub lifetime: Option<i64>,
    /// Seconds left; negative once it is over.
    pub remaining: Option<i64>,
    /// Seconds since it was issued.
    pub age: Option<i64>,
    /// Part of its life that is over, from 0 to 1.
    pub elapsed: Option<f64>,
    /// Objects whose end is the token's end.
    pub bound_to: Vec<Bound>,
    /// Its identity.
    pub jti: Option<String>,
    /// Its size.
    pub bytes: usize,
    /// What a person should know.
    pub warnings: Vec<Warning>,
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// `pod`, `secret` or `node`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// One thing to know: a word for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// `expired`, `notYetValid`, `long`, `extended`, `endless`, `large`, `newline`, `readableByOthers`.
    pub code: &'static str,
    /// What it means and the way out.
    pub message: String,
}

/// Reads a token at a time (seconds since 1970).
///
/// # Errors
/// [`NotAToken`] where its header cannot be read.
pub fn inspect(found: &Published, now: i64) -> Result<Inspection, NotAToken> {
    let header = Header::of(found.token.expose())?;
    let claims = &found.claims;
    let time = |seconds: Option<i64>| seconds.and_then(|s| Timestamp::from_second(s).ok());
    let since = |earlier: Option<i64>| earlier.map(|earlier| now.saturating_sub(earlier));
    let lifetime = claims.exp.zip(claims.iat).map(|(exp, iat)| exp.saturating_sub(iat));
    let age = since(claims.iat);
    #[allow(clippy::cast_precision_loss)] // a share for people
    let share = |age: i64, life: i64| (age as f64 / life as f64).clamp(0.0, 1.0);
    let (namespace, account) = account(claims);
    Ok(Inspection {
        algorithm: header.alg,
        key_id: header.kid,
        issuer: claims.iss.clone(),
        subject: claims.sub.clone(),
        namespace,
        service_account: account,
        audiences: claims.aud.clone(),
        issued_at: time(claims.iat),
        not_before: time(claims.nbf),
        expires_at: time(claims.exp),
        warn_after: time(claims.kubernetes.warnafter),
        lifetime,
        remaining: claims.exp.map(|exp| exp.saturating_sub(now)),
        age,
        elapsed: age.zip(lifetime).filter(|(_, life)| *life > 0).map(|(age, life)| share(age, life)),
        bound_to: bound(claims),
        jti: claims.jti.clone(),
        bytes: found.token.expose().len(),
        warnings: warnings(found, now),
    })
}

fn account(claims: &Claims) -> (Option<String>, Option<String>) {
    let own = &claims.kubernetes;
    let mut named = claims.sub.strip_prefix("system:serviceaccount:").into_iter().flat_map(|rest| rest.splitn(2, ':'));
    let (namespace, name) = (named.next(), named.next());
    let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (told(&own.namespace).or_else(|| namespace.map(str::to_owned)), told(&own.serviceaccount.name).or_else(|| name.map(str::to_owned)))
}

fn bound(claims: &Claims) -> Vec<Bound> {
    let own = &claims.kubernetes;
    let one = |kind, object: &Option<Object>| object.as_ref().map(|o| Bound { kind, name: o.name.clone(), uid: o.uid.clone() });
    [one("pod", &own.pod), one("secret", &own.secret), one("node", &own.node)].into_iter().flatten().collect()
}

fn warnings(found: &Published, now: i64) -> Vec<Warning> {
    let claims = &found.claims;
    let mut warnings = Vec::new();
    let mut warn = |holds: bool, code, message: String| {
        if holds {
            warnings.push(Warning { code, message });
        }
    };
    let text = |seconds: Option<i64>| seconds.and_then(|s| Timestamp::from_second(s).ok()).map_or_else(|| "?".into(), |t| t.to_string());
    let over = claims.exp.is_some_and(|exp| exp <= now);
    warn(over, "expired", format!("expired since {}", text(claims.exp)));
    warn(
        claims.nbf.is_some_and(|nbf| nbf > now),
        "notYetValid",
        format!("not valid before {}; or this host's clock is behind", text(claims.nbf)),
    );
    let extended = claims.kubernetes.warnafter.is_some();
    warn(
        extended,
        "extended",
        format!(
            "extended by the API server to a year (3607 s asked for a Pod): meant to end at {}; a client that read it anew would have a shorter one",
            text(claims.kubernetes.warnafter)
        ),
    );
    let long = claims.lifetime().is_some_and(|life| life > LONG);
    warn(
        long && !extended,
        "long",
        format!("lives {} hours; over 24 hours a leaked token is of use for long", claims.lifetime().unwrap_or(0) / 3600),
    );
    warn(
        claims.exp.is_none(),
        "endless",
        "says no end: a legacy token, good until its Secret or its account is deleted; replace it".into(),
    );
    let bytes = found.token.expose().len();
    warn(bytes > LARGE, "large", format!("{bytes} bytes; proxies that limit a header to {LARGE} refuse it: ask for fewer audiences"));
    warn(found.newline, "newline", "a newline ends the file; clients that send the file as it is (kube-rs) are refused with it".into());
    let others = found.mode.is_some_and(|mode| mode & 0o004 != 0);
    warn(
        others,
        "readableByOthers",
        format!("every user of this host can read the file (mode {:04o}); take the right away: chmod o-r", found.mode.unwrap_or(0)),
    );
    warnings
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn published(claims: &str, end: &str, mode: Option<u32>) -> Published {
        let (header, claims) = (URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k1"}"#), URL_SAFE_NO_PAD.encode(claims));
        Published::of(format!("{header}.{claims}.c2ln{end}").as_bytes(), mode).unwrap_or_else(|why| panic!("{why}"))
    }

    fn codes(claims: &str, end: &str, mode: Option<u32>) -> Vec<&'static str> {
        inspect(&published(claims, end, mode), NOW).unwrap().warnings.iter().map(|w| w.code).collect()
    }

    #[test]
    fn a_fresh_token_is_shown_whole_and_without_a_word_of_warning() {
        let claims = format!(
            r#"{{"iss":"https://k","sub":"system:serviceaccount:ci:bot","aud":["a"],"iat":{},"nbf":{},"exp":{},"jti":"j",
            "kubernetes.io":{{"namespace":"ci","serviceaccount":{{"name":"bot","uid":"u"}},"secret":{{"name":"s","uid":"su"}}}}}}"#,
            NOW - 900,
            NOW - 900,
            NOW + 2700
        );
        let found = inspect(&published(&claims, "", Some(0o640)), NOW).unwrap();
        assert_eq!((found.algorithm.as_str(), found.key_id.as_deref(), found.issuer.as_str()), ("ES256", Some("k1"), "https://k"));
        assert_eq!((found.namespace.as_deref(), found.service_account.as_deref()), (Some("ci"), Some("bot")));
        assert_eq!((found.lifetime, found.remaining, found.age, found.elapsed), (Some(3600), Some(2700), Some(900), Some(0.25)));
        assert_eq!(found.bound_to, [Bound { kind: "secret", name: "s".into(), uid: "su".into() }]);
        assert_eq!(found.warnings, []);
    }

    #[test]
    fn each_thing_to_know_has_its_own_word() {
        assert_eq!(codes(&format!(r#"{{"iat":{},"exp":{NOW}}}"#, NOW - 60), "", None), ["expired"]);
        assert_eq!(codes(&format!(r#"{{"nbf":{},"exp":{}}}"#, NOW + 1, NOW + 9), "", None), ["notYetValid"]);
        assert_eq!(codes(&format!(r#"{{"iat":{NOW},"exp":{}}}"#, NOW + 86_401), "", None), ["long"]);
        let year = format!(r#"{{"iat":{NOW},"exp":{},"kubernetes.io":{{"warnafter":{}}}}}"#, NOW + 31_536_000, NOW + 3607);
        assert_eq!(codes(&year, "", None), ["extended"]);
        assert_eq!(codes("{}", "", None), ["endless"]);
        assert_eq!(codes(&format!(r#"{{"exp":{},"aud":"{}"}}"#, NOW + 1, "a".repeat(4096)), "", None), ["large"]);
        assert_eq!(codes(&format!(r#"{{"exp":{}}}"#, NOW + 1), "\n", Some(0o644)), ["newline", "readableByOthers"]);
    }

    #[test]
    fn the_account_is_read_from_the_subject_where_the_claim_is_missing() {
        let found = inspect(&published(r#"{"sub":"system:serviceaccount:ci:bot:x"}"#, "", None), NOW).unwrap();
        assert_eq!((found.namespace.as_deref(), found.service_account.as_deref()), (Some("ci"), Some("bot:x")));
    }

    #[test]
    fn no_part_of_the_token_is_in_what_is_shown() {
        let found = published(&format!(r#"{{"exp":{}}}"#, NOW + 1), "", None);
        let shown = serde_json::to_string(&inspect(&found, NOW).unwrap()).unwrap();
        assert!(found.token.expose().split('.').all(|part| !shown.contains(part)), "{shown}");
    }

    proptest! {
        #[test]
        fn no_times_are_too_odd(iat in any::<Option<i64>>(), exp in any::<Option<i64>>(), nbf in any::<Option<i64>>(), now in any::<i64>()) {
            let claims = serde_json::json!({"iat": iat, "exp": exp, "nbf": nbf});
            let found = inspect(&published(&claims.to_string(), "", None), now).unwrap();
            prop_assert!(found.elapsed.is_none_or(|share| (0.0..=1.0).contains(&share)));
        }
    }
}
