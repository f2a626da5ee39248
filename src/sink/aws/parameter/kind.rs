//! What a parameter and its store say of themselves.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ParameterSpec, ParameterStore, Tier};
use crate::cluster::Upstream;
use crate::sink::aws::AwsStoreSpec;
use crate::sink::flaw::{Flaw, shown};
use crate::sink::kinds::{Ask, Login, Right, Sink, Store, Trace, calls};

/// Characters that AWS lets the whole name have, the region's and account's part of its ARN left out.
const LONGEST: usize = 1_011;
/// Parts of a path.
const DEEPEST: usize = 15;

/// What is wrong with a name.
fn wrong(name: &str) -> Option<&'static str> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let parts: Vec<&str> = plain.split('/').collect();
    let reserved = |word: &str| parts[0].len() >= word.len() && parts[0][..word.len()].eq_ignore_ascii_case(word);
    let known = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
    if plain.is_empty() || !name.bytes().all(known) {
        return Some("is no name of a parameter: write letters, digits, _ . - and /, such as /ci/deployer");
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Some("has an empty part between two slashes, or at its end: write such as /ci/deployer");
    }
    if parts.len() > 1 && !name.starts_with('/') {
        return Some("is a path, and so begins with a slash: write such as /ci/deployer");
    }
    if reserved("aws") || reserved("ssm") {
        return Some("begins with aws or ssm, which AWS keeps for itself: write another");
    }
    (name.len() > LONGEST || parts.len() > DEEPEST).then_some("is longer than AWS takes: write at most 15 parts and 1011 characters")
}

impl Sink for ParameterSpec {
    /// With and without the slash before it, a name has one ARN.
    fn name(&self) -> String {
        self.name.trim_start_matches('/').to_owned()
    }

    fn store(&self) -> Option<&str> {
        Some(&self.store)
    }

    fn flaws(&self) -> Vec<Flaw> {
        wrong(&self.name).map(|why| Flaw::new(&["name"], format!("{} {why}", shown(&self.name)))).into_iter().collect()
    }

    fn limit(&self) -> Option<(&'static str, u64)> {
        Some(("AWS Parameter Store", self.tier.largest() as u64))
    }

    fn untried(&self) -> Option<&'static str> {
        Some("moto")
    }

    fn rights(&self, ask: &Ask<'_>) -> Vec<Right> {
        let Some(ParameterStoreSpec(store)) = &ask.store.aws_parameter_store else { return Vec::new() };
        let (region, account) = store.whose(ask.account);
        let mut actions = vec!["ssm:GetParameter", "ssm:PutParameter", "ssm:ListTagsForResource", "ssm:AddTagsToResource"];
        if ask.leaves {
            actions.push("ssm:DeleteParameter");
        }
        let mut rights = vec![Right { resource: format!("arn:aws:ssm:{region}:{account}:parameter/{}", self.name()), actions }];
        // AWS encrypts an advanced parameter by a data key of its own, a standard one by the key itself.
        let encrypt = if self.tier == Tier::Advanced { "kms:GenerateDataKey" } else { "kms:Encrypt" };
        rights.extend(store.key_arn(ask.account).map(|resource| Right { resource, actions: vec![encrypt, "kms:Decrypt"] }));
        rights
    }

    calls!(super);
}

impl Trace for ParameterSpec {
    fn trace(&self) -> Option<Self> {
        Some(Self { tier: Tier::default(), adopt: false, ..self.clone() })
    }
}

/// `awsParameterStore` under `stores`: the login that `awsSecretsManager` has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct ParameterStoreSpec(pub AwsStoreSpec);

impl JsonSchema for ParameterStoreSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        AwsStoreSpec::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        AwsStoreSpec::json_schema(generator)
    }
}

impl Store for ParameterStoreSpec {
    fn identity(&self) -> String {
        self.0.identity()
    }

    fn flaws(&self) -> Vec<Flaw> {
        self.0.flaws()
    }

    fn login(&self) -> Option<Login<'_>> {
        self.0.login()
    }

    fn login_file(&mut self) -> Option<&mut PathBuf> {
        self.0.login_file()
    }

    fn open(&self, name: &str, upstream: Arc<Upstream>) -> Arc<dyn Any + Send + Sync> {
        Arc::new(ParameterStore::new(name, self.0.clone(), upstream))
    }

    fn policy(&self, rights: Vec<Right>, account: Option<&str>) -> String {
        self.0.policy(rights, account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_aws_takes() {
        for name in ["token", "/ci/deployer", "/a", "a.b-c_D9", &format!("/{}", vec!["x"; 15].join("/"))] {
            assert_eq!(wrong(name), None, "{name}");
        }
        let (deep, long) = (format!("/{}", vec!["x"; 16].join("/")), "x".repeat(1_012));
        for name in ["", "/", "a b", "ci/deployer", "/a//b", "/a/", "/aws/x", "SSM-x", "awsome", "ä", &deep, &long] {
            assert!(wrong(name).is_some(), "{name}");
        }
    }
}
