//! Whether we may mint: SelfSubjectAccessReview (`authorization.k8s.io/v1`), which every user may ask and which
//! mints nothing.

use http::StatusCode;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Clients;
use super::mint::send;
use super::{Ask, Upstream};

/// What the API server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Access {
    /// We may.
    Allowed,
    /// We may not.
    Denied {
        /// The right that is missing.
        why: String,
    },
    /// It could not be asked.
    Unknown {
        /// Why not.
        why: String,
    },
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    allowed: bool,
}

/// Longest that one question may take.
pub(super) const CALL_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Asks for exactly the right that minting needs.
pub(super) async fn may_mint(clients: &Clients, upstream: &Upstream, want: &Ask) -> Access {
    let attributes = json!({
        "namespace": want.namespace, "verb": "create", "group": "", "version": "v1",
        "resource": "serviceaccounts", "subresource": "token", "name": want.service_account,
    });
    let missing =
        format!("create serviceaccounts/token with resourceNames [{}] in namespace {} is missing", want.service_account, want.namespace);
    ask(clients, upstream, &attributes, missing).await
}

/// Asks for one right; `missing` says it in words where it is denied.
pub(super) async fn ask(clients: &Clients, upstream: &Upstream, attributes: &serde_json::Value, missing: String) -> Access {
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    });
    let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string().into_bytes()));
    let Ok(request) = request else { return Access::Unknown { why: "the request cannot be built".into() } };
    let (_, endpoint) = clients.best();
    let answer = match tokio::time::timeout(CALL_WITHIN, send(endpoint, &endpoint.own, upstream, request)).await {
        Err(_) => return Access::Unknown { why: format!("{}: no answer within {} s", endpoint.url, CALL_WITHIN.as_secs()) },
        Ok(Err(failure)) => return Access::Unknown { why: failure.message },
        Ok(Ok(answer)) => answer,
    };
    match answer {
        (StatusCode::CREATED | StatusCode::OK, _, body) => match serde_json::from_slice::<Review>(&body) {
            Ok(review) if review.status.allowed => Access::Allowed,
            Ok(_) => Access::Denied { why: missing },
            Err(_) => Access::Unknown { why: "the answer is not a SelfSubjectAccessReview".into() },
        },
        (StatusCode::UNAUTHORIZED, ..) => Access::Unknown { why: "401: the API server refuses our own credential".into() },
        (other, ..) => Access::Unknown { why: format!("the API server answered {}", other.as_u16()) },
    }
}
