//! Which Secrets an object names: by a volume, a variable, a pull secret, or as an account's own. A reference is always
//! to a Secret of the object's own namespace.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

/// How a Secret is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// A volume of its own.
    Volume,
    /// A source of a projected volume.
    Projected,
    /// One variable.
    Env,
    /// All variables.
    EnvFrom,
    /// The login of a storage driver.
    VolumeLogin,
    /// `imagePullSecrets`.
    ImagePullSecrets,
    /// `secrets` of a ServiceAccount.
    Secrets,
}

impl How {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Projected => "projected volume",
            Self::Env => "env",
            Self::EnvFrom => "envFrom",
            Self::VolumeLogin => "login of a volume",
            Self::ImagePullSecrets => "imagePullSecrets",
            Self::Secrets => "secrets",
        }
    }
}

/// The Secrets that the spec of a pod names.
pub fn of_pod(spec: &Value) -> BTreeSet<(String, How)> {
    let mut found = BTreeSet::new();
    let mut take = |name: &Value, how: How| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            found.insert((name.to_owned(), how));
        }
    };
    for volume in items(&spec["volumes"]) {
        take(&volume["secret"]["secretName"], How::Volume);
        take(&volume["azureFile"]["secretName"], How::VolumeLogin);
        items(&volume["projected"]["sources"]).for_each(|source| take(&source["secret"]["name"], How::Projected));
        // csi, flexVolume, rbd, cephfs, iscsi, scaleIO, storageos: each by a key of its own below the driver.
        for driver in volume.as_object().into_iter().flat_map(|volume| volume.values()) {
            take(&driver["secretRef"]["name"], How::VolumeLogin);
            take(&driver["nodePublishSecretRef"]["name"], How::VolumeLogin);
        }
    }
    for container in ["containers", "initContainers", "ephemeralContainers"].iter().flat_map(|key| items(&spec[*key])) {
        items(&container["env"]).for_each(|one| take(&one["valueFrom"]["secretKeyRef"]["name"], How::Env));
        items(&container["envFrom"]).for_each(|one| take(&one["secretRef"]["name"], How::EnvFrom));
    }
    items(&spec["imagePullSecrets"]).for_each(|one| take(&one["name"], How::ImagePullSecrets));
    found
}

/// The Secrets that a ServiceAccount names.
pub fn of_account(account: &Value) -> BTreeSet<(String, How)> {
    let names = |key: &str, how: How| {
        let names = items(&account[key]).filter_map(|one| one["name"].as_str());
        names.map(|name| (name.to_owned(), how)).collect::<Vec<_>>()
    };
    names("secrets", How::Secrets).into_iter().chain(names("imagePullSecrets", How::ImagePullSecrets)).collect()
}

/// Whether a pod has a short-lived token of its account mounted, one that the kubelet keeps fresh.
pub fn mounts_bound_token(spec: &Value) -> bool {
    items(&spec["volumes"]).any(|volume| items(&volume["projected"]["sources"]).any(|source| source["serviceAccountToken"].is_object()))
}

/// Kind and name of what an object belongs to.
pub fn controller(object: &Value) -> Option<(&str, &str)> {
    let owner = items(&object["metadata"]["ownerReferences"]).find(|owner| owner["controller"] == true)?;
    Some((owner["kind"].as_str()?, owner["name"].as_str()?))
}

/// Whether it runs no more and never will: a pod that has ended, a Job that is done, an old revision without replicas.
pub fn is_over(kind: &str, object: &Value) -> bool {
    match kind {
        "Pod" => matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")),
        "Job" => items(&object["status"]["conditions"])
            .any(|condition| condition["status"] == "True" && matches!(condition["type"].as_str(), Some("Complete" | "Failed"))),
        "ReplicaSet" => controller(object).is_some() && object["spec"]["replicas"] == 0,
        _ => false,
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_a_secret_is_seen() {
        let spec = json!({
            "volumes": [
                {"name": "a", "secret": {"secretName": "by-volume"}},
                {"name": "b", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"secret": {"name": "by-projection"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "by-csi"}}},
                {"name": "d", "azureFile": {"secretName": "by-azure", "shareName": "s"}},
                {"name": "e", "rbd": {"secretRef": {"name": "by-rbd"}}},
                {"name": "f", "emptyDir": {}},
            ],
            "containers": [{"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "by-env", "key": "token"}}}, {"name": "B", "value": "b"}]}],
            "initContainers": [{"envFrom": [{"secretRef": {"name": "by-env-from"}}, {"configMapRef": {"name": "no"}}]}],
            "ephemeralContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "by-debug"}}}]}],
            "imagePullSecrets": [{"name": "by-pull"}, {"name": ""}],
        });
        let found: Vec<(String, How)> = of_pod(&spec).into_iter().collect();
        let expected = [
            ("by-azure", How::VolumeLogin),
            ("by-csi", How::VolumeLogin),
            ("by-debug", How::Env),
            ("by-env", How::Env),
            ("by-env-from", How::EnvFrom),
            ("by-projection", How::Projected),
            ("by-pull", How::ImagePullSecrets),
            ("by-rbd", How::VolumeLogin),
            ("by-volume", How::Volume),
        ];
        assert_eq!(found, expected.map(|(name, how)| (name.to_owned(), how)));
        assert!(mounts_bound_token(&spec) && !mounts_bound_token(&json!({})));
        assert_eq!(of_pod(&json!({})).len(), 0);
    }

    #[test]
    fn an_account_names_its_secrets_and_its_logins() {
        let account = json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "b"}]});
        let found: Vec<(String, How)> = of_account(&account).into_iter().collect();
        assert_eq!(found, [("a".to_owned(), How::Secrets), ("b".to_owned(), How::ImagePullSecrets)]);
    }

    #[test]
    fn what_is_over_never_mounts_anything_again() {
        assert!(is_over("Pod", &json!({"status": {"phase": "Succeeded"}})) && !is_over("Pod", &json!({"status": {"phase": "Pending"}})));
        assert!(is_over("Job", &json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}})));
        assert!(!is_over("Job", &json!({"status": {"conditions": [{"type": "Suspended", "status": "True"}]}})));
        let owned =
            json!({"metadata": {"ownerReferences": [{"kind": "Deployment", "name": "web", "controller": true}]}, "spec": {"replicas": 0}});
        assert!(is_over("ReplicaSet", &owned) && !is_over("Deployment", &owned));
        assert!(!is_over("ReplicaSet", &json!({"spec": {"replicas": 0}})), "nobody else would scale it up");
        assert_eq!(controller(&owned), Some(("Deployment", "web")));
    }
}
