//! Notices that somebody touched a published file: one inotify watch on each folder that holds a place. A watch
//! on the file itself would end with its first replacement.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use super::watch::own;
use crate::schedule::Plan;
use crate::sink::SinkSpec;

/// The watched folders of a plan.
#[derive(Default)]
pub struct Touched {
    fd: Option<AsyncFd<OwnedFd>>,
    /// Watch number → file name → targets.
    files: HashMap<i32, HashMap<OsString, Vec<Arc<str>>>>,
}

/// Folders to watch and the names in them that matter. What stands below `..data` changes by its own hand alone.
fn watched(sink: &SinkSpec) -> Vec<(PathBuf, OsString)> {
    match sink {
        SinkSpec::File(spec) => match (spec.path.parent(), spec.path.file_name()) {
            (Some(folder), Some(name)) => vec![(folder.to_owned(), name.to_owned())],
            _ => Vec::new(),
        },
        SinkSpec::Directory(spec) => {
            let names = spec.files.keys().map(OsString::from).chain([OsString::from("..data")]);
            names.map(|name| (spec.files_as.path.clone(), name)).collect()
        }
        _ => Vec::new(),
    }
}

impl Touched {
    /// Watches the folders of all file places of the plan. What cannot be watched is seen by the next proof.
    pub fn watch(plan: &Plan) -> Self {
        let made = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(std::io::Error::from).and_then(own);
        let fd = match made {
            Ok(fd) => fd,
            Err(error) => {
                tracing::warn!(%error, "published files cannot be watched; they are looked at with every proof");
                return Self::default();
            }
        };
        let mut folders: HashMap<PathBuf, HashMap<OsString, Vec<Arc<str>>>> = HashMap::new();
        for target in &plan.targets {
            for place in &target.deliver {
                for (folder, name) in watched(&place.sink) {
                    folders.entry(folder).or_default().entry(name).or_default().push(Arc::from(target.name.as_str()));
                }
            }
        }
        let flags = WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        let mut files = HashMap::new();
        for (folder, names) in folders {
            match inotify::add_watch(fd.get_ref(), &folder, flags) {
                Ok(number) => {
                    files.entry(number).or_insert_with(HashMap::new).extend(names);
                }
                // A folder that is still to be made is looked at with every proof.
                Err(error) => tracing::debug!(%error, folder = %folder.display(), "not watched"),
            }
        }
        Self { fd: Some(fd), files }
    }

    /// The targets whose files were touched next; for ever nothing where nothing is watched. Can be dropped
    /// and called again without losing an event.
    pub async fn next(&mut self) -> Vec<Arc<str>> {
        let Some(fd) = &self.fd else { return std::future::pending().await };
        loop {
            let mut ready = match fd.readable().await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::warn!(%error, "published files are no longer watched; they are looked at with every proof");
                    break;
                }
            };
            let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
            let mut reader = inotify::Reader::new(fd.get_ref(), &mut buffer);
            let mut names: Vec<Arc<str>> = Vec::new();
            loop {
                match reader.next() {
                    Ok(event) => {
                        let file = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
                        if let Some(targets) = file.and_then(|file| self.files.get(&event.wd())?.get(&file)) {
                            names.extend(targets.iter().cloned());
                        }
                        if reader.is_buffer_empty() && !names.is_empty() {
                            names.sort();
                            names.dedup();
                            return names;
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "an event of a published file was lost");
                        ready.clear_ready();
                        break;
                    }
                }
            }
            if !names.is_empty() {
                return names;
            }
        }
        self.fd = None;
        std::future::pending().await
    }
}
