//! The same for stores: a policy for the login of a Vault store, an IAM policy for AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Value, json};

use super::leaving;
use crate::schedule::Plan;
use crate::sink::{Place, SinkSpec, aws, vault};

/// Every place of the plan, fallbacks included, and whether what stands there is taken back one day.
fn places(plan: &Plan) -> impl Iterator<Item = (&Place, bool)> {
    plan.targets.iter().flat_map(|target| leaving(target))
}

/// A Vault policy (HCL) for the login of that store. `engine` is the version of its KV mounts, 1 or 2.
pub fn vault_policy(plan: &Plan, store: &str, engine: u8) -> String {
    let mut paths: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (place, leaves) in places(plan) {
        if let SinkSpec::Vault(spec) = &place.sink
            && spec.store == store
        {
            for (path, capabilities) in vault::rights(spec, engine, leaves) {
                paths.entry(path).or_default().extend(capabilities);
            }
        }
    }
    let mut text = String::new();
    for (path, capabilities) in paths {
        let capabilities: Vec<String> = capabilities.iter().map(|c| format!("\"{c}\"")).collect();
        // Writing to a String does not fail.
        let _ = writeln!(text, "path {} {{\n  capabilities = [{}]\n}}", Value::from(path), capabilities.join(", "));
    }
    text
}

/// An IAM policy for the credentials of that store. `account` narrows its ARNs; any account where it is not known.
pub fn iam_policy(plan: &Plan, store: &str, account: Option<&str>) -> Value {
    let spec = plan.stores.get(store).and_then(|s| s.aws_secrets_manager.as_ref());
    let region = spec.and_then(|s| s.region.as_deref()).unwrap_or("*");
    let mut secrets: BTreeMap<Vec<&str>, BTreeSet<String>> = BTreeMap::new();
    for (place, leaves) in places(plan) {
        if let SinkSpec::AwsSecretsManager(spec) = &place.sink
            && spec.store == store
        {
            secrets.entry(aws::actions(spec, leaves)).or_default().insert(aws::arn(spec, region, account.unwrap_or("*")));
        }
    }
    let statement = |(actions, arns)| json!({"Effect": "Allow", "Action": actions, "Resource": arns});
    let mut statements: Vec<Value> = secrets.into_iter().map(statement).collect();
    if let Some(key) = spec.and_then(|s| s.kms_key_id.as_deref()) {
        let key =
            if key.starts_with("arn:") { key.to_owned() } else { format!("arn:aws:kms:{region}:{}:key/{key}", account.unwrap_or("*")) };
        statements.push(json!({"Effect": "Allow", "Action": aws::KEY_ACTIONS, "Resource": key}));
    }
    if let Some(role) = spec.and_then(|s| s.assume_role.as_ref()) {
        statements.push(json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role.role_arn}));
    }
    json!({"Version": "2012-10-17", "Statement": statements})
}
