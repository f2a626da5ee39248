//! From a Secret to a find: what it says of itself, and what the tokens in it say.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::tokens::{Told, tokens};
use super::{Bound, Find, Kind, Name};
use crate::cluster::legacy::{ACCOUNT, ACCOUNT_UID, DISABLED_AT, INVALID_SINCE, LAST_USED, USED_BEFORE};
use crate::cluster::pages::Metadata;

/// A Secret with its data.
#[derive(Deserialize)]
pub struct Secret {
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

/// A token Secret by its metadata alone.
pub fn in_token_secret(metadata: &Metadata) -> Find {
    let text = |map: &BTreeMap<String, String>, name: &str| map.get(name).filter(|text| !text.is_empty()).cloned();
    let account = text(&metadata.annotations, ACCOUNT);
    Find {
        account: account.map(|name| Name { namespace: metadata.namespace.clone(), name }),
        account_uid: text(&metadata.annotations, ACCOUNT_UID),
        created: metadata.creation_timestamp,
        last_used: text(&metadata.labels, LAST_USED),
        invalid_since: text(&metadata.labels, INVALID_SINCE),
        disabled_at: text(&metadata.annotations, DISABLED_AT).and_then(|at| at.parse().ok()),
        used_before: text(&metadata.annotations, USED_BEFORE),
        issued_at: metadata.creation_timestamp,
        ..Find::at(&metadata.namespace, &metadata.name, Kind::TokenSecret)
    }
}

/// The tokens in a Secret of another type that live too long.
pub fn in_secret(secret: &Secret, longest: i64, now: Timestamp) -> Vec<Find> {
    let mut found = Vec::new();
    for (key, coded) in secret.data.iter().flatten() {
        let Ok(value) = STANDARD.decode(coded).map(Zeroizing::new) else { continue };
        found.extend(tokens(&value).iter().filter_map(|told| too_long(told, longest, now, &secret.metadata, key)));
    }
    found
}

/// A find, where the token lives too long and is not over.
fn too_long(told: &Told, longest: i64, now: Timestamp, metadata: &Metadata, key: &str) -> Option<Find> {
    let (claims, now) = (&told.claims, now.as_second());
    let kind = match (&told.legacy, claims.exp) {
        (Some(_), None) => Kind::Copy,
        (None, None) => Kind::Endless,
        (_, Some(exp)) if exp > now && exp.saturating_sub(claims.iat.unwrap_or(now)) > longest => Kind::Long,
        _ => return None,
    };
    let time = |seconds: Option<i64>| seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let own = &claims.kubernetes;
    // A pod's node is beside the pod.
    let bound = [("pod", &own.pod), ("secret", &own.secret), ("node", &own.node)];
    let bound = bound.into_iter().find_map(|(kind, object)| Some(Bound { kind, name: object.as_ref()?.name.clone() }));
    let copied = told.legacy.as_ref().map(|legacy| Name { namespace: legacy.namespace.clone(), name: legacy.secret.clone() });
    Some(Find {
        key: Some(key.to_owned()),
        form: told.form,
        copy_of: copied,
        account: told.account().map(|(namespace, name)| Name { namespace: namespace.to_owned(), name: name.to_owned() }),
        account_uid: told.account_uid().map(str::to_owned),
        created: metadata.creation_timestamp,
        issued_at: time(claims.iat),
        expires_at: time(claims.exp),
        lifetime: claims.lifetime(),
        bound_to: bound,
        audiences: claims.aud.clone(),
        jti: claims.jti.clone(),
        ..Find::at(&metadata.namespace, &metadata.name, kind)
    })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;
    use crate::audit::legacy::Form;

    const NOW: i64 = 1_800_000_000;

    fn jwt(claims: &serde_json::Value) -> String {
        let coded = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", coded(r#"{"alg":"ES256"}"#), coded(&claims.to_string()), coded("signature"))
    }

    fn found(values: &[(&str, String)]) -> Vec<Find> {
        let data: BTreeMap<&str, String> = values.iter().map(|(key, value)| (*key, STANDARD.encode(value))).collect();
        let secret = json!({"metadata": {"namespace": "ci", "name": "s"}, "data": data, "type": "Opaque"});
        in_secret(&serde_json::from_value(secret).unwrap(), 86_400, Timestamp::from_second(NOW).unwrap())
    }

    fn bound(life: i64) -> String {
        let own = json!({"namespace": "ci", "serviceaccount": {"name": "bot", "uid": "u"}, "secret": {"name": "marker", "uid": "m"}});
        let times = json!({"iat": NOW - 10, "exp": NOW - 10 + life, "sub": "system:serviceaccount:ci:bot", "jti": "j", "aud": ["a"]});
        let mut claims = times;
        claims["kubernetes.io"] = own;
        jwt(&claims)
    }

    #[test]
    fn a_token_is_too_long_by_the_life_that_it_was_given_and_one_that_is_over_is_no_find() {
        let all = found(&[("day", bound(86_400)), ("over", bound(5)), ("year", bound(31_536_000))]);
        assert_eq!(all.len(), 1, "{all:?}");
        let year = &all[0];
        assert_eq!((year.kind, year.key.as_deref(), year.lifetime), (Kind::Long, Some("year"), Some(31_536_000)));
        assert_eq!(year.bound_to, Some(Bound { kind: "secret", name: "marker".into() }));
        assert_eq!((year.jti.as_deref(), year.account_uid.as_deref(), year.place()), (Some("j"), Some("u"), "ci/s (year)".into()));
        assert_eq!(year.account, Some(Name { namespace: "ci".into(), name: "bot".into() }));
    }

    #[test]
    fn a_copy_of_a_legacy_token_names_the_secret_that_it_dies_with() {
        let legacy = jwt(&json!({
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:apps:bot",
            "kubernetes.io/serviceaccount/namespace": "apps", "kubernetes.io/serviceaccount/secret.name": "bot-token",
            "kubernetes.io/serviceaccount/service-account.uid": "u",
        }));
        let config = format!("users:\n- name: u\n  user:\n    token: {legacy}\n");
        let all = found(&[("config", config), ("note", "no token".into())]);
        assert_eq!((all.len(), all[0].kind, all[0].form), (1, Kind::Copy, Form::Kubeconfig));
        assert_eq!(all[0].copy_of.as_ref().unwrap().to_string(), "apps/bot-token");
        let endless = found(&[("t", jwt(&json!({"sub": "system:serviceaccount:ci:bot"})))]);
        assert_eq!(endless[0].kind, Kind::Endless);
    }

    #[test]
    fn a_token_secret_tells_its_account_its_last_use_and_who_disabled_it() {
        let metadata: Metadata = serde_json::from_value(json!({
            "name": "s", "namespace": "n", "creationTimestamp": "2024-01-02T03:04:05Z",
            "labels": {LAST_USED: "2026-05-06", INVALID_SINCE: "2026-05-01"},
            "annotations": {ACCOUNT: "bot", ACCOUNT_UID: "u", DISABLED_AT: "2026-05-01T10:00:00Z", USED_BEFORE: "2026-04-30"},
        }))
        .unwrap();
        let find = in_token_secret(&metadata);
        assert_eq!((find.account.unwrap().to_string(), find.account_uid.as_deref()), ("n/bot".into(), Some("u")));
        assert_eq!((find.last_used.as_deref(), find.invalid_since.as_deref()), (Some("2026-05-06"), Some("2026-05-01")));
        assert_eq!(
            (find.disabled_at.unwrap().to_string(), find.used_before.as_deref()),
            ("2026-05-01T10:00:00Z".into(), Some("2026-04-30"))
        );
    }
}
