//! `awsSecretsManager` against moto.

use std::sync::Once;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::{BehaviorVersion, Credentials, Region};
use tokenferry::sink::aws::{AwsSpec, AwsStoreSpec, held};
use tokenferry::sink::{FailureKind, Put, SinkSpec, StoreSpec};

use super::conformance::{Outside, Place, attempt, fresh, stores};
use crate::support::servers::{Moto, servers};
use crate::support::within;

/// A place in the shared moto.
pub async fn place(key: Option<&str>) -> Place {
    place_at(tokio::task::spawn_blocking(|| servers().moto()).await.unwrap(), key).await
}

/// A place in the moto given.
pub async fn place_at(moto: &Moto, key: Option<&str>) -> Place {
    let spec = AwsSpec { store: "aws".into(), secret_id: fresh("ci/deployer"), key: key.map(Into::into), ..AwsSpec::default() };
    let outside = Outside::Aws(Box::new(client(&moto.endpoint)));
    Place { spec: SinkSpec::AwsSecretsManager(spec.into()), stores: stores("aws", store(&moto.endpoint)), limit: Some(65_536), outside }
}

/// A store at an endpoint, with the credentials of the environment.
pub fn store(endpoint: &str) -> StoreSpec {
    static CREDENTIALS: Once = Once::new();
    CREDENTIALS.call_once(|| {
        // SAFETY: Rust reads the environment under the lock that set_var takes; nothing that these tests
        // run reads it through C.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("AWS_ACCESS_KEY_ID", "AKIATEST");
            std::env::set_var("AWS_SECRET_ACCESS_KEY", "test");
        }
    });
    let aws = AwsStoreSpec { region: Some("eu-central-1".into()), endpoint: Some(endpoint.into()), ..AwsStoreSpec::default() };
    StoreSpec { aws_secrets_manager: Some(aws), ..StoreSpec::default() }
}

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_secretsmanager::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("eu-central-1"))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("AKIAOTHER", "test", None, None, "test"));
    Client::from_conf(config.build())
}

/// What stands at the place.
pub async fn look(client: &Client, spec: &AwsSpec) -> Option<String> {
    let text = client.get_secret_value().secret_id(&spec.secret_id).send().await.ok()?.secret_string?;
    match &spec.key {
        None => Some(text),
        Some(key) => {
            let fields: serde_json::Value = serde_json::from_str(&text).unwrap();
            fields.get(key).map(|field| field.as_str().unwrap().to_owned())
        }
    }
}

/// Somebody else writes there.
pub async fn spoil(client: &Client, spec: &AwsSpec, text: &str) {
    let text = match &spec.key {
        None => text.to_owned(),
        Some(key) => serde_json::json!({key: text}).to_string(),
    };
    client.put_secret_value().secret_id(&spec.secret_id).secret_string(text).send().await.unwrap();
}

fn parts(place: &Place) -> (&Client, &AwsSpec) {
    match (&place.outside, &place.spec) {
        (Outside::Aws(client), SinkSpec::AwsSecretsManager(spec)) => (client, spec),
        _ => panic!("a place in AWS"),
    }
}

#[tokio::test]
async fn the_other_fields_of_a_json_secret_stay_and_a_secret_of_another_shape_is_refused() {
    within(async {
        let place = place(Some("token")).await;
        let (client, spec) = parts(&place);
        client.create_secret().name(&spec.secret_id).secret_string(r#"{"user":"ci","list":[1,2]}"#).send().await.unwrap();
        let adopted = SinkSpec::AwsSecretsManager(AwsSpec { adopt: true, ..spec.clone() }.into());
        assert_eq!(attempt(&adopted, &place.stores, "ey.one", "1").await, Ok(Put::Written));
        let text = client.get_secret_value().secret_id(&spec.secret_id).send().await.unwrap().secret_string.unwrap();
        let fields: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(fields, serde_json::json!({"user": "ci", "list": [1, 2], "token": "ey.one"}));
        client.put_secret_value().secret_id(&spec.secret_id).secret_string("hunter2").send().await.unwrap();
        let failure = place.put("ey.two").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("leave out `key`") && !failure.message.contains("hunter2"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_secret_gets_no_new_version_and_each_write_gets_one() {
    within(async {
        let place = place(None).await;
        let (client, spec) = parts(&place);
        for text in ["a", "a", "b", "b", "a"] {
            place.put(text).await.unwrap();
        }
        let versions = client.list_secret_version_ids().secret_id(&spec.secret_id).include_deprecated(true).send().await.unwrap();
        assert_eq!(versions.versions().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_is_scheduled_for_deletion_is_refused_with_the_way_back() {
    within(async {
        let place = place(None).await;
        let (client, spec) = parts(&place);
        place.put("ey.one").await.unwrap();
        client.delete_secret().secret_id(&spec.secret_id).send().await.unwrap();
        let failure = place.put("ey.two").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("restore-secret"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_missing_secret_named_by_its_arn_is_refused_for_it_cannot_be_created() {
    within(async {
        let place = place(None).await;
        let arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:nowhere-AbCdEf";
        let spec = SinkSpec::AwsSecretsManager(AwsSpec { secret_id: arn.into(), ..parts(&place).1.clone() }.into());
        let failure = attempt(&spec, &place.stores, "ey.one", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("by its ARN"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn what_the_place_holds_can_be_read_back() {
    within(async {
        for key in [None, Some("token")] {
            let place = place(key).await;
            let (_, spec) = parts(&place);
            assert!(held(spec, &place.stores, Duration::from_secs(20)).await.unwrap().is_none());
            place.put("ey.one").await.unwrap();
            assert_eq!(held(spec, &place.stores, Duration::from_secs(20)).await.unwrap().unwrap().expose(), b"ey.one");
        }
    })
    .await;
}
