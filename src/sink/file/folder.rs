//! The folder of a published file, opened from `/` down one component at a time, so that nobody else can
//! swap what lies in between.
//!
//! Every ancestor belongs to root or to us and may not be written by others unless it is sticky. Links are
//! not followed, except those that root alone could have made (`/var/run` → `/run`). One way for all kernels
//! and sandboxes: `RestrictSUIDSGID=` lets `openat2` fail, so that it would need this walk beside it anyway.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::blame::{blame, local, ours};
use super::commit;
use crate::sink::Failure;

const PASS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// As many links as the kernel follows in one path.
const LINKS: usize = 40;
/// A folder that we make lets pass and lists nothing, as `/run/tokenferry`: each file in it has its own mode.
const MADE: u32 = 0o711;
/// Where root makes missing folders too: places of ours, and places for things that may be lost.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// A folder, open. It stays the same folder whatever happens to its path.
pub(super) struct Folder {
    /// Open for reading, so that it can be synced.
    pub(super) fd: OwnedFd,
    /// As the walk reached it, for messages.
    pub(super) path: PathBuf,
    /// The group that new files take, where the folder says so (setgid).
    pub(super) gives_group: Option<u32>,
}

/// The folder, or `None` where it is missing.
pub(super) fn find(path: &Path) -> Result<Option<Folder>, Failure> {
    let walk = walk(path)?;
    if walk.rest.is_empty() { walk.end().map(Some) } else { Ok(None) }
}

/// The folder; what is missing of it is made where that is safe: below a folder of our own, and as root only
/// below `/run/tokenferry`, `/var/lib/tokenferry` or a folder of ours in a temporary place, so that a slip
/// in a path does not litter the host.
pub(super) fn make(path: &Path) -> Result<Folder, Failure> {
    let mut walk = walk(path)?;
    if let Some(failure) = walk.missing(path) {
        return Err(failure);
    }
    while let Some(name) = walk.rest.pop() {
        let step = walk.last().make(&name)?;
        walk.steps.push(step);
    }
    walk.end()
}

/// Why the missing part of a folder cannot be made, if some is missing and it cannot.
pub(super) fn unmakeable(path: &Path) -> Result<Option<Failure>, Failure> {
    Ok(walk(path)?.missing(path))
}

struct Walk {
    /// From `/` down; never empty.
    steps: Vec<Step>,
    /// Components that do not exist, the next one last.
    rest: Vec<OsString>,
}

struct Step {
    fd: OwnedFd,
    path: PathBuf,
    uid: u32,
    gid: u32,
    mode: u32,
}

fn walk(path: &Path) -> Result<Walk, Failure> {
    let mut walk = Walk { steps: vec![Step::open(openat(CWD, "/", PASS, Mode::empty()), "/".into())?], rest: components(path) };
    let mut links = 0;
    while let Some(name) = walk.rest.pop() {
        if name == ".." {
            walk.steps.truncate(walk.steps.len().saturating_sub(1).max(1));
            continue;
        }
        let here = walk.last();
        let next = here.path.join(&name);
        match openat(&here.fd, &name, PASS, Mode::empty()) {
            Err(Errno::NOENT) => {
                walk.rest.push(name);
                break;
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                links += 1;
                if links > LINKS {
                    return Err(blame("pass through", &next, Errno::LOOP));
                }
                let target = here.link(&name)?;
                if target.is_absolute() {
                    walk.steps.truncate(1);
                }
                walk.rest.extend(components(&target));
            }
            other => walk.steps.push(Step::open(other, next)?),
        }
    }
    Ok(walk)
}

/// Names in a path, the first one last.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    names.map(|part| part.as_os_str().to_owned()).collect()
}

impl Walk {
    fn last(&self) -> &Step {
        self.steps.last().expect("`/` is never taken off")
    }

    fn end(&self) -> Result<Folder, Failure> {
        let last = self.last();
        let fd = last.readable()?;
        Ok(Folder { fd, path: last.path.clone(), gives_group: (last.mode & 0o2000 != 0).then_some(last.gid) })
    }

    /// The failure where something is missing that we may not make.
    fn missing(&self, whole: &Path) -> Option<Failure> {
        let next = self.last().path.join(self.rest.last()?);
        let sound = self.rest.iter().all(|name| name != "..");
        (!sound || !self.last().may_grow(whole)).then(|| {
            let whole = whole.display();
            local(format!("folder {} does not exist: make it (install -d -m 0750 -o {} {whole}); tokenferry host --apply makes every folder of a schedule", next.display(), ours()))
        })
    }
}

impl Step {
    fn open(opened: Result<OwnedFd, Errno>, path: PathBuf) -> Result<Self, Failure> {
        let fd = opened.map_err(|errno| blame("pass through", &path, errno))?;
        let stat = fstat(&fd).map_err(|errno| blame("look at", &path, errno))?;
        let step = Self { fd, path, uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode };
        match step.objection() {
            Some(message) => Err(local(message)),
            None => Ok(step),
        }
    }

    /// Why others could swap what lies in this folder, with the command that ends it.
    fn objection(&self) -> Option<String> {
        let (path, bits) = (self.path.display(), self.mode & 0o7777);
        if self.uid != 0 && self.uid != ours() {
            let who = if ours() == 0 { "root".into() } else { format!("root or user id {}", ours()) };
            return Some(format!(
                "folder {path} belongs to user id {}, who could swap what is in it: it has to belong to {who} (chown)",
                self.uid
            ));
        }
        let shared = self.mode & 0o022 != 0;
        let (sticky, setgid) = (self.mode & 0o1000 != 0, self.mode & 0o2000 != 0);
        if shared && setgid {
            return Some(format!("folder {path} has mode {bits:04o}: its group needs to read, not to write (chmod 2750 {path})"));
        }
        (shared && !sticky).then(|| format!("folder {path} has mode {bits:04o}, so others could swap what is in it (chmod go-w {path})"))
    }

    /// Where a link leads that only root can have made; every other is refused.
    fn link(&self, name: &OsStr) -> Result<PathBuf, Failure> {
        let path = self.path.join(name);
        let stat = statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| blame("look at", &path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(local(format!("{} is no folder", path.display())));
        }
        let trusted = stat.st_uid == 0 && self.uid == 0 && self.mode & 0o022 == 0;
        if !trusted {
            return Err(local(format!(
                "{} is a symbolic link, and links are not followed: write the path that it leads to",
                path.display()
            )));
        }
        let target = readlinkat(&self.fd, name, Vec::new()).map_err(|errno| blame("read the link", &path, errno))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn may_grow(&self, whole: &Path) -> bool {
        let private = self.uid == ours() && self.mode & 0o022 == 0;
        let ours_by_name = ["/run/tokenferry", "/var/lib/tokenferry"].iter().any(|place| {
            let rest = whole.as_os_str().as_bytes().strip_prefix(place.as_bytes());
            rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/' | b'-')))
        });
        let temporary = TEMPORARY.iter().any(|place| self.path.starts_with(place) && self.path != Path::new(place));
        private && (ours() != 0 || ours_by_name || temporary)
    }

    /// The same folder, open for more than passing through.
    fn readable(&self) -> Result<OwnedFd, Failure> {
        openat(&self.fd, ".", READ, Mode::empty()).map_err(|errno| blame("open folder", &self.path, errno))
    }

    /// Makes one folder in this one, durably and whatever the umask.
    fn make(&self, name: &OsStr) -> Result<Self, Failure> {
        let path = self.path.join(name);
        let failed = |errno| blame("make folder", &path, errno);
        match mkdirat(&self.fd, name, Mode::from_raw_mode(MADE)) {
            // Another target of ours made it in this moment; the checks below hold for it just the same.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let fd = openat(&self.fd, name, READ, Mode::empty()).map_err(failed)?;
        let stat = fstat(&fd).map_err(failed)?;
        let mode = MADE | (stat.st_mode & 0o2000);
        if stat.st_uid == ours() && stat.st_mode & 0o7777 != mode {
            fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        commit::sync(&fd).and_then(|()| commit::sync(&self.readable_fd()?)).map_err(failed)?;
        Self::open(openat(&self.fd, name, PASS, Mode::empty()), path)
    }

    fn readable_fd(&self) -> Result<OwnedFd, Errno> {
        openat(&self.fd, ".", READ, Mode::empty())
    }
}
