//! Objects that we make in a cluster with a person's own rights: read, applied by server-side apply with our field
//! manager, deleted. Only what carries our mark is changed.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Call, Cluster, Refusal, Trouble, Urgency};

/// Who we are in `managedFields`.
pub const MANAGER: &str = "tokenferry";
/// Our mark of ownership: the label that Kubernetes recommends for it. An object without it is somebody else's.
pub const MARK: (&str, &str) = ("app.kubernetes.io/managed-by", "tokenferry");
/// No object of etcd was ever written at revision 1: an apply with it makes an object and changes none.
pub const NEVER: &str = "1";

/// The path at which an object is applied as ours; by force only what a person told us to take over.
pub fn applied(path: &str, force: bool) -> String {
    format!("{path}?fieldManager={MANAGER}&force={force}")
}

const WITHIN: Duration = Duration::from_secs(15);
/// What the API server itself puts into every namespace.
const EVERYWHERE: [(&str, &str); 2] = [("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")];

/// An object as it is wanted, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its resource, such as `rolebindings`.
    pub resource: &'static str,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What is applied; mark and version are added.
    pub body: Value,
}

impl Object {
    /// A namespace.
    pub fn namespace(name: &str) -> Self {
        Self { resource: "namespaces", namespace: None, name: name.into(), body: json!({"apiVersion": "v1", "kind": "Namespace"}) }
    }

    /// A ServiceAccount.
    pub fn account(namespace: &str, name: &str) -> Self {
        let body = json!({"apiVersion": "v1", "kind": "ServiceAccount"});
        Self { resource: "serviceaccounts", namespace: Some(namespace.into()), name: name.into(), body }
    }

    /// An object of `rbac.authorization.k8s.io/v1` with these fields beside its metadata.
    pub fn rbac(kind: &str, resource: &'static str, namespace: Option<&str>, name: &str, fields: Value) -> Self {
        let mut body = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind});
        if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields) {
            body.extend(fields);
        }
        Self { resource, namespace: namespace.map(Into::into), name: name.into(), body }
    }

    /// Its path in the API.
    pub fn path(&self) -> String {
        let group = match self.body["apiVersion"].as_str() {
            Some(version) if version.contains('/') => format!("/apis/{version}"),
            _ => "/api/v1".into(),
        };
        let within = self.namespace.as_ref().map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        format!("{group}{within}/{}/{}", self.resource, self.name)
    }

    /// What it is called in messages.
    pub fn shown(&self) -> String {
        let kind = self.body["kind"].as_str().unwrap_or(self.resource);
        match &self.namespace {
            Some(namespace) => format!("{kind} {namespace}/{}", self.name),
            None => format!("{kind} {}", self.name),
        }
    }

    /// The body with our mark and the owner's, as of the state that was read before.
    fn marked(&self, owner: &str, version: &str) -> Value {
        let mut body = self.wanted(owner);
        body["metadata"]["resourceVersion"] = json!(version);
        body
    }

    /// What has to stand in the object.
    fn wanted(&self, owner: &str) -> Value {
        let mut body = self.body.clone();
        body["metadata"] = json!({"name": self.name, "labels": {MARK.0: MARK.1}, "annotations": {OWNER: owner}});
        if let Some(namespace) = &self.namespace {
            body["metadata"]["namespace"] = json!(namespace);
        }
        body
    }
}

/// The annotation that names whose daemon it is for: the daemon's account.
const OWNER: &str = "tokenferry/account";

/// An object as the API server shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found(Value);

impl Found {
    /// Whether it is ours, for that owner.
    pub fn is_ours(&self, owner: &str) -> bool {
        self.is_marked() && self.owner().is_none_or(|found| found == owner)
    }

    /// Whether it carries our mark, whosoever it is for.
    pub fn is_marked(&self) -> bool {
        self.0["metadata"]["labels"][MARK.0] == MARK.1
    }

    /// The daemon that it is for.
    pub fn owner(&self) -> Option<&str> {
        self.0["metadata"]["annotations"][OWNER].as_str()
    }

    /// Namespace and name.
    pub fn called(&self) -> (Option<&str>, &str) {
        (self.0["metadata"]["namespace"].as_str(), self.0["metadata"]["name"].as_str().unwrap_or_default())
    }

    /// Whether it has all that is wanted already.
    pub fn has(&self, object: &Object, owner: &str) -> bool {
        holds(&self.0, &object.wanted(owner))
    }
}

/// Whether every field that is wanted stands in what was found; lists have to be the same.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted.iter().all(|(key, value)| found.get(key).is_some_and(|f| holds(f, value))),
        _ => found == wanted,
    }
}

impl Cluster {
    /// One call in its turn, whose answer is JSON.
    pub(super) async fn asked(&self, call: Call<'_>) -> Result<Value, Refusal> {
        let permit = self.turn(Urgency { deadline: i64::MIN, retry: false }).await;
        let answer = self.call(call).await;
        permit.end(answer.as_ref().map_or_else(Refusal::verdict, |_| super::Verdict::Healthy));
        let broken = || Refusal { trouble: Trouble::BadAnswer, message: "the answer is no JSON".into(), retry_after: None, subject: None };
        serde_json::from_slice(&answer?).map_err(|_| broken())
    }

    /// The object as it stands, where it does.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn find(&self, object: &Object) -> Result<Option<Found>, Refusal> {
        match self.asked(Call::get(&object.path(), WITHIN)).await {
            Ok(found) => Ok(Some(Found(found))),
            Err(refusal) if refusal.trouble == Trouble::NotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// All objects of ours of that resource, in all namespaces.
    ///
    /// # Errors
    /// [`Refusal`]; `Forbidden` where we may not list them everywhere.
    pub async fn marked(&self, resource: &str) -> Result<Vec<Found>, Refusal> {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{resource}?labelSelector={}%3D{}", MARK.0.replace('/', "%2F"), MARK.1);
        let list = self.asked(Call::get(&path, WITHIN)).await?;
        Ok(list["items"].as_array().into_iter().flatten().cloned().map(Found).collect())
    }

    /// Applies it over what was found; `dry`: the API server says what it would say, and changes nothing.
    ///
    /// # Errors
    /// [`Refusal`]; `Conflict` where somebody wrote it meanwhile, `Owned` where another manager owns what we set.
    pub async fn apply(&self, object: &Object, owner: &str, found: Option<&Found>, dry: bool) -> Result<(), Refusal> {
        let version = found.and_then(|found| found.0["metadata"]["resourceVersion"].as_str()).unwrap_or(NEVER);
        let body = object.marked(owner, version).to_string();
        let dry = if dry { "&dryRun=All" } else { "" };
        let path = applied(&object.path(), false) + dry;
        self.asked(Call::apply(&path, body.as_bytes(), WITHIN)).await.map(|_| ())
    }

    /// Deletes exactly the object that was found.
    ///
    /// # Errors
    /// [`Refusal`]; one that is gone already is none.
    pub async fn remove(&self, object: &Object, found: &Found) -> Result<(), Refusal> {
        let body = json!({"preconditions": {"uid": found.0["metadata"]["uid"]}}).to_string();
        let path = object.path();
        match self.asked(Call::delete(&path, body.as_bytes(), WITHIN)).await {
            Err(refusal) if refusal.trouble != Trouble::NotFound => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Something that stands in the namespace and is not the API server's own, by resource and name.
    ///
    /// # Errors
    /// [`Refusal`] where not everything could be looked at: then nobody knows whether the namespace is empty.
    pub async fn anything_in(&self, namespace: &str) -> Result<Option<String>, Refusal> {
        let groups = self.asked(Call::get("/apis", WITHIN)).await?;
        let groups = groups["groups"].as_array().into_iter().flatten();
        let groups = groups.filter_map(|group| Some(format!("/apis/{}", group["preferredVersion"]["groupVersion"].as_str()?)));
        for group in std::iter::once("/api/v1".to_owned()).chain(groups) {
            let listed = self.asked(Call::get(&group, WITHIN)).await?;
            for resource in listed["resources"].as_array().into_iter().flatten() {
                let listable = resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|verb| verb == "list"));
                let Some(name) = resource["name"].as_str().filter(|name| listable && *name != "events" && !name.contains('/')) else {
                    continue;
                };
                if resource["namespaced"] != true {
                    continue;
                }
                let items = self.asked(Call::get(&format!("{group}/namespaces/{namespace}/{name}?limit=5"), WITHIN)).await?;
                let mut found = items["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str());
                if let Some(found) = found.rfind(|found| !EVERYWHERE.contains(&(name, *found))) {
                    return Ok(Some(format!("{name} {found}")));
                }
            }
        }
        Ok(None)
    }
}
