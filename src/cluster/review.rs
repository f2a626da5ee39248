//! What a person asks a cluster about a token: its keys, or what the API server thinks of it. Nothing here is called
//! by the daemon.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::call::{Call, Refusal};
use super::{Cluster, Urgency, Verdict};
use crate::token::Token;
use crate::token::signature::Keys;

const CALL_WITHIN: Duration = Duration::from_secs(10);
/// A key set has a few kilobytes.
const LARGEST: usize = 1 << 20;

/// What TokenReview (`authentication.k8s.io/v1`) says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reviewed {
    /// It is accepted, for that user and those audiences.
    Accepted {
        /// Whom it is taken for.
        user: String,
        /// For which of the audiences that were asked for, else the API server's own.
        audiences: Vec<String>,
    },
    /// It is not.
    Refused(String),
}

impl Cluster {
    /// The keys that the API server serves (`/openid/v1/jwks`), which needs the ClusterRole
    /// `system:service-account-issuer-discovery`.
    ///
    /// # Errors
    /// Why they are not to be had.
    pub async fn served_keys(&self) -> Result<Keys, String> {
        let call = Call { accept: "application/jwk-set+json, application/json", ..Call::get("/openid/v1/jwks", CALL_WITHIN) };
        let body = self.put_question(call).await?;
        Keys::of(&body).map_err(|why| why.to_string())
    }

    /// Asks TokenReview, with our own credential, whether the token is good for those audiences; for none it is the
    /// API server's own. It needs `create tokenreviews`, as ClusterRole `system:auth-delegator` has it.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub async fn review(&self, token: &Token, audiences: &[String]) -> Result<Reviewed, String> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token.expose(), "audiences": audiences},
        });
        let body = zeroize::Zeroizing::new(body.to_string().into_bytes());
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let call = Call { method: &http::Method::POST, body: &body, ..Call::get(path, CALL_WITHIN) };
        let answer = self.put_question(call).await?;
        let value: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| "the answer is not a TokenReview".to_owned())?;
        let status = &value["status"];
        if status["authenticated"] != true {
            let why = status["error"].as_str().unwrap_or("it is not authenticated");
            return Ok(Reviewed::Refused(crate::token::mask::mask(why).into_owned()));
        }
        let listed = status["audiences"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned));
        Ok(Reviewed::Accepted { user: status["user"]["username"].as_str().unwrap_or_default().to_owned(), audiences: listed.collect() })
    }

    async fn put_question(&self, call: Call<'_>) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        let permit = self.turn(Urgency { deadline: i64::MAX, retry: false }).await;
        let answer = self.call(call).await;
        permit.end(answer.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
        answer.map_err(|refusal| refusal.message)
    }
}

/// A key set at an address that anybody may read, such as an issuer's `jwks_uri`. Redirections are not followed.
///
/// # Errors
/// What is wrong with it, the address named.
pub async fn keys_at(url: &str, ca: Option<&Path>) -> Result<Keys, String> {
    let failed = |what: String| format!("{url}: {what}");
    let mut builder = reqwest::Client::builder()
        .tls_backend_rustls()
        .timeout(CALL_WITHIN)
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false);
    if let Some(ca) = ca {
        let pem = std::fs::read(ca).map_err(|e| format!("{}: {e}", ca.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(format!("{}: it holds no certificate (PEM)", ca.display()));
        }
        builder = builder.tls_certs_only(certificates);
    } else if url.starts_with("http:") {
        // reqwest insists on roots even where no TLS is spoken.
        builder = builder.tls_certs_only(Vec::new());
    }
    let client =
        builder.build().map_err(|_| failed("no TLS client can be made: this host has no CA certificates; name one with --ca".into()))?;
    let request = client.get(url).header("accept", "application/jwk-set+json, application/json");
    let mut answer = request.send().await.map_err(|error| failed(words(&error)))?;
    if !answer.status().is_success() {
        return Err(failed(format!("it answered {}", answer.status().as_u16())));
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| failed(words(&error)))? {
        body.extend_from_slice(&part);
        if body.len() > LARGEST {
            return Err(failed("its answer is larger than 1 MiB, so it is no key set".into()));
        }
    }
    Keys::of(&body).map_err(|why| failed(why.to_string()))
}

fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", CALL_WITHIN.as_secs());
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string().chars().take(200).collect()
}
