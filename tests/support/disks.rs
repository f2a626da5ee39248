//! Disks that lose power: a FUSE file system serves them as files, a loop device makes them disks, and every write
//! and every flush is noted in order, so that the disk of any moment can be built again, with any of the writes that
//! no flush had yet confirmed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::daemon::tool;

const PAGE: usize = 4096;
/// What the disks are does not change.
const LASTING: Duration = Duration::from_secs(3600);

/// What a disk holds; pages that hold nothing but zeros take no memory, and copies share what they have in common.
#[derive(Clone)]
pub struct Image(Vec<Option<Arc<[u8; PAGE]>>>);

impl Image {
    fn new(bytes: u64) -> Self {
        Self(vec![None; usize::try_from(bytes).unwrap() / PAGE])
    }

    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let whole = self.0.len() * PAGE;
        let from = usize::try_from(offset).unwrap().min(whole);
        let mut bytes = vec![0; size.min(whole - from)];
        each_page(from, bytes.len(), |page, within, at| {
            if let Some(held) = &self.0[page] {
                bytes[at].copy_from_slice(&held[within]);
            }
        });
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        each_page(usize::try_from(offset).unwrap(), bytes.len(), |page, within, at| {
            let part = &bytes[at];
            let held = &mut self.0[page];
            if held.is_some() || part.iter().any(|byte| *byte != 0) {
                Arc::make_mut(held.get_or_insert_with(|| Arc::new([0; PAGE])))[within].copy_from_slice(part);
            }
        });
    }
}

/// Cuts a stretch of a disk at its pages: the page, the part of it, the part of the stretch.
fn each_page(offset: usize, size: usize, mut f: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < size {
        let (page, start) = ((offset + done) / PAGE, (offset + done) % PAGE);
        let length = (PAGE - start).min(size - done);
        f(page, start..start + length, done..done + length);
        done += length;
    }
}

/// Something that reached a disk.
enum Event {
    Write {
        disk: usize,
        offset: u64,
        bytes: Box<[u8]>,
    },
    /// All that was written to the disk before is on it for good.
    Flush {
        disk: usize,
    },
}

/// Everything that reached the disks, in order, from the images at its beginning.
pub struct Log {
    images: Vec<Image>,
    events: Vec<Event>,
}

/// Random numbers that come again with their seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

/// Walks through a log from power cut to power cut, each later than the one before.
pub struct Replay {
    log: Log,
    /// For each disk: how many events its image has in it.
    done: Vec<usize>,
}

impl Replay {
    /// From the beginning.
    pub fn new(log: Log) -> Self {
        let done = vec![0; log.images.len()];
        Self { log, done }
    }

    /// The disks as they may be when power fails before event number `at`: all that was flushed, and of what was not
    /// yet confirmed nothing, everything, or what chance keeps, in whole writes or torn at the pages of a write.
    pub fn cut(&mut self, at: usize, random: &mut Random) -> Vec<Image> {
        let way = random.below(8);
        (0..self.log.images.len())
            .map(|disk| {
                let flushed = self.log.events[..at].iter().rposition(|e| matches!(e, Event::Flush { disk: d } if *d == disk)).unwrap_or(0);
                assert!(flushed >= self.done[disk], "cuts go forwards");
                for event in &self.log.events[self.done[disk]..flushed] {
                    if let Event::Write { disk: d, offset, bytes } = event
                        && *d == disk
                    {
                        self.log.images[disk].write(*offset, bytes);
                    }
                }
                self.done[disk] = flushed;
                let mut image = self.log.images[disk].clone();
                for event in &self.log.events[flushed..at] {
                    let Event::Write { disk: d, offset, bytes } = event else { continue };
                    if *d != disk {
                        continue;
                    }
                    let piece = if way >= 5 { PAGE } else { bytes.len() };
                    for (n, part) in bytes.chunks(piece).enumerate() {
                        if way == 1 || (way > 1 && random.next().is_multiple_of(2)) {
                            image.write(*offset + (n * piece) as u64, part);
                        }
                    }
                }
                image
            })
            .collect()
    }
}

struct Content {
    images: Vec<Image>,
    events: Option<Vec<Event>>,
}

#[derive(Clone)]
struct Shelf(Arc<Mutex<Content>>);

impl Shelf {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let kind = if ino == INodeNo::ROOT { FileType::Directory } else { FileType::RegularFile };
        let size = if ino == INodeNo::ROOT { 0 } else { (self.content().images.get(disk_of(ino)?)?.0.len() * PAGE) as u64 };
        let never = SystemTime::UNIX_EPOCH;
        let (perm, nlink, blksize) = (0o700, 1, 4096);
        let (atime, mtime, ctime, crtime) = (never, never, never, never);
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize,
            flags: 0,
        })
    }
}

/// Inode 2 is disk 0.
fn disk_of(ino: INodeNo) -> Option<usize> {
    usize::try_from(u64::from(ino)).ok()?.checked_sub(2)
}

impl Filesystem for Shelf {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A smaller one is as good.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = name.to_str().and_then(|n| n.strip_prefix("disk")?.parse::<u64>().ok());
        match disk.and_then(|disk| self.attributes(INodeNo(disk + 2))) {
            Some(attributes) => reply.entry(&LASTING, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&LASTING, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, size: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        match disk_of(ino).and_then(|disk| self.content().images.get(disk).map(|image| image.read(offset, size as usize))) {
            Some(bytes) => reply.data(&bytes),
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut content = self.content();
        let Content { images, events } = &mut *content;
        let Some((disk, image)) = disk_of(ino).and_then(|disk| Some((disk, images.get_mut(disk)?))) else { return reply.error(Errno::EIO) };
        image.write(offset, bytes);
        if let Some(events) = events {
            events.push(Event::Write { disk, offset, bytes: bytes.into() });
        }
        reply.written(u32::try_from(bytes.len()).unwrap());
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let (Some(events), Some(disk)) = (&mut self.content().events, disk_of(ino)) {
            events.push(Event::Flush { disk });
        }
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// A set of disks, served as the files `disk0`, `disk1` … of a folder, with what is mounted from them.
pub struct Disks {
    shelf: Shelf,
    folder: PathBuf,
    mounted: Vec<PathBuf>,
    session: Option<BackgroundSession>,
}

impl Disks {
    /// Empty disks of those sizes in bytes, below a folder.
    pub fn new(folder: &Path, sizes: &[u64]) -> Self {
        std::fs::create_dir(folder).unwrap();
        let images = sizes.iter().map(|bytes| Image::new(*bytes)).collect();
        let shelf = Shelf(Arc::new(Mutex::new(Content { images, events: None })));
        let session = fuser::spawn_mount(shelf.clone(), folder, &fuser::Config::default()).unwrap();
        Self { shelf, folder: folder.to_owned(), mounted: Vec::new(), session: Some(session) }
    }

    /// Makes a file system of that kind on a disk.
    pub fn format(&self, disk: usize, kind: &str) {
        let file = self.folder.join(format!("disk{disk}"));
        let mut command = Command::new(format!("mkfs.{kind}"));
        command.args(if kind == "xfs" {
            ["-q", "-K", "-f"].as_slice()
        } else {
            ["-q", "-F", "-E", "nodiscard,lazy_itable_init=0"].as_slice()
        });
        tool(command.arg(file));
    }

    /// Mounts a disk; the file system makes good what a power cut left.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn mount(&mut self, disk: usize, kind: &str, at: &Path) -> Result<(), String> {
        let mut command = Command::new("mount");
        let done = command.args(["-t", kind, "-o", "loop"]).arg(self.folder.join(format!("disk{disk}"))).arg(at).output().unwrap();
        if !done.status.success() {
            return Err(String::from_utf8_lossy(&done.stderr).into_owned());
        }
        self.mounted.push(at.to_owned());
        Ok(())
    }

    /// Takes all of them out of the tree again, with what was written to them.
    pub fn unmount(&mut self) {
        while let Some(at) = self.mounted.pop() {
            // A child of another thread, between its fork and its exec, has all that this process has open.
            super::until("nobody has the file system open", 20, || Command::new("umount").arg(&at).output().unwrap().status.success());
        }
    }

    /// From now on everything is noted.
    pub fn begin(&self) {
        self.shelf.content().events = Some(Vec::new());
    }

    /// How much has been noted.
    pub fn position(&self) -> usize {
        self.shelf.content().events.as_ref().map_or(0, Vec::len)
    }

    /// A handle that tells the position from another thread.
    pub fn clock(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let shelf = self.shelf.clone();
        move || shelf.content().events.as_ref().map_or(0, Vec::len)
    }

    /// What the disks hold.
    pub fn images(&self) -> Vec<Image> {
        self.shelf.content().images.clone()
    }

    /// Ends the noting.
    pub fn end(&self, images: Vec<Image>) -> Log {
        Log { images, events: self.shelf.content().events.take().unwrap_or_default() }
    }

    /// Puts other content on the disks, none of which may be mounted.
    pub fn load(&self, images: Vec<Image>) {
        assert!(self.mounted.is_empty(), "a mounted disk keeps its content");
        self.shelf.content().images = images;
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for at in self.mounted.drain(..).rev() {
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}
