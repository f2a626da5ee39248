//! The manners of every sink that keeps more than the payload: whose a place is, what is said beside the token, which
//! versions stay, and how all of it is taken back. One row for each; against their real servers.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokenferry::sink::{self, Context, Failure, FailureKind, Leftover, Manners, Ours, Put, Removal, SinkSpec, WhenPaid, put};
use tokenferry::token::payload::{Dress, Part};
use tokenferry::token::{Format, Payload};

use super::conformance::{Outside, Place, attempt, attempt_as, places};
use super::secret;
use crate::support::servers::cluster;
use crate::support::within;

const OWNED: &str = "payments <team>";

/// Manners under which `ey.ours…` is a token of the target.
fn ours(found: &Payload) -> bool {
    found.parts().iter().all(|part| part.expose().starts_with(b"ey.ours"))
}

fn manners(overlap: u64) -> Manners<'static> {
    Manners { owner: Some(OWNED), overlap: Duration::from_secs(overlap), ours: Ours(&ours), ..Manners::default() }
}

/// A row for each place that knows whose it is.
async fn guarded() -> Vec<(&'static str, Place)> {
    let known = |spec: &SinkSpec| match spec {
        SinkSpec::Vault(spec) => spec.mount != "one",
        SinkSpec::AwsSecretsManager(_) | SinkSpec::KubernetesSecret(_) => true,
        _ => false,
    };
    let mut rows = places().await;
    rows.retain(|(_, place)| known(&place.spec) || place.marks().is_some());
    assert!(rows.len() >= 4, "a row went missing");
    rows
}

/// Somebody else makes what stands at the place, with a field of his own beside ours where there is room for one.
async fn make(place: &Place, value: &str) {
    if let Some(marks) = place.marks() {
        return marks.make(value).await;
    }
    match (&place.outside, &place.spec) {
        (Outside::Bao(root), SinkSpec::Vault(spec)) => {
            let fields = json!({"user": "ci", &spec.key: value});
            root.set_fields(spec, fields.as_object().unwrap().clone()).await;
        }
        (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => {
            let text = spec.key.as_ref().map_or_else(|| value.to_owned(), |key| json!({"user": "ci", key: value}).to_string());
            client.create_secret().name(&spec.secret_id).secret_string(text).send().await.unwrap();
        }
        (Outside::Kube, SinkSpec::KubernetesSecret(spec)) => {
            let literal = format!("--from-literal={}={value}", spec.key);
            cluster().kubectl(&["-n", "secrets", "create", "secret", "generic", &spec.name, "--from-literal=user=ci", &literal]);
        }
        _ => panic!("the place is of another kind"),
    }
}

/// Whether the token has the place alone.
fn is_whole(place: &Place) -> bool {
    place.marks().is_some() || matches!(&place.spec, SinkSpec::AwsSecretsManager(spec) if spec.key.is_none())
}

/// The field beside ours.
async fn neighbour(place: &Place) -> Option<String> {
    match (&place.outside, &place.spec) {
        (Outside::Bao(root), SinkSpec::Vault(spec)) => Some(root.fields(spec).await.get("user")?.as_str()?.to_owned()),
        (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => {
            let text = client.get_secret_value().secret_id(&spec.secret_id).send().await.ok()?.secret_string?;
            Some(serde_json::from_str::<Value>(&text).ok()?["user"].as_str()?.to_owned())
        }
        (Outside::Kube, SinkSpec::KubernetesSecret(spec)) => secret::value(&secret::look(&spec.name), "user"),
        _ => None,
    }
}

/// What is said beside the token.
async fn said(place: &Place) -> BTreeMap<String, String> {
    let texts = |value: &Value| {
        let pairs = value.as_object().into_iter().flatten();
        pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect::<BTreeMap<_, _>>()
    };
    if let Some(marks) = place.marks() {
        return marks.said().await;
    }
    match (&place.outside, &place.spec) {
        (Outside::Bao(root), SinkSpec::Vault(spec)) => {
            let path = format!("{}/metadata/{}", spec.mount, spec.path);
            texts(&root.call(Method::GET, &path, Value::Null).await.1["data"]["custom_metadata"])
        }
        (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => {
            let found = client.describe_secret().secret_id(&spec.secret_id).send().await.unwrap();
            found.tags().iter().map(|tag| (tag.key().unwrap().to_owned(), tag.value().unwrap().to_owned())).collect()
        }
        (Outside::Kube, SinkSpec::KubernetesSecret(spec)) => texts(&secret::look(&spec.name)["metadata"]["annotations"]),
        _ => panic!("the place is of another kind"),
    }
}

fn adopting(place: &Place) -> SinkSpec {
    if let Some(marks) = place.marks() {
        return marks.adopting();
    }
    let mut spec = place.spec.clone();
    match &mut spec {
        SinkSpec::Vault(spec) => spec.adopt = true,
        SinkSpec::AwsSecretsManager(spec) => spec.adopt = true,
        SinkSpec::KubernetesSecret(spec) => spec.adopt = true,
        _ => panic!("the place is of another kind"),
    }
    spec
}

#[tokio::test]
async fn what_somebody_else_made_is_not_overwritten_until_the_schedule_says_adopt() {
    within(async {
        for (sink, place) in guarded().await {
            make(&place, "theirs").await;
            let failure = attempt_as(&place.spec, &place.stores, "ey.ours", "1", manners(600)).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused, "{sink}: {failure}");
            for word in ["not ours", "adopt: true", place.spec.place().rsplit('/').next().unwrap()] {
                assert!(failure.message.contains(word), "{sink}: {word}: {failure}");
            }
            assert!(!failure.message.contains("theirs"), "{sink}: {failure}");
            assert_eq!(place.look().await.as_deref(), Some("theirs"), "{sink}");
            let adopted = adopting(&place);
            assert_eq!(attempt(&adopted, &place.stores, "ey.ours", "1").await, Ok(Put::Written), "{sink}");
            // From now on it is ours, and need not be told again.
            assert_eq!(place.put("ey.next").await, Ok(Put::Written), "{sink}");
            assert_eq!(place.look().await.as_deref(), Some("ey.next"), "{sink}");
            let whole = is_whole(&place);
            assert_eq!(neighbour(&place).await.as_deref(), (!whole).then_some("ci"), "{sink}: what others keep there stays");
        }
    })
    .await;
}

#[tokio::test]
async fn a_place_that_holds_a_token_of_the_target_is_ours_and_gets_its_mark() {
    within(async {
        for (sink, place) in guarded().await {
            // Kubernetes has the mark in the same write as the token.
            if matches!(place.spec, SinkSpec::KubernetesSecret(_)) {
                continue;
            }
            make(&place, "ey.ours.before").await;
            assert_eq!(attempt_as(&place.spec, &place.stores, "ey.ours.now", "1", manners(600)).await, Ok(Put::Written), "{sink}");
            assert_eq!(said(&place).await.get("managed-by").map(String::as_str), Some("tokenferry"), "{sink}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_said_beside_the_token_names_target_owner_and_end_and_is_mended_after_a_crash_in_between() {
    within(async {
        for (sink, place) in guarded().await {
            assert_eq!(attempt_as(&place.spec, &place.stores, "ey.ours", "1", manners(600)).await, Ok(Put::Written), "{sink}");
            let found = said(&place).await;
            let owner = match place.marks() {
                Some(marks) => marks.owner(),
                None if matches!(place.spec, SinkSpec::AwsSecretsManager(_)) => "payments _team_",
                None => OWNED,
            };
            for (key, value) in [("target", "ci"), ("owner", owner), ("expires-at", "2033-05-18T03:33:20Z")] {
                assert_eq!(found.get(&format!("tokenferry/{key}")).map(String::as_str), Some(value), "{sink}: {found:?}");
            }
            assert!(found.values().all(|value| !value.contains("ey.")), "{sink}: {found:?}");
            // As if we had been killed between the token and what is said of it; somebody else has said something too.
            spoil_marks(&place).await;
            attempt_as(&place.spec, &place.stores, "ey.ours", "1", manners(600)).await.unwrap();
            let mended = said(&place).await;
            assert_eq!(mended["tokenferry/expires-at"], "2033-05-18T03:33:20Z", "{sink}: {mended:?}");
            assert_eq!(mended.get("team").map(String::as_str), Some("b"), "{sink}: {mended:?}");
        }
    })
    .await;
}

async fn spoil_marks(place: &Place) {
    if let Some(marks) = place.marks() {
        return marks.spoil().await;
    }
    match (&place.outside, &place.spec) {
        (Outside::Bao(root), SinkSpec::Vault(spec)) => {
            let marks = json!({"managed-by": "tokenferry", "tokenferry/expires-at": "2020-01-01T00:00:00Z", "team": "b"});
            root.done(Method::POST, &format!("{}/metadata/{}", spec.mount, spec.path), json!({"custom_metadata": marks})).await;
        }
        (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => {
            let tag = |key: &str, value: &str| aws_sdk_secretsmanager::types::Tag::builder().key(key).value(value).build();
            let tags = [tag("tokenferry/expires-at", "2020-01-01T00:00:00Z"), tag("team", "b")];
            client.tag_resource().secret_id(&spec.secret_id).set_tags(Some(tags.into())).send().await.unwrap();
        }
        (Outside::Kube, SinkSpec::KubernetesSecret(spec)) => {
            // Nobody but us may set ours; what others say beside it stays.
            cluster().kubectl(&["-n", "secrets", "annotate", "secret", &spec.name, "team=b"]);
        }
        _ => panic!("the place is of another kind"),
    }
}

async fn put_at(place: &Place, spec: &SinkSpec, text: &str, issued_at: i64, overlap: u64) -> Result<Put, Failure> {
    let context = Context {
        target: "ci",
        issue: text,
        issued_at,
        generation: 1,
        expires_at: 2_000_000_000,
        timeout: Duration::from_secs(20),
        manners: manners(overlap),
    };
    put(spec, &Payload::new(text.into()), context, &place.stores).await
}

/// The versions of a secret in Vault that can still be read, oldest first.
async fn live(place: &Place) -> Vec<u64> {
    let (Outside::Bao(root), SinkSpec::Vault(spec)) = (&place.outside, &place.spec) else { panic!("a place in Vault") };
    let metadata = root.done(Method::GET, &format!("{}/metadata/{}", spec.mount, spec.path), Value::Null).await;
    let versions = metadata["data"]["versions"].as_object().unwrap().clone();
    let mut live: Vec<u64> = versions.iter().filter(|(_, v)| v["destroyed"] == false).map(|(n, _)| n.parse().unwrap()).collect();
    live.sort_unstable();
    live
}

#[tokio::test]
async fn old_versions_in_vault_are_destroyed_once_the_overlap_has_passed_and_not_before() {
    within(async {
        let place = super::bao::place("secret").await;
        let SinkSpec::Vault(spec) = &place.spec else { panic!("a place in Vault") };
        let keeping = SinkSpec::Vault(tokenferry::sink::vault::VaultSpec { keep_versions: Some(2), ..(**spec).clone() }.into());
        for n in 0..4 {
            put_at(&place, &keeping, &format!("ey.ours.{n}"), n, 600).await.unwrap();
        }
        assert_eq!(live(&place).await, [1, 2, 3, 4], "each was in use a moment ago");
        put_at(&place, &keeping, "ey.ours.4", 4, 0).await.unwrap();
        assert_eq!(live(&place).await, [4, 5]);
        // Without the key nothing is retired.
        for n in 5..8 {
            put_at(&place, &place.spec, &format!("ey.ours.{n}"), n, 0).await.unwrap();
        }
        assert_eq!(live(&place).await, [4, 5, 6, 7, 8]);
    })
    .await;
}

#[tokio::test]
async fn labels_of_ours_keep_versions_in_aws_and_are_taken_off_once_the_overlap_has_passed() {
    within(async {
        let place = super::aws::place(None).await;
        let (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) = (&place.outside, &place.spec) else { panic!("a place in AWS") };
        let keeping = SinkSpec::AwsSecretsManager(tokenferry::sink::aws::AwsSpec { keep_versions: Some(2), ..(**spec).clone() }.into());
        let labels = async || {
            let found = client.describe_secret().secret_id(&spec.secret_id).send().await.unwrap();
            let stages = found.version_ids_to_stages().unwrap().values().flatten();
            let mut labels: Vec<String> = stages.filter_map(|stage| stage.strip_prefix("TOKENFERRY_").map(str::to_owned)).collect();
            labels.sort();
            labels
        };
        for n in [1000, 1100, 1200, 1300] {
            put_at(&place, &keeping, &format!("ey.ours.{n}"), n, 600).await.unwrap();
        }
        assert_eq!(labels().await, ["1000", "1100", "1200", "1300"], "each was in use within the overlap");
        put_at(&place, &keeping, "ey.ours.1800", 1800, 600).await.unwrap();
        assert_eq!(labels().await, ["1200", "1300", "1800"], "1200 was replaced 500 s ago");
        assert_eq!(place.look().await.as_deref(), Some("ey.ours.1800"));
    })
    .await;
}

fn leftover(spec: &SinkSpec) -> Option<Leftover> {
    let place = sink::Place {
        sink: spec.clone(),
        format: Format::Raw,
        encrypt_to: Vec::new(),
        required: true,
        fallback: Vec::new(),
        when_paid: WhenPaid::default(),
    };
    Leftover::of(&place)
}

/// As the records keep it.
fn kept(leftover: &Leftover) -> Leftover {
    serde_json::from_str(&serde_json::to_string(leftover).unwrap()).unwrap()
}

#[tokio::test]
async fn what_is_ours_is_taken_back_from_every_place_what_is_not_stays_and_the_place_can_be_used_again() {
    within(async {
        for (sink, place) in places().await {
            let Some(leftover) = leftover(&place.spec) else {
                assert!(["command", "http"].contains(&place.spec.kind()), "{sink}: only what a program or a server has is beyond reach");
                continue;
            };
            assert_eq!(leftover.sink().unwrap().place(), place.spec.place(), "{sink}");
            let remove = async || kept(&leftover).remove(Ours(&ours), &place.stores, Duration::from_secs(20)).await;
            assert_eq!(remove().await, Ok(Removal::Nothing), "{sink}");
            assert_eq!(place.put("ey.ours").await, Ok(Put::Written), "{sink}");
            assert_eq!(remove().await, Ok(Removal::Gone), "{sink}");
            assert_eq!(place.look().await, None, "{sink}");
            assert_eq!(remove().await, Ok(Removal::Nothing), "{sink}");
            place.forget().await;
            assert_eq!(place.put("ey.ours.again").await, Ok(Put::Written), "{sink}");
            place.spoil("theirs").await;
            assert_eq!(remove().await, Ok(Removal::Left), "{sink}");
            assert_eq!(place.look().await.as_deref(), Some("theirs"), "{sink}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_field_goes_alone_where_others_stand_beside_it_and_our_marks_with_it() {
    within(async {
        for (sink, place) in guarded().await {
            if is_whole(&place) {
                continue;
            }
            make(&place, "theirs").await;
            assert_eq!(attempt(&adopting(&place), &place.stores, "ey.ours", "1").await, Ok(Put::Written), "{sink}");
            let removed = leftover(&place.spec).unwrap().remove(Ours(&ours), &place.stores, Duration::from_secs(20)).await;
            assert_eq!(removed, Ok(Removal::Gone), "{sink}");
            assert_eq!((place.look().await, neighbour(&place).await.as_deref()), (None, Some("ci")), "{sink}");
            let left = said(&place).await;
            assert!(!left.keys().any(|key| key == "managed-by" || key.starts_with("tokenferry/")), "{sink}: {left:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_directory_whose_removal_was_cut_short_is_cleared_by_the_next_and_what_others_put_there_stays() {
    within(async {
        let rows = places().await;
        let (_, place) = rows.iter().find(|(sink, _)| *sink == "directory").unwrap();
        let SinkSpec::Directory(spec) = &place.spec else { panic!("a directory") };
        let folder = spec.files_as.path.clone();
        let remove = async || leftover(&place.spec).unwrap().remove(Ours(&ours), &place.stores, Duration::from_secs(20)).await;
        place.put("ey.ours").await.unwrap();
        std::fs::remove_file(folder.join("..data")).unwrap();
        assert_eq!(remove().await, Ok(Removal::Gone), "the generations are there still");
        assert!(!folder.exists());
        place.put("ey.ours").await.unwrap();
        std::fs::write(folder.join("theirs"), "x").unwrap();
        assert_eq!(remove().await, Ok(Removal::Gone));
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["theirs"]);
        let payload = Payload::of(vec![Part::new("token", b"ey.ours".to_vec())], Dress::default());
        assert!(ours(&payload));
    })
    .await;
}
