//! `vault` against OpenBao.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};
use tokenferry::sink::vault::{AppRoleAuth, JwtAuth, TokenAuth, VaultAuth, VaultSpec, VaultStoreSpec, held};
use tokenferry::sink::{FailureKind, Put, SinkSpec, StoreSpec, Stores};

use super::conformance::{Outside, Place, attempt, fresh, stores};
use crate::support::servers::{Bao, servers};
use crate::support::within;

/// OpenBao as its root sees it.
#[derive(Clone)]
pub struct Root {
    http: reqwest::Client,
    address: String,
    token: String,
    namespace: Option<String>,
}

impl Root {
    /// The root of one server.
    pub fn of(bao: &Bao) -> Self {
        let ca = reqwest::Certificate::from_pem_bundle(&std::fs::read(&bao.ca).unwrap()).unwrap();
        let http = reqwest::Client::builder().tls_backend_rustls().tls_certs_only(ca).build().unwrap();
        let token = std::fs::read_to_string(&bao.root_token_file).unwrap().trim().to_owned();
        Self { http, address: bao.address.clone(), token, namespace: None }
    }

    /// Status and answer of one call.
    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.address)).header("x-vault-token", &self.token);
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let answer = request.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    /// A call that has to succeed.
    pub async fn done(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    /// Mounts something where nothing is mounted yet.
    pub async fn mounted(&self, path: &str, body: Value) {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert!(status < 300 || answer.to_string().contains("in use"), "{path}: {status} {answer}");
    }

    fn path(spec: &VaultSpec) -> String {
        if spec.mount == "one" { format!("one/{}", spec.path) } else { format!("{}/data/{}", spec.mount, spec.path) }
    }

    /// All fields of a secret.
    pub async fn fields(&self, spec: &VaultSpec) -> Map<String, Value> {
        let (_, answer) = self.call(Method::GET, &Self::path(spec), Value::Null).await;
        let data = &answer["data"];
        let fields = if spec.mount == "one" { data } else { &data["data"] };
        fields.as_object().cloned().unwrap_or_default()
    }

    /// Replaces a secret.
    pub async fn set_fields(&self, spec: &VaultSpec, fields: Map<String, Value>) {
        let body = if spec.mount == "one" { Value::Object(fields) } else { json!({"data": fields}) };
        self.done(Method::POST, &Self::path(spec), body).await;
    }

    async fn version(&self, spec: &VaultSpec) -> u64 {
        let (_, answer) = self.call(Method::GET, &Self::path(spec), Value::Null).await;
        answer["data"]["metadata"]["version"].as_u64().unwrap_or(0)
    }
}

/// A place below a mount of the shared OpenBao, written by root.
pub async fn place(mount: &str) -> Place {
    place_at(tokio::task::spawn_blocking(|| servers().bao()).await.unwrap(), mount).await
}

/// A place below a mount (`secret` is version 2, `one` version 1) of the OpenBao given.
pub async fn place_at(bao: &Bao, mount: &str) -> Place {
    let root = Root::of(bao);
    let version = if mount == "one" { "1" } else { "2" };
    root.mounted(&format!("sys/mounts/{mount}"), json!({"type": "kv", "options": {"version": version}})).await;
    ready(&root, mount).await;
    let spec =
        VaultSpec { store: "vault".into(), mount: mount.into(), path: fresh("ci/deployer"), key: "token".into(), ..VaultSpec::default() };
    let auth = VaultAuth::Token(TokenAuth { file: bao.root_token_file.clone() });
    Place {
        spec: SinkSpec::Vault(spec.into()),
        stores: stores("vault", store(bao, auth)),
        limit: Some(1_048_576),
        outside: Outside::Bao(root),
    }
}

/// A new engine of version 2 refuses writes until it has been set up.
async fn ready(root: &Root, mount: &str) {
    if mount == "one" {
        return;
    }
    while root.call(Method::POST, &format!("{mount}/data/ready"), json!({"data": {}})).await.0 >= 300 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A store at a server, trusting its CA alone.
pub fn store(bao: &Bao, auth: VaultAuth) -> StoreSpec {
    let vault = VaultStoreSpec { address: bao.address.clone(), namespace: None, ca_file: Some(bao.ca.clone()), auth };
    StoreSpec { vault: Some(vault), ..StoreSpec::default() }
}

async fn shared() -> (&'static Bao, Root) {
    let bao = tokio::task::spawn_blocking(|| servers().bao()).await.unwrap();
    (bao, Root::of(bao))
}

fn spec_of(place: &Place) -> &VaultSpec {
    match &place.spec {
        SinkSpec::Vault(spec) => spec,
        _ => panic!("a place in Vault"),
    }
}

fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// An AppRole at a mount of its own with a policy, and the store that logs in with it. Also its mount.
async fn app_role(bao: &Bao, root: &Root, folder: &Path, policy: &str, settings: Value) -> (Stores, String) {
    let mount = fresh("role");
    root.done(Method::POST, &format!("sys/auth/{mount}"), json!({"type": "approle"})).await;
    root.done(Method::POST, &format!("sys/policies/acl/{mount}"), json!({"policy": policy})).await;
    let mut body = json!({"token_policies": [mount]});
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    root.done(Method::POST, &format!("auth/{mount}/role/ci"), body).await;
    let id = root.done(Method::GET, &format!("auth/{mount}/role/ci/role-id"), Value::Null).await;
    let secret = root.done(Method::POST, &format!("auth/{mount}/role/ci/secret-id"), json!({})).await;
    let secret_id_file = file(folder, "secret-id", &format!("{}\n", secret["data"]["secret_id"].as_str().unwrap()));
    let auth = AppRoleAuth { mount: Some(mount.clone()), role_id: id["data"]["role_id"].as_str().unwrap().into(), secret_id_file };
    (stores("vault", store(bao, VaultAuth::AppRole(auth))), mount)
}

fn may(capabilities: &str, path: &str) -> String {
    format!("path \"{path}\" {{ capabilities = [{capabilities}] }}")
}

/// What a place under the mount `secret` needs: `capabilities` on the data, all that is needed on the metadata.
fn writer(capabilities: &str) -> String {
    may(capabilities, "secret/data/*") + &may("\"read\", \"create\", \"update\"", "secret/metadata/*")
}

/// The leases of the logins at a mount, and when each was renewed last. (Tokens are never looked up by
/// accessor here: OpenBao revokes a token that is looked up while it is being made.)
async fn logins(root: &Root, mount: &str) -> Vec<(String, bool)> {
    let list = Method::from_bytes(b"LIST").unwrap();
    let (status, keys) = root.call(list, &format!("sys/leases/lookup/auth/{mount}/login"), Value::Null).await;
    assert!(matches!(status, 200 | 404), "{keys}");
    let mut found = Vec::new();
    for key in keys["data"]["keys"].as_array().into_iter().flatten() {
        let id = format!("auth/{mount}/login/{}", key.as_str().unwrap());
        let (status, lease) = root.call(Method::POST, "sys/leases/lookup", json!({"lease_id": id})).await;
        if status == 200 {
            found.push((id, !lease["data"]["last_renewal"].is_null()));
        }
    }
    found
}

#[tokio::test]
async fn the_other_fields_of_a_secret_stay() {
    within(async {
        for mount in ["secret", "one"] {
            let place = place(mount).await;
            let Outside::Bao(root) = &place.outside else { panic!() };
            let before = json!({"user": "ci", "count": 3, "deep": {"list": [1, null]}});
            root.set_fields(spec_of(&place), before.as_object().unwrap().clone()).await;
            let adopted = SinkSpec::Vault(VaultSpec { adopt: true, ..spec_of(&place).clone() }.into());
            assert_eq!(attempt(&adopted, &place.stores, "ey.one", "1").await, Ok(Put::Written), "{mount}");
            let after = Value::Object(root.fields(spec_of(&place)).await);
            assert_eq!(after, json!({"user": "ci", "count": 3, "deep": {"list": [1, null]}, "token": "ey.one"}), "{mount}");
        }
    })
    .await;
}

#[tokio::test]
async fn writers_of_several_fields_at_once_lose_none_that_they_call_written() {
    within(async {
        let place = place("secret").await;
        let Outside::Bao(root) = &place.outside else { panic!() };
        let specs: Vec<VaultSpec> = (0..8).map(|n| VaultSpec { key: format!("key{n}"), ..spec_of(&place).clone() }).collect();
        let sinks: Vec<SinkSpec> = specs.iter().map(|spec| SinkSpec::Vault(Box::new(spec.clone()))).collect();
        let outcomes = futures_util::future::join_all(sinks.iter().map(|sink| attempt(sink, &place.stores, "ey.one", "1"))).await;
        let fields = root.fields(spec_of(&place)).await;
        for (spec, outcome) in specs.iter().zip(outcomes) {
            match outcome {
                Ok(_) => assert_eq!(fields.get(&spec.key), Some(&json!("ey.one")), "{} was lost", spec.key),
                Err(failure) => assert_eq!(failure.kind, FailureKind::Conflict, "{failure}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_unchanged_secret_gets_no_new_version_and_a_deleted_one_is_written_anew() {
    within(async {
        let place = place("secret").await;
        let Outside::Bao(root) = &place.outside else { panic!() };
        for text in ["a", "a", "b"] {
            place.put(text).await.unwrap();
        }
        assert_eq!(root.version(spec_of(&place)).await, 2);
        root.done(Method::DELETE, &format!("secret/data/{}", spec_of(&place).path), Value::Null).await;
        assert_eq!(place.put("b").await, Ok(Put::Written));
        assert_eq!((place.look().await.as_deref(), root.version(spec_of(&place)).await), (Some("b"), 3));
    })
    .await;
}

#[tokio::test]
async fn a_missing_right_is_refused_by_name_and_costs_no_new_login() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let policy = writer("\"read\"");
        let (stores, mount) = app_role(bao, &root, folder.path(), &policy, json!({})).await;
        for text in ["ey.one", "ey.two", "ey.three"] {
            let failure = attempt(&place.spec, &stores, text, "1").await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused);
            let path = format!("secret/data/{}", spec_of(&place).path);
            assert!(failure.message.contains(&format!("`create` and `update` on `{path}`")), "{failure}");
        }
        assert_eq!(logins(&root, &mount).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_login_that_was_revoked_is_made_anew_within_the_same_put() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let policy = writer("\"read\", \"create\", \"update\"");
        let (stores, mount) = app_role(bao, &root, folder.path(), &policy, json!({})).await;
        assert_eq!(attempt(&place.spec, &stores, "ey.one", "1").await, Ok(Put::Written));
        root.done(Method::POST, &format!("sys/leases/revoke-prefix/auth/{mount}/login"), json!({"sync": true})).await;
        assert_eq!(logins(&root, &mount).await, []);
        assert_eq!(attempt(&place.spec, &stores, "ey.two", "2").await, Ok(Put::Written));
        assert_eq!(place.look().await.as_deref(), Some("ey.two"));
    })
    .await;
}

#[tokio::test]
async fn many_puts_at_once_share_one_login() {
    within(async {
        let (bao, root) = shared().await;
        let folder = tempfile::tempdir().unwrap();
        let policy = writer("\"read\", \"create\", \"update\"");
        let (stores, mount) = app_role(bao, &root, folder.path(), &policy, json!({})).await;
        let specs: Vec<SinkSpec> = (0..32)
            .map(|_| VaultSpec {
                store: "vault".into(),
                mount: "secret".into(),
                path: fresh("many"),
                key: "token".into(),
                ..VaultSpec::default()
            })
            .map(|spec| SinkSpec::Vault(Box::new(spec)))
            .collect();
        let puts = specs.iter().map(|spec| attempt(spec, &stores, "ey.one", "1"));
        assert!(futures_util::future::join_all(puts).await.iter().all(|outcome| *outcome == Ok(Put::Written)));
        assert_eq!(logins(&root, &mount).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_renewed_and_no_new_login_made_until_its_longest_life_is_near() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let policy = writer("\"read\", \"create\", \"update\"");
        let (stores, mount) = app_role(bao, &root, folder.path(), &policy, json!({"token_ttl": "3s", "token_max_ttl": "8s"})).await;
        let mut first = None;
        let mut renewed = false;
        for number in 0.. {
            assert!(attempt(&place.spec, &stores, &format!("ey.{number}"), "1").await.is_ok(), "the login is lost after {number} puts");
            let now = logins(&root, &mount).await;
            let first = first.get_or_insert_with(|| now[0].0.clone());
            renewed |= now.iter().any(|(id, renewed)| id == first && *renewed);
            if now.iter().any(|(id, _)| id != first) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(renewed, "the first login was replaced without having been renewed");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_secret_id_is_refused_without_being_quoted() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let (stores, _) = app_role(bao, &root, folder.path(), &may("\"read\"", "secret/*"), json!({})).await;
        file(folder.path(), "secret-id", "canary-secret-id");
        let failure = attempt(&place.spec, &stores, "ey.one", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        assert!(failure.message.contains("secretIdFile") && !failure.message.contains("canary"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_token_file_that_was_replaced_is_read_again() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let token = async || root.done(Method::POST, "auth/token/create", json!({"ttl": "1h"})).await["auth"]["client_token"].clone();
        let path = file(folder.path(), "token", &format!("{}\n", token().await.as_str().unwrap()));
        let stores = stores("vault", store(bao, VaultAuth::Token(TokenAuth { file: path.clone() })));
        assert_eq!(attempt(&place.spec, &stores, "ey.one", "1").await, Ok(Put::Written));
        std::fs::write(&path, "gone").unwrap();
        let failure = attempt(&place.spec, &stores, "ey.two", "2").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        std::fs::write(&path, token().await.as_str().unwrap()).unwrap();
        assert_eq!(attempt(&place.spec, &stores, "ey.two", "2").await, Ok(Put::Written));
    })
    .await;
}

/// An ES256 key: its public half as PEM, and a JWT signed with it.
fn jwt(claims: &Value) -> (String, String) {
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    // SubjectPublicKeyInfo of a P-256 key (RFC 5480): this head, then the point.
    let head = [0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0];
    let spki = STANDARD.encode([&head[..], key.public_key().as_ref()].concat());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap());
    let signed = format!("{}.{}", part(&json!({"alg": "ES256"})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(&random, signed.as_bytes()).unwrap());
    (pem, format!("{signed}.{signature}"))
}

#[tokio::test]
async fn a_service_account_token_logs_in_by_its_signature() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let mount = fresh("jwt");
        let claims = json!({"iss": "https://k8s", "sub": "system:serviceaccount:a:b", "aud": ["bao"], "iat": 1_700_000_000, "exp": 4_000_000_000u64});
        let (pem, token) = jwt(&claims);
        root.done(Method::POST, &format!("sys/auth/{mount}"), json!({"type": "jwt"})).await;
        root.done(Method::POST, &format!("auth/{mount}/config"), json!({"jwt_validation_pubkeys": [pem]})).await;
        root.done(Method::POST, "sys/policies/acl/jwt", json!({"policy": writer("\"read\", \"create\", \"update\"")})).await;
        let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["bao"], "bound_subject": claims["sub"],
            "clock_skew_leeway": 60, "token_policies": ["jwt"]});
        root.done(Method::POST, &format!("auth/{mount}/role/ci"), role).await;
        let token_file = file(folder.path(), "token", &token);
        let auth = |role: &str| VaultAuth::Jwt(JwtAuth { mount: Some(mount.clone()), role: role.into(), token_file: token_file.clone(), target: None });
        let good = stores("vault", store(bao, auth("ci")));
        assert_eq!(attempt(&place.spec, &good, "ey.one", "1").await, Ok(Put::Written));
        let bad = stores("vault", store(bao, auth("nobody")));
        let failure = attempt(&place.spec, &bad, "ey.two", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("check `role`") && !failure.message.contains(&token), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_service_account_token_logs_in_by_token_review() {
    within(async {
        let (bao, root) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let mount = fresh("kubernetes");
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": {"authenticated": true,
            "audiences": ["bao"], "user": {"username": "system:serviceaccount:a:b", "uid": "1", "groups": ["system:serviceaccounts"]}}});
        let answer = super::wire::http("201 Created", "content-type: application/json\r\n", &review.to_string());
        let host = super::wire::canned(answer).await;
        let (_, token) = jwt(&json!({"iss": "https://k8s", "sub": "system:serviceaccount:a:b", "aud": ["bao"], "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 4_000_000_000u64,
            "kubernetes.io": {"namespace": "a", "serviceaccount": {"name": "b", "uid": "1"}}}));
        root.done(Method::POST, &format!("sys/auth/{mount}"), json!({"type": "kubernetes"})).await;
        let config = json!({"kubernetes_host": host, "token_reviewer_jwt": token, "disable_local_ca_jwt": true,
            "kubernetes_ca_cert": super::wire::OTHER_CA});
        root.done(Method::POST, &format!("auth/{mount}/config"), config).await;
        root.done(Method::POST, "sys/policies/acl/review", json!({"policy": writer("\"read\", \"create\", \"update\"")}))
            .await;
        let role = json!({"bound_service_account_names": ["b"], "bound_service_account_namespaces": ["a"], "token_policies": ["review"]});
        root.done(Method::POST, &format!("auth/{mount}/role/ci"), role).await;
        let token_file = file(folder.path(), "token", &token);
        let auth =
            |role: &str| VaultAuth::Kubernetes(JwtAuth { mount: Some(mount.clone()), role: role.into(), token_file: token_file.clone(), target: None });
        let good = stores("vault", store(bao, auth("ci")));
        assert_eq!(attempt(&place.spec, &good, "ey.one", "1").await, Ok(Put::Written));
        let bad = stores("vault", store(bao, auth("nobody")));
        let failure = attempt(&place.spec, &bad, "ey.two", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
        assert!(failure.message.contains("check `role`") && !failure.message.contains(&token), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_namespace_has_its_own_secrets_and_a_missing_one_is_refused() {
    within(async {
        let (bao, root) = shared().await;
        let name = fresh("team");
        root.done(Method::POST, &format!("sys/namespaces/{name}"), json!({})).await;
        let inside = Root { namespace: Some(name.clone()), ..root.clone() };
        inside.mounted("sys/mounts/deep/kv", json!({"type": "kv", "options": {"version": "2"}})).await;
        ready(&inside, "deep/kv").await;
        let auth = VaultAuth::Token(TokenAuth { file: bao.root_token_file.clone() });
        let in_namespace = |namespace: &str| {
            let mut spec = store(bao, auth.clone());
            spec.vault.as_mut().unwrap().namespace = Some(namespace.into());
            stores("vault", spec)
        };
        let spec = VaultSpec {
            store: "vault".into(),
            mount: "deep/kv".into(),
            path: "a b/ü%2f?".into(),
            key: "token".into(),
            ..VaultSpec::default()
        };
        assert_eq!(attempt(&SinkSpec::Vault(spec.clone().into()), &in_namespace(&name), "ey.one", "1").await, Ok(Put::Written));
        let found = held(&spec, &in_namespace(&name), Duration::from_secs(20)).await.unwrap().unwrap();
        assert_eq!(found.expose(), b"ey.one");
        let escaped = VaultSpec { path: "a%20b/%C3%BC%252f%3F".into(), ..spec.clone() };
        assert_eq!(inside.fields(&escaped).await["token"], json!("ey.one"));
        let failure = attempt(&SinkSpec::Vault(spec.into()), &in_namespace("nowhere"), "ey.one", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        assert!(failure.message.contains("namespace"), "{failure}");
    })
    .await;
}

#[tokio::test]
async fn a_mount_that_is_missing_or_of_another_kind_is_refused_with_the_way_out() {
    within(async {
        let (_, root) = shared().await;
        let place = place("secret").await;
        root.mounted("sys/mounts/pki", json!({"type": "pki"})).await;
        for (mount, words) in
            [("nowhere", "there is no engine at the mount `nowhere`"), ("pki", "no KV engine"), ("secret/ci", "move the rest to `path`")]
        {
            let spec = SinkSpec::Vault(VaultSpec { mount: mount.into(), ..spec_of(&place).clone() }.into());
            let failure = attempt(&spec, &place.stores, "ey.one", "1").await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_mount_that_was_made_anew_in_another_version_costs_one_conflict() {
    within(async {
        let (bao, root) = shared().await;
        let mount = fresh("kv");
        let place = place_at(bao, &mount).await;
        assert_eq!(place.put("ey.one").await, Ok(Put::Written));
        root.done(Method::DELETE, &format!("sys/mounts/{mount}"), Value::Null).await;
        root.mounted(&format!("sys/mounts/{mount}"), json!({"type": "kv", "options": {"version": "1"}})).await;
        let mut outcomes = Vec::new();
        for _ in 0..2 {
            outcomes.push(place.put("ey.two").await.map_err(|e| e.kind));
        }
        let answer = root.done(Method::GET, &format!("{mount}/{}", spec_of(&place).path), Value::Null).await;
        assert_eq!(answer["data"]["token"], json!("ey.two"), "{outcomes:?}");
        assert_eq!(outcomes, [Err(FailureKind::Conflict), Ok(Put::Written)]);
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_trusted_is_unavailable_and_never_spoken_to() {
    within(async {
        let (bao, _) = shared().await;
        let place = place("secret").await;
        let folder = tempfile::tempdir().unwrap();
        let auth = VaultAuth::Token(TokenAuth { file: bao.root_token_file.clone() });
        let mut spec = store(bao, auth.clone());
        spec.vault.as_mut().unwrap().ca_file = Some(file(folder.path(), "ca", super::wire::OTHER_CA));
        let failure = attempt(&place.spec, &stores("vault", spec), "ey.one", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert!(failure.message.contains("signed by nobody that is trusted here"), "{failure}");
        let mut spec = store(bao, auth);
        spec.vault.as_mut().unwrap().ca_file = Some(file(folder.path(), "no-ca", "nothing"));
        let failure = attempt(&place.spec, &stores("vault", spec), "ey.one", "1").await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Local);
        assert!(failure.message.contains("no PEM certificate"), "{failure}");
    })
    .await;
}
