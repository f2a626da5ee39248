//! Notices that somebody touched a published file: one inotify watch on each folder that holds a place. A watch
//! on the file itself would end with its first replacement.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::moves::Touch;
use super::watch::own;
use crate::schedule::{Plan, Target};
use crate::sink::{SinkSpec, file};

/// What stands for a file name, and a target that has a file of that name.
type Named = (u64, Arc<str>);

/// File names, each with a target, in order: a list takes half the room of a table, and a folder may have a hundred thousand.
/// Should two names ever be one here, a target is looked at too often.
#[derive(Default)]
struct Names(Vec<Named>);

/// Stands for a file name in a third of its room.
fn stand_in(name: &OsStr) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl Names {
    fn new(mut names: Vec<Named>) -> Self {
        names.sort_unstable();
        names.shrink_to_fit();
        Self(names)
    }

    fn extend(&mut self, more: Self) {
        let both = std::mem::take(&mut self.0).into_iter().chain(more.0);
        *self = Self::new(both.collect());
    }

    /// The targets that have a file of that name.
    fn of(&self, file: &OsStr) -> impl Iterator<Item = &Arc<str>> {
        let file = stand_in(file);
        let from = self.0.partition_point(|(name, _)| *name < file);
        self.0[from..].iter().take_while(move |(name, _)| *name == file).map(|(_, target)| target)
    }
}

/// What is watched.
#[derive(Default)]
struct Files {
    /// By the watch's number.
    watched: HashMap<i32, Names>,
    /// Folders that are still to be made.
    missing: HashMap<PathBuf, Names>,
}

const FLAGS: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::ONLYDIR);

/// What is touched is looked at when the dust has settled, a second later: to learn of it that late does no harm.
const REST: Duration = Duration::from_millis(100);

/// The watched folders of a plan.
#[derive(Default)]
pub struct Touched {
    fd: Option<Arc<OwnedFd>>,
    /// The runtime's eye on it, while it is open.
    eye: Option<AsyncFd<Arc<OwnedFd>>>,
    /// Until when nobody looks.
    rest: Option<Instant>,
    files: Arc<Mutex<Files>>,
    /// Watches that are still to be set: a file system that hangs holds up nobody but itself.
    setting: JoinSet<()>,
}

/// Folders to watch and the names in them that matter. What stands below `..data` changes by its own hand alone.
fn watched(sink: &SinkSpec) -> impl Iterator<Item = (&Path, &OsStr)> {
    let file = match sink {
        SinkSpec::File(spec) => spec.path.parent().zip(spec.path.file_name()),
        _ => None,
    };
    let directory = match sink {
        SinkSpec::Directory(spec) => Some(spec),
        _ => None,
    };
    let in_directory = directory.into_iter().flat_map(|spec| {
        let names = spec.files.keys().map(OsStr::new).chain([OsStr::new("..data")]);
        names.map(|name| (spec.files_as.path.as_path(), name))
    });
    file.into_iter().chain(in_directory)
}

impl Touched {
    /// Watches the folders of all file places of the plan. What cannot be watched is seen by the next proof.
    pub fn watch(plan: &Plan) -> Self {
        let places = plan.targets.iter().flat_map(|target| target.deliver.iter().map(move |place| (&target.name, &place.sink)));
        Self::on(places.flat_map(|(name, sink)| watched(sink).map(move |at| (at, Arc::clone(name)))))
    }

    /// Watches folders for names in them, each of which stands for something.
    pub fn on<'a>(names: impl Iterator<Item = ((&'a Path, &'a OsStr), Arc<str>)>) -> Self {
        let fd = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => Arc::new(fd),
            Err(error) => {
                tracing::warn!(%error, "published files cannot be watched; they are looked at with every proof");
                return Self::default();
            }
        };
        let mut folders: HashMap<PathBuf, Vec<Named>> = HashMap::new();
        for ((folder, name), stands_for) in names {
            if !folders.contains_key(folder) {
                folders.insert(folder.to_owned(), Vec::new());
            }
            let Some(names) = folders.get_mut(folder) else { continue };
            names.push((stand_in(name), stands_for));
        }
        let mut touched = Self { fd: Some(fd), ..Self::default() };
        for (folder, names) in folders {
            touched.add(folder, Names::new(names));
        }
        touched
    }

    fn add(&mut self, folder: PathBuf, names: Names) {
        let Some(fd) = self.fd.clone() else { return };
        let files = Arc::clone(&self.files);
        self.setting.spawn(async move {
            let at = folder.clone();
            let set = file::apart(Duration::MAX, &folder, move || Ok(inotify::add_watch(&fd, &at, FLAGS))).await;
            let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
            match set {
                // One folder may be two by name; most are not, and a hundred thousand names are not put in once more.
                Ok(Ok(number)) => match files.watched.entry(number) {
                    Entry::Vacant(folder) => {
                        folder.insert(names);
                    }
                    Entry::Occupied(mut folder) => folder.get_mut().extend(names),
                },
                Ok(Err(error)) => {
                    tracing::debug!(%error, folder = %folder.display(), "not watched");
                    files.missing.insert(folder, names);
                }
                // The runtime is shutting down.
                Err(_) => {}
            }
        });
    }

    /// Tries again to watch folders that were not there.
    pub fn again_missing(&mut self) {
        let missing = std::mem::take(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner).missing);
        for (folder, names) in missing {
            self.add(folder, names);
        }
    }

    /// Watches the folders of a target that its delivery has made.
    pub fn again(&mut self, target: &Target) {
        for (folder, _) in target.deliver.iter().flat_map(|place| watched(&place.sink)) {
            let missing = self.files.lock().unwrap_or_else(PoisonError::into_inner).missing.remove_entry(folder);
            if let Some((folder, names)) = missing {
                self.add(folder, names);
            }
        }
    }

    /// What was touched next, a move once for each time; for ever nothing where nothing is watched. Can be dropped
    /// and called again without losing an event.
    pub async fn next(&mut self) -> Vec<Touch> {
        while let Some(fd) = self.fd.clone() {
            if let Some(rest) = self.rest {
                tokio::time::sleep_until(rest).await;
                self.rest = None;
            }
            match self.seen(&fd).await {
                Ok(touches) if touches.is_empty() => {}
                Ok(touches) => return touches,
                Err(error) => {
                    tracing::warn!(%error, "published files are no longer watched; they are looked at with every proof");
                    self.fd = None;
                    self.setting.abort_all();
                }
            }
        }
        std::future::pending().await
    }

    /// Everything that is there once something is. Then the eye is shut for a while: each event of a thousand rotations would
    /// wake the loop.
    async fn seen(&mut self, fd: &Arc<OwnedFd>) -> std::io::Result<Vec<Touch>> {
        let eye = match &mut self.eye {
            Some(eye) => eye,
            shut => shut.insert(own(Arc::clone(fd))?),
        };
        drop(eye.readable().await?);
        let mut buffer = [std::mem::MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(fd, &mut buffer);
        let mut touches: Vec<Touch> = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let file = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some((file, names)) = file.zip(files.watched.get(&event.wd())) {
                        let moved = event.events().contains(ReadFlags::MOVED_TO);
                        touches.extend(names.of(file).map(|target| Touch { target: Arc::clone(target), moved }));
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    tracing::warn!(%error, "an event of a published file was lost");
                    break;
                }
            }
        }
        self.eye = None;
        self.rest = Some(Instant::now() + REST);
        Ok(touches)
    }
}
