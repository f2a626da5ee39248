//! What every sink has to do, whatever it writes to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokenferry::sink::command::CommandSpec;
use tokenferry::sink::file::FileSpec;
use tokenferry::sink::file::directory::DirectorySpec;
use tokenferry::sink::{Context, Failure, FailureKind, Manners, Put, SinkSpec, StoreSpec, Stores, put};
use tokenferry::token::payload::{Dress, Part};
use tokenferry::token::render::FilePart;
use tokenferry::token::{Format, Payload};

use super::{aws, azure, bao, gcp, http, parameter, secret};
use crate::support::servers::servers;
use crate::support::within;

/// A place of one sink, and a way to it that goes round the sink.
pub struct Place {
    pub spec: SinkSpec,
    pub stores: Stores,
    /// Bytes that the place may hold, where there is a limit.
    pub limit: Option<usize>,
    pub outside: Outside,
}

/// How a test looks at a place and spoils it.
pub enum Outside {
    File { folder: tempfile::TempDir },
    Bao(bao::Root),
    Aws(Box<aws_sdk_secretsmanager::Client>),
    Kube,
    Other(Box<dyn Elsewhere>),
}

/// A way to a place that goes round its sink, where all that is known of it stands beside the sink's own tests.
pub trait Elsewhere: Send + Sync {
    /// What stands there.
    fn look(&self) -> BoxFuture<'_, Option<String>>;
    /// Somebody else writes there.
    fn spoil<'a>(&'a self, text: &'a str) -> BoxFuture<'a, ()>;
    /// Whether it knows who wrote what, so that nobody's write is taken from him.
    fn is_guarded(&self) -> bool {
        false
    }
    /// Gives the name free again where the store keeps it for a while after a removal.
    fn forget(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    /// The same for places that know whose they are.
    fn marks(&self) -> Option<&dyn Marks> {
        None
    }
}

/// A way to what a place knows beside the token.
pub trait Marks: Send + Sync {
    /// Somebody else makes what stands there.
    fn make<'a>(&'a self, value: &'a str) -> BoxFuture<'a, ()>;
    /// What is said beside the token.
    fn said(&self) -> BoxFuture<'_, BTreeMap<String, String>>;
    /// Sets `tokenferry/expires-at` back to 2020, and says `team: b`.
    fn spoil(&self) -> BoxFuture<'_, ()>;
    /// The same place, taken over.
    fn adopting(&self) -> SinkSpec;
    /// `payments <team>` as the place can say it.
    fn owner(&self) -> &'static str;
}

impl Place {
    /// What stands there, as somebody else sees it.
    pub async fn look(&self) -> Option<String> {
        match (&self.outside, &self.spec) {
            (Outside::File { .. }, SinkSpec::File(spec)) => std::fs::read_to_string(&spec.path).ok(),
            (Outside::File { .. }, SinkSpec::Directory(spec)) => std::fs::read_to_string(spec.token().unwrap()).ok(),
            (Outside::File { folder }, SinkSpec::Command(_)) => std::fs::read_to_string(folder.path().join("taken")).ok(),
            (Outside::Bao(root), SinkSpec::Vault(spec)) => root.fields(spec).await.get(&spec.key)?.as_str().map(Into::into),
            (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => aws::look(client, spec).await,
            (Outside::Kube, SinkSpec::KubernetesSecret(spec)) => secret::value(&secret::look(&spec.name), &spec.key),
            (Outside::Other(other), _) => other.look().await,
            _ => panic!("the place is of another kind"),
        }
    }

    /// Somebody else writes there.
    pub async fn spoil(&self, text: &str) {
        match (&self.outside, &self.spec) {
            (Outside::File { .. }, SinkSpec::File(spec)) => std::fs::write(&spec.path, text).unwrap(),
            (Outside::File { .. }, SinkSpec::Directory(spec)) => std::fs::write(spec.token().unwrap(), text).unwrap(),
            (Outside::File { folder }, SinkSpec::Command(_)) => std::fs::write(folder.path().join("taken"), text).unwrap(),
            (Outside::Bao(root), SinkSpec::Vault(spec)) => {
                let mut fields = root.fields(spec).await;
                fields.insert(spec.key.clone(), text.into());
                root.set_fields(spec, fields).await;
            }
            (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => aws::spoil(client, spec, text).await,
            (Outside::Kube, SinkSpec::KubernetesSecret(spec)) => secret::spoil(&spec.name, &spec.key, text),
            (Outside::Other(other), _) => other.spoil(text).await,
            _ => panic!("the place is of another kind"),
        }
    }

    /// Whether the place knows who wrote what, so that nobody's write is taken from him.
    fn is_guarded(&self) -> bool {
        matches!(&self.outside, Outside::Kube) || matches!(&self.outside, Outside::Other(other) if other.is_guarded())
    }

    /// Gives its name free again after a removal.
    pub async fn forget(&self) {
        if let Outside::Other(other) = &self.outside {
            other.forget().await;
        }
    }

    /// What the place knows beside the token, where that is told beside its own tests.
    pub fn marks(&self) -> Option<&dyn Marks> {
        if let Outside::Other(other) = &self.outside { other.marks() } else { None }
    }

    pub async fn put(&self, text: &str) -> Result<Put, Failure> {
        attempt(&self.spec, &self.stores, text, text).await
    }
}

/// One put of a text under an issue.
pub async fn attempt(spec: &SinkSpec, stores: &Stores, text: &str, issue: &str) -> Result<Put, Failure> {
    attempt_as(spec, stores, text, issue, Manners::default()).await
}

/// The same with those manners.
pub async fn attempt_as(spec: &SinkSpec, stores: &Stores, text: &str, issue: &str, manners: Manners<'_>) -> Result<Put, Failure> {
    let (target, expires_at, timeout) = ("ci", 2_000_000_000, Duration::from_secs(20));
    let context = Context { target, issue, issued_at: 0, generation: 1, expires_at, timeout, manners };
    let payload = match spec {
        SinkSpec::Directory(_) => Payload::of(vec![Part::new("token", text.into())], Dress::default()),
        _ => Payload::new(text.into()),
    };
    put(spec, &payload, context, stores).await
}

/// Stores of one entry, as a schedule would have it.
pub fn stores(name: &str, spec: StoreSpec) -> Stores {
    Stores::new(&BTreeMap::from([(name.to_owned(), Arc::new(spec))]), None)
}

/// A name that no other test uses.
pub fn fresh(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A token that was issued then, and that nobody signed.
pub fn unsigned(issued_at: i64) -> String {
    use base64::Engine;
    let part = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"iss":"https://cluster.test","iat":{issued_at},"exp":{}}}"#, issued_at + 60);
    format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#.into()), part(claims), part("signature".into()))
}

/// Tells tokens that were issued after that.
pub fn newer_than(issued_at: i64) -> impl Fn(&Payload) -> bool + Sync {
    move |found| {
        let claims = std::str::from_utf8(found.expose()).ok().and_then(|text| tokenferry::token::Claims::of(text).ok());
        claims.and_then(|claims| claims.iat).is_some_and(|issued| issued > issued_at)
    }
}

/// A put of [`unsigned`] at such a time, by who takes every token that stands there for the target's own.
pub async fn put_issued(spec: &SinkSpec, stores: &Stores, issued_at: i64) -> Result<Put, Failure> {
    let ours = |found: &Payload| found.expose().starts_with(b"ey");
    let newer = newer_than(issued_at);
    let manners = Manners { ours: tokenferry::sink::Ours(&ours), newer: tokenferry::sink::Ours(&newer), ..Manners::default() };
    let timeout = Duration::from_secs(20);
    let context = Context { target: "ci", issue: "1", issued_at, expires_at: issued_at + 60, generation: 1, timeout, manners };
    put(spec, &Payload::new(unsigned(issued_at).into_bytes()), context, stores).await
}

async fn file() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let spec =
        SinkSpec::File(FileSpec { path, mode: tokenferry::sink::file::Mode::default(), owner: None, group: None, readers: Vec::new() });
    Place { spec, stores: Stores::default(), limit: None, outside: Outside::File { folder } }
}

async fn directory() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let files_as = FileSpec {
        path: folder.path().join("mounted"),
        mode: tokenferry::sink::file::Mode::default(),
        owner: None,
        group: None,
        readers: Vec::new(),
    };
    let files = BTreeMap::from([("token".to_owned(), FilePart::Token(Format::Raw))]);
    let spec = SinkSpec::Directory(DirectorySpec { files_as, files }.into());
    Place { spec, stores: Stores::default(), limit: None, outside: Outside::File { folder } }
}

/// A program that sets something, whole, as programs of this kind should.
async fn command() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let script = "cat > \"$1/taken.$$\" && mv \"$1/taken.$$\" \"$1/taken\"".to_owned();
    let command = vec!["/bin/sh".into(), "-c".into(), script, "put".into(), folder.path().display().to_string()];
    let spec = SinkSpec::Command(CommandSpec { command, timeout: Duration::from_secs(20) }.into());
    Place { spec, stores: Stores::default(), limit: None, outside: Outside::File { folder } }
}

/// One row for each sink: a new kind of sink adds its row here.
pub async fn places() -> Vec<(&'static str, Place)> {
    tokio::task::spawn_blocking(servers).await.unwrap();
    vec![
        ("file", file().await),
        ("directory", directory().await),
        ("command", command().await),
        ("vault, KV version 2", bao::place("secret").await),
        ("vault, KV version 1", bao::place("one").await),
        ("awsSecretsManager, whole secret", aws::place(None).await),
        ("awsSecretsManager, one key", aws::place(Some("token")).await),
        ("kubernetesSecret", secret::place().await),
        ("awsParameterStore", parameter::place().await),
        ("gcpSecretManager", gcp::place().await),
        ("azureKeyVault", azure::place().await),
        ("http", http::place().await),
    ]
}

#[tokio::test]
async fn what_is_put_is_read_back_the_same_and_again_is_unchanged() {
    within(async {
        for (sink, place) in places().await {
            assert_eq!(place.look().await, None, "{sink}");
            assert_eq!(place.put("ey.first.one").await, Ok(Put::Written), "{sink}");
            assert_eq!(place.look().await.as_deref(), Some("ey.first.one"), "{sink}");
            let again = if place.spec.is_readable() { Put::Unchanged } else { Put::Written };
            assert_eq!(place.put("ey.first.one").await, Ok(again), "{sink}");
            assert_eq!(place.put("ey.second.one").await, Ok(Put::Written), "{sink}");
            assert_eq!(place.look().await.as_deref(), Some("ey.second.one"), "{sink}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_somebody_else_wrote_is_written_over_with_the_very_token_that_stood_there_or_refused_by_a_guarded_place() {
    within(async {
        for (sink, place) in places().await {
            place.put("ey.ours").await.unwrap();
            for _ in 0..2 {
                place.spoil("theirs").await;
                if place.is_guarded() {
                    assert!(place.put("ey.ours").await.is_err_and(|e| e.kind == FailureKind::Refused), "{sink}");
                    assert_eq!(place.look().await.as_deref(), Some("theirs"), "{sink}");
                    continue;
                }
                assert_eq!(place.put("ey.ours").await, Ok(Put::Written), "{sink}");
                assert_eq!(place.look().await.as_deref(), Some("ey.ours"), "{sink}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_newer_token_that_stands_at_a_store_is_not_replaced_by_an_older_one() {
    within(async {
        for (sink, place) in places().await {
            if !place.spec.is_readable() || matches!(place.spec, SinkSpec::File(_) | SinkSpec::Directory(_)) {
                continue;
            }
            let newer = |found: &Payload| found.parts().iter().any(|part| part.expose().windows(8).any(|text| text == b"ey.newer"));
            let manners = Manners { newer: tokenferry::sink::Ours(&newer), ..Manners::default() };
            let put = async |text: &str| attempt_as(&place.spec, &place.stores, text, text, manners).await;
            assert_eq!(put("ey.old").await, Ok(Put::Written), "{sink}");
            assert_eq!(put("ey.newer").await, Ok(Put::Written), "{sink}: what is older gives way");
            let failure = put("ey.older").await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Superseded, "{sink}: {failure}");
            assert_eq!(place.look().await.as_deref(), Some("ey.newer"), "{sink}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_the_place_cannot_hold_is_too_large_and_leaves_what_stands_there() {
    within(async {
        for (sink, place) in places().await {
            let Some(limit) = place.limit else { continue };
            place.put("ey.small").await.unwrap();
            let failure = place.put(&"x".repeat(limit + 1)).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::TooLarge, "{sink}: {failure}");
            assert_eq!(place.look().await.as_deref(), Some("ey.small"), "{sink}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_writers_at_once_each_has_written_or_is_told_to_try_again_and_the_place_is_whole() {
    within(async {
        for (sink, place) in places().await {
            place.put("ey.before").await.unwrap();
            let texts: Vec<String> = (0..8).map(|n| format!("ey.{n}.{}", "x".repeat(2_000))).collect();
            let puts = texts.iter().map(|text| place.put(text));
            let outcomes = futures_util::future::join_all(puts).await;
            let won = |outcome: &Result<Put, Failure>| outcome.is_ok();
            for outcome in &outcomes {
                assert!(won(outcome) || outcome.as_ref().is_err_and(|e| e.kind.retry_soon()), "{sink}: {outcome:?}");
            }
            let held = place.look().await.unwrap();
            let winner = texts.iter().position(|text| *text == held).unwrap_or_else(|| panic!("{sink}: not whole: {held}"));
            assert!(won(&outcomes[winner]), "{sink}: what stands there was written by a put that says it failed");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_and_works_again_when_it_is_back() {
    within(async {
        for part in ["bao", "moto"] {
            let own = tokio::task::spawn_blocking(move || crate::support::servers::Servers::start(&format!("outage-{part}"), &[part]))
                .await
                .unwrap();
            let own = Arc::new(own);
            let place = if part == "bao" { bao::place_at(own.bao(), "secret").await } else { aws::place_at(own.moto(), None).await };
            assert_eq!(place.put("ey.before").await, Ok(Put::Written), "{part}");
            let server = own.clone();
            tokio::task::spawn_blocking(move || server.kill(part)).await.unwrap();
            let failure = place.put("ey.during").await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Unavailable, "{part}: {failure}");
            assert!(failure.message.contains("refused"), "{part}: {failure}");
            let server = own.clone();
            tokio::task::spawn_blocking(move || server.restart(part)).await.unwrap();
            assert_eq!(place.put("ey.after").await, Ok(Put::Written), "{part}");
            assert_eq!(place.look().await.as_deref(), Some("ey.after"), "{part}");
        }
    })
    .await;
}
