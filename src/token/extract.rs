//! The way back: the token in bytes that some format of ours, or somebody's like it, wrote.

use std::borrow::Cow;

use serde::Deserialize;

use crate::token::{Claims, Token, mask};

/// Finds the token in a published file: raw (also with a newline), JSON with `token` or `status.token`, a line
/// `NAME=token`, a kubeconfig's `token:`, or as a last resort the first text that has the shape of a token.
/// Only a JWT counts; its signature is not looked at.
pub fn extract(bytes: &[u8]) -> Option<Token> {
    let text = std::str::from_utf8(bytes).ok()?.trim_start_matches('\u{feff}').trim();
    let found = in_json(text).or_else(|| in_lines(text)).or_else(|| mask::jwts(text).find(|jwt| is_token(jwt)).map(Cow::Borrowed))?;
    Some(Token::new(found.into_owned()))
}

fn is_token(text: &str) -> bool {
    mask::jwts(text).next() == Some(text) && Claims::of(text).is_ok()
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
}

fn in_json(text: &str) -> Option<Cow<'_, str>> {
    let document: Document = serde_json::from_str(text).ok()?;
    document.token.or_else(|| document.status?.token).filter(|token| is_token(token))
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
