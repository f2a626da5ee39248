//! Our keys are taken back: with the Secret where nothing else stands in it.

use std::time::Duration;

use serde_json::json;

use super::{SecretSpec, failure, read};
use crate::cluster::object::applied;
use crate::cluster::{Call, Cluster, Trouble};
use crate::sink::manners::Ours;
use crate::sink::{Failure, Removal};

/// Takes them back where they are ours: marked, and holding a token that is meant. What changes meanwhile is a conflict.
pub(super) async fn remove(cluster: &Cluster, spec: &SecretSpec, ours: Ours<'_>, timeout: Duration) -> Result<Removal, Failure> {
    let Some(found) = read(cluster, spec, timeout).await? else { return Ok(Removal::Nothing) };
    if !found.is_marked() {
        return Ok(Removal::Left);
    }
    match found.value(spec)? {
        None => return Ok(Removal::Nothing),
        Some(held) if (ours.0)(&held) => {}
        Some(_) => return Ok(Removal::Left),
    }
    let (kind, uid, version) = found.identity();
    let path = spec.path();
    if found.has_others(spec) {
        // What our manager does not apply any more goes; what others set stays.
        let rest = json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind,
            "metadata": {"name": spec.name, "namespace": spec.namespace, "resourceVersion": version},
        });
        let (path, body) = (applied(&path, false), rest.to_string());
        cluster.call(Call::apply(&path, body.as_bytes(), timeout)).await.map_err(|refusal| failure(spec, &refusal, "patch"))?;
        return Ok(Removal::Gone);
    }
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {"uid": uid, "resourceVersion": version},
    });
    match cluster.call(Call::delete(&path, options.to_string().as_bytes(), timeout)).await {
        Ok(_) => Ok(Removal::Gone),
        Err(refusal) if refusal.trouble == Trouble::NotFound => Ok(Removal::Gone),
        Err(refusal) => Err(failure(spec, &refusal, "delete")),
    }
}
