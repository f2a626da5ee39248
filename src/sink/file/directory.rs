//! `directory`: several files that switch as one, laid out as the kubelet mounts a ServiceAccount's.
//!
//! Each generation is a folder of its own, `..` and 16 hex digits; `..data` leads to the one in use, and each file
//! that readers open is a link through it (`token` → `..data/token`). One rename of `..data` switches all of them.
//! The generation before stays until the next switch, for readers that are on their way into it.

mod generation;
mod gone;
mod probe;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, readlinkat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;

use super::account::{self, Wish};
use super::blame::{blame, local};
use super::folder::{self, Folder};
use super::publish::{durable, is_unsure, published_name, random, temporary_name};
use super::turn::{Ticket, Turn};
use super::{FileSpec, Held, commit, lane};
use crate::sink::kinds::{Sink, calls};
use crate::sink::{Context, Failure, Put};
use crate::token::Payload;
use crate::token::payload::{Dress, Part};
use crate::token::render::FilePart;

use gone::remove;
use probe::probe;

/// The link that all readers pass through.
const DATA: &str = "..data";

/// `directory: {path, files, mode, owner, group, readers}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectorySpec {
    /// The folder, and how each file in it is owned: `file` has the same settings.
    pub files_as: FileSpec,
    /// What stands in which file.
    pub files: BTreeMap<String, FilePart>,
}

impl DirectorySpec {
    /// The file that holds the token, where one does.
    pub fn token(&self) -> Option<PathBuf> {
        let name = self.files.iter().find(|(_, part)| matches!(part, FilePart::Token(_)))?.0;
        Some(self.files_as.path.join(name))
    }
}

impl Sink for DirectorySpec {
    fn name(&self) -> String {
        self.files_as.path.display().to_string()
    }

    fn space(&self) -> Option<&'static str> {
        Some("file")
    }

    calls!(here self);
}

/// One attempt: the files are switched and durable when it returns `Written` or `Unchanged`.
///
/// # Errors
/// As for a file.
pub(in crate::sink) async fn put(spec: &DirectorySpec, payload: &Payload, context: Context<'_>) -> Result<Put, Failure> {
    let path = &spec.files_as.path;
    super::parts(path)?;
    let turn = Turn::take(path);
    let ticket = turn.ticket();
    let (payload, at) = (payload.clone(), path.clone());
    let wish = account::wish(&spec.files_as).await?;
    lane::run(context.timeout, path, move || publish(&folder::make(&at)?, &wish, &payload, &ticket)).await
}

/// Looks at what is published; `None` where nothing is.
///
/// # Errors
/// As for a file.
pub async fn held(spec: &DirectorySpec, timeout: Duration) -> Result<Option<Held>, Failure> {
    let path = &spec.files_as.path;
    super::parts(path)?;
    let (at, names) = (path.clone(), spec.files.keys().cloned().collect::<Vec<_>>());
    let wish = account::wish(&spec.files_as).await?;
    let work = move || match folder::find(&at)? {
        Some(folder) => see(&folder, &names, &wish),
        None => Ok(None),
    };
    lane::run(timeout, path, work).await
}

/// Everything about the host that would make a put fail, each with its way out.
pub async fn look(spec: &DirectorySpec, timeout: Duration) -> Vec<String> {
    // Its folder is what the folder of a file is, so that a file in it is looked at.
    super::look(&FileSpec { path: spec.files_as.path.join("..file"), ..spec.files_as.clone() }, timeout).await
}

/// Removes what a killed process left in these folders: generations that are not in use, links on their way. Returns
/// how many there were. To be called once, before the first put.
pub async fn sweep(paths: impl IntoIterator<Item = PathBuf>, timeout: Duration) -> usize {
    let mut removed = 0;
    for path in paths {
        let at = path.clone();
        let work = lane::run(timeout, &path, move || match folder::find(&at)? {
            Some(folder) => tidy(&folder, &used(&folder)?.into_iter().collect::<Vec<_>>(), None),
            None => Ok(0),
        });
        removed += work.await.unwrap_or_else(|failure| {
            tracing::warn!(folder = %path.display(), error = %failure, "what an earlier run left was not looked for");
            0
        });
    }
    removed
}

fn publish(folder: &Folder, wish: &Wish, payload: &Payload, ticket: &Ticket) -> Result<Put, Failure> {
    let names: Vec<String> = payload.parts().iter().map(|part| part.name.clone()).collect();
    let before = used(folder)?;
    if !is_unsure(&folder.path)
        && let Ok(Some(held)) = see(folder, &names, wish)
        && held.right
        && held.payload.sha256() == payload.sha256()
    {
        let synced = generation::sync(folder, before.as_deref()).and_then(|()| commit::sync(&folder.fd));
        return durable(folder.path.clone(), synced).map(|()| Put::Unchanged);
    }
    let fresh = generation::Generation::make(folder)?;
    fresh.fill(wish, payload)?;
    let switched = ticket.alone(|| {
        for name in &names {
            link(folder, name)?;
        }
        point(folder, DATA, fresh.name())
    });
    if let Err(failure) = switched {
        fresh.discard();
        return Err(failure);
    }
    durable(folder.path.clone(), commit::sync(&folder.fd))?;
    let keep: Vec<OsString> = before.into_iter().chain([fresh.name().to_owned()]).collect();
    if let Err(failure) = tidy(folder, &keep, Some(&names)) {
        tracing::warn!(folder = %folder.path.display(), error = %failure, "an old generation stays behind until the next put");
    }
    Ok(Put::Written)
}

/// Name of the generation in use, where `..data` leads to one.
fn used(folder: &Folder) -> Result<Option<OsString>, Failure> {
    let path = || folder.path.join(DATA);
    match readlinkat(&folder.fd, DATA, Vec::new()) {
        Ok(target) => Ok(Some(OsString::from(OsStr::from_bytes(target.as_bytes()))).filter(|name| generation::is_name(name))),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::INVAL) => Err(local(format!("{} is no link, so it is not ours: choose an empty folder", path().display()))),
        Err(errno) => Err(blame("read the link", &path(), errno)),
    }
}

/// What a reader finds, and whether all of it is as wished.
fn see(folder: &Folder, names: &[String], wish: &Wish) -> Result<Option<Held>, Failure> {
    let Some(name) = used(folder)? else { return Ok(None) };
    let Some(generation) = generation::open(folder, &name)? else { return Ok(None) };
    let (mut parts, mut modified) = (Vec::new(), 0);
    let mut right = generation::entries(&generation)?.len() == names.len();
    for name in names {
        let linked = readlinkat(&folder.fd, name.as_str(), Vec::new()).is_ok_and(|target| target.as_bytes() == target_of(name).as_bytes());
        let Some(file) = super::held::open(&generation, OsStr::new(name), wish)? else { continue };
        right &= linked && file.right;
        modified = file.modified;
        let mut bytes = file.whole(&generation.path.join(name))?;
        parts.push(Part::new(name, std::mem::take(&mut *bytes)));
    }
    right &= parts.len() == names.len();
    Ok(Some(Held { payload: Payload::of(parts, Dress::default()), right, modified }))
}

fn target_of(name: &str) -> String {
    format!("{DATA}/{name}")
}

/// Makes the link that readers open, where it is not there.
fn link(folder: &Folder, name: &str) -> Result<(), Failure> {
    match readlinkat(&folder.fd, name, Vec::new()) {
        Ok(target) if target.as_bytes() == target_of(name).as_bytes() => Ok(()),
        Ok(_) | Err(Errno::NOENT) => point(folder, name, OsStr::new(&target_of(name))),
        Err(Errno::INVAL) => {
            Err(local(format!("{} is no link of ours: remove it, or choose an empty folder", folder.path.join(name).display())))
        }
        Err(errno) => Err(blame("read the link", &folder.path.join(name), errno)),
    }
}

/// Leads a link elsewhere at once: the new one is made beside it and renamed over it.
fn point(folder: &Folder, name: &str, target: &OsStr) -> Result<(), Failure> {
    let temporary = temporary_name(OsStr::new(name), random()?);
    let failed = |errno| blame("make the link", &folder.path.join(name), errno);
    symlinkat(target, &folder.fd, &temporary).map_err(failed)?;
    renameat(&folder.fd, &temporary, &folder.fd, name).map_err(|errno| {
        // What is left is taken away by the next put or start.
        let _ = unlinkat(&folder.fd, &temporary, AtFlags::empty());
        failed(errno)
    })
}

/// Removes generations other than these, links on their way, and with `names` links of ours that readers no longer
/// have.
fn tidy(folder: &Folder, keep: &[OsString], names: Option<&[String]>) -> Result<usize, Failure> {
    let mut removed = 0;
    for entry in generation::entries(folder)? {
        let text = entry.to_string_lossy();
        let own = || readlinkat(&folder.fd, &entry, Vec::new()).is_ok_and(|target| target.as_bytes() == target_of(&text).as_bytes());
        let on_its_way = is_link_on_its_way(&entry) && readlinkat(&folder.fd, &entry, Vec::new()).is_ok();
        let gone = names.is_some_and(|names| !names.iter().any(|name| *name == text)) && own();
        if generation::is_name(&entry) && !keep.contains(&entry) {
            removed += usize::from(generation::remove(folder, &entry)?);
        } else if on_its_way || gone {
            unlinkat(&folder.fd, &entry, AtFlags::empty()).map_err(|errno| blame("remove", &folder.path.join(&entry), errno))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_link_on_its_way(entry: &OsStr) -> bool {
    published_name(entry.as_bytes()).is_some()
}
