//! The way back: the token in bytes that some format of ours, or somebody's like it, wrote.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::token::{Claims, Token, kubeconfig, mask};

/// Finds the token in a published file: raw (also with a newline), JSON with `token`, `status.token` or
/// `bearerToken`, a registry's login, a line `NAME=token`, a kubeconfig's (the current user's), or as a last resort
/// the first text that has the shape of a token. Only a JWT counts; its signature is not looked at.
pub fn extract(bytes: &[u8]) -> Option<Token> {
    candidates(bytes).into_iter().next()
}

/// Every token that may be meant, the likeliest first: a kubeconfig has one for each of its users.
pub fn candidates(bytes: &[u8]) -> Vec<Token> {
    let Some(text) = std::str::from_utf8(bytes).ok().map(|text| text.trim_start_matches('\u{feff}').trim()) else { return Vec::new() };
    // The usual file is asked for with each request.
    if is_token(text) {
        return vec![Token::new(text.to_owned())];
    }
    if text.contains("users") {
        let users: Vec<Token> =
            kubeconfig::tokens(text).into_iter().filter(|token| is_token(token)).map(|token| Token::new(token.to_string())).collect();
        if !users.is_empty() {
            return users;
        }
    }
    let found = in_json(text).or_else(|| in_lines(text)).or_else(|| mask::jwts(text).find(|jwt| is_token(jwt)).map(Cow::Borrowed));
    found.map(|found| Token::new(found.into_owned())).into_iter().collect()
}

fn is_token(text: &str) -> bool {
    mask::jwts(text).next() == Some(text) && Claims::of(text).is_ok()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    bearer_token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
    #[serde(borrow)]
    auths: Option<BTreeMap<Cow<'a, str>, Login<'a>>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
}

/// A login of a container registry; docker itself keeps `auth` alone, base64 of `USER:PASSWORD`.
#[derive(Deserialize)]
struct Login<'a> {
    #[serde(borrow)]
    password: Option<Cow<'a, str>>,
    #[serde(borrow)]
    auth: Option<Cow<'a, str>>,
}

impl<'a> Login<'a> {
    fn password(self) -> Option<Cow<'a, str>> {
        let coded = || {
            let auth = Zeroizing::new(base64::engine::general_purpose::STANDARD.decode(self.auth.as_deref()?).ok()?);
            std::str::from_utf8(&auth).ok()?.split_once(':').map(|(_, password)| Cow::Owned(password.to_owned()))
        };
        self.password.or_else(coded)
    }
}

fn in_json(text: &str) -> Option<Cow<'_, str>> {
    let document: Document = serde_json::from_str(text).ok()?;
    let logins = document.auths.unwrap_or_default().into_values().filter_map(Login::password);
    let named = [document.token, document.status.and_then(|status| status.token), document.bearer_token];
    named.into_iter().flatten().chain(logins).find(|token| is_token(token))
}

/// `token: …` as in a kubeconfig, `NAME=…` and `export NAME='…'` as in an environment file.
fn in_lines(text: &str) -> Option<Cow<'_, str>> {
    text.lines().filter_map(value).find(|value| is_token(value)).map(Cow::Borrowed)
}

fn value(line: &str) -> Option<&str> {
    let line = line.trim().trim_start_matches("- ");
    let (_, value) = line.split_once('=').or_else(|| line.strip_prefix("token").and_then(|rest| rest.split_once(':')))?;
    Some(value.trim_matches(['"', '\'', ' ']))
}
