//! Leases (coordination.k8s.io/v1) by which the members of a fleet know of each other: one for each member, named
//! `FLEET.MEMBER`. They are listed and watched by their label, made once, and renewed by a PUT with the `resourceVersion`
//! that was read, so that who writes in between is noticed.
//!
//! These calls wait for no turn at the API server: what is one PUT in six seconds must not stand behind a herd of mints.

mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::object::MARK;
use super::rights::Right;
use super::{Call, Cluster, Refusal, Trouble};

/// The label that names the fleet.
const FLEET: &str = "tokenferry/fleet";
/// What a member says of itself.
const DAEMON: &str = "tokenferry/daemon";
const SCHEDULE: &str = "tokenferry/schedule";
const VERSION: &str = "tokenferry/version";
const KIN: &str = "tokenferry/kin";
/// Longest that one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// `fleet: {lease: {cluster, namespace, name}}`: where the members of a fleet meet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Lease")]
pub struct LeaseSpec {
    /// Name of the cluster whose API server holds the Leases.
    pub cluster: String,
    /// Their namespace.
    pub namespace: String,
    /// The fleet's name: each member's Lease is called `NAME.MEMBER`.
    pub name: String,
}

impl LeaseSpec {
    /// As people name it: `CLUSTER/NAMESPACE/NAME`.
    pub fn shown(&self) -> String {
        format!("{}/{}/{}", self.cluster, self.namespace, self.name)
    }

    /// What each member's account needs. Neither a list by label nor what is to be made can be limited by name.
    pub fn right(&self) -> Right {
        let verbs = ["list", "watch", "create", "update", "delete"];
        Right { name: None, ..Right::named(&self.namespace, "coordination.k8s.io", "leases", "", &verbs) }
    }

    fn all(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn listed(&self) -> String {
        format!("{}?labelSelector={}%3D{}", self.all(), FLEET.replace('/', "%2F"), self.name)
    }

    fn one(&self, member: &str) -> String {
        format!("{}/{}.{member}", self.all(), self.name)
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// Its name.
    pub member: String,
    /// Names this one run of it.
    pub run: String,
    /// Names host and records folder: a restart is the same daemon, another one with the same name is not.
    pub daemon: String,
    /// SHA-256 of its schedule.
    pub schedule: String,
    /// Its version.
    pub version: String,
    /// A sketch of what its schedule serves, by which strangers are told from kin.
    pub kin: String,
}

/// A member's Lease as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Who says what.
    pub said: Said,
    /// When its holder says it renewed it, unix ms by the holder's clock.
    pub renewed: Option<i64>,
    /// When it was last written, unix ms by the API server's own clock (`managedFields`), in whole seconds.
    pub written: Option<i64>,
    /// Changes with every write.
    pub record: String,
    /// That very object.
    pub uid: String,
    /// How often it had another holder.
    transitions: u64,
    acquired: Option<String>,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A member's Lease was made or written.
    Written(Lease),
    /// A member's Lease is gone; as it stood last.
    Gone(Lease),
}

#[derive(Deserialize)]
struct Written {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    managed_fields: Vec<Managed>,
}

/// Who wrote some of its fields, and when: a renewal changes `renewTime`, so that each moves the time.
#[derive(Deserialize)]
struct Managed {
    time: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
    renew_time: Option<Timestamp>,
    acquire_time: Option<String>,
    lease_transitions: Option<u64>,
}

impl Written {
    /// `None` where it is no Lease of that fleet.
    fn lease(mut self, fleet: &str) -> Option<Lease> {
        let member = self.metadata.name.strip_prefix(fleet)?.strip_prefix('.')?.to_owned();
        if self.metadata.labels.get(FLEET).is_none_or(|name| name != fleet) {
            return None;
        }
        let mut says = |key: &str| self.metadata.annotations.remove(key).unwrap_or_default();
        let (daemon, schedule, version, kin) = (says(DAEMON), says(SCHEDULE), says(VERSION), says(KIN));
        let run = self.spec.holder_identity.as_deref().and_then(|holder| holder.rsplit_once('_')).map_or("", |(_, run)| run).to_owned();
        Some(Lease {
            said: Said { member, run, daemon, schedule, version, kin },
            renewed: self.spec.renew_time.map(Timestamp::as_millisecond),
            written: self.metadata.managed_fields.iter().filter_map(|managed| managed.time).max().map(Timestamp::as_millisecond),
            record: self.metadata.resource_version,
            uid: self.metadata.uid,
            transitions: self.spec.lease_transitions.unwrap_or(0),
            acquired: self.spec.acquire_time,
        })
    }
}

/// MicroTime: exactly six digits of a second, else the API server refuses it.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The object that says it, for `seconds` after this renewal; `before`: the Lease that it replaces.
fn body(spec: &LeaseSpec, said: &Said, seconds: u64, before: Option<&Lease>, now: Timestamp) -> Value {
    let holder = format!("{}_{}", said.member, said.run);
    let same = before.filter(|before| before.said.run == said.run);
    let transitions = before.map_or(0, |before| before.transitions + u64::from(same.is_none()));
    let mut body = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": format!("{}.{}", spec.name, said.member), "namespace": spec.namespace,
            "labels": {MARK.0: MARK.1, FLEET: spec.name},
            "annotations": {DAEMON: said.daemon, SCHEDULE: said.schedule, VERSION: said.version, KIN: said.kin},
        },
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": transitions,
            "acquireTime": same.and_then(|same| same.acquired.clone()).unwrap_or_else(|| micro(now)), "renewTime": micro(now),
        },
    });
    if let Some(before) = before {
        body["metadata"]["resourceVersion"] = json!(before.record);
        body["metadata"]["uid"] = json!(before.uid);
    }
    body
}

fn broken(what: &str) -> Refusal {
    Refusal { trouble: Trouble::BadAnswer, message: format!("{what}: is this an API server?"), retry_after: None, subject: None }
}

impl Cluster {
    /// The Leases of a fleet, and the version of the list to watch from.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn leases(&self, spec: &LeaseSpec) -> Result<(Vec<Lease>, String), Refusal> {
        #[derive(Deserialize)]
        struct List {
            metadata: Version,
            #[serde(default)]
            items: Vec<Written>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            resource_version: String,
        }
        let answer = self.call(Call::get(&spec.listed(), CALL_WITHIN)).await?;
        let list: List = serde_json::from_slice(&answer).map_err(|_| broken("the answer is no list of Leases"))?;
        let leases = list.items.into_iter().filter_map(|written| written.lease(&spec.name)).collect();
        Ok((leases, list.metadata.resource_version))
    }

    /// Makes a member's Lease, or renews the one that was read, for `seconds` from now.
    ///
    /// # Errors
    /// [`Refusal`]; `Conflict` where somebody else made or wrote it meanwhile, `NotFound` where it is gone.
    pub async fn hold_lease(&self, spec: &LeaseSpec, said: &Said, seconds: u64, before: Option<&Lease>) -> Result<Lease, Refusal> {
        let body = body(spec, said, seconds, before, Timestamp::now()).to_string();
        let (all, one) = (spec.all(), spec.one(&said.member));
        let call = Call::post(&all, body.as_bytes(), CALL_WITHIN);
        let call = if before.is_some() { Call { method: &Method::PUT, path: &one, ..call } } else { call };
        let answer = self.call(call).await?;
        let written: Written = serde_json::from_slice(&answer).map_err(|_| broken("the answer is no Lease"))?;
        written.lease(&spec.name).ok_or_else(|| broken("the answer is another Lease"))
    }

    /// Deletes exactly the Lease that was read. One that is gone counts as deleted.
    ///
    /// # Errors
    /// [`Refusal`]; `Conflict` where it was written meanwhile.
    pub async fn drop_lease(&self, spec: &LeaseSpec, lease: &Lease) -> Result<(), Refusal> {
        let conditions = json!({"uid": lease.uid, "resourceVersion": lease.record});
        let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions}).to_string();
        match self.call(Call::delete(&spec.one(&lease.said.member), body.as_bytes(), CALL_WITHIN)).await {
            Err(refusal) if refusal.trouble != Trouble::NotFound => Err(refusal),
            _ => Ok(()),
        }
    }
}

/// One line of a watch (`meta/v1`, WatchEvent), as an event of that fleet; `None` where it is of no interest.
///
/// # Errors
/// [`Refusal`] where the watch ended, or what was told cannot be read.
pub fn event(line: &[u8], fleet: &str) -> Result<Option<Event>, Refusal> {
    #[derive(Deserialize)]
    struct Line {
        r#type: Type,
        object: Value,
    }
    #[derive(Deserialize, PartialEq, Clone, Copy)]
    #[serde(rename_all = "UPPERCASE")]
    enum Type {
        Added,
        Modified,
        Deleted,
        Bookmark,
        Error,
    }
    let Line { r#type: kind, object } = serde_json::from_slice(line).map_err(|_| broken("a line of the watch cannot be read"))?;
    match kind {
        Type::Bookmark => return Ok(None),
        Type::Error => {
            let why: String = object["message"].as_str().unwrap_or("it says not why").chars().take(200).collect();
            return Err(Refusal {
                trouble: Trouble::Unavailable,
                message: format!("the watch ended: {why}"),
                retry_after: None,
                subject: None,
            });
        }
        Type::Added | Type::Modified | Type::Deleted => {}
    }
    let written: Written = serde_json::from_value(object).map_err(|_| broken("the watch tells of no Lease"))?;
    let gone = kind == Type::Deleted;
    Ok(written.lease(fleet).map(|lease| if gone { Event::Gone(lease) } else { Event::Written(lease) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> LeaseSpec {
        LeaseSpec { cluster: "c".into(), namespace: "ops".into(), name: "ferry".into() }
    }

    fn said(member: &str) -> Said {
        let text = |text: &str| text.to_owned();
        Said { member: text(member), run: text("r1"), daemon: text("d"), schedule: text("s"), version: text("1"), kin: text("k") }
    }

    fn read(mut body: Value, record: &str) -> Option<Lease> {
        body["metadata"]["uid"] = json!("u");
        body["metadata"]["resourceVersion"] = json!(record);
        serde_json::from_value::<Written>(body).unwrap().lease("ferry")
    }

    #[test]
    fn a_lease_says_again_what_was_said_and_when_it_was_renewed() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let made = body(&spec(), &said("a.example"), 15, None, now);
        assert_eq!(made["spec"]["renewTime"], "2026-01-02T03:04:05.000000Z");
        let lease = read(made, "7").unwrap();
        assert_eq!((&lease.said, lease.renewed, &*lease.record), (&said("a.example"), Some(now.as_millisecond()), "7"));
        let renewed = body(&spec(), &said("a.example"), 15, Some(&lease), now + jiff::SignedDuration::from_secs(6));
        assert_eq!(renewed["metadata"]["resourceVersion"], "7");
        assert_eq!(
            (&renewed["spec"]["acquireTime"], &renewed["spec"]["leaseTransitions"]),
            (&json!("2026-01-02T03:04:05.000000Z"), &json!(0))
        );
        let other = Said { run: "r2".into(), ..said("a.example") };
        assert_eq!(body(&spec(), &other, 15, Some(&lease), now)["spec"]["leaseTransitions"], 1);
    }

    #[test]
    fn a_lease_of_another_fleet_is_none_of_this_one() {
        let mut strange = body(&LeaseSpec { name: "ferry.b".into(), ..spec() }, &said("c"), 15, None, Timestamp::UNIX_EPOCH);
        assert!(read(strange.clone(), "1").is_none());
        strange["metadata"]["labels"][FLEET] = json!("ferry");
        assert_eq!(read(strange, "1").unwrap().said.member, "b.c");
    }

    #[test]
    fn the_end_of_a_watch_and_its_bookmarks_are_told_from_events() {
        let mut object = body(&spec(), &said("a"), 15, None, Timestamp::UNIX_EPOCH);
        object["metadata"]["uid"] = json!("u");
        object["metadata"]["resourceVersion"] = json!("3");
        let line = |kind: &str| json!({"type": kind, "object": object}).to_string();
        assert!(matches!(event(line("ADDED").as_bytes(), "ferry"), Ok(Some(Event::Written(_)))));
        assert!(matches!(event(line("DELETED").as_bytes(), "ferry"), Ok(Some(Event::Gone(lease))) if lease.said.member == "a"));
        assert_eq!(event(line("BOOKMARK").as_bytes(), "ferry").unwrap(), None);
        let expired = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}"#;
        assert!(event(expired.as_bytes(), "ferry").unwrap_err().message.contains("too old"));
        assert!(event(b"{", "ferry").is_err());
    }
}
