//! ServiceAccount tokens inside the values of a Secret, whatever they stand in. What is found says what a token says of
//! itself; the token stays where it is.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::token::claims::LegacyClaims;
use crate::token::{Claims, candidates, kubeconfig, mask};

const SUBJECT: &str = "system:serviceaccount:";

/// What a token stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// The value is the token.
    Raw,
    /// A user of a kubeconfig.
    Kubeconfig,
    /// The login of a container registry.
    DockerConfigJson,
    /// The token in base64 once more, as a script writes it that encodes what `kubectl` encodes again.
    Base64,
    /// Some other text.
    Text,
}

/// One token that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// What it stands in.
    pub form: Form,
    /// What it says.
    pub claims: Claims,
    /// What it says more, where it is a legacy token.
    pub legacy: Option<LegacyClaims>,
}

impl Told {
    /// None where it is nobody's account, or names what no API server would: the names go into commands and files.
    fn of(token: &str, form: Form) -> Option<Self> {
        let told = Self { form, claims: Claims::of(token).ok()?, legacy: LegacyClaims::of(token) };
        let (namespace, name) = told.account()?;
        let own = &told.claims.kubernetes;
        let bound = [&own.pod, &own.secret, &own.node].into_iter().flatten().map(|object| object.name.as_str());
        let copied = told.legacy.iter().flat_map(|legacy| [legacy.namespace.as_str(), legacy.secret.as_str()]);
        let named = [namespace, name].into_iter().chain(bound).chain(copied).all(is_name);
        named.then_some(told)
    }

    /// Namespace and name of the account.
    pub fn account(&self) -> Option<(&str, &str)> {
        self.claims.sub.strip_prefix(SUBJECT)?.split_once(':')
    }

    /// That very account, where the token says it.
    pub fn account_uid(&self) -> Option<&str> {
        let uid = self.legacy.as_ref().map_or(&self.claims.kubernetes.serviceaccount.uid, |legacy| &legacy.account_uid);
        Some(uid.as_str()).filter(|uid| !uid.is_empty())
    }
}

/// A DNS subdomain (RFC 1123), as Kubernetes names accounts, Secrets, Pods and Nodes.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(plain) && !text.starts_with('-')
}

/// Every ServiceAccount token in one value, each once.
pub fn tokens(value: &[u8]) -> Vec<Told> {
    let Ok(text) = std::str::from_utf8(value) else { return Vec::new() };
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    let mut take = |token: &str, form: Form| {
        if seen.insert(token.to_owned()) {
            found.extend(Told::of(token, form));
        }
    };
    let trimmed = text.trim();
    if mask::jwts(trimmed).next() == Some(trimmed) {
        take(trimmed, Form::Raw);
        return found;
    }
    if text.contains("users") {
        kubeconfig::tokens(text).iter().for_each(|token| take(token, Form::Kubeconfig));
    }
    let rest = if text.contains("\"auths\"") { Form::DockerConfigJson } else { Form::Text };
    mask::jwts(text).for_each(|token| take(token, rest));
    // A login keeps its password in base64.
    candidates(value).iter().for_each(|token| take(token.expose(), rest));
    if let Some(inner) = twice(trimmed) {
        mask::jwts(&inner).for_each(|token| take(token, Form::Base64));
    }
    found
}

/// `eyJ` in base64.
fn twice(text: &str) -> Option<Zeroizing<String>> {
    let text: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
    let bytes = text.starts_with("ZXlK").then(|| STANDARD.decode(text.as_bytes()).ok()).flatten()?;
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn jwt(claims: &str) -> String {
        format!("{}.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(claims))
    }

    fn account(name: &str) -> String {
        jwt(&format!(r#"{{"sub":"system:serviceaccount:ci:{name}"}}"#))
    }

    fn forms(value: &str) -> Vec<(Form, String)> {
        tokens(value.as_bytes()).into_iter().map(|told| (told.form, told.account().unwrap().1.to_owned())).collect()
    }

    #[test]
    fn a_token_is_found_whatever_it_stands_in() {
        let (a, b) = (account("a"), account("b"));
        let config = |users: &str| format!("apiVersion: v1\nkind: Config\ncurrent-context: c\nusers:\n{users}");
        let login = STANDARD.encode(format!("serviceaccount:{a}"));
        for (value, expected) in [
            (a.clone(), vec![(Form::Raw, "a")]),
            (format!("{a}\n"), vec![(Form::Raw, "a")]),
            (
                config(&format!("- {{name: u, user: {{token: {a}}}}}\n- name: v\n  user:\n    token: {b}\n")),
                vec![(Form::Kubeconfig, "a"), (Form::Kubeconfig, "b")],
            ),
            (format!(r#"{{"auths": {{"r": {{"auth": "{login}"}}}}}}"#), vec![(Form::DockerConfigJson, "a")]),
            (format!(r#"{{"bearerToken": "{a}", "tlsClientConfig": {{}}}}"#), vec![(Form::Text, "a")]),
            (format!("A={a}\nexport B='{b}'\nagain {a}"), vec![(Form::Text, "a"), (Form::Text, "b")]),
            (STANDARD.encode(&a), vec![(Form::Base64, "a")]),
        ] {
            let expected: Vec<(Form, String)> = expected.into_iter().map(|(form, name)| (form, name.to_owned())).collect();
            assert_eq!(forms(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_token_of_somebody_else_and_a_text_without_one_are_passed_over() {
        assert_eq!(forms(&jwt(r#"{"sub":"alice"}"#)), []);
        assert_eq!(forms(&account("x; rm -rf ~")), []);
        let sub = r#""sub":"system:serviceaccount:ci:bot","kubernetes.io":{"secret":{"name":"$(id)"}}"#;
        assert_eq!(forms(&jwt(&format!("{{{sub}}}"))), []);
        assert_eq!(forms("users: [nobody]"), []);
        assert_eq!(tokens(&[0xff, 0xfe]), []);
    }

    #[test]
    fn a_legacy_token_names_its_secret_and_that_very_account() {
        let legacy = jwt(
            r#"{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:ci:bot","kubernetes.io/serviceaccount/namespace":"ci","kubernetes.io/serviceaccount/secret.name":"bot-token","kubernetes.io/serviceaccount/service-account.name":"bot","kubernetes.io/serviceaccount/service-account.uid":"u1"}"#,
        );
        let told = &tokens(legacy.as_bytes())[0];
        assert_eq!((told.legacy.as_ref().unwrap().secret.as_str(), told.account_uid()), ("bot-token", Some("u1")));
        let bound = jwt(r#"{"sub":"system:serviceaccount:ci:bot","exp":1,"kubernetes.io":{"serviceaccount":{"uid":"u2"}}}"#);
        let told = &tokens(bound.as_bytes())[0];
        assert_eq!((told.legacy.clone(), told.account_uid()), (None, Some("u2")));
    }

    proptest! {
        #[test]
        fn a_token_is_found_once_in_any_text(before in "[ -~\n]{0,60}", after in "[ -~\n]{0,60}") {
            let token = account("x");
            let text = format!("{before}\n{token} {token}\n{after}");
            prop_assert_eq!(forms(&text).len(), 1, "{}", text);
        }

        #[test]
        fn any_bytes_can_be_looked_through(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            tokens(&bytes);
        }
    }
}
