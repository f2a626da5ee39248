//! One audit event, as far as it tells who used which credential for what.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::survey::Flaw;

/// Names a credential in `user.extra` and in annotations: `JTI=…` for a ServiceAccount's token
/// (Kubernetes 1.30 and newer).
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";
/// What a TokenRequest issued, likewise.
const ISSUED: &str = "authentication.kubernetes.io/issued-credential-id";
/// How both name a token.
const JTI: &str = "JTI=";

/// How far the request was when its event was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[allow(missing_docs)] // the words of audit.k8s.io/v1
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    Panic,
    ResponseComplete,
}

/// One event. Every text in it is a stranger's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Names the request; each of its stages carries it.
    pub audit_id: String,
    /// How far it was.
    pub stage: Stage,
    /// `create`, `get`, `list`, `watch`, …
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// As whom, where somebody was impersonated.
    pub impersonated: Option<String>,
    /// From where, the nearest proxy last.
    pub source_ips: Vec<String>,
    /// With what.
    pub user_agent: Option<String>,
    /// For which object.
    pub object: Option<Object>,
    /// What it was answered with; none before the answer.
    pub code: Option<u16>,
    /// When the request came in.
    pub received: Timestamp,
    /// When this stage was reached.
    pub at: Timestamp,
    annotations: BTreeMap<String, String>,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct User {
    /// `system:serviceaccount:NAMESPACE:NAME`, or a person's name.
    #[serde(rename = "username", default)]
    pub name: String,
    /// `system:nodes`, `system:serviceaccounts`, …
    #[serde(default, deserialize_with = "or_default")]
    pub groups: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    extra: BTreeMap<String, Vec<String>>,
}

/// For which object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// `serviceaccounts`, …
    pub resource: String,
    /// `token`, …; else empty.
    pub subresource: String,
    /// Empty for what lies in none.
    pub namespace: String,
    /// Empty where the request was for many.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
}

impl Event {
    /// Whether somebody asked for a ServiceAccount's token.
    pub fn is_token_request(&self) -> bool {
        self.verb == "create" && self.object.as_ref().is_some_and(|o| o.api_group.is_empty() && o.path() == "serviceaccounts/token")
    }

    /// The `jti` of the token that a TokenRequest issued.
    pub fn issued(&self) -> Option<&str> {
        self.annotation(ISSUED)?.strip_prefix(JTI)
    }

    /// An annotation by its name.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }
}

impl User {
    /// The `jti` of the token that was used; none for a certificate, a legacy token, or a cluster older than 1.30.
    pub fn token(&self) -> Option<&str> {
        self.extra.get(CREDENTIAL)?.iter().find_map(|id| id.strip_prefix(JTI))
    }
}

impl Object {
    /// `RESOURCE` or `RESOURCE/SUBRESOURCE`.
    pub fn path(&self) -> String {
        if self.subresource.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.subresource) }
    }
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    level: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: Stage,
    verb: String,
    #[serde(default, deserialize_with = "or_default")]
    user: User,
    impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", default, deserialize_with = "or_default")]
    source_ips: Vec<String>,
    user_agent: Option<String>,
    object_ref: Option<Object>,
    response_status: Option<Status>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// One line of a log.
pub(super) fn read(line: &[u8]) -> Result<Event, Flaw> {
    let head: Head = serde_json::from_slice(line).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Flaw::Cut,
        serde_json::error::Category::Data => Flaw::NotAnEvent,
        _ => Flaw::NotJson,
    })?;
    match (head.kind.as_str(), head.api_version.as_str(), head.level.as_str()) {
        ("Event", "audit.k8s.io/v1", "Metadata" | "Request" | "RequestResponse") => {}
        ("Event", "audit.k8s.io/v1", _) => return Err(Flaw::OtherLevel),
        ("Event", version, _) if version.starts_with("audit.k8s.io/") => return Err(Flaw::OtherVersion),
        _ => return Err(Flaw::NotAnEvent),
    }
    let body: Body = serde_json::from_slice(line).map_err(|_| Flaw::NotAnEvent)?;
    Ok(Event {
        audit_id: body.audit_id,
        stage: body.stage,
        verb: body.verb,
        user: body.user,
        impersonated: body.impersonated_user.map(|user| user.name),
        source_ips: body.source_ips,
        user_agent: body.user_agent,
        object: body.object_ref,
        code: body.response_status.and_then(|status| status.code),
        received: body.request_received_timestamp,
        at: body.stage_timestamp,
        annotations: body.annotations,
    })
}
