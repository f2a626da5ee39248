//! A consumer that checks all it reads.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

use super::daemon::tool;

/// Reads the published file of one path and knows the key of the embedded cluster that signs its tokens.
pub struct Reader {
    path: PathBuf,
    key: Vec<u8>,
    buffer: Vec<u8>,
    /// The bytes that were checked last: the same bytes need no second look at their signature.
    last: Option<(Vec<u8>, Good)>,
}

/// What a whole token says of itself.
#[derive(Debug, Clone)]
pub struct Good {
    /// Its `jti`.
    pub jti: String,
    /// Its `exp`, unix seconds.
    pub expires_at: i64,
}

impl Reader {
    /// Of that path; `jwks` are the cluster's public keys.
    pub fn new(path: PathBuf, jwks: &str) -> Self {
        let jwks: Value = serde_json::from_str(jwks).unwrap();
        let decode = |name: &str| URL_SAFE_NO_PAD.decode(jwks["keys"][0][name].as_str().unwrap()).unwrap();
        Self { path, key: [vec![4], decode("x"), decode("y")].concat(), buffer: Vec::new(), last: None }
    }

    /// Reads once. Expiry is for the caller to judge.
    ///
    /// # Errors
    /// What is wrong with what stands there.
    pub fn read(&mut self) -> Result<&Good, String> {
        let mut file = std::fs::File::open(&self.path).map_err(|error| format!("missing: {error}"))?;
        let meta = file.metadata().map_err(|error| error.to_string())?;
        self.buffer.clear();
        file.read_to_end(&mut self.buffer).map_err(|error| format!("unreadable: {error}"))?;
        if meta.permissions().mode() & 0o7777 != 0o640 || meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(format!("mode {:o}, owner {}", meta.permissions().mode(), meta.uid()));
        }
        if self.last.as_ref().is_none_or(|(bytes, _)| *bytes != self.buffer) {
            let good = whole(&self.buffer, &self.key)?;
            self.last = Some((self.buffer.clone(), good));
        }
        Ok(&self.last.as_ref().unwrap().1)
    }
}

fn whole(bytes: &[u8], key: &[u8]) -> Result<Good, String> {
    let broken = || format!("{} bytes that are no token", bytes.len());
    let text = std::str::from_utf8(bytes).map_err(|_| broken())?;
    let (signed, signature) = text.rsplit_once('.').ok_or_else(broken)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| broken())?;
    let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(signed.as_bytes(), &signature);
    verified.map_err(|_| "the signature does not fit".to_owned())?;
    let claims: Value = signed
        .split_once('.')
        .and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok())
        .and_then(|claims| serde_json::from_slice(&claims).ok())
        .ok_or_else(broken)?;
    Ok(Good { jti: claims["jti"].as_str().ok_or_else(broken)?.to_owned(), expires_at: claims["exp"].as_i64().ok_or_else(broken)? })
}

/// Temporary files anywhere below a folder.
pub fn temporary_files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(temporary_files(&entry.path()));
        } else if entry.file_name().to_string_lossy().contains(".tmp") {
            found.push(entry.path());
        }
    }
    found
}

/// A file system of its own in an image file; out of the tree again with the value.
pub struct Volume(PathBuf);

impl Volume {
    /// Mounts one of that kind (`ext4`, `xfs`; `tmpfs` needs no image) at a folder that it makes.
    pub fn mount(kind: &str, at: &Path, mebibytes: u64) -> Self {
        std::fs::create_dir(at).unwrap();
        let mut command = Command::new("mount");
        if kind == "tmpfs" {
            command.args(["-t", "tmpfs", "-o", &format!("mode=0755,size={mebibytes}m"), "tokenferry-test"]);
        } else {
            let image = at.with_extension("image");
            std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
            tool(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
            command.args(["-t", kind, "-o", "loop"]).arg(image);
        }
        tool(command.arg(at));
        Self(at.to_owned())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
