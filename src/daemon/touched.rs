//! Notices that somebody touched a published file: one inotify watch on each folder that holds a place. A watch
//! on the file itself would end with its first replacement.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;

use super::watch::own;
use crate::schedule::Plan;
use crate::sink::{SinkSpec, file};

/// Watch number → file name → targets.
type Files = HashMap<i32, HashMap<OsString, Vec<Arc<str>>>>;

/// The watched folders of a plan.
#[derive(Default)]
pub struct Touched {
    fd: Option<Arc<AsyncFd<OwnedFd>>>,
    files: Arc<Mutex<Files>>,
    /// Watches that are still to be set: a file system that hangs holds up nobody but itself.
    setting: JoinSet<()>,
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
            Ok(fd) => Arc::new(fd),
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
        let files: Arc<Mutex<Files>> = Arc::default();
        let mut setting = JoinSet::new();
        for (folder, names) in folders {
            let (fd, files) = (Arc::clone(&fd), Arc::clone(&files));
            setting.spawn(async move {
                let at = folder.clone();
                match file::apart(&folder, move || inotify::add_watch(fd.get_ref(), &at, flags)).await {
                    Some(Ok(number)) => {
                        files.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_default().extend(names);
                    }
                    // A folder that is still to be made is looked at with every proof.
                    Some(Err(error)) => tracing::debug!(%error, folder = %folder.display(), "not watched"),
                    None => {}
                }
            });
        }
        Self { fd: Some(fd), files, setting }
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
                        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(targets) = file.and_then(|file| files.get(&event.wd())?.get(&file)) {
                            names.extend(targets.iter().cloned());
                        }
                        drop(files);
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
        self.setting.abort_all();
        std::future::pending().await
    }
}
