//! A published token as its consumer reads it: plainly, whatever the format, and never stuck.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::token::age::{Identity, NotOpened};
use crate::token::{Claims, Token, extract, sealed};

/// Largest file that is read, in bytes: a kubeconfig of a whole fleet is far below.
pub const LARGEST: u64 = 4 << 20;
/// A clock that lags behind the API server's must not refuse a token that was minted this moment; the API
/// server itself forgives as much.
pub const LEEWAY: i64 = 60;

/// A token that was found, and what its file shows beside it.
pub struct Published {
    /// The token.
    pub token: Token,
    /// What it says of itself.
    pub claims: Claims,
    /// Whether a newline ends the file.
    pub newline: bool,
    /// Permission bits of the file; none for bytes that came another way.
    pub mode: Option<u32>,
}

/// Why a place has no token to use. Says what and since when, never quotes.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Nothing there.
    #[error("does not exist")]
    Missing,
    /// Permissions.
    #[error("not readable by this user; join its group, or read it as its owner")]
    NotReadable,
    /// A folder, FIFO, socket or device.
    #[error("is no regular file")]
    NotAFile,
    /// More than [`LARGEST`].
    #[error("is larger than {} MiB, so it is no token file", LARGEST >> 20)]
    TooLarge,
    /// Another fault of the file system.
    #[error("cannot be read: {0}")]
    Broken(io::Error),
    /// Zero bytes, or white space.
    #[error("is empty")]
    Empty,
    /// An age file, and no key at hand that opens it.
    #[error("is encrypted (age): `tokenferry get --identity KEYFILE` opens it for whom it was encrypted")]
    Encrypted,
    /// An age file that these keys do not open, or a broken one.
    #[error("is encrypted (age), and not opened: {0}")]
    NotOpened(NotOpened),
    /// Bytes without a JWT.
    #[error("no token in it")]
    NoToken,
    /// Its end has passed.
    #[error("expired since {}", at(*.0))]
    Expired(i64),
    /// Its beginning lies ahead.
    #[error("not valid before {}", at(*.0))]
    NotYet(i64),
    /// A legacy token.
    #[error("its token says no end (a legacy token), so nothing tells whether it is still good")]
    Endless,
}

fn at(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| "a time that no calendar has".into(), |time| time.to_string())
}

impl Published {
    /// Finds the token in bytes.
    ///
    /// # Errors
    /// [`Unusable::Empty`], [`Unusable::NoToken`].
    pub fn of(bytes: &[u8], mode: Option<u32>) -> Result<Self, Unusable> {
        if bytes.trim_ascii().is_empty() {
            return Err(Unusable::Empty);
        }
        if sealed::is_sealed(bytes) {
            return Err(Unusable::Encrypted);
        }
        let token = extract(bytes).ok_or(Unusable::NoToken)?;
        let claims = token.claims().map_err(|_| Unusable::NoToken)?;
        Ok(Self { token, claims, newline: bytes.ends_with(b"\n"), mode })
    }

    /// Reads a file as any program of this user can: through links, regular files only, never waiting for a
    /// FIFO's other end.
    ///
    /// # Errors
    /// [`Unusable`], before the token's times are looked at.
    pub fn read(path: &Path) -> Result<Self, Unusable> {
        Self::read_with(path, &[])
    }

    /// The same, where these keys may open it.
    ///
    /// # Errors
    /// As [`Published::read`], and [`Unusable::NotOpened`].
    pub fn read_with(path: &Path, identities: &[Identity]) -> Result<Self, Unusable> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from).map_err(|errno| unusable(errno.into()))?;
        let meta = file.metadata().map_err(unusable)?;
        if !meta.is_file() {
            return Err(Unusable::NotAFile);
        }
        let mode = {
            use std::os::unix::fs::PermissionsExt;
            meta.permissions().mode() & 0o7777
        };
        let bytes = all(file)?;
        if !identities.is_empty() && sealed::is_sealed(&bytes) {
            let plain = sealed::open(identities, &bytes).map_err(Unusable::NotOpened)?;
            return Self::of(&plain, Some(mode));
        }
        Self::of(&bytes, Some(mode))
    }

    /// Reads a stream, such as standard input, to its end.
    ///
    /// # Errors
    /// As [`Published::read`].
    pub fn drain(stream: impl Read) -> Result<Self, Unusable> {
        Self::of(&all(stream)?, None)
    }

    /// Whether its life has begun and its end lies ahead.
    ///
    /// # Errors
    /// [`Unusable::Expired`], [`Unusable::NotYet`], [`Unusable::Endless`].
    pub fn in_date(&self, now: i64) -> Result<(), Unusable> {
        match (self.claims.exp, self.claims.nbf) {
            (None, _) => Err(Unusable::Endless),
            (Some(exp), _) if exp <= now => Err(Unusable::Expired(exp)),
            (_, Some(nbf)) if nbf > now + LEEWAY => Err(Unusable::NotYet(nbf)),
            _ => Ok(()),
        }
    }
}

fn all(stream: impl Read) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 << 10));
    stream.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unusable)?;
    if bytes.len() as u64 > LARGEST { Err(Unusable::TooLarge) } else { Ok(bytes) }
}

fn unusable(error: io::Error) -> Unusable {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Unusable::Missing,
        io::ErrorKind::PermissionDenied => Unusable::NotReadable,
        // A socket, or a device that nobody drives.
        _ if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => Unusable::NotAFile,
        _ => Unusable::Broken(error),
    }
}

/// The token issued last among those in date, with its place; the first of equals.
///
/// # Errors
/// Every place with what is wrong there.
pub fn newest(places: Vec<PathBuf>, now: i64) -> Result<(PathBuf, Published), Vec<(PathBuf, Unusable)>> {
    newest_with(places, now, &[])
}

/// The same, where these keys may open what is encrypted.
///
/// # Errors
/// As [`newest`].
pub fn newest_with(places: Vec<PathBuf>, now: i64, identities: &[Identity]) -> Result<(PathBuf, Published), Vec<(PathBuf, Unusable)>> {
    let mut best: Option<(PathBuf, Published)> = None;
    let mut unusable = Vec::new();
    for place in places {
        match Published::read_with(&place, identities).and_then(|found| found.in_date(now).map(|()| found)) {
            Ok(found) => {
                if best.as_ref().is_none_or(|(_, best)| found.claims.iat > best.claims.iat) {
                    best = Some((place, found));
                }
            }
            Err(why) => unusable.push((place, why)),
        }
    }
    best.ok_or(unusable)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tempfile::TempDir;

    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn jwt(claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(claims))
    }

    fn folder(files: &[(&str, String)]) -> (TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let paths = files.iter().map(|(name, text)| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        });
        let paths = paths.collect();
        (folder, paths)
    }

    fn issued(iat: i64, exp: i64) -> String {
        jwt(&format!(r#"{{"iat":{iat},"exp":{exp}}}"#))
    }

    fn why(result: Result<(PathBuf, Published), Vec<(PathBuf, Unusable)>>) -> Vec<String> {
        result.err().expect("nothing is usable").iter().map(|(_, why)| why.to_string()).collect()
    }

    #[test]
    fn the_token_issued_last_wins_wherever_it_stands() {
        let (_folder, paths) = folder(&[
            ("a", issued(NOW - 50, NOW + 10)),
            ("b", format!("{{\"token\":\"{}\"}}", issued(NOW - 5, NOW + 5))),
            ("c", issued(NOW - 5, NOW + 9)),
            ("newest-but-over", issued(NOW - 1, NOW)),
        ]);
        let (place, found) = newest(paths.clone(), NOW).unwrap_or_else(|_| panic!("there are three"));
        assert_eq!((place, found.claims.exp), (paths[1].clone(), Some(NOW + 5)));
    }

    #[test]
    fn every_place_says_what_is_wrong_with_it() {
        let (folder, mut paths) = folder(&[
            ("over", issued(0, NOW)),
            ("ahead", jwt(&format!(r#"{{"nbf":{},"exp":{}}}"#, NOW + 61, NOW + 99))),
            ("legacy", jwt("{}")),
            ("none", "hello".into()),
            ("empty", " \n".into()),
        ]);
        paths.extend([folder.path().join("missing"), folder.path().to_owned(), paths[0].join("below-a-file")]);
        let said = why(newest(paths, NOW));
        let expected = [
            "expired since 2023-11-14T22:13:20Z",
            "not valid before 2023-11-14T22:14:21Z",
            "its token says no end (a legacy token), so nothing tells whether it is still good",
            "no token in it",
            "is empty",
            "does not exist",
            "is no regular file",
            "does not exist",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn a_clock_that_lags_a_minute_refuses_no_fresh_token() {
        let (_folder, paths) = folder(&[("t", jwt(&format!(r#"{{"nbf":{},"exp":{}}}"#, NOW + 60, NOW + 99)))]);
        assert!(newest(paths, NOW).is_ok());
    }

    #[test]
    fn a_fifo_nobody_writes_to_and_a_socket_do_not_hold_the_reader_up() {
        let folder = tempfile::tempdir().unwrap();
        let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(why(newest(vec![fifo, socket], NOW)), ["is no regular file", "is no regular file"]);
    }

    #[test]
    fn a_file_without_end_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("huge");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(why(newest(vec![path], NOW)), ["is larger than 4 MiB, so it is no token file"]);
        assert!(matches!(Published::drain(io::repeat(b'a')), Err(Unusable::TooLarge)));
    }
}
