//! `http`: a request that carries the payload to whatever takes it: variables of a CI system, a settings service.
//!
//! Only over TLS, but to this machine itself; a redirect is refused, for it would carry the token elsewhere. What the
//! server wants to know of us (a key of its API) stands in `headersFile`. A request that got no answer is sent again, so
//! it has to be one that sets, not one that adds. With `readBack` the place can be looked at: what stands there is not
//! sent again, and what is not ours is left alone.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::flaw::{Flaw, server, shown};
use super::kinds::{Sink, Trace};
use super::vault::own;
use super::wire::{self, Answer};
use super::{Context, Failure, FailureKind, Ours, Put, Removal, Stores};
use crate::token::{Format, Payload, mask, template};

/// Headers that the request has by itself.
const FIXED: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "content-type", "expect"];
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

impl HttpSpec {
    fn failure(&self, kind: FailureKind, what: impl std::fmt::Display) -> Failure {
        let bare = self.url.split('?').next().unwrap_or_default();
        Failure::new(kind, format!("{bare}: {what}"))
    }

    /// A request with our headers.
    async fn request(&self, verb: reqwest::Method, url: &str) -> Result<RequestBuilder, Failure> {
        let ca = match &self.ca_file {
            Some(path) => Some(own::read(path).await?.0),
            None => None,
        };
        let scheme = url.split(':').next().unwrap_or_default();
        let unmade = |why| self.failure(FailureKind::Local, format!("{why}: name the server's CA in `caFile`"));
        let client = wire::client(scheme, ca.as_ref().map(|pem| pem.as_slice())).map_err(unmade)?;
        let mut headers = HeaderMap::new();
        if let Some(path) = &self.headers_file {
            let (bytes, _) = own::read(path).await?;
            let wrong = |why: String| Failure::new(FailureKind::Local, format!("{} {why}", path.display()));
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not text".into()))?;
            headers = parsed(text).map_err(wrong)?;
        }
        Ok(client.request(verb, url).headers(headers))
    }

    /// What a code other than those expected means.
    fn refused(&self, answer: &Answer, doing: &str) -> Failure {
        let status = answer.status;
        let (kind, why) = match status {
            300..=399 => (FailureKind::BadAnswer, "it redirects us, and a token is not carried on: write the address that it leads to"),
            401 | 403 => (FailureKind::Refused, "it does not let us: see the key in `headersFile`"),
            404 | 410 => (FailureKind::Refused, "there is nothing at this address"),
            409 | 412 => (FailureKind::Conflict, "somebody else changed it meanwhile"),
            413 => (FailureKind::TooLarge, "it takes no body of that size"),
            429 => (FailureKind::Throttled, "it asks for patience"),
            408 | 425 | 500..=599 => (FailureKind::Unavailable, "it cannot answer now"),
            200..=299 => (FailureKind::BadAnswer, "it answered otherwise than `expect` says"),
            _ => (FailureKind::Refused, "it refuses the request"),
        };
        let wish = matches!(kind, FailureKind::Throttled | FailureKind::Unavailable).then_some(answer.patience).flatten().flatten();
        Failure { retry_after: wish, ..self.failure(kind, format_args!("{doing}: {why} (HTTP {status})")) }
    }

    /// What stands there, where that can be told.
    async fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let Some(way) = &self.read_back else { return Ok(None) };
        let request = self.request(reqwest::Method::GET, way.url.as_ref().unwrap_or(&self.url)).await?;
        let lost = |why| self.failure(FailureKind::Unavailable, format_args!("cannot read it back: {why}"));
        let answer = wire::send(request).await.map_err(lost)?;
        match answer.status {
            200 => {}
            204 | 404 => return Ok(None),
            _ => return Err(self.refused(&answer, "cannot read it back")),
        }
        let bad = |why: &str| self.failure(FailureKind::BadAnswer, format_args!("cannot read it back: {why}"));
        let body = answer.body.ok_or_else(|| bad("the answer has no end"))?;
        let Some(pointer) = &way.pointer else { return Ok(Some(body).filter(|body| !body.is_empty())) };
        let mut found: Value = serde_json::from_slice(&body).map_err(|_| bad("the answer is no JSON"))?;
        match found.pointer_mut(pointer).map(Value::take) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Zeroizing::new(text.into_bytes())).filter(|text| !text.is_empty())),
            Some(_) => Err(bad("what `pointer` leads to is no text")),
        }
    }

    /// Whether this is the payload: itself, or the token within it.
    fn is(&self, held: &[u8], payload: &Payload) -> bool {
        let bare = self.read_back.as_ref().is_some_and(|way| way.pointer.is_some());
        let token = |text: &&str| bare && mask::jwts(text).next() == Some(text);
        let within = || {
            let sent = std::str::from_utf8(payload.expose()).ok()?;
            let held = std::str::from_utf8(held).ok().filter(token)?;
            mask::jwts(sent).find(|sent| *sent == held)
        };
        held == payload.expose() || within().is_some()
    }

    fn not_ours(&self, context: &Context<'_>) -> Failure {
        let why = format!(
            "what stands there is not ours: it is no token of target {}. Nothing was overwritten: write `adopt: true` beside its \
             `url` to take it over, or name another address",
            context.target
        );
        self.failure(FailureKind::Refused, why)
    }

    async fn set(&self, payload: &Payload, context: &Context<'_>) -> Result<Put, Failure> {
        if let Some(held) = self.read().await? {
            if self.is(&held, payload) {
                return Ok(Put::Unchanged);
            }
            context.yields(&held)?;
            if !self.adopt && !std::str::from_utf8(&held).is_ok_and(|text| context.manners.ours.is(text)) {
                return Err(self.not_ours(context));
            }
        }
        let verb = match self.method {
            Verb::Put => reqwest::Method::PUT,
            Verb::Post => reqwest::Method::POST,
            Verb::Patch => reqwest::Method::PATCH,
        };
        let request = self.request(verb, &self.url).await?.header(CONTENT_TYPE, &self.content_type);
        let lost = |why| self.failure(FailureKind::Unavailable, format_args!("no whole answer: {why}"));
        let answer = wire::send(request.body(payload.expose().to_vec())).await.map_err(lost)?;
        if !self.expect.contains(&answer.status) {
            return Err(self.refused(&answer, "it was not taken"));
        }
        if self.read_back.is_none() {
            return Ok(Put::Written);
        }
        match self.read().await? {
            Some(held) if self.is(&held, payload) => Ok(Put::Written),
            Some(_) => {
                Err(self.failure(FailureKind::Conflict, "it was taken, and something else is read back: somebody else writes there"))
            }
            None => Err(self.failure(FailureKind::BadAnswer, "it was taken, and nothing is read back: check `readBack`")),
        }
    }

    async fn try_out(&self, payload: &Payload, context: &Context<'_>) -> Result<String, Failure> {
        if self.read_back.is_none() {
            let _never_sent = self.request(reqwest::Method::GET, &self.url).await?;
            return Ok("its headers and CA can be read; no request was sent, for nobody knows what one does".into());
        }
        let free = |held: &[u8]| self.adopt || std::str::from_utf8(held).is_ok_and(|text| context.manners.ours.is(text));
        match self.read().await? {
            Some(held) if !free(&held) && !self.is(&held, payload) => Err(self.not_ours(context)),
            Some(_) => Ok("it is there and ours; whether it may be written the server does not say before".into()),
            None => Ok("nothing is there yet; whether it may be written the server does not say before".into()),
        }
    }

    async fn in_time<T>(&self, limit: Duration, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = |_| self.failure(FailureKind::Unavailable, format_args!("no answer within {} s", limit.as_secs_f32()));
        tokio::time::timeout(limit, attempt).await.map_err(late)?
    }
}

/// The headers of a file; no message quotes it.
fn parsed(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = index + 1;
        let (name, value) = line.split_once(':').ok_or_else(|| format!("has no `NAME: VALUE` in line {at}"))?;
        let name: HeaderName = name.trim().parse().map_err(|_| format!("has no name of a header in line {at}"))?;
        if FIXED.contains(&name.as_str()) {
            return Err(format!("sets `{name}` in line {at}, which the request has by itself"));
        }
        let mut value: HeaderValue = value.trim().parse().map_err(|_| format!("has characters in line {at} that no header may carry"))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
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
