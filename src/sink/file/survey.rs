//! What places hold, and what a put would meet there: all places of one folder in one piece of work, so that a hundred
//! thousand are looked at in seconds.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use ring::digest::SHA256_OUTPUT_LEN;
use rustix::fs::{Access, AtFlags, accessat};

use super::account::{self, Wish};
use super::acl::{self, Acl};
use super::blame::{blame, local};
use super::folder::{self, Folder};
use super::held::{self, Held};
use super::{FileSpec, lane};
use crate::sink::Failure;

/// What was seen of one place.
pub struct Surveyed {
    /// What is published; `None` where nothing is. `Unavailable` where the file system does not answer in time, `Local`
    /// where something else than a file of ours stands at the path, or the folder is not safe.
    pub held: Result<Option<Held>, Failure>,
    /// SHA-256 of what is published: made where the file is read, beside whoever asked.
    pub digest: Option<[u8; SHA256_OUTPUT_LEN]>,
    /// Everything about the host that would make a put fail, each with its way out.
    pub problems: Vec<String>,
}

impl Surveyed {
    fn failed(failure: Failure) -> Self {
        Self { problems: vec![failure.message.clone()], held: Err(failure), digest: None }
    }
}

/// A place of a folder: its number in the survey, its name, its mode, and all that it wishes.
type Wanted = (usize, OsString, u32, Result<Wish, Failure>);

/// Looks at these places, in their order. Writes nothing.
pub async fn survey(specs: &[&FileSpec], timeout: Duration) -> Vec<Surveyed> {
    let wishes = join_all(specs.iter().map(|spec| account::wish(spec))).await;
    let mut all: Vec<Option<Surveyed>> = specs.iter().map(|_| None).collect();
    let mut folders = BTreeMap::<PathBuf, Vec<Wanted>>::new();
    for (index, (spec, wish)) in specs.iter().zip(wishes).enumerate() {
        match super::parts(&spec.path) {
            Ok((parent, name)) => folders.entry(parent).or_default().push((index, name, spec.mode.0, wish)),
            Err(failure) => all[index] = Some(Surveyed::failed(failure)),
        }
    }
    let looks = folders.into_iter().map(|(parent, wanted)| async move {
        let indexes: Vec<usize> = wanted.iter().map(|(index, ..)| *index).collect();
        let at = parent.clone();
        let seen = lane::run(timeout, &at, move || Ok(in_folder(&parent, wanted))).await;
        match seen {
            Ok(seen) => indexes.into_iter().zip(seen).collect::<Vec<_>>(),
            Err(failure) => indexes.into_iter().map(|index| (index, Surveyed::failed(failure.clone()))).collect(),
        }
    });
    for (index, seen) in join_all(looks).await.into_iter().flatten() {
        all[index] = Some(seen);
    }
    all.into_iter().map(|seen| seen.expect("each place stands in one folder, or its path was refused")).collect()
}

/// Everything about the host that would make a put at this place fail, each with its way out; empty where
/// nothing does. Writes nothing.
pub async fn look(spec: &FileSpec, timeout: Duration) -> Vec<String> {
    survey(&[spec], timeout).await.into_iter().flat_map(|seen| seen.problems).collect()
}

fn in_folder(parent: &Path, wanted: Vec<Wanted>) -> Vec<Surveyed> {
    let folder = folder::find(parent);
    let whole = match &folder {
        Err(failure) => Some(failure.clone()),
        Ok(None) => folder::unmakeable(parent).unwrap_or_else(Some),
        // By the effective ids, and read-only mounts and sandboxes are seen as well.
        Ok(Some(folder)) => accessat(&folder.fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .err()
            .map(|errno| blame("write in", &folder.path.join(""), errno)),
    };
    let one = |(_, name, mode, wish): Wanted| {
        let held = match (&folder, &wish) {
            (Err(failure), _) | (_, Err(failure)) => Err(failure.clone()),
            (Ok(None), _) => Ok(None),
            (Ok(Some(folder)), Ok(wish)) => held::read(folder, &name, wish),
        };
        let unknown = wish.as_ref().err().map(|failure| failure.message.clone());
        let wish = wish.unwrap_or(Wish { mode, uid: None, gid: None, acl: Acl::default() });
        let here = || folder.as_ref().ok().and_then(Option::as_ref).and_then(|folder| in_the_way(folder, &name, &wish).err());
        let met = whole.clone().or_else(here).map(|failure| failure.message);
        let digest = held.as_ref().ok().and_then(Option::as_ref).map(|held| held.payload.digest());
        Surveyed { held, digest, problems: unknown.into_iter().chain(met).collect() }
    };
    wanted.into_iter().map(one).collect()
}

/// What of one place would be in a put's way, where its folder is not.
fn in_the_way(folder: &Folder, name: &OsStr, wish: &Wish) -> Result<(), Failure> {
    held::stat(folder, name, wish)?;
    if wish.acl.is_empty() && acl::shuts_out(&folder.fd, wish.mode) {
        let (mode, path) = (wish.mode, folder.path.display());
        return Err(local(format!(
            "the default ACL of {path} names readers whom the mode {mode:04o} shuts out: write the mode \"0640\", or `readers`"
        )));
    }
    Ok(())
}
