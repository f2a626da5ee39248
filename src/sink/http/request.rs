//! Requests of one place: what is sent, what is read back, and what the answers mean.

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{HttpSpec, Verb};
use crate::sink::vault::own;
use crate::sink::wire::{self, Answer};
use crate::sink::{Context, Failure, FailureKind, Put};
use crate::token::{Payload, mask};
/// Headers that the request has by itself.
const FIXED: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "content-type", "expect"];

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
    pub(super) async fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
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

    pub(super) async fn set(&self, payload: &Payload, context: &Context<'_>) -> Result<Put, Failure> {
        if let Some(held) = self.read().await? {
            if self.is(&held, payload) {
                return Ok(Put::Unchanged);
            }
            context.yields(&held)?;
            let text = std::str::from_utf8(&held).ok();
            if !self.adopt && !text.is_some_and(|text| context.manners.ours.is(text)) {
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

    pub(super) async fn try_out(&self, payload: &Payload, context: &Context<'_>) -> Result<String, Failure> {
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

    pub(super) async fn in_time<T>(&self, limit: Duration, attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
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
