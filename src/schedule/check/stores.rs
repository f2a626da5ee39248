//! Stores: what they are and how we log in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Planner;
use super::report::Spot;
use super::rules;
use crate::schedule::measure::shown;
use crate::schedule::yaml::Step;
use crate::sink::StoreSpec;
use crate::sink::aws::AwsStoreSpec;
use crate::sink::vault::{VaultAuth, VaultStoreSpec};

/// What places have to know of a store.
#[derive(Debug, Clone)]
pub struct StoreFacts {
    /// The key that names its kind; `None` where its settings do not tell.
    pub kind: Option<&'static str>,
    /// What server or account it is: two stores with the same one are the same place.
    pub identity: String,
}

impl Planner<'_> {
    /// Checks and completes `stores`.
    pub(super) fn stores(&mut self, spot: &Spot<'_>, specs: BTreeMap<String, StoreSpec>) -> BTreeMap<String, Arc<StoreSpec>> {
        let written = spot.node.get("stores").map(|node| node.entries()).unwrap_or_default();
        for (key, _) in written {
            self.stores.insert(key.text.to_string(), StoreFacts { kind: None, identity: key.text.to_string() });
        }
        let mut planned = BTreeMap::new();
        for (name, mut spec) in specs {
            self.store(spot, &name, &mut spec);
            planned.insert(name, Arc::new(spec));
        }
        planned
    }

    fn store(&mut self, spot: &Spot<'_>, name: &str, spec: &mut StoreSpec) {
        let here: [Step<'_>; 2] = ["stores".into(), name.into()];
        if let Err(message) = rules::own_name(name) {
            self.report.error(spot, &here, &message);
        }
        let node = spot.marks.find(spot.node, &here).0;
        let given: Vec<&'static str> = ["vault", "awsSecretsManager"].into_iter().filter(|kind| node.has(kind)).collect();
        match given[..] {
            [] if node.entries().iter().any(|(key, _)| crate::schedule::file::later("StoreSpec", &key.text)) => {}
            [] => self.report.error(
                spot,
                &here,
                "it says of no store what it is: write one of vault: {address: …, auth: …}, awsSecretsManager: {…}",
            ),
            [kind] => {
                let identity = identity(spec).unwrap_or_else(|| name.to_owned());
                self.stores.insert(name.to_owned(), StoreFacts { kind: Some(kind), identity });
            }
            _ => self.report.error(spot, &here, &format!("{} exclude each other: give each a store of its own", given.join(" and "))),
        }
        if let Some(vault) = &mut spec.vault {
            self.vault(spot, &[here[0], here[1], "vault".into()], vault);
        }
        if let Some(aws) = &spec.aws_secrets_manager {
            self.aws(spot, &[here[0], here[1], "awsSecretsManager".into()], aws);
        }
        self.limits(spot, &[here[0], here[1], "limits".into()], spec.limits);
    }

    fn vault(&mut self, spot: &Spot<'_>, here: &[Step<'_>; 3], spec: &mut VaultStoreSpec) {
        let at = |key| -> [Step<'_>; 4] { [here[0], here[1], here[2], Step::Key(key)] };
        match rules::address(&spec.address, "https://vault.example.com:8200") {
            Ok((scheme, _)) if scheme == "https" => {}
            Ok((scheme, true)) if scheme == "http" => {}
            Ok((scheme, false)) if scheme == "http" => {
                let message = "http sends logins and tokens in the clear over the network: write https://";
                self.report.warning(spot, &at("address"), message);
            }
            Ok((scheme, _)) => {
                self.report.error(spot, &at("address"), &format!("{} is no way to Vault: write https://HOST:PORT", shown(&scheme)))
            }
            Err(message) => self.report.error(spot, &at("address"), &message),
        }
        if let Some(path) = &mut spec.ca_file {
            self.refer(spot, &at("caFile"), path);
        }
        if let Some(namespace) = &spec.namespace
            && let Err(message) = rules::store_path(namespace.trim_end_matches('/'))
        {
            self.report.error(spot, &at("namespace"), &message);
        }
        let (kind, key, file, mount, role) = match &mut spec.auth {
            VaultAuth::Token(auth) => ("token", "file", &mut auth.file, None, None),
            VaultAuth::AppRole(auth) => {
                ("appRole", "secretIdFile", &mut auth.secret_id_file, auth.mount.as_deref(), Some(("roleId", &*auth.role_id)))
            }
            VaultAuth::Kubernetes(auth) => {
                ("kubernetes", "tokenFile", &mut auth.token_file, auth.mount.as_deref(), Some(("role", &*auth.role)))
            }
            VaultAuth::Jwt(auth) => ("jwt", "tokenFile", &mut auth.token_file, auth.mount.as_deref(), Some(("role", &*auth.role))),
        };
        let below = |key| -> [Step<'_>; 6] { [here[0], here[1], here[2], "auth".into(), kind.into(), Step::Key(key)] };
        if let Some(Err(message)) = mount.map(rules::store_path) {
            self.report.error(spot, &below("mount"), &message);
        }
        if let Some((key, role)) = role
            && let Err(message) = rules::word(role)
        {
            self.report.error(spot, &below(key), &message);
        }
        self.refer(spot, &below(key), file);
    }

    fn aws(&mut self, spot: &Spot<'_>, here: &[Step<'_>; 3], spec: &AwsStoreSpec) {
        let at = |key| -> [Step<'_>; 4] { [here[0], here[1], here[2], Step::Key(key)] };
        for (key, value) in [("region", &spec.region), ("profile", &spec.profile), ("kmsKeyId", &spec.kms_key_id)] {
            if let Some(Err(message)) = value.as_deref().map(rules::word) {
                self.report.error(spot, &at(key), &message);
            }
        }
        match spec.endpoint.as_deref().map(|text| rules::address(text.trim_end_matches('/'), "https://localhost:4566")) {
            Some(Ok((scheme, here))) if scheme == "http" && !here => {
                self.report.warning(spot, &at("endpoint"), "http sends tokens in the clear over the network: write https://");
            }
            Some(Ok((scheme, _))) if scheme != "http" && scheme != "https" => {
                self.report.error(spot, &at("endpoint"), &format!("{} is no way to AWS: write https://HOST:PORT", shown(&scheme)));
            }
            Some(Err(message)) => self.report.error(spot, &at("endpoint"), &message),
            _ => {}
        }
        if let Some(role) = &spec.assume_role
            && !role.role_arn.starts_with("arn:")
        {
            let steps = [here[0], here[1], here[2], "assumeRole".into(), "roleArn".into()];
            self.report.error(
                spot,
                &steps,
                &format!("{} is no ARN: write such as arn:aws:iam::123456789012:role/tokens", shown(&role.role_arn)),
            );
        }
    }
}

fn identity(spec: &StoreSpec) -> Option<String> {
    if let Some(vault) = &spec.vault {
        return Some(format!("{} {}", vault.address, vault.namespace.as_deref().unwrap_or("")));
    }
    let aws = spec.aws_secrets_manager.as_ref()?;
    Some(format!("{:?} {:?} {:?} {:?}", aws.region, aws.profile, aws.endpoint, aws.assume_role))
}
