//! Whether a token is good: one authenticated call with it (SelfSubjectReview), where its audience is the
//! API server's. It needs no right beyond `system:basic-user`, which every account has.

use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use serde::Deserialize;

use super::client::Clients;
use super::mint::LARGEST_ANSWER;
use crate::token::Token;

const CALL_WITHIN: Duration = Duration::from_secs(10);

/// What the API server says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proven {
    /// It accepts it.
    Online,
    /// It refuses it (401), or takes it for somebody else.
    Refused(String),
    /// It does not offer the question (403, 404).
    NotOffered(String),
    /// It could not be asked.
    Unknown(String),
}

/// The ClusterRole of every cluster that lets an account read the signing keys, for proofs of tokens whose audience
/// is not the API server's. Such a proof goes without it: then the claims have to do.
pub const READ_KEYS: &str = "system:service-account-issuer-discovery";

/// Tries the token on the API server.
pub(super) async fn prove(clients: &Clients, token: &Token, subject: &str) -> Proven {
    let (index, endpoint) = clients.best();
    match tokio::time::timeout(CALL_WITHIN, review(&endpoint.bare, token, subject)).await {
        Ok(Proven::Unknown(why)) => {
            clients.failed(index);
            Proven::Unknown(format!("{}: {why}", endpoint.url))
        }
        Ok(answer) => answer,
        Err(_) => {
            clients.failed(index);
            Proven::Unknown(format!("{}: no answer within {} s", endpoint.url, CALL_WITHIN.as_secs()))
        }
    }
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReviewStatus {
    user_info: UserInfo,
}

#[derive(Deserialize)]
struct UserInfo {
    username: String,
}

async fn review(client: &kube::Client, token: &Token, subject: &str) -> Proven {
    let body = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let Ok(mut bearer) = http::HeaderValue::from_str(&format!("Bearer {}", token.expose())) else {
        return Proven::Refused("it has bytes that no HTTP header may carry".into());
    };
    bearer.set_sensitive(true);
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::AUTHORIZATION, bearer)
        .body(Body::from(body.as_bytes().to_vec()));
    let Ok(request) = request else { return Proven::Unknown("the request cannot be built".into()) };
    let response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return Proven::Unknown(super::mint::transport(&error)),
    };
    let status = response.status();
    let Ok(body) = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await else {
        return Proven::Unknown("its answer broke off".into());
    };
    match status {
        StatusCode::CREATED | StatusCode::OK => match serde_json::from_slice::<Review>(&body.to_bytes()) {
            Ok(review) if review.status.user_info.username == subject => Proven::Online,
            Ok(review) => Proven::Refused(format!("the API server takes it for `{}`", review.status.user_info.username)),
            Err(_) => Proven::Unknown("its answer is not a SelfSubjectReview".into()),
        },
        StatusCode::UNAUTHORIZED => Proven::Refused("the API server refuses it (401)".into()),
        // Before Kubernetes 1.28 the API is not there; some clusters take the right away.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
            Proven::NotOffered(format!("{}: SelfSubjectReview is not to be had", status.as_u16()))
        }
        other => Proven::Unknown(format!("it answered {}", other.as_u16())),
    }
}
