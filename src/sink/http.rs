//! `http`: a request that carries the payload to whatever takes it: variables of a CI system, a settings service.
//!
//! Only over TLS, but to this machine itself; a redirect is refused, for it would carry the token elsewhere. What the
//! server wants to know of us (a key of its API) stands in `headersFile`. A request that got no answer is sent again, so
//! it has to be one that sets, not one that adds. With `readBack` the place can be looked at: what stands there is not
//! sent again, and what is not ours is left alone.

mod request;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::flaw::{Flaw, server, shown};
use super::kinds::{Sink, Trace};
use super::{Context, Failure, Ours, Put, Removal, Stores};
use crate::token::{Format, Payload, template};

/// What a key of this kind should look like.
const EXAMPLE: &str = "https://ci.example.com/api/variables/KUBE_TOKEN";

/// `http: {url, method, headersFile, caFile, contentType, body, expect, readBack, adopt}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Http")]
pub struct HttpSpec {
    /// Where it goes: https, or http to this machine.
    pub url: String,
    /// The verb.
    #[serde(default)]
    pub method: Verb,
    /// File with one header in each line, `NAME: VALUE`: the place for a key. Read at each request.
    pub headers_file: Option<PathBuf>,
    /// CA that alone is trusted; the host's when absent.
    pub ca_file: Option<PathBuf>,
    /// What the body calls itself.
    #[serde(default = "text")]
    pub content_type: String,
    /// What is sent, in place of `format`.
    pub body: Option<Body>,
    /// Codes that say that it was taken.
    #[serde(default = "taken")]
    pub expect: Vec<u16>,
    /// How to look at what stands there.
    pub read_back: Option<ReadBack>,
    /// Whether something that is not ours may be replaced, where `readBack` shows it.
    #[serde(default)]
    pub adopt: bool,
}

/// `method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "Verb")]
pub enum Verb {
    /// Sets it.
    #[default]
    Put,
    /// Whatever the server makes of it.
    Post,
    /// Changes it.
    Patch,
}

/// `body: {text}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "HttpBody")]
pub struct Body {
    /// The text, with `{{ token }}` and the other values of `format: {template: …}` in it.
    pub text: String,
}

/// `readBack: {url, pointer}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "HttpReadBack")]
pub struct ReadBack {
    /// Where a GET shows it; the same address when absent.
    pub url: Option<String>,
    /// Where in its JSON the token stands (RFC 6901), such as `/value`; the whole answer is the payload when absent.
    pub pointer: Option<String>,
}

fn text() -> String {
    "text/plain; charset=utf-8".into()
}

fn taken() -> Vec<u16> {
    vec![200, 201, 204]
}

/// What is wrong with an address; `None` where it may be sent to.
fn wrong(url: &str) -> Option<String> {
    let Ok(uri) = url.parse::<::http::Uri>() else { return Some(format!("{} is no address: write such as {EXAMPLE}", shown(url))) };
    match server(&uri, url, EXAMPLE) {
        Err(message) => Some(message),
        Ok((scheme, here)) if scheme == "https" || scheme == "http" && here => {
            url.contains('#').then(|| "what follows a # is never sent: leave it out".to_owned())
        }
        Ok((scheme, _)) if scheme == "http" => Some("http sends the token in the clear over the network: write https://".into()),
        Ok((scheme, _)) => Some(format!("{} is no way to send it: write https://HOST/PATH", shown(&scheme))),
    }
}

impl Sink for HttpSpec {
    fn name(&self) -> String {
        self.url.clone()
    }

    fn is_readable(&self) -> bool {
        self.read_back.is_some()
    }

    fn flaws(&self) -> Vec<Flaw> {
        let mut flaws: Vec<Flaw> = wrong(&self.url).map(|message| Flaw::new(&["url"], message)).into_iter().collect();
        if HeaderValue::from_str(&self.content_type).is_err() || self.content_type.trim().is_empty() {
            flaws.push(Flaw::new(
                &["contentType"],
                format!("{} is no kind of content: write such as application/json", shown(&self.content_type)),
            ));
        }
        flaws.extend(self.body.as_ref().and_then(|body| Flaw::of(&["body", "text"], template::check(&body.text).map(drop))));
        if self.expect.is_empty() || self.expect.iter().any(|code| !(200..300).contains(code)) {
            flaws.push(Flaw::new(&["expect"], "write one or more codes of success, 200 to 299"));
        }
        if let Some(way) = &self.read_back {
            flaws.extend(way.url.as_deref().and_then(wrong).map(|message| Flaw::new(&["readBack", "url"], message)));
            if let Some(pointer) = way.pointer.as_deref().filter(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
                flaws.push(Flaw::new(&["readBack", "pointer"], format!("{} is no JSON pointer: write such as /value", shown(pointer))));
            }
        }
        flaws
    }

    fn files(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let headers = self.headers_file.iter_mut().map(|file| ("headersFile", file));
        headers.chain(self.ca_file.iter_mut().map(|file| ("caFile", file))).collect()
    }

    fn format(&self) -> Option<Format> {
        self.body.as_ref().map(|body| Format::Template(body.text.clone()))
    }

    fn put<'a>(&'a self, payload: &'a Payload, context: Context<'a>, _: &'a Stores) -> BoxFuture<'a, Result<Put, Failure>> {
        Box::pin(async move { self.in_time(context.timeout, self.set(payload, &context)).await })
    }

    fn probe<'a>(&'a self, payload: &'a Payload, context: Context<'a>, _: &'a Stores) -> BoxFuture<'a, Result<String, Failure>> {
        Box::pin(async move { self.in_time(context.timeout, self.try_out(payload, &context)).await })
    }

    fn held<'a>(&'a self, _: &'a Stores, timeout: Duration) -> BoxFuture<'a, Result<Option<Payload>, Failure>> {
        Box::pin(async move { Ok(self.in_time(timeout, self.read()).await?.map(|held| Payload::new(held.to_vec()))) })
    }

    /// Nobody knows how a server takes something back.
    fn remove<'a>(&'a self, _: Ours<'a>, _: &'a Stores, _: Duration) -> BoxFuture<'a, Result<Removal, Failure>> {
        Box::pin(std::future::ready(Ok(Removal::Left)))
    }
}

impl Trace for HttpSpec {
    fn trace(&self) -> Option<Self> {
        None
    }
}
