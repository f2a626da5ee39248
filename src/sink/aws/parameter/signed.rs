//! Signed calls to Systems Manager, in AWS's JSON protocol (1.1). Five calls are made of it here; its own SDK has 350,000
//! lines for a hundred and fifty, nine times those of Secrets Manager's. The credentials are those of the SDK's chain.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde_json::Value;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::words;
use crate::cluster::aws;
use crate::sink::aws::refusal::{self, Verdict};
use crate::sink::wire::{self, Answer};
use crate::sink::{Failure, FailureKind};

/// Credentials that end sooner than that are fetched anew.
const SPARE: Duration = Duration::from_secs(300);

/// A way to one account and region.
pub(super) struct Wire {
    http: reqwest::Client,
    config: SdkConfig,
    source: SharedCredentialsProvider,
    held: Mutex<Option<Credentials>>,
    url: String,
    region: String,
}

impl Wire {
    /// One for a login that was found good.
    ///
    /// # Errors
    /// `Refused` for a region that has no known address, `Local` where this host trusts no CA.
    pub fn new(config: SdkConfig, source: SharedCredentialsProvider, endpoint: Option<&str>) -> Result<Self, Failure> {
        let region = config.region().map(ToString::to_string).unwrap_or_default();
        let url = match endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => address(&region).ok_or_else(|| {
                let why = format!("no address is known for the region `{region}`: write `endpoint` in the store");
                Failure::new(FailureKind::Refused, why)
            })?,
        };
        let scheme = url.split(':').next().unwrap_or_default();
        let http = wire::client(scheme, None).map_err(|why| Failure::new(FailureKind::Local, why))?;
        Ok(Self { http, config, source, held: Mutex::default(), url: url + "/", region })
    }

    /// One call. `doing` says what is asked for, `action` which IAM action that is.
    ///
    /// # Errors
    /// Why it failed, with AWS's own code in [`Refused::code`] where it gave one.
    pub async fn call(&self, operation: &str, body: &Value, doing: &str, action: &str) -> Result<Value, Refused> {
        let failed = |verdict: Verdict| Refused::new(verdict, doing, String::new());
        let text = Zeroizing::new(body.to_string().into_bytes());
        let request = self.signed(&format!("AmazonSSM.{operation}"), text).await.map_err(failed)?;
        let answer = wire::send(request).await;
        let answer = answer.map_err(|why| failed(Verdict::new(FailureKind::Unavailable, format!("no whole answer: {why}"))))?;
        understood(&answer, doing, action)
    }

    async fn signed(&self, target: &str, body: Zeroizing<Vec<u8>>) -> Result<reqwest::RequestBuilder, Verdict> {
        const JSON: &str = "application/x-amz-json-1.1";
        let unsigned = || Verdict::new(FailureKind::Refused, "its request cannot be signed: check `endpoint` and the credentials");
        let clock = self.config.time_source().ok_or_else(unsigned)?;
        let identity = self.credentials(&clock.now()).await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ssm")
            .time(clock.now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| unsigned())?
            .into();
        let headers = [("content-type", JSON), ("x-amz-target", target)];
        let signable = SignableRequest::new("POST", self.url.as_str(), headers.into_iter(), SignableBody::Bytes(&body));
        let (signed, _) = sign(signable.map_err(|_| unsigned())?, &params).map_err(|_| unsigned())?.into_parts();
        let mut request = self.http.post(&self.url);
        for (name, value) in headers.into_iter().chain(signed.headers()) {
            request = request.header(name, value);
        }
        Ok(request.body(body.to_vec()))
    }

    async fn credentials(&self, now: &std::time::SystemTime) -> Result<Credentials, Verdict> {
        let mut held = self.held.lock().await;
        if let Some(good) = held.as_ref().filter(|held| held.expiry().is_none_or(|end| end > *now + SPARE)) {
            return Ok(good.clone());
        }
        let found = self.source.provide_credentials().await;
        let found = found.map_err(|error| refusal::of_credentials(&error).unwrap_or_else(refusal::no_credentials))?;
        Ok(held.insert(found).clone())
    }
}

/// Why a call failed.
pub(super) struct Refused {
    pub verdict: Verdict,
    pub code: String,
}

impl Refused {
    fn new(verdict: Verdict, doing: &str, code: String) -> Self {
        Self { verdict: Verdict { why: format!("{doing}: {}", verdict.why), ..verdict }, code }
    }
}

/// The service's address, where one is known.
fn address(region: &str) -> Option<String> {
    aws::host("ssm", region).map(|host| format!("https://{host}"))
}

fn understood(answer: &Answer, doing: &str, action: &str) -> Result<Value, Refused> {
    let body = answer.body.as_deref().filter(|_| answer.json);
    let found: Option<Value> = body.and_then(|body| serde_json::from_slice(body).ok()).filter(Value::is_object);
    match (answer.status, found) {
        (200, Some(found)) => Ok(found),
        (200, None) => Err(Refused::new(not_aws(), doing, String::new())),
        (status, found) => {
            let found = found.unwrap_or_default();
            let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
            let code = text("__type");
            let code = code.rsplit('#').next().unwrap_or_default().to_owned();
            let said = format!("{}{}", text("message"), text("Message"));
            let mut verdict = words::of_code(status, &code, &said, action);
            if matches!(verdict.kind, FailureKind::Throttled | FailureKind::Unavailable) {
                (verdict.retry_after, verdict.garbled) = (answer.patience.flatten(), answer.patience == Some(None));
            }
            Err(Refused::new(verdict, doing, code))
        }
    }
}

/// A 200 that says nothing of what it should.
pub(super) fn not_aws() -> Verdict {
    Verdict::new(FailureKind::BadAnswer, "the answer is not of AWS Parameter Store: check `endpoint`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_its_address_and_one_that_is_cut_off_has_to_be_told() {
        assert_eq!(address("eu-central-1").as_deref(), Some("https://ssm.eu-central-1.amazonaws.com"));
        assert_eq!(address("cn-north-1").as_deref(), Some("https://ssm.cn-north-1.amazonaws.com.cn"));
        for region in ["", "us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1", "eusc-de-east-1", "a.b", "x/y"] {
            assert_eq!(address(region), None, "{region}");
        }
    }
}
