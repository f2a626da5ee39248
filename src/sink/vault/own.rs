//! Our own credential and CA files: read whole, with a stamp that tells whether they changed.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

pub(in crate::sink) use crate::cluster::awaited::{Stamp, stamp};
use crate::sink::{Failure, FailureKind};

/// More than any token, secret id or CA bundle has.
const LARGEST: u64 = 4 << 20;

/// The file's bytes.
///
/// # Errors
/// `Local`, with the path and the reason; never with what stands in the file.
pub(in crate::sink) async fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Stamp), Failure> {
    let owned = PathBuf::from(path);
    let read = tokio::task::spawn_blocking(move || blocking_read(&owned)).await;
    let read = read.unwrap_or_else(|_| Err("its reading was broken off".into()));
    read.map_err(|why| Failure::new(FailureKind::Local, format!("cannot read {}: {why}", path.display())))
}

/// The one secret in the file, without the white space around it.
///
/// # Errors
/// `Local`: unreadable, empty, or with characters that no header may carry.
pub(in crate::sink) async fn secret(path: &Path) -> Result<(Zeroizing<String>, Stamp), Failure> {
    let (bytes, stamp) = read(path).await?;
    let wrong = |why: &str| Failure::new(FailureKind::Local, format!("{} {why}", path.display()));
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not text"))?.trim();
    if text.is_empty() {
        return Err(wrong("is empty: it should hold one secret"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("should hold one secret and nothing else, but has white space or control characters in it"));
    }
    Ok((Zeroizing::new(text.to_owned()), stamp))
}

fn blocking_read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Stamp), String> {
    // A FIFO in the file's place must not hang us.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| e.to_string())?;
    let found = file.metadata().map_err(|e| e.to_string())?;
    if !found.is_file() {
        return Err("it is no regular file".into());
    }
    if found.mode() & 0o002 != 0 {
        return Err("anyone on this host may write to it: take that right away with chmod o-w".into());
    }
    if found.size() > LARGEST {
        return Err(format!("it has {} bytes, more than any credential", found.size()));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(found.size()).unwrap_or(0) + 1));
    file.take(LARGEST).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    Ok((bytes, Stamp::of(&found)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    async fn written(bytes: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let read = secret(file.path()).await;
        read.map(|(text, _)| text.to_string()).map_err(|e| e.message.replace(file.path().to_str().unwrap(), "FILE"))
    }

    #[tokio::test]
    async fn a_secret_is_read_without_the_newline_that_editors_add() {
        assert_eq!(written(b"hvs.abc\n").await.unwrap(), "hvs.abc");
    }

    #[tokio::test]
    async fn a_file_with_something_else_than_one_secret_is_refused_without_quoting_it() {
        assert_eq!(written(b" \n").await.unwrap_err(), "FILE is empty: it should hold one secret");
        for bytes in [&b"one\ntwo"[..], b"zero\0zero"] {
            let message = written(bytes).await.unwrap_err();
            assert_eq!(message, "FILE should hold one secret and nothing else, but has white space or control characters in it");
        }
    }

    #[tokio::test]
    async fn a_file_that_anyone_may_write_and_a_missing_one_are_local_failures() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o606)).unwrap();
        assert_eq!(secret(file.path()).await.unwrap_err().kind, FailureKind::Local);
        assert_eq!(secret(Path::new("/nonexistent/token")).await.unwrap_err().kind, FailureKind::Local);
    }

    #[tokio::test]
    async fn a_replaced_file_has_another_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("token"), folder.path().join("other"));
        std::fs::write(&path, "one").unwrap();
        let before = stamp(&path).await;
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(stamp(&path).await, before);
    }
}
