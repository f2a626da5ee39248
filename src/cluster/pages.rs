//! Lists of the API server, read in pages, so that a large cluster is never in memory whole. Where a list of the whole
//! cluster is refused, it is asked for namespace by namespace, and what stays refused is named.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::call::Call;
use super::mint::BROKE_OFF;
use super::{Cluster, Refusal, Trouble, Urgency, Verdict};

const WITHIN: Duration = Duration::from_secs(30);
/// Objects of one page; fewer where they are so large that an answer would be cut: one has at most 2 MiB.
const PAGE: usize = 50;
/// A list of metadata alone (Kubernetes API concepts, "Receiving resources as PartialObjectMetadata").
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// What is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listing {
    /// Path of the group and its version: `/api/v1`, `/apis/apps/v1`.
    pub group: &'static str,
    /// The resource, such as `secrets`.
    pub resource: &'static str,
    /// A field selector, percent-encoded; empty for all.
    pub only: &'static str,
    /// Metadata alone: the rest does not come over the wire.
    pub metadata: bool,
}

impl Listing {
    /// All of the resource, whole.
    pub const fn of(group: &'static str, resource: &'static str) -> Self {
        Self { group, resource, only: "", metadata: false }
    }

    fn path(&self, namespace: Option<&str>) -> String {
        let within = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
        let only = if self.only.is_empty() { String::new() } else { format!("fieldSelector={}&", self.only) };
        format!("{}{within}/{}?{only}", self.group, self.resource)
    }
}

/// Which namespaces a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// One.
    Namespace(String),
}

/// A question without its whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The resource that was asked for.
    pub resource: String,
    /// The namespaces that it is missing of; none where it is missing of all.
    pub namespaces: Vec<String>,
    /// Why.
    pub why: String,
    /// Whether a right is missing.
    pub forbidden: bool,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let right = if self.forbidden { format!(" (needs: list {})", self.resource) } else { String::new() };
        match self.namespaces.as_slice() {
            [] => write!(f, "{}: {}{right}", self.resource, self.why),
            [one] => write!(f, "{} in namespace {one}: {}{right}", self.resource, self.why),
            many => write!(f, "{} in namespaces {}: {}{right}", self.resource, many.join(", "), self.why),
        }
    }
}

/// What every object has, as far as anybody here asks for it.
#[derive(Debug, Clone, Deserialize, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace, where it has one.
    pub namespace: String,
    /// That very object.
    pub uid: String,
    /// When it was made.
    pub creation_timestamp: Option<Timestamp>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// An object of which nothing but the metadata is asked for.
#[derive(Debug, Deserialize)]
pub struct Bare {
    /// Its metadata.
    #[serde(default)]
    pub metadata: Metadata,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    /// `null` where a list of metadata alone is empty.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue", default)]
    more: String,
}

impl Cluster {
    /// Every object of a list, page by page. A list that has grown stale in between is begun anew by nobody: what was
    /// read counts, and the rest is missing.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn pages<T: for<'de> Deserialize<'de>>(
        &self,
        listing: Listing,
        namespace: Option<&str>,
        mut each: impl FnMut(T),
    ) -> Result<(), Refusal> {
        let broken = || Refusal { trouble: Trouble::BadAnswer, message: "the answer is no list".into(), retry_after: None, subject: None };
        let (path, accept) = (listing.path(namespace), if listing.metadata { METADATA } else { "application/json" });
        let (mut more, mut size) = (String::new(), PAGE);
        loop {
            let path = format!("{path}limit={size}&continue={more}");
            let permit = self.turn(Urgency { deadline: i64::MAX, retry: false }).await;
            let answer = self.call(Call { accept, ..Call::get(&path, WITHIN) }).await;
            // Too large for one answer, or the connection broke: fewer objects may come through.
            if size > 1 && answer.as_ref().is_err_and(|refusal| refusal.message.contains(BROKE_OFF)) {
                permit.end(Verdict::Healthy);
                size /= 2;
                continue;
            }
            permit.end(answer.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
            let body = answer?;
            let list: List<T> = serde_json::from_slice(&body).map_err(|_| broken())?;
            list.items.into_iter().flatten().for_each(&mut each);
            if list.metadata.more.is_empty() {
                return Ok(());
            }
            more = escaped(&list.metadata.more);
            size = (size * 2).min(PAGE);
        }
    }

    /// As [`pages`](Self::pages) over a scope. Where the whole cluster is refused, each namespace is asked alone; one
    /// gap names those that stay missing.
    pub async fn within<T: for<'de> Deserialize<'de>>(&self, listing: Listing, scope: &Scope, mut each: impl FnMut(T)) -> Vec<Gap> {
        let gap = |namespaces: Vec<String>, refusal: Refusal| Gap {
            resource: listing.resource.to_owned(),
            namespaces,
            forbidden: refusal.trouble == Trouble::Forbidden,
            why: refusal.message,
        };
        let (whole, namespace) = match scope {
            Scope::All => (true, None),
            Scope::Namespace(namespace) => (false, Some(namespace.as_str())),
        };
        let refusal = match self.pages(listing, namespace, &mut each).await {
            Ok(()) => return Vec::new(),
            Err(refusal) if whole && refusal.trouble == Trouble::Forbidden => refusal,
            Err(refusal) => return vec![gap(namespace.map(str::to_owned).into_iter().collect(), refusal)],
        };
        let mut spaces = Vec::new();
        let all = Listing { metadata: true, ..Listing::of("/api/v1", "namespaces") };
        if self.pages::<Bare>(all, None, |one| spaces.push(one.metadata.name)).await.is_err() {
            return vec![gap(Vec::new(), refusal)];
        }
        let mut missing: BTreeMap<bool, (Vec<String>, Refusal)> = BTreeMap::new();
        for space in &spaces {
            if let Err(refusal) = self.pages(listing, Some(space), &mut each).await {
                let kind = refusal.trouble == Trouble::Forbidden;
                missing.entry(kind).or_insert_with(|| (Vec::new(), refusal)).0.push(space.clone());
            }
        }
        missing.into_values().map(|(spaces, refusal)| gap(spaces, refusal)).collect()
    }
}

/// A value of a query, percent-encoded (RFC 3986, 2.1).
fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_continues_a_list_is_escaped() {
        assert_eq!(escaped("eyJ2Ijoi==/+ä"), "eyJ2Ijoi%3D%3D%2F%2B%C3%A4");
    }

    #[test]
    fn a_list_is_of_the_cluster_or_of_one_namespace() {
        let listing = Listing { only: "type%3Dx", ..Listing::of("/apis/apps/v1", "deployments") };
        assert_eq!(listing.path(None), "/apis/apps/v1/deployments?fieldSelector=type%3Dx&");
        assert_eq!(Listing::of("/api/v1", "pods").path(Some("ci")), "/api/v1/namespaces/ci/pods?");
    }

    #[test]
    fn an_empty_list_is_one_however_it_is_written() {
        for text in [r#"{"metadata":{},"items":null}"#, r#"{"items":[]}"#, r#"{"metadata":{"resourceVersion":"7"}}"#] {
            let list: List<Bare> = serde_json::from_str(text).unwrap();
            assert_eq!((list.items.into_iter().flatten().count(), list.metadata.more.as_str()), (0, ""), "{text}");
        }
    }

    #[test]
    fn a_gap_says_of_what_it_is_and_which_right_fills_it() {
        let gap = Gap { resource: "secrets".into(), namespaces: vec!["a".into(), "b".into()], why: "403: no".into(), forbidden: true };
        assert_eq!(gap.to_string(), "secrets in namespaces a, b: 403: no (needs: list secrets)");
    }
}
