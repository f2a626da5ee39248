//! A secret in AWS Secrets Manager: read, compared, written with an idempotency token.

use std::sync::Arc;

use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::error::SdkError;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::sink::aws::client::Client;
use crate::sink::aws::refusal::{self, Verdict};
use crate::sink::aws::tags::{self, Described};
use crate::sink::aws::{AwsSpec, AwsStore, LARGEST};
use crate::sink::{Context, Failure, FailureKind, Put, anew, manners};
use crate::token::{Payload, render};

/// The staging label of the version in use.
const CURRENT: &str = "AWSCURRENT";

/// A secret's current version.
#[derive(Default)]
pub(super) struct Current {
    /// `None`: no secret, or none with a value.
    pub text: Option<Zeroizing<String>>,
    pub version: String,
    /// Whether it holds bytes that are no text.
    pub binary: bool,
}

/// Sets the secret, or our field of it, where it differs.
///
/// # Errors
/// As for a put.
pub(super) async fn set(store: &AwsStore, spec: &AwsSpec, payload: &str, context: &Context<'_>) -> Result<Put, Failure> {
    with_client(store, |client| async move {
        let current = read(&client, spec).await?;
        let found = tags::describe(&client, spec).await?;
        let marks = tags::marks(context);
        let up_to_date = |found: &Described| marks.iter().all(|(key, value)| found.tags.get(key) == Some(value));
        let marked = found.as_ref().is_some_and(|found| manners::marked(&found.tags));
        if found.is_some() && !marked {
            if !(spec.adopt || free(&current, spec, context)) {
                return Err(tags::not_ours(spec, context));
            }
            tags::write(&client, spec, &marks).await?;
        }
        let put = write_payload(&client, store, spec, payload, current, context).await?;
        if marked && !found.as_ref().is_some_and(up_to_date) {
            tags::write(&client, spec, &marks).await?;
        }
        tags::retire(&client, spec, context, found.as_ref()).await;
        Ok(put)
    })
    .await
}

/// Reads what a put would read, and whether it would find the secret ours. AWS tells of no right to write before it is
/// used.
///
/// # Errors
/// As for a put.
pub(super) async fn probe(store: &AwsStore, spec: &AwsSpec, context: &Context<'_>) -> Result<String, Failure> {
    with_client(store, |client| async move {
        let current = read(&client, spec).await?;
        let found = tags::describe(&client, spec).await?;
        let marked = found.as_ref().is_some_and(|found| manners::marked(&found.tags));
        if found.is_some() && !(marked || spec.adopt || free(&current, spec, context)) {
            return Err(tags::not_ours(spec, context));
        }
        let there = if found.is_some() { "is there and ours" } else { "is not there yet" };
        Ok(format!("`{}` {there}; whether it may be written AWS does not say before", spec.secret_id))
    })
    .await
}

/// Whether nothing stands there, or a token of this target.
fn free(current: &Current, spec: &AwsSpec, context: &Context<'_>) -> bool {
    let Some(text) = current.text.as_deref() else { return !current.binary };
    let ours = context.manners.ours;
    match &spec.key {
        None => text.is_empty() || ours.is(text),
        Some(_) => text.trim() == "{}" || field(current, spec).is_some_and(|held| ours.is(&held)),
    }
}

async fn write_payload(
    client: &Client,
    store: &AwsStore,
    spec: &AwsSpec,
    payload: &str,
    current: Current,
    context: &Context<'_>,
) -> Result<Put, Verdict> {
    let text = match &spec.key {
        None => Zeroizing::new(payload.to_owned()),
        Some(key) => merged(current.text.as_deref().map(String::as_str), key, payload).ok_or_else(|| not_an_object(spec))?,
    };
    if spec.key.is_none() && current.text.as_ref() == Some(&text) || field(&current, spec).as_deref().map(String::as_str) == Some(payload) {
        return Ok(Put::Unchanged);
    }
    let held = if spec.key.is_some() { field(&current, spec) } else { current.text.clone() };
    if let Some(why) = held.and_then(|held| context.superseded(&held)) {
        return Err(Verdict::new(FailureKind::Superseded, why));
    }
    if text.len() > LARGEST {
        return Err(larger(spec, text.len()));
    }
    let token = request_token(&spec.secret_id, context.issue, &text, &current.version);
    write(client, store, spec, &text, &token, Some(context)).await?;
    confirm(client, spec, payload, &token).await
}

/// What the place holds.
///
/// # Errors
/// As for a put; `Refused` where the field is no text.
pub(super) async fn get(store: &AwsStore, spec: &AwsSpec) -> Result<Option<Payload>, Failure> {
    with_client(store, |client| async move {
        let current = read(&client, spec).await?;
        let Some(key) = &spec.key else { return Ok(current.text.map(|text| Payload::new(text.as_bytes().to_vec()))) };
        let Some(text) = &current.text else { return Ok(None) };
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|_| not_an_object(spec))?;
        match fields.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Payload::new(text.as_bytes().to_vec()))),
            Some(_) => Err(Verdict::new(FailureKind::Refused, format!("`{key}` of `{}` is no text", spec.secret_id))),
        }
    })
    .await
}

/// The failure of a secret that would be larger than AWS stores.
pub(super) fn too_large(store: &AwsStore, spec: &AwsSpec, size: usize) -> Failure {
    larger(spec, size).into_failure(&store.name)
}

/// Does it, and once more with credentials read anew where the first ones were refused.
pub(super) async fn with_client<T, F>(store: &AwsStore, attempt: impl Fn(Arc<Client>) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Verdict>>,
{
    let outcome = anew::attempt(&store.client, || store.client(), attempt, |verdict: &Verdict| verdict.credentials).await?;
    outcome.map_err(|verdict| verdict.told(&store.name, &store.upstream))
}

pub(super) async fn read(client: &Client, spec: &AwsSpec) -> Result<Current, Verdict> {
    let found = match client.get_secret_value().secret_id(&spec.secret_id).send().await {
        Ok(found) => found,
        Err(SdkError::ServiceError(refused)) if refused.err().is_resource_not_found_exception() => return Ok(Current::default()),
        Err(error) => return Err(refusal::of(&error, &format!("cannot read `{}`", spec.secret_id), "secretsmanager:GetSecretValue")),
    };
    let GetSecretValueOutput { secret_string, secret_binary, version_id, .. } = found;
    if secret_string.is_none() && secret_binary.is_some() && spec.key.is_some() {
        return Err(not_an_object(spec));
    }
    let Some(version) = version_id else { return Err(not_aws(&format!("cannot read `{}`", spec.secret_id))) };
    Ok(Current { text: secret_string.map(Zeroizing::new), version, binary: secret_binary.is_some() })
}

/// Reads back what was acknowledged: it counts as written once the stage AWSCURRENT has it.
async fn confirm(client: &Client, spec: &AwsSpec, payload: &str, token: &str) -> Result<Put, Verdict> {
    let current = read(client, spec).await?;
    let there = match &spec.key {
        None => current.text.as_deref().map(String::as_str) == Some(payload),
        Some(_) => field(&current, spec).as_deref().map(String::as_str) == Some(payload),
    };
    if there {
        return Ok(Put::Written);
    }
    let (kind, why) = if current.version == token {
        (FailureKind::BadAnswer, "was acknowledged, and holds something else".to_owned())
    } else {
        (FailureKind::Conflict, format!("was written, and version {} has the stage AWSCURRENT", current.version))
    };
    Err(Verdict::new(kind, format!("version {token} of `{}` {why}", spec.secret_id)))
}

/// Puts a new version under that request token, marked and labelled as the context says.
pub(super) async fn write(
    client: &Client,
    store: &AwsStore,
    spec: &AwsSpec,
    text: &str,
    token: &str,
    context: Option<&Context<'_>>,
) -> Result<(), Verdict> {
    let doing = format!("cannot write `{}`", spec.secret_id);
    store.doubts.fence(client, &spec.secret_id, token).await?;
    store.doubts.sent(&spec.secret_id, token);
    let mut put = client.put_secret_value().secret_id(&spec.secret_id).secret_string(text).client_request_token(token);
    if let Some(context) = context.filter(|_| spec.keep_versions.is_some()) {
        put = put.version_stages(CURRENT).version_stages(tags::label(context));
    }
    let put = put.send().await;
    if put.as_ref().is_ok_and(|done| done.version_id() == Some(token)) || put.as_ref().is_err_and(decided) {
        store.doubts.decided(&spec.secret_id, token);
    }
    match put {
        // A version has the name that we gave it: nobody else can know it.
        Ok(done) if done.version_id() == Some(token) => return Ok(()),
        Ok(_) => return Err(not_aws(&doing)),
        Err(SdkError::ServiceError(refused)) if refused.err().is_resource_not_found_exception() => {}
        Err(error) => return Err(refusal::of(&error, &doing, "secretsmanager:PutSecretValue")),
    }
    if spec.secret_id.starts_with("arn:") {
        let why = format!("{doing}: there is no such secret, and one cannot be created by its ARN: write its name, or create it first");
        return Err(Verdict::new(FailureKind::Refused, why));
    }
    let marks = context.map(|context| tags::tags(&tags::marks(context)));
    let created = client.create_secret().name(&spec.secret_id).secret_string(text).client_request_token(token).set_tags(marks);
    match created.set_kms_key_id(store.spec.kms_key_id.clone()).send().await {
        Ok(done) if done.version_id() == Some(token) => match context.filter(|_| spec.keep_versions.is_some()) {
            Some(context) => tags::add_stage(client, spec, &tags::label(context), token).await,
            None => Ok(()),
        },
        Ok(_) => Err(not_aws(&doing)),
        Err(error) => {
            Err(refusal::of(&error, &format!("cannot create `{}`", spec.secret_id), "secretsmanager:CreateSecret and TagResource"))
        }
    }
}

/// A 200 that says nothing of what it should.
fn not_aws(doing: &str) -> Verdict {
    Verdict::new(FailureKind::BadAnswer, format!("{doing}: the answer is not of AWS Secrets Manager: check `endpoint`"))
}

/// Whether AWS itself has refused a put, so that it can change nothing any more.
fn decided<E>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(error, SdkError::ServiceError(refused) if refused.raw().status().is_client_error())
}

fn larger(spec: &AwsSpec, size: usize) -> Verdict {
    let why = format!("`{}` would have {size} bytes, and AWS Secrets Manager stores {LARGEST} at most", spec.secret_id);
    Verdict::new(FailureKind::TooLarge, why)
}

fn not_an_object(spec: &AwsSpec) -> Verdict {
    let why = format!(
        "`{}` is no JSON object, so `key` has nothing to be a field of: leave out `key` to take the whole secret, or make it {{}} first",
        spec.secret_id
    );
    Verdict::new(FailureKind::Refused, why)
}

fn field(current: &Current, spec: &AwsSpec) -> Option<Zeroizing<String>> {
    let fields: Map<String, Value> = serde_json::from_str(current.text.as_ref()?).ok()?;
    match fields.get(spec.key.as_ref()?)? {
        Value::String(text) => Some(Zeroizing::new(text.clone())),
        _ => None,
    }
}

/// The JSON object with our field set; `None` where there is something else than an object.
fn merged(before: Option<&str>, key: &str, payload: &str) -> Option<Zeroizing<String>> {
    let mut fields: Map<String, Value> = match before {
        None => Map::new(),
        Some(text) => serde_json::from_str(text).ok()?,
    };
    fields.insert(key.to_owned(), Value::String(payload.to_owned()));
    serde_json::to_string(&fields).ok().map(Zeroizing::new)
}

/// Makes the same put the same request, which AWS carries out once (64 characters, as `ClientRequestToken`
/// allows at most). The version that is replaced is part of it: AWS ignores a repeated token, and so would
/// never bring the same token back over what somebody else wrote.
pub(super) fn request_token(secret_id: &str, issue: &str, text: &str, replaces: &str) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [secret_id, issue, text, replaces] {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    render::hex(digest.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_is_set_and_its_neighbours_stay() {
        assert_eq!(merged(None, "token", "t").unwrap().as_str(), r#"{"token":"t"}"#);
        let fields: Value = serde_json::from_str(&merged(Some(r#"{"a":[1],"token":"old"}"#), "token", "new").unwrap()).unwrap();
        assert_eq!(fields, serde_json::json!({"a": [1], "token": "new"}));
    }

    #[test]
    fn something_else_than_an_object_is_never_written_over() {
        for text in ["", "token", "[]", "null", "{"] {
            assert!(merged(Some(text), "token", "t").is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_repeated_put_has_the_same_request_token_and_any_other_put_another(a in ".{0,9}", b in ".{0,9}", c in ".{0,9}", d in ".{0,9}") {
            let token = request_token(&a, &b, &c, &d);
            prop_assert_eq!(&token, &request_token(&a, &b, &c, &d));
            prop_assert_eq!(token.len(), 64);
            prop_assert_ne!(&token, &request_token(&a, &b, &c, &format!("{d}x")));
            prop_assert_ne!(&token, &request_token(&a, &b, &format!("{c}x"), &d));
            prop_assert_ne!(&request_token(&format!("{a}x"), &b, &c, &d), &request_token(&a, &format!("x{b}"), &c, &d));
        }
    }
}
