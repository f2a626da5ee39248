//! Rights that the daemon's account needs in a cluster. Each part states its own beside its code; `audit::rbac`
//! folds them into manifests and holds them against what the account has.

use http::StatusCode;
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::Clients;
use super::mint::send;
use super::{Upstream, access};

/// One right, as a rule of a Role in one namespace grants it (`rbac.authorization.k8s.io/v1`, PolicyRule).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Right {
    /// Namespace of the Role.
    pub namespace: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Resource, with its subresource after a slash.
    pub resource: String,
    /// The one object that is meant; `None` where the API cannot say it by name.
    pub name: Option<String>,
    /// Verbs, in the order that people write them.
    pub verbs: Vec<String>,
}

impl Right {
    /// A right on one object.
    pub fn named(namespace: &str, group: &str, resource: &str, name: &str, verbs: &[&str]) -> Self {
        Self {
            namespace: namespace.into(),
            group: group.into(),
            resource: resource.into(),
            name: Some(name.into()),
            verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
        }
    }
}

/// What an account may do in one namespace, as SelfSubjectRulesReview tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Verbs, or `*`.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    #[serde(default)]
    pub api_groups: Vec<String>,
    /// Resources with subresources, or `*`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Names; empty = all.
    #[serde(default)]
    pub resource_names: Vec<String>,
}

/// Everything that our own credential may do in the namespace.
///
/// # Errors
/// Why it cannot be told.
pub(super) async fn rules(clients: &Clients, upstream: &Upstream, namespace: &str) -> Result<Vec<Rule>, String> {
    #[derive(Deserialize)]
    struct Review {
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        resource_rules: Vec<Rule>,
        #[serde(default)]
        incomplete: bool,
        #[serde(default)]
        evaluation_error: String,
    }
    let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}});
    let answer = post(clients, upstream, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &body).await?;
    let review: Review = serde_json::from_slice(&answer).map_err(|_| "the answer is not a SelfSubjectRulesReview".to_owned())?;
    if review.status.incomplete {
        return Err(format!("the API server tells only part of the rules in namespace {namespace}: {}", review.status.evaluation_error));
    }
    Ok(review.status.resource_rules)
}

/// Who the API server takes our own credential for (SelfSubjectReview, Kubernetes 1.28 and later).
///
/// # Errors
/// Why it cannot be told.
pub(super) async fn own_name(clients: &Clients, upstream: &Upstream) -> Result<String, String> {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = post(clients, upstream, "/apis/authentication.k8s.io/v1/selfsubjectreviews", &body).await?;
    let value: serde_json::Value = serde_json::from_slice(&answer).map_err(|_| "the answer is no JSON".to_owned())?;
    let name = value["status"]["userInfo"]["username"].as_str();
    name.map(str::to_owned).ok_or_else(|| "the answer is not a SelfSubjectReview".into())
}

/// Whether our own credential has the right, each verb asked alone.
pub(super) async fn has(clients: &Clients, upstream: &Upstream, right: &Right) -> access::Access {
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
    for verb in &right.verbs {
        let attributes = json!({
            "namespace": right.namespace, "verb": verb, "group": right.group,
            "resource": resource, "subresource": subresource, "name": right.name,
        });
        let missing =
            format!("{verb} {} {} in namespace {} is missing", right.resource, right.name.as_deref().unwrap_or("(any)"), right.namespace);
        match access::ask(clients, upstream, &attributes, missing).await {
            access::Access::Allowed => {}
            other => return other,
        }
    }
    access::Access::Allowed
}

async fn post(clients: &Clients, upstream: &Upstream, path: &str, body: &serde_json::Value) -> Result<Vec<u8>, String> {
    let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_string().into_bytes())).map_err(|e| e.to_string())?;
    let (_, endpoint) = clients.best();
    let answer = tokio::time::timeout(access::CALL_WITHIN, send(endpoint, &endpoint.own, upstream, request)).await;
    match answer {
        Err(_) => Err(format!("{}: no answer within {} s", endpoint.url, access::CALL_WITHIN.as_secs())),
        Ok(Err(failure)) => Err(failure.message),
        Ok(Ok((StatusCode::CREATED | StatusCode::OK, _, body))) => Ok(body.to_vec()),
        Ok(Ok((StatusCode::UNAUTHORIZED, ..))) => Err("401: the API server refuses our own credential".into()),
        Ok(Ok((other, ..))) => Err(format!("the API server answered {}", other.as_u16())),
    }
}
