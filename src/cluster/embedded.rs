//! The embedded cluster: signs tokens of the same shape as an API server's (ES256, RFC 7518 §3.4) with a
//! key of its own. For trials and demonstrations, never for production: nobody revokes these tokens.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::mint::{MintFailure, MintFailureKind, Minted};
use super::{Ask, Binding};
use crate::token::Token;
use crate::token::render::hex;

/// Shortest life that it signs, seconds.
pub const SHORTEST: u64 = 10;
/// An uncompressed P-256 key as SubjectPublicKeyInfo (RFC 5480): this prefix, then the point.
const SPKI_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01,
    0x07, 0x03, 0x42, 0x00,
];

/// A signer with its key in a folder.
pub struct Embedded {
    directory: PathBuf,
    issuer: String,
    signer: OnceCell<Signer>,
}

struct Signer {
    pair: EcdsaKeyPair,
    kid: String,
    random: SystemRandom,
}

impl Embedded {
    /// Nothing is opened before the first token.
    pub fn new(directory: PathBuf, issuer: String) -> Self {
        Self { directory, issuer, signer: OnceCell::new() }
    }

    /// Its issuer.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where its public keys stand (RFC 7517), beside the key.
    pub fn jwks(&self) -> PathBuf {
        self.directory.join("jwks.json")
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`MintFailure`] where the key cannot be made or read, or the life asked for is under [`SHORTEST`].
    pub async fn mint(&self, ask: &Ask) -> Result<Minted, MintFailure> {
        if ask.duration < SHORTEST {
            return Err(MintFailure::new(MintFailureKind::Refused, format!("an embedded cluster signs for {SHORTEST} s at least")));
        }
        let directory = self.directory.clone();
        let signer = self
            .signer
            .get_or_try_init(|| async move {
                tokio::task::spawn_blocking(move || open(&directory)).await.map_err(|_| "opening it was cut short".to_owned())?
            })
            .await
            .map_err(|e| MintFailure::new(MintFailureKind::Unavailable, format!("embedded key in {}: {e}", self.directory.display())))?;
        let token = signer.sign(ask, &self.issuer, jiff::Timestamp::now().as_second());
        let token = token.map_err(|e| MintFailure::new(MintFailureKind::Unavailable, e))?;
        let claims = token.claims().map_err(|e| MintFailure::new(MintFailureKind::BadAnswer, e.to_string()))?;
        Ok(Minted { token, claims, audit_id: None, warnings: Vec::new(), through_spare: false })
    }
}

impl Signer {
    fn sign(&self, ask: &Ask, issuer: &str, now: i64) -> Result<Token, String> {
        let exp = now + i64::try_from(ask.duration).map_err(|_| "the life asked for is too long".to_owned())?;
        let audiences = if ask.audiences.is_empty() { vec![issuer.to_owned()] } else { ask.audiences.clone() };
        let mut kubernetes = json!({
            "namespace": ask.namespace,
            "serviceaccount": {"name": ask.service_account, "uid": uid(&["sa", &ask.namespace, &ask.service_account])},
        });
        if let Some(binding) = ask.bound_to.as_deref() {
            let (kind, name) = match binding {
                Binding::Secret(name) => ("secret", name),
                Binding::Pod(name) => ("pod", name),
                Binding::Node(name) => ("node", name),
                Binding::Marker(marker) => ("secret", &marker.name),
            };
            kubernetes[kind] = json!({"name": name, "uid": uid(&[kind, &ask.namespace, name])});
        }
        let payload = json!({
            "aud": audiences, "exp": exp, "iat": now, "iss": issuer, "jti": self.jti()?, "kubernetes.io": kubernetes, "nbf": now,
            "sub": format!("system:serviceaccount:{}:{}", ask.namespace, ask.service_account),
        });
        let header = json!({"alg": "ES256", "kid": self.kid});
        let mut text =
            Zeroizing::new(format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload.to_string())));
        let signature = self.pair.sign(&self.random, text.as_bytes()).map_err(|_| "signing failed".to_owned())?;
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(signature.as_ref()));
        Ok(Token::new(std::mem::take(&mut *text)))
    }

    /// A random UUID (RFC 9562 §5.4), as the API server gives.
    fn jti(&self) -> Result<String, String> {
        let mut bytes = [0u8; 16];
        self.random.fill(&mut bytes).map_err(|_| "the system has no random bytes".to_owned())?;
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Ok(dashed(&bytes))
    }
}

/// A UID that stays the same for the same object.
fn uid(parts: &[&str]) -> String {
    dashed(&ring::digest::digest(&ring::digest::SHA256, parts.join("/").as_bytes()).as_ref()[..16])
}

fn dashed(bytes: &[u8]) -> String {
    let h = hex(bytes);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..32])
}

fn open(directory: &Path) -> Result<Signer, String> {
    std::fs::create_dir_all(directory).map_err(|e| e.to_string())?;
    // Held to the end: two processes that start at once agree on the key that stands there, and what lies there
    // unfinished is of one that died.
    let lock = std::fs::File::open(directory).map_err(|e| e.to_string())?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|e| format!("cannot be locked: {e}"))?;
    sweep(directory).map_err(|e| format!("unfinished files cannot be removed: {e}"))?;
    let random = SystemRandom::new();
    let key = directory.join("key.pk8");
    let document = match std::fs::read(&key) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let made =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| "no key can be made".to_owned())?;
            place(&key, made.as_ref(), 0o600)?;
            Zeroizing::new(made.as_ref().to_vec())
        }
        Err(e) => return Err(e.to_string()),
    };
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &random).map_err(|_| {
        format!("{} is not a P-256 key; remove it to have another made (tokens signed so far stay valid until they end)", key.display())
    })?;
    let point = pair.public_key().as_ref();
    let mut spki = SPKI_P256.to_vec();
    spki.extend_from_slice(point);
    // As the API server names its keys: the SHA-256 of the public key's DER.
    let kid = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, &spki).as_ref());
    let jwks = json!({"keys": [{
        "use": "sig", "kty": "EC", "kid": kid, "crv": "P-256", "alg": "ES256",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
    }]});
    let text = format!("{jwks:#}\n");
    let shown = directory.join("jwks.json");
    if std::fs::read(&shown).ok().as_deref() != Some(text.as_bytes()) {
        place(&shown, text.as_bytes(), 0o644)?;
    }
    Ok(Signer { pair, kid, random })
}

/// Removes what a process left that died, or lost power, while it placed a file.
fn sweep(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whole or not at all.
fn place(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    let temporary = path.with_extension("tmp");
    let made = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    })();
    made.map_err(|e: std::io::Error| {
        // What cannot be removed now is swept with the next opening.
        let _ = std::fs::remove_file(&temporary);
        format!("{}: {e}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(duration: u64) -> Ask {
        Ask { namespace: "ci".into(), service_account: "bot".into(), duration, audiences: Vec::new(), bound_to: None }
    }

    #[tokio::test]
    async fn its_tokens_pass_the_checks_of_an_api_servers() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Embedded::new(folder.path().join("e"), "https://trial.invalid".into());
        let minted = cluster.mint(&ask(10)).await.unwrap_or_else(|e| panic!("{e}"));
        super::super::mint::check(&minted.claims, &ask(10)).unwrap();
        assert_eq!(minted.claims.lifetime(), Some(10));
        assert!(minted.claims.jti.is_some());
    }

    #[tokio::test]
    async fn the_key_stays_over_a_restart_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let kid = |m: Minted| crate::token::claims::Header::of(m.token.expose()).unwrap().kid;
        let first = Embedded::new(folder.path().into(), "i".into()).mint(&ask(10)).await.map(kid).unwrap_or_else(|e| panic!("{e}"));
        let again = Embedded::new(folder.path().into(), "i".into()).mint(&ask(10)).await.map(kid).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(first, again);
        assert_eq!(std::fs::metadata(folder.path().join("key.pk8")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(folder.path().join("jwks.json")).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[tokio::test]
    async fn g4_what_a_dead_process_left_unfinished_is_removed_with_the_next_opening() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["key.tmp", "jwks.4711.tmp"] {
            std::fs::write(folder.path().join(name), "half").unwrap();
        }
        Embedded::new(folder.path().into(), "i".into()).mint(&ask(10)).await.map(drop).unwrap_or_else(|e| panic!("{e}"));
        let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["jwks.json", "key.pk8"]);
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let open = |_| {
            let folder = folder.path().to_owned();
            std::thread::spawn(move || open(&folder).map(|signer| signer.kid).unwrap())
        };
        let kids: std::collections::HashSet<String> =
            (0..16).map(open).collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(kids.len(), 1);
    }

    #[tokio::test]
    async fn a_broken_key_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key.pk8"), "nonsense").unwrap();
        let Err(failure) = Embedded::new(folder.path().into(), "i".into()).mint(&ask(10)).await else { panic!("signed") };
        assert!(failure.message.contains("key.pk8 is not a P-256 key"), "{failure}");
        assert_eq!(std::fs::read(folder.path().join("key.pk8")).unwrap(), b"nonsense");
    }
}
