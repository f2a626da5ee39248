//! The bytes that a sink writes: the token in the shape that its reader wants.

use std::path::PathBuf;

use serde::Serialize;
use zeroize::Zeroizing;

use crate::token::{Claims, Token};

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
}

/// What a format may need beside the token.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Name of the target.
    pub target: String,
    /// Name of its cluster.
    pub cluster: String,
    /// URL of the API server.
    pub server: Option<String>,
    /// Its CA certificates, PEM.
    pub ca: Option<Vec<u8>>,
    /// Where the schedule stands, for messages.
    pub schedule: PathBuf,
}

/// Bytes to deliver: wiped when dropped, never printed.
pub struct Payload(Zeroizing<Vec<u8>>);

impl Payload {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that has to write them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// SHA-256 of the bytes, in hex: names the payload in records without showing it.
    pub fn sha256(&self) -> String {
        hex(ring::digest::digest(&ring::digest::SHA256, self.expose()).as_ref())
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds before the token's end at which a client of an ExecCredential asks for the next one.
const EARLY: i64 = 60;

/// The token as its reader wants it.
pub fn render(token: &Token, claims: &Claims, format: &Format, surroundings: &Surroundings) -> Payload {
    match format {
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
    }
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
        let surroundings = Surroundings { target: "ci".into(), cluster: "prod".into(), ..Default::default() };
        let payload = render(&token, &claims, format, &surroundings);
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
        for format in [Format::Raw, Format::Json, Format::Env("T".into()), Format::ExecCredential] {
            let (token, payload) = rendered(HOUR, &format);
            assert_eq!(extract(payload.expose()).map(|found| found.expose().to_owned()).as_deref(), Some(token.expose()), "{format:?}");
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
