//! The Secret itself: what we want of it, what is found, and whether it is ours.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::SecretSpec;
use crate::cluster::object::MARK;
use crate::sink::{Context, Failure, FailureKind};
use crate::token::Payload;
use crate::token::payload::{Dress, Part};

/// The annotation that names the keys of a payload of several parts, in their order.
const PARTS: &str = "parts";
/// Prefix of our annotations.
const OURS: &str = "tokenferry";

/// What a payload makes of a Secret: its type, its data, labels beside our mark. A format that names none of these
/// gives one key, the schedule's.
pub(super) struct Shape<'a> {
    kind: &'a str,
    data: BTreeMap<&'a str, &'a [u8]>,
    labels: BTreeMap<&'a str, &'a str>,
    /// Keys that the payload names itself, in its order.
    named: Vec<&'a str>,
}

impl<'a> Shape<'a> {
    pub fn new(spec: &'a SecretSpec, payload: &'a Payload) -> Self {
        let key = |name: &'a str| if name.is_empty() { &*spec.key } else { name };
        Self {
            kind: payload.dress().kind.unwrap_or("Opaque"),
            data: payload.parts().iter().map(|part| (key(&part.name), part.expose())).collect(),
            labels: payload.dress().labels.iter().copied().collect(),
            named: payload.parts().iter().map(|part| &*part.name).filter(|name| !name.is_empty()).collect(),
        }
    }

    /// Bytes of all values.
    pub fn size(&self) -> usize {
        self.data.values().map(|value| value.len()).sum()
    }
}

/// A Secret as the API server shows it.
#[derive(Deserialize)]
pub(super) struct Found {
    metadata: Metadata,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    immutable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    deletion_timestamp: Option<String>,
}

impl Found {
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(body).ok().filter(|found| !found.metadata.resource_version.is_empty())
    }

    pub fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    pub fn is_marked(&self) -> bool {
        self.metadata.labels.get(MARK.0).is_some_and(|value| value == MARK.1)
    }

    fn is_ours(&self, spec: &SecretSpec) -> Result<(), Failure> {
        if self.is_marked() || spec.adopt {
            return Ok(());
        }
        let what = format!(
            "it is there and not ours: it lacks the label {}={}. Name another Secret, delete this one, write `adopt: true` \
             beside its `name`, or hand it over: kubectl -n {} label secret {} {}={} --overwrite",
            MARK.0, MARK.1, spec.namespace, spec.name, MARK.0, MARK.1
        );
        Err(spec.refuse(FailureKind::Refused, what))
    }

    /// Whether we may write it.
    pub fn writable(&self, spec: &SecretSpec, shape: &Shape<'_>) -> Result<(), Failure> {
        self.is_ours(spec)?;
        if self.metadata.deletion_timestamp.is_some() {
            return Err(
                spec.refuse(FailureKind::Conflict, "somebody deletes it, and a finalizer holds it: it is made anew once it is gone")
            );
        }
        if self.kind != shape.kind {
            let what = format!("its type is {}, which cannot be changed to {}: delete it, or name another", self.kind, shape.kind);
            return Err(spec.refuse(FailureKind::Refused, what));
        }
        if self.immutable && !self.holds(shape) {
            return Err(spec.refuse(FailureKind::Refused, "it is immutable: delete it, or name another"));
        }
        Ok(())
    }

    /// Whether it has all that we would apply.
    pub fn has(&self, shape: &Shape<'_>, marks: &BTreeMap<&'static str, String>) -> bool {
        if !self.is_marked() {
            return false;
        }
        let labelled = shape.labels.iter().all(|(name, value)| self.metadata.labels.get(*name).is_some_and(|found| found == value));
        let marked = marks.iter().all(|(name, value)| self.metadata.annotations.get(&annotation(name)) == Some(value));
        labelled && marked && self.holds(shape)
    }

    fn holds(&self, shape: &Shape<'_>) -> bool {
        shape.data.iter().all(|(key, value)| self.decoded(key).is_some_and(|found| found.as_slice() == *value))
    }

    /// Its type, and what it takes to delete this very state of it.
    pub fn identity(&self) -> (&str, &str, &str) {
        (&self.kind, &self.metadata.uid, &self.metadata.resource_version)
    }

    /// Whether it has keys beside ours.
    pub fn has_others(&self, spec: &SecretSpec) -> bool {
        let named = self.metadata.annotations.get(&annotation(PARTS)).map_or(&*spec.key, String::as_str);
        self.data.keys().any(|key| !named.split(' ').any(|ours| ours == key))
    }

    /// What our keys hold, as texts.
    pub fn texts(&self, spec: &SecretSpec) -> Vec<Zeroizing<String>> {
        let Ok(Some(payload)) = self.value(spec) else { return Vec::new() };
        let texts = payload.parts().iter().filter_map(|part| std::str::from_utf8(part.expose()).ok());
        texts.map(|text| Zeroizing::new(text.to_owned())).collect()
    }

    fn decoded(&self, key: &str) -> Option<Zeroizing<Vec<u8>>> {
        STANDARD.decode(self.data.get(key)?.as_bytes()).ok().map(Zeroizing::new)
    }

    /// What our key holds.
    pub fn value(&self, spec: &SecretSpec) -> Result<Option<Payload>, Failure> {
        self.is_ours(spec)?;
        let named = self.metadata.annotations.get(&annotation(PARTS)).map_or("", String::as_str);
        if named.is_empty() {
            return Ok(self.decoded(&spec.key).map(|bytes| Payload::new(bytes.to_vec())));
        }
        let part = |name: &str| self.decoded(name).map(|bytes| Part::new(name, bytes.to_vec()));
        let parts: Option<Vec<Part>> = named.split(' ').map(part).collect();
        Ok(parts.map(|parts| Payload::of(parts, Dress::default())))
    }
}

fn annotation(name: &str) -> String {
    format!("{OURS}/{name}")
}

/// What we write beside the token, for whoever looks at the Secret: beside an encrypted one its times alone. What was
/// applied before and is not any more the API server takes away.
pub(super) fn marks(context: &Context<'_>, shape: &Shape<'_>) -> BTreeMap<&'static str, String> {
    let time = |seconds: i64| jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default();
    let mut marks = BTreeMap::from([("expires-at", time(context.expires_at)), ("issued-at", time(context.issued_at))]);
    if !context.manners.sealed {
        marks.insert("generation", context.generation.to_string());
        marks.insert("issue", context.issue.to_owned());
        marks.insert("target", context.target.to_owned());
        marks.extend(context.manners.owner.map(|owner| ("owner", owner.to_owned())));
    }
    if !shape.named.is_empty() {
        marks.insert(PARTS, shape.named.join(" "));
    }
    marks
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Applied<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: AppliedMetadata<'a>,
    #[serde(rename = "type")]
    of_type: &'a str,
    data: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppliedMetadata<'a> {
    name: &'a str,
    namespace: &'a str,
    resource_version: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<String, &'a str>,
}

/// What is applied: our fields alone. `stringData` would leave old keys behind, so the data is encoded here.
pub(super) fn body(spec: &SecretSpec, shape: &Shape<'_>, marks: &BTreeMap<&'static str, String>, version: &str) -> Zeroizing<Vec<u8>> {
    let mut labels = shape.labels.clone();
    labels.insert(MARK.0, MARK.1);
    let encoded: BTreeMap<&str, Zeroizing<String>> =
        shape.data.iter().map(|(key, value)| (*key, Zeroizing::new(STANDARD.encode(value)))).collect();
    let applied = Applied {
        api_version: "v1",
        kind: "Secret",
        metadata: AppliedMetadata {
            name: &spec.name,
            namespace: &spec.namespace,
            resource_version: version,
            labels,
            annotations: marks.iter().map(|(name, value)| (annotation(name), &**value)).collect(),
        },
        of_type: shape.kind,
        data: encoded.iter().map(|(key, value)| (*key, value.as_str())).collect(),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(shape.size() * 2 + 4096));
    serde_json::to_writer(&mut *bytes, &applied).expect("texts always have a JSON form, and memory takes it");
    bytes
}
