//! Whether a token is good: each expectation a check with its own verdict.

mod asked;

use jiff::Timestamp;
use serde::Serialize;

use crate::audit::published::Published;
use crate::token::claims::Header;
use crate::token::signature::Keys;

pub use asked::{Asked, of_asked};

/// What is expected of a token; what is left empty is not checked. Seconds.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Audiences that it has to have, all of them.
    pub audiences: Vec<String>,
    /// Whose it has to be.
    pub subject: Option<String>,
    /// Least life left.
    pub min_remaining: Option<u64>,
    /// Most time since it was issued.
    pub max_age: Option<u64>,
    /// Longest life that it may have been given.
    pub max_lifetime: Option<u64>,
    /// The object that it has to be bound to: `pod`, `secret` or `node`, and its name.
    pub bound_to: Option<(String, String)>,
    /// Keys one of which has to have signed it, or why there are none though they were asked for.
    pub keys: Option<Result<Keys, String>>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As expected.
    Good,
    /// Not as expected.
    Bad,
    /// Nothing was given to check it by.
    Unchecked,
    /// It was asked for, and could not be checked.
    Unknown,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// `begin`, `end`, `audience`, `subject`, `minRemaining`, `maxAge`, `maxLifetime`, `binding`, `signature`, `review`, `tokenReview`.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
}

/// Checks a token at a time (seconds since 1970). Its begin and end always count; so does its signature as soon
/// as there are keys, and without any that is said.
pub fn verify(found: &Published, expected: &Expected, now: i64) -> Vec<Check> {
    let mut checks = times(found, now);
    let claims = &found.claims;
    for audience in &expected.audiences {
        let good = claims.aud.contains(audience);
        checks.push(check(
            "audience",
            good,
            if good { format!("has {audience}") } else { format!("has {}, not {audience}", listed(&claims.aud)) },
        ));
    }
    if let Some(subject) = &expected.subject {
        let good = claims.sub == *subject;
        checks.push(check("subject", good, if good { claims.sub.clone() } else { format!("is {}, not {subject}", named(&claims.sub)) }));
    }
    if let Some(least) = expected.min_remaining {
        let left = claims.exp.map(|exp| exp.saturating_sub(now));
        let good = left.is_none_or(|left| left >= signed(least));
        checks.push(check(
            "minRemaining",
            good,
            format!("{} left, {least} s wanted", left.map_or_else(|| "no end".into(), |left| format!("{} s", left.max(0)))),
        ));
    }
    if let Some(most) = expected.max_age {
        checks.push(at_most("maxAge", claims.iat.map(|iat| now.saturating_sub(iat)), most, "old", "does not say when it was issued"));
    }
    if let Some(most) = expected.max_lifetime {
        checks.push(at_most("maxLifetime", claims.lifetime(), most, "given", "does not say how long it lives"));
    }
    if let Some((kind, name)) = &expected.bound_to {
        checks.push(binding(found, kind, name));
    }
    checks.push(signature(found, expected.keys.as_ref()));
    checks
}

/// Whether nothing is bad, and nothing that was asked for is unknown.
pub fn is_good(checks: &[Check]) -> bool {
    checks.iter().all(|check| matches!(check.verdict, Verdict::Good | Verdict::Unchecked))
}

fn binding(found: &Published, kind: &str, name: &str) -> Check {
    let own = &found.claims.kubernetes;
    let bound: Vec<String> = [("pod", &own.pod), ("secret", &own.secret), ("node", &own.node)]
        .into_iter()
        .filter_map(|(kind, object)| object.as_ref().map(|object| format!("{kind}/{}", object.name)))
        .collect();
    let wanted = format!("{kind}/{name}");
    let good = bound.contains(&wanted);
    let is = if bound.is_empty() { "nothing".to_owned() } else { bound.join(" and ") };
    check("binding", good, if good { format!("bound to {is}") } else { format!("bound to {is}, not to {wanted}") })
}

fn check(check: &'static str, good: bool, detail: String) -> Check {
    Check { check, verdict: if good { Verdict::Good } else { Verdict::Bad }, detail }
}

fn times(found: &Published, now: i64) -> Vec<Check> {
    let text =
        |seconds: i64| Timestamp::from_second(seconds).map_or_else(|_| "a time that no calendar has".into(), |time| time.to_string());
    let claims = &found.claims;
    let end = match claims.exp {
        None => check("end", false, "says no end: a legacy token".into()),
        Some(exp) if exp <= now => check("end", false, format!("expired since {}", text(exp))),
        Some(exp) => check("end", true, format!("good until {}", text(exp))),
    };
    let begin = claims.nbf.map(|nbf| check("begin", nbf <= now, format!("good from {}", text(nbf))));
    begin.into_iter().chain([end]).collect()
}

fn at_most(name: &'static str, found: Option<i64>, most: u64, word: &str, missing: &str) -> Check {
    match found {
        None => check(name, false, missing.into()),
        Some(found) => check(name, found <= signed(most), format!("{found} s {word}, {most} s at most")),
    }
}

fn signature(found: &Published, keys: Option<&Result<Keys, String>>) -> Check {
    let without = |verdict, detail: &str| Check { check: "signature", verdict, detail: detail.to_owned() };
    let keys = match keys {
        None => return without(Verdict::Unchecked, "no keys were given"),
        Some(Err(why)) => return without(Verdict::Unknown, why),
        Some(Ok(keys)) => keys,
    };
    match keys.check(found.token.expose()) {
        Ok(Header { alg, kid: Some(kid) }) => check("signature", true, format!("{alg} by {kid}")),
        Ok(Header { alg, kid: None }) => check("signature", true, format!("{alg} by a key of the set")),
        Err(why) => check("signature", false, why.to_string()),
    }
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn listed(audiences: &[String]) -> String {
    if audiences.is_empty() { "no audience".into() } else { audiences.join(", ") }
}

fn named(subject: &str) -> &str {
    if subject.is_empty() { "nobody" } else { subject }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn published(claims: &str) -> Published {
        let text = format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(claims));
        Published::of(text.as_bytes(), None).unwrap_or_else(|why| panic!("{why}"))
    }

    fn hour() -> Published {
        published(&format!(
            r#"{{"sub":"system:serviceaccount:ci:bot","aud":["a","b"],"iat":{},"nbf":{},"exp":{}}}"#,
            NOW - 600,
            NOW - 600,
            NOW + 3000
        ))
    }

    fn bad(found: &Published, expected: &Expected) -> Vec<&'static str> {
        verify(found, expected, NOW).into_iter().filter(|c| c.verdict == Verdict::Bad).map(|c| c.check).collect()
    }

    #[test]
    fn a_token_as_expected_is_good_in_every_check() {
        let expected = Expected {
            audiences: vec!["a".into(), "b".into()],
            subject: Some("system:serviceaccount:ci:bot".into()),
            min_remaining: Some(3000),
            max_age: Some(600),
            max_lifetime: Some(3600),
            bound_to: None,
            keys: None,
        };
        let checks = verify(&hour(), &expected, NOW);
        let names: Vec<&str> = checks.iter().map(|c| c.check).collect();
        assert_eq!(names, ["begin", "end", "audience", "audience", "subject", "minRemaining", "maxAge", "maxLifetime", "signature"]);
        assert!(is_good(&checks), "{checks:?}");
        assert_eq!(checks[8].verdict, Verdict::Unchecked);
    }

    #[test]
    fn each_expectation_fails_alone_just_past_its_bound() {
        let none = Expected::default;
        assert_eq!(bad(&hour(), &Expected { audiences: vec!["a".into(), "c".into()], ..none() }), ["audience"]);
        assert_eq!(bad(&hour(), &Expected { subject: Some("system:serviceaccount:ci:other".into()), ..none() }), ["subject"]);
        assert_eq!(bad(&hour(), &Expected { min_remaining: Some(3001), ..none() }), ["minRemaining"]);
        assert_eq!(bad(&hour(), &Expected { max_age: Some(599), ..none() }), ["maxAge"]);
        assert_eq!(bad(&hour(), &Expected { max_lifetime: Some(3599), ..none() }), ["maxLifetime"]);
    }

    #[test]
    fn a_binding_is_to_that_object_and_no_other() {
        let token = |own: &str| published(&format!(r#"{{"exp":{},"kubernetes.io":{{{own}}}}}"#, NOW + 1));
        let expect = |kind: &str, name: &str| Expected { bound_to: Some((kind.into(), name.into())), ..Expected::default() };
        let pod = token(r#""pod":{"name":"web-1","uid":"u"},"node":{"name":"n1","uid":"v"}"#);
        assert!(bad(&pod, &expect("pod", "web-1")).is_empty() && bad(&pod, &expect("node", "n1")).is_empty());
        for (kind, name) in [("pod", "web-2"), ("secret", "web-1")] {
            assert_eq!(bad(&pod, &expect(kind, name)), ["binding"]);
        }
        assert_eq!(bad(&token(""), &expect("pod", "web-1")), ["binding"]);
    }

    #[test]
    fn keys_that_were_asked_for_and_are_not_to_be_had_are_no_good_signature() {
        let expected = Expected { keys: Some(Err("no answer".into())), ..Expected::default() };
        let checks = verify(&hour(), &expected, NOW);
        assert_eq!(checks.last().map(|check| check.verdict), Some(Verdict::Unknown));
        assert!(!is_good(&checks));
    }

    #[test]
    fn begin_and_end_count_without_being_asked_for() {
        assert_eq!(bad(&published(&format!(r#"{{"exp":{NOW}}}"#)), &Expected::default()), ["end"]);
        assert_eq!(bad(&published(&format!(r#"{{"nbf":{},"exp":{}}}"#, NOW + 1, NOW + 2)), &Expected::default()), ["begin"]);
        assert_eq!(
            bad(&published("{}"), &Expected { max_age: Some(1), max_lifetime: Some(1), ..Expected::default() }),
            ["end", "maxAge", "maxLifetime"]
        );
    }
}
