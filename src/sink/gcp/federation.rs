//! The login by somebody else's token (workload identity federation, RFC 8693), over our own HTTP: Google's crate asks by a
//! client that follows redirects, and carries the token on to wherever a 307 leads; ours follows none.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use google_cloud_auth::credentials::{CacheableResource, CredentialsProvider, EntityTag};
use google_cloud_gax::error::CredentialsError;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Extensions, HeaderMap, HeaderValue};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::WorkloadIdentity;
use super::client::SCOPE;
use crate::sink::vault::own;
use crate::sink::wire::{self, Answer};

/// What acting as a service account asks of the login before it.
const ACTING: &str = "https://www.googleapis.com/auth/iam";
/// Where tokens are exchanged.
const EXCHANGE: &str = "https://sts.googleapis.com/v1/token";
/// A login is made anew that long before it ends.
const BEFORE_ITS_END: Duration = Duration::from_secs(240);
/// As long as Google lets a login as a service account last.
const LASTS: Duration = Duration::from_secs(3_600);

/// How to log in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    audience: String,
    subject_token_type: String,
    token_url: String,
    /// Where a login as a service account is asked for; the federated identity itself where there is none.
    acting: Option<String>,
    /// Holds the token; read at each login.
    token_file: PathBuf,
    universe: Option<String>,
}

impl Exchange {
    /// As the schedule says.
    pub fn by(identity: &WorkloadIdentity) -> Self {
        let acting = |account| format!("https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{account}:generateAccessToken");
        Self {
            audience: identity.audience.clone(),
            subject_token_type: "urn:ietf:params:oauth:token-type:jwt".into(),
            token_url: identity.token_url.clone().unwrap_or_else(|| EXCHANGE.into()),
            acting: identity.service_account.as_ref().map(acting),
            token_file: identity.token_file.clone(),
            universe: None,
        }
    }

    /// As Google's own file says, where its token stands in a file as it is. Whatever else there is (programs, other
    /// clouds, clients with a secret) Google's crate reads.
    pub fn of(file: &Value) -> Option<Self> {
        let text = |key: &str| file[key].as_str().map(str::to_owned);
        let source = &file["credential_source"];
        let plain = source["format"]["type"].as_str().is_none_or(|format| format == "text");
        let more = ["client_id", "client_secret", "workforce_pool_user_project"].iter().any(|key| !file[key].is_null());
        if !plain || more {
            return None;
        }
        Some(Self {
            audience: text("audience")?,
            subject_token_type: text("subject_token_type")?,
            token_url: text("token_url")?,
            acting: text("service_account_impersonation_url"),
            token_file: source["file"].as_str()?.into(),
            universe: text("universe_domain"),
        })
    }
}

/// A login that is made anew shortly before it ends.
#[derive(Debug)]
pub(super) struct Federated {
    http: Client,
    exchange: Exchange,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    headers: HeaderMap,
    until: Instant,
}

/// The exchange leads elsewhere.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the exchange redirects us")]
pub(super) struct Redirected;

#[derive(Deserialize)]
struct Exchanged {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acted {
    access_token: String,
}

impl Federated {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn new(exchange: Exchange) -> Result<Self, String> {
        let plain = exchange.acting.iter().chain([&exchange.token_url]).all(|url| url.starts_with("http:"));
        let http = wire::client(if plain { "http" } else { "https" }, None)?;
        Ok(Self { http, exchange, kept: Mutex::default() })
    }

    async fn login(&self) -> Result<Kept, CredentialsError> {
        let Exchange { audience, subject_token_type, token_url, acting, token_file, .. } = &self.exchange;
        let (subject, _) = own::secret(token_file).await.map_err(|failure| CredentialsError::from_source(false, failure))?;
        let scope = if acting.is_some() { ACTING } else { SCOPE };
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token_type", subject_token_type),
            ("subject_token", &subject),
            ("audience", audience),
            ("scope", scope),
        ];
        // A form is spelt as a query is.
        let mut spelt = Url::parse("form:").map_err(|error| CredentialsError::from_source(false, error))?;
        spelt.query_pairs_mut().extend_pairs(form);
        let form = Zeroizing::new(spelt.query().unwrap_or_default().to_owned());
        let request = self.http.post(token_url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.to_string());
        let begun = Instant::now();
        let found: Exchanged = read(wire::send(request).await)?;
        let (token, lasts) = (Zeroizing::new(found.access_token), Duration::from_secs(found.expires_in));
        let Some(acting) = acting else { return kept(&token, begun, lasts) };
        let body = json!({"scope": [SCOPE], "lifetime": format!("{}s", LASTS.as_secs())}).to_string();
        let headers = kept(&token, begun, lasts)?.headers;
        let request = self.http.post(acting).headers(headers).header(CONTENT_TYPE, "application/json").body(body);
        let begun = Instant::now();
        let Acted { access_token } = read(wire::send(request).await)?;
        kept(&Zeroizing::new(access_token), begun, LASTS)
    }
}

impl CredentialsProvider for Federated {
    async fn headers(&self, _: Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        // Who comes meanwhile waits for this login.
        let mut kept = self.kept.lock().await;
        if let Some(Kept { headers, .. }) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
            return Ok(CacheableResource::New { entity_tag: EntityTag::new(), data: headers.clone() });
        }
        let Kept { headers, .. } = kept.insert(self.login().await?);
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data: headers.clone() })
    }

    async fn universe_domain(&self) -> Option<String> {
        self.exchange.universe.clone()
    }
}

fn kept(token: &str, begun: Instant, lasts: Duration) -> Result<Kept, CredentialsError> {
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&bearer).map_err(|_| CredentialsError::from_msg(false, "what was exchanged is no token"))?;
    value.set_sensitive(true);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    Ok(Kept { headers, until: begun + lasts.saturating_sub(BEFORE_ITS_END.min(lasts / 4)) })
}

/// The answer; no error quotes it.
fn read<T: serde::de::DeserializeOwned>(answer: Result<Answer, String>) -> Result<T, CredentialsError> {
    let Answer { status, body, .. } = answer.map_err(|why| CredentialsError::from_msg(true, why))?;
    match status {
        200..=299 => {}
        300..=399 => return Err(CredentialsError::from_source(false, Redirected)),
        _ => return Err(CredentialsError::from_msg(matches!(status, 408 | 429 | 500..), format!("HTTP {status}"))),
    }
    let found = body.and_then(|body| serde_json::from_slice(&body).ok());
    found.ok_or_else(|| CredentialsError::from_msg(false, "the answer is not that of a token exchange"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> WorkloadIdentity {
        WorkloadIdentity {
            audience: "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k".into(),
            service_account: Some("ci@tokens-1.iam.gserviceaccount.com".into()),
            token_file: "/run/t".into(),
            ..WorkloadIdentity::default()
        }
    }

    #[test]
    fn the_settings_say_what_googles_own_file_does() {
        let acting =
            "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/ci@tokens-1.iam.gserviceaccount.com:generateAccessToken";
        let file = json!({
            "type": "external_account",
            "audience": identity().audience,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "service_account_impersonation_url": acting,
            "credential_source": {"file": "/run/t", "format": {"type": "text"}},
        });
        assert_eq!(Exchange::of(&file), Some(Exchange::by(&identity())));
        assert_eq!(Exchange::by(&WorkloadIdentity { service_account: None, ..identity() }).acting, None);
        // What is more than that is left to Google's own crate.
        for (key, value) in [
            ("client_secret", json!("s")),
            ("credential_source", json!({"url": "http://metadata/token"})),
            ("credential_source", json!({"file": "/run/t", "format": {"type": "json", "subject_token_field_name": "t"}})),
            ("audience", json!(null)),
        ] {
            let mut other = file.clone();
            other[key] = value;
            assert_eq!(Exchange::of(&other), None, "{key}");
        }
    }

    #[test]
    fn a_login_is_made_anew_before_it_ends_and_its_token_is_in_no_debug_text() {
        let begun = Instant::now();
        let long = kept("canary", begun, Duration::from_secs(3_600)).unwrap();
        assert_eq!(long.until, begun + Duration::from_secs(3_360));
        assert_eq!(kept("canary", begun, Duration::from_secs(100)).unwrap().until, begun + Duration::from_secs(75));
        assert!(!format!("{long:?}").contains("canary"), "{long:?}");
        assert!(kept("a\nb", begun, Duration::from_secs(1)).is_err());
    }

    #[test]
    fn an_answer_is_read_or_refused_without_a_word_of_it() {
        let answer = |status, body: &str| Ok(Answer { status, json: true, patience: None, body: Some(Zeroizing::new(body.into())) });
        let good = read::<Exchanged>(answer(200, r#"{"access_token":"t","expires_in":7,"token_type":"Bearer"}"#)).unwrap();
        assert_eq!((good.access_token.as_str(), good.expires_in), ("t", 7));
        for (status, body, passing) in [
            (200, "canary", false),
            (307, "canary", false),
            (400, r#"{"error":"canary"}"#, false),
            (429, "canary", true),
            (503, "canary", true),
        ] {
            let error = read::<Exchanged>(answer(status, body)).err().unwrap();
            assert_eq!(error.is_transient(), passing, "{status}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
        assert!(read::<Exchanged>(Err("refused".into())).err().unwrap().is_transient());
    }
}
