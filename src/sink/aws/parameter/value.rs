//! The value of a parameter and its tags: read, compared, written, read back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ParameterSpec;
use super::signed::{Refused, Wire, not_aws};
use crate::sink::aws::refusal::Verdict;
use crate::sink::aws::tags;
use crate::sink::manners::{self, MARK};
use crate::sink::{Context, FailureKind, Put};

/// A parameter as it stands.
pub(super) struct Current {
    pub text: Zeroizing<String>,
    version: u64,
}

/// Sets it where it differs. `key`: the KMS key that encrypts it, where that is not AWS's own.
pub(super) async fn set(wire: &Wire, spec: &ParameterSpec, text: &str, key: Option<&str>, context: &Context<'_>) -> Result<Put, Verdict> {
    let current = read(wire, spec).await?;
    let marks = tags::marks(context);
    let Some(current) = current else {
        let version = write(wire, spec, text, key, Some(&marks)).await?;
        return confirm(wire, spec, text, version).await;
    };
    if let Some(why) = context.superseded(&current.text) {
        return Err(Verdict::new(FailureKind::Superseded, why));
    }
    let found = said(wire, spec).await?;
    if !manners::marked(&found) {
        if !(spec.adopt || context.manners.ours.is(&current.text)) {
            return Err(not_ours(spec, context));
        }
        say(wire, spec, &marks).await?;
    }
    let put = if *current.text == text {
        Put::Unchanged
    } else {
        let version = write(wire, spec, text, key, None).await?;
        if version > current.version + 1 {
            give_back(wire, spec, version - 1, key, context).await?;
        }
        confirm(wire, spec, text, version).await?
    };
    if manners::marked(&found) && marks.iter().any(|(key, value)| found.get(key) != Some(value)) {
        say(wire, spec, &marks).await?;
    }
    Ok(put)
}

/// Somebody else wrote after we looked and before we wrote, and nothing could keep us from going over it: where that was
/// a newer token of the target, it is written again.
async fn give_back(wire: &Wire, spec: &ParameterSpec, version: u64, key: Option<&str>, context: &Context<'_>) -> Result<(), Verdict> {
    let between = read_at(wire, spec, &format!("{}:{version}", spec.name)).await?;
    let Some((newer, why)) = between.and_then(|between| context.superseded(&between.text).map(|why| (between, why))) else { return Ok(()) };
    write(wire, spec, &newer.text, key, None).await?;
    Err(Verdict::new(FailureKind::Superseded, format!("{why}: version {version} of `{}` was put back", spec.name)))
}

/// What stands there; `None` where there is no such parameter.
pub(super) async fn read(wire: &Wire, spec: &ParameterSpec) -> Result<Option<Current>, Verdict> {
    read_at(wire, spec, &spec.name).await
}

/// The same for a version of it, where its number follows the name.
async fn read_at(wire: &Wire, spec: &ParameterSpec, name: &str) -> Result<Option<Current>, Verdict> {
    let doing = format!("cannot read `{}`", spec.name);
    let body = json!({"Name": name, "WithDecryption": true});
    let mut found = match wire.call("GetParameter", &body, &doing, "ssm:GetParameter (and kms:Decrypt on its key)").await {
        Ok(found) => found,
        Err(Refused { code, .. }) if code == "ParameterNotFound" || code == "ParameterVersionNotFound" => return Ok(None),
        Err(refused) => return Err(refused.verdict),
    };
    let found = &mut found["Parameter"];
    if found["Type"].as_str().is_some_and(|kind| kind != "SecureString") {
        let why = format!("{doing}: it is a parameter of another type than SecureString: delete it, or name another");
        return Err(Verdict::new(FailureKind::Refused, why));
    }
    match (found["Value"].take(), found["Version"].as_u64()) {
        (Value::String(text), Some(version)) => Ok(Some(Current { text: Zeroizing::new(text), version })),
        _ => Err(not_aws()),
    }
}

/// Writes it, and gives the version that it has become. With tags it is made, and must not be there.
async fn write(
    wire: &Wire,
    spec: &ParameterSpec,
    text: &str,
    key: Option<&str>,
    marks: Option<&BTreeMap<String, String>>,
) -> Result<u64, Verdict> {
    let mut body =
        json!({"Name": spec.name, "Value": text, "Type": "SecureString", "Tier": spec.tier.name(), "Overwrite": marks.is_none()});
    if let Some(key) = key {
        body["KeyId"] = key.into();
    }
    if let Some(marks) = marks {
        body["Tags"] = listed(marks);
    }
    let doing = format!("cannot write `{}`", spec.name);
    let wrote = wire.call("PutParameter", &body, &doing, "ssm:PutParameter and ssm:AddTagsToResource (and kms:Encrypt on its key)").await;
    wipe(body);
    wrote.map_err(|refused| refused.verdict)?["Version"].as_u64().ok_or_else(not_aws)
}

/// A token that was a part of a JSON value is not left in freed memory.
fn wipe(mut body: Value) {
    if let Value::String(text) = body["Value"].take() {
        drop(Zeroizing::new(text));
    }
}

/// Reads back what was acknowledged.
async fn confirm(wire: &Wire, spec: &ParameterSpec, text: &str, version: u64) -> Result<Put, Verdict> {
    let (kind, why) = match read(wire, spec).await? {
        Some(current) if *current.text == text => return Ok(Put::Written),
        Some(current) if current.version > version => {
            (FailureKind::Conflict, format!("was written, and somebody else wrote version {} over it", current.version))
        }
        Some(current) if current.version < version => {
            (FailureKind::BadAnswer, format!("was acknowledged, and version {} is still read", current.version))
        }
        Some(_) => (FailureKind::BadAnswer, "was acknowledged, and holds something else".to_owned()),
        None => (FailureKind::Conflict, "was written, and somebody else deleted it".to_owned()),
    };
    Err(Verdict::new(kind, format!("version {version} of `{}` {why}", spec.name)))
}

/// Its tags.
pub(super) async fn said(wire: &Wire, spec: &ParameterSpec) -> Result<BTreeMap<String, String>, Verdict> {
    let doing = format!("cannot look at `{}`", spec.name);
    let body = json!({"ResourceType": "Parameter", "ResourceId": spec.name});
    let found = wire.call("ListTagsForResource", &body, &doing, "ssm:ListTagsForResource").await.map_err(|refused| refused.verdict)?;
    let text = |tag: &Value, key: &str| tag[key].as_str().map(ToOwned::to_owned);
    let tags = found["TagList"].as_array().ok_or_else(not_aws)?.iter();
    Ok(tags.filter_map(|tag| Some((text(tag, "Key")?, text(tag, "Value")?))).collect())
}

/// Sets our tags.
async fn say(wire: &Wire, spec: &ParameterSpec, marks: &BTreeMap<String, String>) -> Result<(), Verdict> {
    let body = json!({"ResourceType": "Parameter", "ResourceId": spec.name, "Tags": listed(marks)});
    let doing = format!("cannot tag `{}`", spec.name);
    wire.call("AddTagsToResource", &body, &doing, "ssm:AddTagsToResource").await.map(drop).map_err(|refused| refused.verdict)
}

fn listed(marks: &BTreeMap<String, String>) -> Value {
    marks.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

/// The refusal of a parameter that somebody else made.
pub(super) fn not_ours(spec: &ParameterSpec, context: &Context<'_>) -> Verdict {
    let why = format!(
        "`{}` is there and not ours: it lacks the tag {}={} and holds no token of target {}. Nothing was overwritten: \
         write `adopt: true` beside its `name` to take it over, or name another parameter",
        spec.name, MARK.0, MARK.1, context.target
    );
    Verdict::new(FailureKind::Refused, why)
}
