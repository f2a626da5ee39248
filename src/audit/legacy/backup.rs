//! The backup that a deletion leaves: Secrets as they stood, encrypted to somebody's key (age-encryption.org/v1) before
//! a byte of them reaches a disk. Also what `age -d` opens.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cluster::legacy::Held;
use crate::token::age::{self, Identity, NotOpened, Recipient};

const VERSION: u64 = 1;
/// Largest backup that is read, in bytes: a Secret has at most 1 MiB.
const LARGEST: u64 = 256 << 20;

/// Why there is no backup, or none that can be read. Says what, never quotes.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What was named is no recipient.
    #[error(
        "`{0}` is no age recipient: one begins with age1 and is the public half of a key (age-keygen -o key.txt prints it); keep the key file elsewhere"
    )]
    NotARecipient(String),
    /// The secret half was named.
    #[error(
        "that is the secret half of a key (AGE-SECRET-KEY-1…), now in this shell's history; name its public half, which begins with age1"
    )]
    SecretHalf,
    /// There is a file of that name.
    #[error("{0} is there already; a backup is a new file")]
    Exists(String),
    /// The file system.
    #[error("{name}: {source}")]
    Broken {
        /// Which file.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// The file with the key is none.
    #[error("{0} holds no age identity: a line that begins with AGE-SECRET-KEY-1, as age-keygen writes it")]
    NoIdentity(String),
    /// Another key.
    #[error("{name} was not encrypted to a key of {identity}; name the file with the right one")]
    OtherKey {
        /// The backup.
        name: String,
        /// The file with the keys.
        identity: String,
    },
    /// Cut, changed, or something else.
    #[error("{name} is no backup of tokenferry, or is damaged: {why}")]
    Damaged {
        /// The backup.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// Keys that a backup is encrypted to: any one of them opens it.
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Reads `age1…` texts.
    ///
    /// # Errors
    /// [`BackupError::NotARecipient`], [`BackupError::SecretHalf`].
    pub fn of(texts: &[String]) -> Result<Self, BackupError> {
        let one = |text: &String| {
            if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
                return Err(BackupError::SecretHalf);
            }
            text.trim().parse().map_err(|_| BackupError::NotARecipient(text.chars().take(80).collect()))
        };
        texts.iter().map(one).collect::<Result<_, _>>().map(Self)
    }
}

/// Writes a new file with the Secrets, durable when this returns.
///
/// # Errors
/// [`BackupError::Exists`], [`BackupError::Broken`]; then nothing may be deleted.
pub fn keep(path: &Path, recipients: &Recipients, secrets: &[&Held], server: &str, now: Timestamp) -> Result<(), BackupError> {
    let name = path.display().to_string();
    let broken = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(name.clone()),
        _ => BackupError::Broken { name: name.clone(), source },
    };
    let secrets: Vec<&Value> = secrets.iter().map(|secret| secret.as_value()).collect();
    let whole = json!({
        "version": VERSION, "kind": "legacyTokenBackup", "tokenferry": env!("CARGO_PKG_VERSION"),
        "made": now.to_string(), "server": server, "secrets": secrets,
    });
    let plain = Zeroizing::new(whole.to_string());
    let sealed = age::seal(&recipients.0, plain.as_bytes()).map_err(io::Error::other).map_err(broken)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(broken)?;
    let written = file.write_all(&sealed).and_then(|()| file.sync_all()).and_then(|()| folder(path)?.sync_all());
    written.map_err(|source| {
        // Half a backup would be taken for one.
        let _ = std::fs::remove_file(path);
        BackupError::Broken { name: name.clone(), source }
    })
}

fn folder(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)
}

/// Opens a backup.
///
/// # Errors
/// [`BackupError`].
pub fn open(path: &Path, identity: &Path) -> Result<Vec<Held>, BackupError> {
    let name = path.display().to_string();
    let damaged = |why: String| BackupError::Damaged { name: name.clone(), why };
    let read = |path: &Path| -> Result<Zeroizing<Vec<u8>>, BackupError> {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = File::open(path).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
        read.map_err(|source| BackupError::Broken { name: path.display().to_string(), source })?;
        Ok(bytes)
    };
    let (sealed, keys) = (read(path)?, read(identity)?);
    let keys = std::str::from_utf8(&keys).ok().and_then(|text| Identity::all(text).ok());
    let keys = keys.ok_or_else(|| BackupError::NoIdentity(identity.display().to_string()))?;
    let plain = age::open(&keys, &sealed).map_err(|error| match error {
        NotOpened::OtherKey => BackupError::OtherKey { name: name.clone(), identity: identity.display().to_string() },
        other => damaged(other.to_string()),
    })?;
    let mut whole: Value = serde_json::from_slice(&plain).map_err(|_| damaged("what is in it is no JSON".into()))?;
    if whole["kind"] != "legacyTokenBackup" || whole["version"] != VERSION {
        return Err(damaged(format!("it is of another kind or version than {VERSION}")));
    }
    let secrets = match whole["secrets"].take() {
        Value::Array(secrets) => secrets.into_iter().map(Held::from_backup).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let sound = |held: &Held| held.is_token() && !held.name().is_empty() && !held.namespace().is_empty();
    if secrets.is_empty() || !secrets.iter().all(sound) {
        return Err(damaged("it holds something else than token Secrets".into()));
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `age-keygen` made them.
    const KEYS: [(&str, &str); 3] = [
        (
            "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33",
            "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa",
        ),
        (
            "AGE-SECRET-KEY-13SL3YNLM6XQ8C6X2MSP524VZGFY8VG079WJEZTD72SE0E3HPZ9PS9YYXVT",
            "age1xyqna28gdrevazhx0w3mh4der6z9tlp207qkxhad7fpgpqvqpassnyynxk",
        ),
        (
            "AGE-SECRET-KEY-1K3MXZQ3NF5ADK7P3FFXN4RXXVAN8SU7T24ZKRD26M2EATWGM99TS2UWUFJ",
            "age1q7dc9y5u78x787nvueqc8a4x9flc2x52dyr8frz0mn5qkj6tvypq59fddy",
        ),
    ];

    fn key(folder: &Path, name: &str) -> (std::path::PathBuf, String) {
        let (secret, public) = KEYS[usize::from(name.as_bytes()[0] - b'a')];
        let path = folder.join(name);
        std::fs::write(&path, format!("# made for a test\n{secret}\n")).unwrap();
        (path, public.to_owned())
    }

    fn held() -> Held {
        Held::from_backup(
            json!({"type": crate::cluster::legacy::TYPE, "metadata": {"namespace": "n", "name": "s"}, "data": {"token": "c2VjcmV0LXRva2Vu"}}),
        )
    }

    fn now() -> Timestamp {
        "2026-11-29T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn any_of_its_recipients_opens_a_backup_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let ((a, for_a), (b, for_b), (c, _)) = (key(folder.path(), "a"), key(folder.path(), "b"), key(folder.path(), "c"));
        let path = folder.path().join("old.age");
        keep(&path, &Recipients::of(&[for_a.clone(), for_b]).unwrap(), &[&held()], "https://k", now()).unwrap();
        for identity in [&a, &b] {
            let opened = open(&path, identity).unwrap();
            assert_eq!((opened.len(), opened[0].as_value()), (1, held().as_value()));
        }
        let Err(why) = open(&path, &c) else { panic!("opened by a stranger") };
        assert!(matches!(why, BackupError::OtherKey { .. }) && why.to_string().contains("old.age"), "{why}");
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(16).any(|part| part == b"c2VjcmV0LXRva2Vu"), "the token is readable");
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let again = keep(&path, &Recipients::of(&[for_a]).unwrap(), &[&held()], "https://k", now());
        assert!(matches!(again, Err(BackupError::Exists(_))) && std::fs::read(&path).unwrap() == bytes, "it was overwritten");
    }

    #[test]
    fn a_damaged_backup_and_a_file_without_a_key_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, for_a) = key(folder.path(), "a");
        let path = folder.path().join("old.age");
        keep(&path, &Recipients::of(&[for_a]).unwrap(), &[&held()], "https://k", now()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(open(&path, &a), Err(BackupError::Damaged { .. })), "cut at {cut}");
        }
        std::fs::write(folder.path().join("none"), "hello\n").unwrap();
        assert!(matches!(open(&path, &folder.path().join("none")), Err(BackupError::NoIdentity(_))));
        assert!(matches!(open(&path, &folder.path().join("missing")), Err(BackupError::Broken { .. })));
    }

    #[test]
    fn a_recipient_is_a_public_key() {
        let Err(why) = Recipients::of(&["age1notakey".into()]) else { panic!("taken") };
        assert!(why.to_string().contains("age-keygen"), "{why}");
        let Err(why) = Recipients::of(&["AGE-SECRET-KEY-1QQQ".into()]) else { panic!("taken") };
        assert!(matches!(why, BackupError::SecretHalf) && !why.to_string().contains("QQQ"), "{why}");
    }
}
