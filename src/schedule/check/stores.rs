//! Stores: what they are and how we log in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Planner;
use super::deliver::joined;
use super::report::Spot;
use super::rules;
use crate::schedule::measure::shown;
use crate::schedule::schema::STORES;
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
        let given: Vec<&'static str> = STORES.into_iter().filter(|kind| node.has(kind)).collect();
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
        if let Some(aws) = &mut spec.aws_secrets_manager {
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
        let below: Vec<Step<'_>> = here.iter().copied().chain(["auth".into(), auth_kind(&spec.auth).into()]).collect();
        let (mount, role) = match &mut spec.auth {
            VaultAuth::Token(auth) => {
                self.refer(spot, &joined(&below, "file"), &mut auth.file);
                return;
            }
            VaultAuth::AppRole(auth) => {
                self.refer(spot, &joined(&below, "secretIdFile"), &mut auth.secret_id_file);
                (auth.mount.as_deref(), ("roleId", &*auth.role_id))
            }
            VaultAuth::Kubernetes(auth) | VaultAuth::Jwt(auth) => {
                self.login_token(spot, &below, &mut auth.token_file, auth.target.is_some());
                (auth.mount.as_deref(), ("role", &*auth.role))
            }
        };
        if let Some(Err(message)) = mount.map(rules::store_path) {
            self.report.error(spot, &joined(&below, "mount"), &message);
        }
        if let Err(message) = rules::word(role.1) {
            self.report.error(spot, &joined(&below, role.0), &message);
        }
    }

    /// The token of a login: in a file that somebody else writes, or a target's, which is looked for when all are known.
    fn login_token(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &mut PathBuf, ours: bool) {
        let node = spot.marks.find(spot.node, here).0;
        match (node.has("tokenFile"), ours || node.has("target")) {
            (true, true) => self.report.error(spot, &joined(here, "target"), "tokenFile and target exclude each other: keep one"),
            (true, false) => self.refer(spot, &joined(here, "tokenFile"), file),
            (false, true) => {}
            (false, false) => {
                let message = "the token to log in with is missing: write tokenFile: PATH, or target: NAME for one that tokenferry mints";
                self.report.error(spot, here, message);
            }
        }
    }

    fn aws(&mut self, spot: &Spot<'_>, here: &[Step<'_>; 3], spec: &mut AwsStoreSpec) {
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
        if let Some(identity) = &mut spec.web_identity {
            let steps = [here[0], here[1], here[2], "webIdentity".into()];
            self.login_token(spot, &steps, &mut identity.token_file, identity.target.is_some());
            self.role(spot, &steps, &identity.role_arn);
        }
        if let Some(role) = &spec.assume_role {
            self.role(spot, &[here[0], here[1], here[2], "assumeRole".into()], &role.role_arn);
        }
    }

    fn role(&mut self, spot: &Spot<'_>, here: &[Step<'_>], arn: &str) {
        if !arn.starts_with("arn:") {
            let message = format!("{} is no ARN: write such as arn:aws:iam::123456789012:role/tokens", shown(arn));
            self.report.error(spot, &joined(here, "roleArn"), &message);
        }
    }
}

/// The key that names a login.
pub(super) fn auth_kind(auth: &VaultAuth) -> &'static str {
    match auth {
        VaultAuth::Token(_) => "token",
        VaultAuth::AppRole(_) => "appRole",
        VaultAuth::Kubernetes(_) => "kubernetes",
        VaultAuth::Jwt(_) => "jwt",
    }
}

fn identity(spec: &StoreSpec) -> Option<String> {
    if let Some(vault) = &spec.vault {
        return Some(format!("{} {}", vault.address, vault.namespace.as_deref().unwrap_or("")));
    }
    let aws = spec.aws_secrets_manager.as_ref()?;
    let role = aws.web_identity.as_ref().map(|identity| &identity.role_arn);
    Some(format!("{:?} {:?} {:?} {:?} {role:?}", aws.region, aws.profile, aws.endpoint, aws.assume_role))
}
