//! The KV secrets engine, versions 2 and 1: one field of a secret is set or read, the others are left alone.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::sink::vault::client::{Answer, Request};
use crate::sink::vault::custom::{self, Custom};
use crate::sink::vault::{LARGEST, VaultSpec, VaultStore, refusal};
use crate::sink::{Context, Failure, FailureKind, Put, manners};

/// Version of the KV engine behind a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// One value without history and without check-and-set.
    One,
    /// Versions, with check-and-set.
    Two,
}

/// A secret as it stands.
#[derive(Default)]
pub(super) struct Secret {
    pub fields: Map<String, Value>,
    /// The version that a check-and-set has to name; 0 = there is none yet.
    pub version: u64,
    /// Its custom metadata, where it came with it.
    pub custom: Option<Custom>,
}

/// Sets our field where it differs.
///
/// # Errors
/// As for a put.
pub(super) async fn set(store: &VaultStore, spec: &VaultSpec, text: &str, context: &Context<'_>) -> Result<Put, Failure> {
    let known = store.engines.lock().await.get(&spec.mount).copied();
    let engine = engine_of(store, spec).await?;
    let outcome = set_in(engine, store, spec, text, context).await;
    // The mount may have been made anew, or upgraded, since we asked.
    if let Err(failure) = &outcome
        && known.is_some()
        && matches!(failure.kind, FailureKind::Refused | FailureKind::BadAnswer)
        && self::engine(store, spec).await.is_ok_and(|now| now != engine)
    {
        let what = format_args!("the KV engine at `{}` has another version than before", spec.mount);
        return Err(store.failure(FailureKind::Conflict, what));
    }
    outcome
}

/// What our field holds.
///
/// # Errors
/// As for a put; `Refused` where the field is no text.
pub(super) async fn get(store: &VaultStore, spec: &VaultSpec) -> Result<Option<Zeroizing<String>>, Failure> {
    let engine = engine_of(store, spec).await?;
    let mut secret = read(engine, store, spec).await?;
    match secret.fields.remove(&spec.key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(Zeroizing::new(text))),
        Some(_) => Err(store.failure(FailureKind::Refused, format_args!("`{}` of `{}/{}` is no text", spec.key, spec.mount, spec.path))),
    }
}

/// The failure of a secret that would be larger than Vault stores.
pub(super) fn too_large(store: &VaultStore, spec: &VaultSpec, size: usize) -> Failure {
    let what = format!("`{}/{}` would have {size} bytes, and Vault stores {LARGEST} at most", spec.mount, spec.path);
    store.failure(FailureKind::TooLarge, what)
}

/// What stands at the spec's mount, remembered or asked.
pub(super) async fn engine_of(store: &VaultStore, spec: &VaultSpec) -> Result<Engine, Failure> {
    let known = store.engines.lock().await.get(&spec.mount).copied();
    match known {
        Some(engine) => Ok(engine),
        None => engine(store, spec).await,
    }
}

async fn set_in(engine: Engine, store: &VaultStore, spec: &VaultSpec, text: &str, context: &Context<'_>) -> Result<Put, Failure> {
    let mut secret = read(engine, store, spec).await?;
    let held = secret.fields.get(&spec.key).and_then(Value::as_str);
    if let Some(why) = held.and_then(|held| context.superseded(held)) {
        return Err(store.failure(FailureKind::Superseded, why));
    }
    if engine == Engine::One {
        return write(engine, store, spec, text, secret).await;
    }
    let marks = custom::marks(context);
    let (marked, custom) = self::marked(store, spec, &mut secret, context).await?;
    let wanted = manners::with_marks(&custom, &marks);
    if !marked {
        custom::write(store, spec, &wanted).await?;
    }
    let put = write(engine, store, spec, text, secret).await?;
    if marked && custom != wanted {
        custom::write(store, spec, &wanted).await?;
    }
    custom::retire(store, spec, context).await;
    Ok(put)
}

/// Whether the secret carries our mark, and what else stands in its custom metadata.
///
/// # Errors
/// As for a put; `Refused` where it is there and not ours.
pub(super) async fn marked(
    store: &VaultStore,
    spec: &VaultSpec,
    secret: &mut Secret,
    context: &Context<'_>,
) -> Result<(bool, Custom), Failure> {
    let custom = match secret.custom.take() {
        Some(custom) => custom,
        None => custom::read(store, spec).await?.and_then(|found| found.custom_metadata).unwrap_or_default(),
    };
    let marked = manners::marked(&custom);
    let held = secret.fields.get(&spec.key).and_then(Value::as_str);
    if marked || spec.adopt || secret.fields.is_empty() || held.is_some_and(|held| context.manners.ours.is(held)) {
        Ok((marked, custom))
    } else {
        Err(custom::not_ours(store, spec, context))
    }
}

/// Writes our field among the others, where it differs.
async fn write(engine: Engine, store: &VaultStore, spec: &VaultSpec, text: &str, secret: Secret) -> Result<Put, Failure> {
    let Secret { mut fields, version, .. } = secret;
    if fields.get(&spec.key).and_then(Value::as_str) == Some(text) {
        return Ok(Put::Unchanged);
    }
    fields.insert(spec.key.clone(), Value::String(text.to_owned()));
    let body = match engine {
        Engine::One => serde_json::to_vec(&fields),
        Engine::Two => serde_json::to_vec(&serde_json::json!({"options": {"cas": version}, "data": fields})),
    };
    let body = Zeroizing::new(body.map_err(|_| store.failure(FailureKind::Refused, "the secret cannot be written as JSON"))?);
    if body.len() > LARGEST {
        return Err(too_large(store, spec, body.len()));
    }
    let path = path(engine, spec);
    let answer = store.ask(&Request { method: Method::POST, path: &path, body: Some(body) }).await?;
    match answer.status {
        // An engine of version 1 takes what is meant for version 2, but names no version.
        200 | 204 => match (engine, written(&answer)) {
            (Engine::Two, None) => Err(not_vault(store, &path)),
            (_, version) => confirm(engine, store, spec, text, version).await,
        },
        _ => {
            let right = format!("the login's policy needs `create` and `update` on `{path}`");
            Err(refusal::of_answer(&answer, &format!("cannot write `{path}`"), &right).into_failure(&store.name))
        }
    }
}

pub(super) async fn read(engine: Engine, store: &VaultStore, spec: &VaultSpec) -> Result<Secret, Failure> {
    let path = path(engine, spec);
    let answer = store.ask(&Request { method: Method::GET, path: &path, body: None }).await?;
    let secret = match (answer.status, engine) {
        (200, _) => present(engine, &answer),
        (404, _) if answer.json => absent(engine, &answer),
        _ => None,
    };
    secret.ok_or_else(|| {
        if answer.status == 200 {
            return not_vault(store, &path);
        }
        let right = format!("the login's policy needs `read` on `{path}`, for the secret's other fields are kept");
        refusal::of_answer(&answer, &format!("cannot read `{path}`"), &right).into_failure(&store.name)
    })
}

pub(super) fn path(engine: Engine, spec: &VaultSpec) -> String {
    match engine {
        Engine::One => format!("{}/{}", spec.mount, spec.path),
        Engine::Two => format!("{}/data/{}", spec.mount, spec.path),
    }
}

pub(super) fn not_vault(store: &VaultStore, path: &str) -> Failure {
    let what = format!("the answer for `{path}` is not Vault's: check `address` and what stands between");
    store.failure(FailureKind::BadAnswer, what)
}

#[derive(Deserialize)]
struct Read<T> {
    data: T,
}

#[derive(Deserialize)]
struct Versioned {
    data: Option<Map<String, Value>>,
    metadata: Version,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
    /// Null where there is none, and where an older server does not tell it here.
    #[serde(default)]
    custom_metadata: Option<Custom>,
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(answer: &Answer) -> Option<T> {
    answer.json.then(|| serde_json::from_slice::<Read<T>>(&answer.body).ok()).flatten().map(|read| read.data)
}

/// The version that a write made.
fn written(answer: &Answer) -> Option<u64> {
    parsed::<Version>(answer).map(|made| made.version)
}

/// Reads back what was acknowledged: the value in its version, which only then counts as written.
async fn confirm(engine: Engine, store: &VaultStore, spec: &VaultSpec, text: &str, made: Option<u64>) -> Result<Put, Failure> {
    let Secret { fields, version, .. } = read(engine, store, spec).await?;
    let (mount, path) = (&spec.mount, &spec.path);
    match made {
        _ if fields.get(&spec.key).and_then(Value::as_str) == Some(text) => Ok(Put::Written),
        Some(made) if made == version => {
            let what = format!("version {made} of `{mount}/{path}` was acknowledged, and holds something else");
            Err(store.failure(FailureKind::BadAnswer, what))
        }
        Some(made) => {
            let what = format!("version {made} of `{mount}/{path}` was written, and version {version} is read: somebody else writes there");
            Err(store.failure(FailureKind::Conflict, what))
        }
        None => {
            let what = format!("`{mount}/{path}` was written, and holds something else: somebody else writes there");
            Err(store.failure(FailureKind::Conflict, what))
        }
    }
}

fn present(engine: Engine, answer: &Answer) -> Option<Secret> {
    match engine {
        Engine::One => parsed(answer).map(|fields| Secret { fields, ..Secret::default() }),
        Engine::Two => {
            let Versioned { data, metadata } = parsed(answer)?;
            Some(Secret { fields: data.unwrap_or_default(), version: metadata.version, custom: metadata.custom_metadata })
        }
    }
}

/// A secret that is not there (404 without errors), or whose newest version was deleted (404 with its metadata).
fn absent(engine: Engine, answer: &Answer) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Empty {
        #[serde(default)]
        errors: Vec<String>,
        #[serde(default)]
        warnings: Option<Vec<String>>,
    }
    if engine == Engine::Two
        && let Some(Versioned { metadata, .. }) = parsed(answer)
    {
        return Some(Secret { fields: Map::new(), version: metadata.version, custom: metadata.custom_metadata });
    }
    // A warning comes with the 404 of a path of version 1 on an engine of version 2.
    let Empty { errors, warnings } = serde_json::from_slice(&answer.body).ok()?;
    (errors.is_empty() && warnings.unwrap_or_default().is_empty()).then(Secret::default)
}

/// What stands at a mount, asked of the server and remembered.
async fn engine(store: &VaultStore, spec: &VaultSpec) -> Result<Engine, Failure> {
    #[derive(Deserialize)]
    struct Mount {
        r#type: String,
        path: String,
        options: Option<Options>,
    }
    #[derive(Deserialize)]
    struct Options {
        version: Option<String>,
    }
    let mount = &spec.mount;
    let path = format!("sys/internal/ui/mounts/{mount}");
    let answer = store.ask(&Request { method: Method::GET, path: &path, body: None }).await?;
    if answer.status != 200 {
        let right = format!("there is no engine at the mount `{mount}`, or the login's policy has no right on anything in it");
        return Err(refusal::of_answer(&answer, &format!("cannot look at the mount `{mount}`"), &right).into_failure(&store.name));
    }
    let found: Mount = parsed(&answer).ok_or_else(|| not_vault(store, &path))?;
    if found.path.trim_end_matches('/') != mount {
        let what = format!("the mount is `{}` and not `{mount}`: move the rest to `path`", found.path.trim_end_matches('/'));
        return Err(store.failure(FailureKind::Refused, what));
    }
    let version = found.options.and_then(|options| options.version);
    let engine = match (found.r#type.as_str(), version.as_deref()) {
        ("kv", Some("2")) => Engine::Two,
        ("kv" | "generic", None | Some("" | "1")) => Engine::One,
        _ => {
            return Err(store.failure(FailureKind::Refused, format_args!("the mount `{mount}` is no KV engine of version 1 or 2")));
        }
    };
    store.engines.lock().await.insert(mount.clone(), engine);
    Ok(engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, json: true, retry_after: None, body: Zeroizing::new(body.into()) }
    }

    #[test]
    fn a_secret_of_version_two_has_its_fields_and_the_version_to_check_against() {
        let found = present(Engine::Two, &answer(200, r#"{"data":{"data":{"a":"b","n":1},"metadata":{"version":7}}}"#)).unwrap();
        assert_eq!((found.fields.len(), found.version), (2, 7));
    }

    #[test]
    fn a_deleted_version_is_written_over_with_its_number_and_a_new_secret_with_nought() {
        let deleted = r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"2026-01-01T00:00:00Z"}}}"#;
        let found = absent(Engine::Two, &answer(404, deleted)).unwrap();
        assert_eq!((found.fields.len(), found.version), (0, 3));
        assert_eq!(absent(Engine::Two, &answer(404, r#"{"errors":[]}"#)).unwrap().version, 0);
    }

    #[test]
    fn a_missing_mount_is_not_taken_for_a_missing_secret() {
        assert!(absent(Engine::Two, &answer(404, r#"{"errors":["no handler for route"]}"#)).is_none());
        assert!(absent(Engine::One, &answer(404, r#"{"warnings":["Invalid path for a versioned K/V secrets engine"]}"#)).is_none());
        assert!(absent(Engine::One, &answer(404, "<html>")).is_none());
    }

    #[test]
    fn an_answer_of_another_shape_is_nobodys_secret() {
        for body in ["", "<html>", "{}", r#"{"data":[]}"#, r#"{"data":{"data":{}}}"#] {
            assert!(present(Engine::Two, &answer(200, body)).is_none(), "{body}");
        }
        let mut html = answer(200, r#"{"data":{"a":"b"}}"#);
        html.json = false;
        assert!(present(Engine::One, &html).is_none());
    }
}
