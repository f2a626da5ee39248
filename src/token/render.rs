//! The bytes that a sink writes: the token in the shape that its reader wants.

mod cluster;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::token::{Claims, Payload, Token, template};

pub use cluster::registry;

/// `format`: how a token is written. Each further format is one arm here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Format {
    /// The token and nothing else, no newline (kube-rs sends a token file untrimmed).
    #[default]
    Raw,
    /// Token, times, target, cluster and audiences as one JSON object.
    Json,
    /// `NAME=token`, one line, for shells and systemd's `EnvironmentFile`.
    Env(String),
    /// `client.authentication.k8s.io/v1` ExecCredential, with `expirationTimestamp`.
    ExecCredential,
    /// A kubeconfig, or entries merged into one.
    Kubeconfig(Box<KubeconfigFormat>),
    /// The login of a container registry, as kubelet and docker read it.
    DockerConfigJson(Box<DockerFormat>),
    /// A cluster of Argo CD: a labelled Secret of several keys.
    ArgoCdCluster(Box<ArgoCdFormat>),
    /// A text with places for the token and what belongs to it.
    Template(String),
    /// Several files by name, as the kubelet mounts them.
    Files(BTreeMap<String, FilePart>),
}

/// `kubeconfig: {merge, namespace, user}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeconfigFormat {
    /// Merge into what the file holds already.
    pub merge: bool,
    /// Namespace of the context; the account's when absent.
    pub namespace: Option<String>,
    /// Name of the user and the context; the target's when absent.
    pub user: Option<String>,
}

/// `dockerConfigJson: {registry, username}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DockerFormat {
    /// Host of the registry; those that the token's audiences name when absent.
    pub registry: Option<String>,
    /// What the registry calls the bearer of a token; `serviceaccount` when absent.
    pub username: Option<String>,
}

/// `argoCdCluster: {name, project, namespaces}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ArgoCdFormat {
    /// How Argo CD calls the cluster; as the schedule does when absent.
    pub name: Option<String>,
    /// The one project that may use it.
    pub project: Option<String>,
    /// The namespaces that Argo CD keeps to; all when empty.
    pub namespaces: Vec<String>,
}

/// What stands in one file of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilePart {
    /// The token in that format.
    Token(Format),
    /// The cluster's CA certificates, PEM.
    Ca,
    /// The account's namespace.
    Namespace,
}

impl Format {
    /// Whether it says where the API server is.
    pub fn needs_cluster(&self) -> bool {
        match self {
            Self::Kubeconfig(_) | Self::ArgoCdCluster(_) => true,
            Self::Template(text) => template::check(text).is_ok_and(|names| names.contains("server") || names.contains("ca")),
            Self::Files(files) => files.values().any(|part| match part {
                FilePart::Token(format) => format.needs_cluster(),
                part => *part == FilePart::Ca,
            }),
            Self::Raw | Self::Json | Self::Env(_) | Self::ExecCredential | Self::DockerConfigJson(_) => false,
        }
    }

    /// Whether it is merged into what the place holds, so that the place holds more than what was delivered.
    pub fn merges(&self) -> bool {
        matches!(self, Self::Kubeconfig(kubeconfig) if kubeconfig.merge)
    }
}

/// What a format may need beside the token.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Name of the target.
    pub target: String,
    /// Name of its cluster.
    pub cluster: String,
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub service_account: String,
    /// URL of the API server.
    pub server: Option<String>,
    /// Its CA certificates, PEM.
    pub ca: Option<Vec<u8>>,
}

/// A format that cannot be made of a token and its surroundings. Says what is missing; never quotes a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unrenderable(pub String);

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    // Each rotation, record and look at a place makes a few.
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.extend(digits(*byte).map(char::from));
    }
    text
}

/// The two lower-case hex digits of a byte.
pub const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// Seconds before the token's end at which a client of an ExecCredential asks for the next one.
const EARLY: i64 = 60;

/// The token as its reader wants it.
///
/// # Errors
/// [`Unrenderable`] where the format needs what the surroundings or the token do not have.
pub fn render(token: &Token, claims: &Claims, format: &Format, surroundings: &Surroundings) -> Result<Payload, Unrenderable> {
    let given = cluster::Given { token, claims, surroundings };
    Ok(match format {
        Format::Raw => Payload::new(token.expose().as_bytes().to_vec()),
        Format::Env(name) => env(name, token.expose()),
        Format::Json => json(&Document {
            token: token.expose(),
            expires_at: claims.exp.and_then(time),
            issued_at: claims.iat.and_then(time),
            target: &surroundings.target,
            cluster: &surroundings.cluster,
            audiences: &claims.aud,
        }),
        Format::ExecCredential => json(&ExecCredential {
            api_version: "client.authentication.k8s.io/v1",
            kind: "ExecCredential",
            status: Status {
                // A token of a few seconds keeps nine tenths of its life, else it would count as expired at birth.
                expiration_timestamp: claims
                    .exp
                    .and_then(|exp| time(exp.saturating_sub(claims.lifetime().map_or(EARLY, |life| EARLY.min(life / 10))))),
                token: token.expose(),
            },
        }),
        Format::Kubeconfig(settings) => given.kubeconfig(settings)?,
        Format::DockerConfigJson(settings) => given.docker(settings)?,
        Format::ArgoCdCluster(settings) => given.argo_cd(settings)?,
        Format::Template(text) => given.template(text)?,
        Format::Files(files) => given.files(files)?,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<jiff::Timestamp>,
    target: &'a str,
    cluster: &'a str,
    audiences: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential<'a> {
    api_version: &'a str,
    kind: &'a str,
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_timestamp: Option<jiff::Timestamp>,
    token: &'a str,
}

/// A time that no calendar has is left out: the token itself says it anyway.
fn time(seconds: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(seconds).ok()
}

fn json(document: &impl Serialize) -> Payload {
    // Wiped buffers do not move: each move would leave a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
    serde_json::to_writer(&mut *bytes, document).expect("text and times always have a JSON form, and memory takes it");
    Payload::new(bytes.to_vec())
}

/// Double quotes and backslashes mean the same to shells and to systemd (systemd.exec(5), `EnvironmentFile=`);
/// a token of the usual alphabet (RFC 6750 §2.1) needs neither, which suits readers that know no quotes.
fn env(name: &str, token: &str) -> Payload {
    let plain = token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b));
    let mut line = Zeroizing::new(String::with_capacity(name.len() + 2 * token.len() + 4));
    line.push_str(name);
    line.push('=');
    if plain {
        line.push_str(token);
    } else {
        line.push('"');
        for character in token.chars().filter(|c| !c.is_control()) {
            if matches!(character, '"' | '\\' | '$' | '`') {
                line.push('\\');
            }
            line.push(character);
        }
        line.push('"');
    }
    line.push('\n');
    Payload::new(line.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;
    use crate::token::extract;

    fn token(payload: &str) -> Token {
        let (header, payload) = (URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(payload));
        Token::new(format!("{header}.{payload}.c2ln"))
    }

    fn rendered(payload: &str, format: &Format) -> (Token, Payload) {
        let token = token(payload);
        let claims = token.claims().unwrap();
        let surroundings = Surroundings {
            target: "ci".into(),
            cluster: "prod".into(),
            namespace: "cicd".into(),
            service_account: "bot".into(),
            server: Some("https://api.example.com:6443".into()),
            ca: Some(b"-----BEGIN CERTIFICATE-----\n".to_vec()),
        };
        let payload = render(&token, &claims, format, &surroundings).unwrap();
        (token, payload)
    }

    fn text(payload: &Payload) -> &str {
        std::str::from_utf8(payload.expose()).unwrap()
    }

    const HOUR: &str = r#"{"aud":["a","b"],"iat":1700000000,"exp":1700003600}"#;

    #[test]
    fn raw_is_the_token_and_no_newline() {
        let (token, payload) = rendered(HOUR, &Format::Raw);
        assert_eq!(text(&payload), token.expose());
    }

    #[test]
    fn json_says_whose_token_it_is_and_how_long() {
        let (token, payload) = rendered(HOUR, &Format::Json);
        let token = token.expose();
        let expected = format!(
            r#"{{"token":"{token}","expiresAt":"2023-11-14T23:13:20Z","issuedAt":"2023-11-14T22:13:20Z","target":"ci","cluster":"prod","audiences":["a","b"]}}"#
        );
        assert_eq!(text(&payload), expected);
    }

    #[test]
    fn an_exec_credential_ends_a_minute_early() {
        let (token, payload) = rendered(HOUR, &Format::ExecCredential);
        let token = token.expose();
        let expected = format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"expirationTimestamp":"2023-11-14T23:12:20Z","token":"{token}"}}}}"#
        );
        assert_eq!(text(&payload), expected);
    }

    #[test]
    fn an_exec_credential_of_ten_seconds_is_not_expired_at_birth() {
        let (_, payload) = rendered(r#"{"iat":1700000000,"exp":1700000010}"#, &Format::ExecCredential);
        assert!(text(&payload).contains("\"expirationTimestamp\":\"2023-11-14T22:13:29Z\""), "{}", text(&payload));
    }

    #[test]
    fn a_token_without_end_has_no_time_of_expiry() {
        let (_, payload) = rendered(r#"{"exp":9223372036854775807}"#, &Format::Json);
        assert!(!text(&payload).contains("expiresAt"));
    }

    #[test]
    fn env_is_one_line_and_quotes_only_what_a_shell_would_take_apart() {
        let (token, payload) = rendered(HOUR, &Format::Env("KUBE_TOKEN".into()));
        assert_eq!(text(&payload), format!("KUBE_TOKEN={}\n", token.expose()));
        assert_eq!(text(&env("T", "a b\"$(c)`\\\n'")), "T=\"a b\\\"\\$(c)\\`\\\\'\"\n");
    }

    #[test]
    fn every_format_gives_its_token_back() {
        let docker = DockerFormat { registry: Some("r.example.com".into()), username: None };
        for format in [
            Format::Raw,
            Format::Json,
            Format::Env("T".into()),
            Format::ExecCredential,
            Format::Kubeconfig(Box::default()),
            Format::Kubeconfig(Box::new(KubeconfigFormat { merge: true, ..KubeconfigFormat::default() })),
            Format::DockerConfigJson(docker.into()),
            Format::ArgoCdCluster(Box::default()),
            Format::Template("[x]\npassword = {{ token }}\n".into()),
            Format::Files(BTreeMap::from([("ca.crt".into(), FilePart::Ca), ("token".into(), FilePart::Token(Format::Json))])),
        ] {
            let (token, payload) = rendered(HOUR, &format);
            let found = payload.parts().iter().find_map(|part| extract(part.expose()));
            assert_eq!(found.map(|found| found.expose().to_owned()).as_deref(), Some(token.expose()), "{format:?}");
        }
    }

    #[test]
    fn a_registrys_login_has_the_token_as_password_for_every_registry_among_the_audiences() {
        let claims = r#"{"aud":["https://r.example.com/","other.example.com:5000","api"],"exp":1700003600}"#;
        let (token, payload) = rendered(claims, &Format::DockerConfigJson(Box::default()));
        let read: serde_json::Value = serde_json::from_slice(payload.expose()).unwrap();
        let auths = read["auths"].as_object().unwrap();
        assert_eq!(auths.keys().collect::<Vec<_>>(), ["other.example.com:5000", "r.example.com"]);
        assert_eq!(
            (auths["r.example.com"]["username"].as_str(), auths["r.example.com"]["password"].as_str()),
            (Some("serviceaccount"), Some(token.expose()))
        );
        let auth = base64::engine::general_purpose::STANDARD.decode(auths["r.example.com"]["auth"].as_str().unwrap()).unwrap();
        assert_eq!(String::from_utf8(auth).unwrap(), format!("serviceaccount:{}", token.expose()));
        assert_eq!((payload.dress().kind, payload.parts()[0].name.as_str()), (Some("kubernetes.io/dockerconfigjson"), ".dockerconfigjson"));
    }

    #[test]
    fn an_argo_cd_cluster_is_a_labelled_secret_of_several_keys() {
        let settings = ArgoCdFormat { name: None, project: Some("web".into()), namespaces: vec!["a".into(), "b".into()] };
        let (token, payload) = rendered(HOUR, &Format::ArgoCdCluster(settings.into()));
        let parts: BTreeMap<&str, &str> =
            payload.parts().iter().map(|part| (part.name.as_str(), std::str::from_utf8(part.expose()).unwrap())).collect();
        assert_eq!(
            (parts["name"], parts["server"], parts["project"], parts["namespaces"]),
            ("prod", "https://api.example.com:6443", "web", "a,b")
        );
        let config: serde_json::Value = serde_json::from_str(parts["config"]).unwrap();
        assert_eq!((config["bearerToken"].as_str(), config["tlsClientConfig"]["insecure"].as_bool()), (Some(token.expose()), Some(false)));
        assert_eq!(config["tlsClientConfig"]["caData"], "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==");
        assert_eq!(payload.dress().labels, [("argocd.argoproj.io/secret-type", "cluster")]);
    }

    #[test]
    fn what_the_surroundings_lack_is_said() {
        let token = token(HOUR);
        let claims = token.claims().unwrap();
        let bare = Surroundings { cluster: "trial".into(), ..Surroundings::default() };
        for format in [
            Format::Kubeconfig(Box::default()),
            Format::ArgoCdCluster(Box::default()),
            Format::DockerConfigJson(Box::default()),
            Format::Files(BTreeMap::from([("ca.crt".into(), FilePart::Ca)])),
        ] {
            let error = render(&token, &claims, &format, &bare).err().expect("something is missing").to_string();
            assert!(error.contains("`trial`") || error.contains("registry"), "{error}");
        }
    }

    #[test]
    fn tokens_that_others_wrote_are_found_too() {
        let (token, other) = (token(HOUR), token(r#"{"sub":"other"}"#));
        let (jwt, other) = (token.expose(), other.expose());
        for file in [
            format!("{jwt}\n"),
            format!("\u{feff}{jwt}\r\n"),
            format!("# {other}\nexport A=b\nexport T='{jwt}'\n"),
            format!("users:\n- name: ci\n  user:\n    note: {other}\n    token: \"{jwt}\"\n"),
            format!("{{\"note\":\"{other}\",\"status\":{{\"token\":\"{jwt}\"}}}}"),
            format!("machine x password {jwt} eyJnot.a.token"),
        ] {
            assert_eq!(extract(file.as_bytes()).map(|found| found.expose().to_owned()).as_deref(), Some(jwt), "{file}");
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for bytes in [&b""[..], b"\xff\xfe", b"eyJ.eyJ.x", b"{\"token\":\"opaque\"}", b"null", b"[1]"] {
            assert!(extract(bytes).is_none(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_file_it_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            extract(&bytes);
        }

        #[test]
        fn an_env_line_is_one_line_whatever_the_token(token in "\\PC{0,60}") {
            let payload = env("T", &token);
            prop_assert_eq!(text(&payload).matches('\n').count(), 1);
        }
    }
}
