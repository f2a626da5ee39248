//! What is made on this host: the daemon's kubeconfig and its token.
//!
//! Each file is written beside its place and renamed over it, by descriptors of its folder that follow no link: what
//! root writes into the daemon's own folder cannot be led elsewhere by whoever the daemon runs as.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use serde_json::json;
use zeroize::Zeroizing;

use super::Stop;
use crate::sink::file::{system_group, system_user};

/// What became of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was not there before.
    Made,
    /// It was there, and differed.
    Changed,
    /// It is as it should be.
    Unchanged,
    /// It is gone.
    Removed,
    /// It was not there.
    Missing,
    /// It was left alone, for that reason.
    Kept(String),
}

/// The first words of every kubeconfig that we make: a file without them is somebody else's.
const MARK: &str = "# Made by `tokenferry bootstrap";
/// The system's group of the daemon.
const GROUP: &str = "tokenferry";
/// No kubeconfig is that large.
const LARGEST: u64 = 4 << 20;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The text of the daemon's kubeconfig. YAML takes JSON, so nothing has to be quoted by hand.
pub fn kubeconfig(cluster: &str, context: &str, server: &str, ca: Option<&[u8]>, token: &Path) -> String {
    let mut server = json!({"server": server});
    if let Some(pem) = ca {
        server["certificate-authority-data"] = json!(base64::engine::general_purpose::STANDARD.encode(pem));
    }
    format!(
        "{MARK} {name}`; run it again to renew. The token is renewed by the daemon.\n\
         apiVersion: v1\nkind: Config\ncurrent-context: {context}\nclusters:\n  - name: {cluster}\n    cluster: {server}\n\
         users:\n  - name: tokenferry\n    user: {user}\ncontexts:\n  - name: {context}\n    context: {inner}\n",
        name = cluster,
        context = json!(context),
        cluster = json!(cluster),
        user = json!({"tokenFile": token}),
        inner = json!({"cluster": cluster, "user": "tokenferry"}),
    )
}

/// Whom something belongs to, where that is not us.
#[derive(Default)]
struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Owner {
    fn take(&self, what: impl AsFd) -> Result<(), rustix::io::Errno> {
        rustix::fs::fchown(what, self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw))
    }
}

/// One file of ours.
pub struct Place<'a> {
    path: &'a Path,
    /// The folder below which folders are made, private and for the owner of this one.
    state: Option<&'a Path>,
}

impl<'a> Place<'a> {
    /// The daemon's kubeconfig: readable for its group where root makes it for the system's daemon.
    pub fn kubeconfig(path: &'a Path) -> Self {
        Self { path, state: None }
    }

    /// The daemon's token, in its state folder: private to whom that belongs to.
    pub fn token(path: &'a Path, state: &'a Path) -> Self {
        Self { path, state: Some(state) }
    }

    /// What writing the kubeconfig would do.
    pub fn fate(&self, text: &str) -> Result<Fate, Stop> {
        match self.read()? {
            None => Ok(Fate::Made),
            Some(found) if found.as_str() == text => Ok(Fate::Unchanged),
            Some(found) if found.starts_with(MARK) => Ok(Fate::Changed),
            Some(_) => Err(Stop::Failed(format!(
                "{} is there and not made by this command: move it away, or name another `kubeconfig` in the schedule",
                self.path.display()
            ))),
        }
    }

    fn read(&self) -> Result<Option<Zeroizing<String>>, Stop> {
        let failed = |error: &dyn std::fmt::Display| Stop::Failed(format!("{} cannot be read: {error}", self.path.display()));
        let file = match File::open(self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(not_allowed(self.path)),
            Err(error) => return Err(failed(&error)),
        };
        let mut text = Zeroizing::new(String::new());
        file.take(LARGEST).read_to_string(&mut text).map_err(|error| failed(&error))?;
        Ok(Some(text))
    }

    /// Writes it whole or not at all; a kubeconfig that is right already is left alone.
    pub fn write(&self, text: &str) -> Result<(), Stop> {
        if self.state.is_none() && self.fate(text)? == Fate::Unchanged {
            return Ok(());
        }
        let failed = |error: rustix::io::Errno| match error {
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => not_allowed(self.path),
            error => Stop::Failed(format!("{} cannot be written: {error}", self.path.display())),
        };
        let (folder, owner, mode) = self.folder(true).map_err(failed)?;
        let name = self.name();
        let temporary = format!(".{name}.tokenferry");
        match rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => return Err(failed(error)),
            _ => {}
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &temporary, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let publish = || -> Result<(), rustix::io::Errno> {
            owner.take(&file)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            let mut file = File::from(file.try_clone().map_err(|e| io(&e))?);
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| io(&e))?;
            rustix::fs::renameat(&folder, &temporary, &folder, &name)?;
            rustix::fs::fsync(&folder)
        };
        publish().map_err(|error| {
            // Gone already where the renaming was what worked.
            let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
            failed(error)
        })
    }

    /// Takes it away; of a kubeconfig only one that we made.
    pub fn remove(&self, dry: bool) -> Result<Fate, Stop> {
        match (self.read()?, self.state) {
            (None, _) => return Ok(Fate::Missing),
            (Some(found), None) if !found.starts_with(MARK) => return Ok(Fate::Kept("it is not made by this command".into())),
            _ => {}
        }
        if dry {
            return Ok(Fate::Removed);
        }
        let removed = self.folder(false).and_then(|(folder, ..)| rustix::fs::unlinkat(&folder, self.name(), AtFlags::empty()));
        removed.map_err(|error| Stop::Failed(format!("{} cannot be removed: {error}", self.path.display())))?;
        if self.state.is_some()
            && let Some(folder) = self.path.parent()
        {
            // Whatever else stands in it keeps it.
            let _ = std::fs::remove_dir(folder);
        }
        Ok(Fate::Removed)
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The open folder, whom new files belong to where that is not us, and their mode.
    fn folder(&self, make: bool) -> Result<(OwnedFd, Owner, u32), rustix::io::Errno> {
        let root = rustix::process::geteuid().is_root();
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let Some(state) = self.state else {
            if make {
                std::fs::create_dir_all(parent).map_err(|e| io(&e))?;
            }
            let group = root.then(|| system_group(GROUP)).flatten();
            let mode = if group.is_some() { 0o640 } else { 0o600 };
            return Ok((rustix::fs::openat(CWD, parent, FOLDER, Mode::empty())?, Owner { uid: None, gid: group }, mode));
        };
        if make {
            make_state(state, root)?;
        }
        let mut folder = rustix::fs::openat(CWD, state, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = rustix::fs::fstat(&folder)?;
        let owner = if root { Owner { uid: Some(stat.st_uid), gid: Some(stat.st_gid) } } else { Owner::default() };
        for step in parent.strip_prefix(state).unwrap_or(Path::new("")).components() {
            let made = if make { rustix::fs::mkdirat(&folder, step.as_os_str(), Mode::from_raw_mode(0o700)) } else { Ok(()) };
            let fresh = made.is_ok() && make;
            match made {
                Err(error) if error != rustix::io::Errno::EXIST => return Err(error),
                _ => {}
            }
            let next = rustix::fs::openat(&folder, step.as_os_str(), FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
            if fresh {
                owner.take(&next)?;
            }
            folder = next;
        }
        Ok((folder, owner, 0o600))
    }
}

/// The state folder, where the daemon has not run yet: for the system's user, where there is one.
fn make_state(state: &Path, root: bool) -> Result<(), rustix::io::Errno> {
    if state.exists() {
        return Ok(());
    }
    if let Some(parent) = state.parent() {
        std::fs::create_dir_all(parent).map_err(|e| io(&e))?;
    }
    rustix::fs::mkdir(state, Mode::from_raw_mode(0o711))?;
    let ids = || Some((system_user(GROUP)?, system_group(GROUP)?));
    match root.then(ids).flatten() {
        Some((uid, gid)) => rustix::fs::chown(state, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))),
        None => Ok(()),
    }
}

fn not_allowed(path: &Path) -> Stop {
    let owner = std::iter::successors(Some(path), |path| path.parent()).find_map(|path| std::fs::metadata(path).ok());
    let whose = owner.map(|meta| format!(" (it belongs to user id {})", meta.uid())).unwrap_or_default();
    Stop::NotAllowed(format!("you may not write {}{whose}: run this as root, or as the daemon's user", path.display()))
}

fn io(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_kubeconfig_is_one_that_kube_reads_and_it_names_the_token_file() {
        let text = kubeconfig("prod", "no", "https://api:6443", Some(b"PEM"), Path::new("/state/own/prod/token"));
        assert!(text.starts_with("# Made by `tokenferry bootstrap prod`;"), "{text}");
        let read = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("no"), "YAML takes a bare no for false");
        let user = read.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.token_file.as_deref(), Some("/state/own/prod/token"));
        let cluster = read.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("UEVN"));
    }

    #[test]
    fn a_foreign_file_is_refused_and_stays_and_ours_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prod.kubeconfig");
        std::fs::write(&path, "apiVersion: v1\n").unwrap();
        let place = Place::kubeconfig(&path);
        assert!(matches!(place.write("x"), Err(Stop::Failed(why)) if why.contains("move it away")));
        assert!(matches!(place.remove(false), Ok(Fate::Kept(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "apiVersion: v1\n");
        std::fs::remove_file(&path).unwrap();
        let text = kubeconfig("prod", "prod", "https://a", None, Path::new("/t"));
        place.write(&text).unwrap();
        assert_eq!(place.fate(&text).unwrap(), Fate::Unchanged);
        assert_eq!(place.fate("other").unwrap(), Fate::Changed);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(place.remove(true).unwrap(), Fate::Removed);
        assert!(path.exists());
        assert_eq!(place.remove(false).unwrap(), Fate::Removed);
        assert_eq!(place.remove(false).unwrap(), Fate::Missing);
    }

    #[test]
    fn the_token_stands_in_private_folders_and_no_link_leads_it_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let path = state.join("own/prod/token");
        Place::token(&path, &state).write("secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode(&state.join("own")), mode(&state.join("own/prod")), mode(&path)], [0o700, 0o700, 0o600]);
        std::fs::remove_dir_all(state.join("own")).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&state, Some(1234), Some(1235)).unwrap();
            Place::token(&path, &state).write("secret").unwrap();
            for made in [&state.join("own"), &state.join("own/prod"), &path] {
                let meta = std::fs::metadata(made).unwrap();
                assert_eq!((meta.uid(), meta.gid()), (1234, 1235), "what root makes is the daemon's: {}", made.display());
            }
            std::fs::remove_dir_all(state.join("own")).unwrap();
        }
        let elsewhere = folder.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, state.join("own")).unwrap();
        assert!(Place::token(&path, &state).write("secret").is_err());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
