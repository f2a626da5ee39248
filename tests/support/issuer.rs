//! CI systems of the tests: issuers of OpenID Connect over HTTPS that the real API server trusts as examples/ci says, and
//! the place where a job of GitHub asks for its token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::daemon::{finish, tool};
use super::faults::certificates;
use super::servers::cluster;
use super::until;

/// For whom a job's token has to be.
pub const AUDIENCE: &str = "https://kubernetes.example.com";

/// Both issuers, on one port.
pub struct Issuers {
    base: String,
    key: RsaKeyPair,
    /// Signs what no published key belongs to.
    stranger: RsaKeyPair,
    away: Arc<AtomicBool>,
}

/// The CI system that a job runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// GitLab CI.
    GitLab,
    /// GitHub Actions.
    GitHub,
}

/// The issuers, once the API server of these tests trusts them, and their jobs have the rights of examples/ci.
pub fn issuers() -> &'static Issuers {
    static ISSUERS: OnceLock<Issuers> = OnceLock::new();
    ISSUERS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let (key, stranger, away) = (key(), key(), Arc::new(AtomicBool::new(false)));
        let (address, keys, silent) = (base.clone(), jwks(&key), away.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if !silent.load(Ordering::SeqCst) {
                    let (address, keys) = (address.clone(), keys.clone());
                    std::thread::spawn(move || serve(stream, &address, &keys));
                }
            }
        });
        let issuers = Issuers { base, key, stranger, away };
        issuers.trust();
        cluster().kubectl(&["apply", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ci/rbac.yaml")]);
        issuers
    })
}

impl Issuers {
    /// Has the API server trust both, by the lines of examples/ci/README.md.
    fn trust(&self) {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ci/README.md")).unwrap();
        let block = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the page has a configuration");
        let mut config: Value = serde_yaml::from_str(block).unwrap();
        for jwt in config["jwt"].as_array_mut().unwrap() {
            let system =
                if jwt["issuer"]["url"] == "https://token.actions.githubusercontent.com" { System::GitHub } else { System::GitLab };
            jwt["issuer"]["url"] = self.url(system).into();
            jwt["issuer"]["certificateAuthority"] = std::fs::read_to_string(&certificates().ca).unwrap().into();
        }
        let path = &cluster().kube().authentication_config;
        let new = path.with_extension("new");
        std::fs::write(&new, config.to_string()).unwrap();
        std::fs::rename(&new, path).unwrap();
        for system in [System::GitLab, System::GitHub] {
            let token = self.token(system, json!({}));
            until("the API server trusts the issuer", 90, || who(&token).is_some());
        }
    }

    /// `iss`.
    pub fn url(&self, system: System) -> String {
        format!("{}/{system:?}", self.base).to_lowercase()
    }

    /// The token of a job of `acme/shop` that may deploy; what is given replaces that of its claims.
    pub fn token(&self, system: System, changes: Value) -> String {
        self.signed(&self.key, "1", system, changes)
    }

    /// One whose key the issuer does not have among its own.
    pub fn forged(&self, system: System) -> String {
        self.signed(&self.stranger, "2", system, json!({}))
    }

    fn signed(&self, key: &RsaKeyPair, kid: &str, system: System, changes: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut claims = match system {
            System::GitLab => {
                json!({"sub": "project_path:acme/shop:ref_type:branch:ref:main", "project_path": "acme/shop", "ref_protected": "true"})
            }
            System::GitHub => json!({"sub": "repo:acme/shop:ref:refs/heads/main", "repository": "acme/shop", "ref": "refs/heads/main"}),
        };
        let all = json!({"iss": self.url(system), "aud": AUDIENCE, "iat": now, "nbf": now - 5, "exp": now + 300, "jti": format!("{now}")});
        for (name, value) in all.as_object().unwrap().iter().chain(changes.as_object().unwrap()) {
            claims[name] = value.clone();
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT", "kid": kid})), part(&claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// From now on nobody answers there, or somebody does again.
    pub fn go_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

/// Whom the API server takes the bearer of that token for.
pub fn who(token: &str) -> Option<String> {
    let kube = cluster().kube();
    let mut kubectl = Command::new(&kube.kubectl);
    kubectl.env("KUBECONFIG", "/dev/null").arg("--server").arg(&kube.server).arg("--certificate-authority").arg(&kube.ca);
    kubectl.args(["--token", token, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    let done = finish(kubectl, Duration::from_secs(60));
    (done.code == Some(0)).then_some(done.stdout)
}

fn key() -> RsaKeyPair {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    tool(
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER", "-out"])
            .arg(&file),
    );
    let der = std::fs::read(&file).unwrap();
    // openssl 3 writes PKCS #8, older ones the bare key.
    RsaKeyPair::from_pkcs8(&der).or_else(|_| RsaKeyPair::from_der(&der)).unwrap()
}

fn jwks(key: &RsaKeyPair) -> Value {
    let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "1", "n": number(&public.n), "e": number(&public.e)}]})
}

fn serve(stream: TcpStream, base: &str, keys: &Value) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(certificates().good()).unwrap(), stream);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    let body = match path.split_once("/.well-known/openid-configuration") {
        Some((issuer, "")) => json!({
            "issuer": format!("{base}{issuer}"), "jwks_uri": format!("{base}/jwks"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
        }),
        _ => keys.clone(),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).and_then(|()| stream.flush());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// Where a job of GitHub asks for its token: each request gets the next answer (status, body), the last one for ever.
pub struct Endpoint {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL`.
    pub url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    /// Serves these answers.
    pub fn new(answers: Vec<(u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/token?api-version=2.0", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let noted = heads.clone();
        std::thread::spawn(move || {
            for (index, mut stream) in listener.incoming().flatten().enumerate() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                noted.lock().unwrap().push(head.join("\n"));
                let (status, body) = &answers[index.min(answers.len() - 1)];
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        Self { url, heads }
    }

    /// One that gives this token.
    pub fn giving(token: &str) -> Self {
        Self::new(vec![(200, answer(token))])
    }

    /// The requests so far, their heads.
    pub fn asked(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// GitHub's answer.
pub fn answer(token: &str) -> String {
    json!({"count": 1, "value": token}).to_string()
}
