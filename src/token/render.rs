//! The bytes that a sink writes: the token in the shape that its reader wants.

use std::path::PathBuf;

use zeroize::Zeroizing;



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
