//! What a place in AWS Secrets Manager and its store say of themselves.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{AwsSpec, AwsStore, AwsStoreSpec, LARGEST};
use crate::cluster::Upstream;
use crate::sink::flaw::{Flaw, address, shown, word};
use crate::sink::kinds::{Ask, Login, Right, Sink, Store, Trace, calls};

/// Versions of a secret that can have a label of ours: AWS has 20 for a secret, and uses some itself.
const KEPT: u32 = 15;

/// What the credentials have to be allowed on the key that encrypts a secret.
const KEY_ACTIONS: [&str; 2] = ["kms:GenerateDataKey", "kms:Decrypt"];

impl AwsSpec {
    /// What the credentials have to be allowed on the secret. `leaves`: whether it is deleted when its target goes
    /// (`whenRemoved: delete`, `withdraw`).
    fn actions(&self, leaves: bool) -> Vec<&'static str> {
        let mut actions = vec![
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:CreateSecret",
            "secretsmanager:DescribeSecret",
            "secretsmanager:TagResource",
        ];
        if leaves {
            actions.push("secretsmanager:DeleteSecret");
        }
        if self.keep_versions.is_some() || leaves && self.key.is_some() {
            actions.push("secretsmanager:UpdateSecretVersionStage");
        }
        if leaves && self.key.is_some() {
            actions.push("secretsmanager:UntagResource");
        }
        actions
    }

    /// The ARN of the secret; AWS adds six characters of its own to a name.
    fn arn(&self, region: &str, account: &str) -> String {
        if self.secret_id.starts_with("arn:") {
            return self.secret_id.clone();
        }
        format!("arn:aws:secretsmanager:{region}:{account}:secret:{}-??????", self.secret_id)
    }
}

impl Sink for AwsSpec {
    fn name(&self) -> String {
        self.secret_id.clone()
    }

    fn store(&self) -> Option<&str> {
        Some(&self.store)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let id = &self.secret_id;
        let known = |b: u8| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b);
        let name = (1..=512).contains(&id.len()) && id.bytes().all(known);
        let arn = id.starts_with("arn:") && id.len() <= 2048 && id.bytes().all(|b| known(b) || b == b':');
        if !name && !arn {
            let message = format!("{} is no name of a secret: write letters, digits and /_+=.@-, or an ARN", shown(id));
            flaws.push(Flaw::new(&["secretId"], message));
        }
        flaws.extend(self.key.as_deref().and_then(|key| Flaw::of(&["key"], word(key))));
        flaws.extend(Flaw::of_kept(self.keep_versions, KEPT, "the staging labels that AWS has for us"));
        flaws
    }

    fn limit(&self) -> Option<(&'static str, u64)> {
        Some(("AWS Secrets Manager", LARGEST as u64))
    }

    fn gap(&self) -> Option<(u64, &'static str)> {
        Some((900, "AWS takes about one version of a secret in ten minutes"))
    }

    fn untried(&self) -> Option<&'static str> {
        Some("moto")
    }

    fn rights(&self, ask: &Ask<'_>) -> Vec<Right> {
        let Some(store) = &ask.store.aws_secrets_manager else { return Vec::new() };
        let (region, account) = store.whose(ask.account);
        let mut rights = vec![Right { resource: self.arn(region, account), actions: self.actions(ask.leaves) }];
        rights.extend(store.key_arn(ask.account).map(|resource| Right { resource, actions: KEY_ACTIONS.to_vec() }));
        rights
    }

    calls!(super);
}

impl Trace for AwsSpec {
    fn trace(&self) -> Option<Self> {
        Some(Self { keep_versions: None, adopt: false, ..self.clone() })
    }
}

impl AwsStoreSpec {
    /// Region and account for ARNs; any one where it is not known.
    pub(super) fn whose<'a>(&'a self, account: Option<&'a str>) -> (&'a str, &'a str) {
        (self.region.as_deref().unwrap_or("*"), account.unwrap_or("*"))
    }

    /// The ARN of the key that encrypts what we create, where there is one of its own.
    pub(super) fn key_arn(&self, account: Option<&str>) -> Option<String> {
        let key = self.kms_key_id.as_ref()?;
        if key.starts_with("arn:") {
            return Some(key.clone());
        }
        let (region, account) = self.whose(account);
        Some(format!("arn:aws:kms:{region}:{account}:key/{key}"))
    }
}

fn role(way: &'static str, arn: &str) -> Option<Flaw> {
    let message = || format!("{} is no ARN: write such as arn:aws:iam::123456789012:role/tokens", shown(arn));
    (!arn.starts_with("arn:")).then(|| Flaw::new(&[way, "roleArn"], message()))
}

impl Store for AwsStoreSpec {
    fn identity(&self) -> String {
        let role = self.web_identity.as_ref().map(|identity| &identity.role_arn);
        format!("{:?} {:?} {:?} {:?} {role:?}", self.region, self.profile, self.endpoint, self.assume_role)
    }

    fn flaws(&self) -> Vec<Flaw> {
        let words = [("region", &self.region), ("profile", &self.profile), ("kmsKeyId", &self.kms_key_id)];
        let words = words.into_iter().filter_map(|(key, value)| Some((key, word(value.as_deref()?))));
        let mut flaws: Vec<Flaw> = words.filter_map(|(key, found)| Flaw::of(&[key], found)).collect();
        match self.endpoint.as_deref().map(|text| address(text.trim_end_matches('/'), "https://localhost:4566")) {
            Some(Ok((scheme, here))) if scheme == "http" && !here => {
                flaws.push(Flaw::warning(&["endpoint"], "http sends tokens in the clear over the network: write https://"));
            }
            Some(Ok((scheme, _))) if scheme != "http" && scheme != "https" => {
                flaws.push(Flaw::new(&["endpoint"], format!("{} is no way to AWS: write https://HOST:PORT", shown(&scheme))));
            }
            Some(Err(message)) => flaws.push(Flaw::new(&["endpoint"], message)),
            _ => {}
        }
        flaws.extend(self.web_identity.as_ref().and_then(|identity| role("webIdentity", &identity.role_arn)));
        flaws.extend(self.assume_role.as_ref().and_then(|assumed| role("assumeRole", &assumed.role_arn)));
        flaws
    }

    fn login(&self) -> Option<Login<'_>> {
        let identity = self.web_identity.as_ref()?;
        Some(Login { key: vec!["webIdentity"], target: identity.target.as_deref(), file: &identity.token_file })
    }

    fn login_file(&mut self) -> Option<&mut PathBuf> {
        self.web_identity.as_mut().map(|identity| &mut identity.token_file)
    }

    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync> {
        Arc::new(AwsStore::new(name, self.clone(), upstream))
    }

    /// An IAM policy.
    fn policy(&self, rights: Vec<Right>, _account: Option<&str>) -> String {
        let mut grouped: BTreeMap<(bool, Vec<&str>), BTreeSet<String>> = BTreeMap::new();
        for Right { resource, actions } in rights {
            let is_key = actions.iter().all(|action| action.starts_with("kms:"));
            grouped.entry((is_key, actions)).or_default().insert(resource);
        }
        let statement = |((_, actions), arns)| json!({"Effect": "Allow", "Action": actions, "Resource": arns});
        let mut statements: Vec<Value> = grouped.into_iter().map(statement).collect();
        if let Some(role) = &self.assume_role {
            statements.push(json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role.role_arn}));
        }
        format!("{:#}\n", json!({"Version": "2012-10-17", "Statement": statements}))
    }
}
