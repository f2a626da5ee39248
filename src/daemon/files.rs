//! The file places of every target, for who looks for them without planning a schedule: asked from the daemon,
//! or from an index that it leaves beside the records folder, where consumers can read it.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::schedule::{Plan, Target};
use crate::sink::{Place, SinkSpec, file};

/// Longest that the daemon may take to answer, before the index is asked: consumers ask for each request.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// Largest answer, and longest line of an index, that are read.
const LARGEST: usize = 4 << 20;
/// Bytes of an index that are read at once.
const CHUNK: usize = 4 << 10;
/// Form of the index that this program writes and reads: one line a target, sorted by name.
const VERSION: u32 = 2;

/// Removes what a killed run left beside the places of these targets; returns how much there was.
pub async fn sweep(targets: &[Arc<Target>], timeout: Duration) -> usize {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for place in targets.iter().flat_map(|target| target.places()) {
        match &place.sink {
            SinkSpec::File(spec) => files.push(spec.path.clone()),
            SinkSpec::Directory(spec) => directories.push(spec.files_as.path.clone()),
            _ => {}
        }
    }
    file::sweep(files, timeout).await + file::directory::sweep(directories, timeout).await
}

/// Every file with a target's token, each before what stands in for it. A kubeconfig that is merged into holds
/// tokens of others too, so it is none of them.
pub fn of(target: &Target) -> Vec<PathBuf> {
    target.places().filter_map(Place::file).collect()
}

/// The first line of an index.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    version: u32,
    schedule: PathBuf,
    /// The schedule file as it was when it was accepted.
    stamp: Option<Stamp>,
    /// The control socket, where the schedule names one.
    socket: Option<PathBuf>,
}

/// Tells a file from one that was written later.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { bytes: meta.len(), seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() })
    }
}

/// One line for each target, sorted by name, so that a few reads find one among 100,000.
#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    files: Vec<PathBuf>,
}

/// Where the index of a records folder stands: beside it, since the folder itself is private.
pub fn index(records: &Path) -> PathBuf {
    let name = records.file_name().unwrap_or_default().to_string_lossy();
    records.with_file_name(format!("{name}-places.jsonl"))
}

/// Writes the index of a plan, whole; readable by everyone, as the schedule is. Where that fails, consumers read
/// the schedule instead, so it is only logged.
pub fn keep(records: &Path, plan: &Plan) {
    if let Err(error) = write(&index(records), plan) {
        tracing::debug!(%error, "the index of places cannot be written beside the records");
    }
}

fn write(place: &Path, plan: &Plan) -> io::Result<()> {
    let head = Head { version: VERSION, schedule: plan.path.clone(), stamp: Stamp::of(&plan.path), socket: plan.socket.clone() };
    let mut text = serde_json::to_vec(&head)?;
    text.push(b'\n');
    let mut targets: Vec<&Target> = plan.targets.iter().map(AsRef::as_ref).collect();
    targets.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for target in targets {
        serde_json::to_writer(&mut text, &Entry { name: target.name.to_string(), files: of(target) })?;
        text.push(b'\n');
    }
    if std::fs::read(place).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let temporary = place.with_extension("tmp");
    match std::fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    // Past our own umask.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    std::fs::rename(&temporary, place)
}

/// The index that a daemon left.
pub struct Index {
    file: File,
    head: Head,
    /// Where the first target stands.
    begin: u64,
}

impl Index {
    /// The one beside that records folder, where there is one of that schedule.
    pub fn open(records: &Path, schedule: &Path) -> Option<Self> {
        let file = File::open(index(records)).ok()?;
        let line = line_at(&file, 0)?;
        let head: Head = serde_json::from_slice(&line).ok()?;
        let ours = head.version == VERSION && head.schedule == std::path::absolute(schedule).ok()?;
        ours.then_some(Self { file, head, begin: line.len() as u64 + 1 })
    }

    /// Whether the schedule file is still the one that was accepted, so that nothing has to be looked up in it.
    pub fn is_current(&self) -> bool {
        self.head.stamp.is_some() && self.head.stamp == Stamp::of(&self.head.schedule)
    }

    /// The control socket, where the schedule names one.
    pub fn socket(&self) -> Option<&Path> {
        self.head.socket.as_deref()
    }

    /// The files of a target, where it is in the index.
    pub fn files(&self, name: &str) -> Option<Vec<PathBuf>> {
        search(&self.file, self.begin, self.file.metadata().ok()?.len(), name)
    }
}

/// Halves what is left of the index until the target's line is found. `low` is always the beginning of a line.
fn search(file: &File, mut low: u64, mut high: u64, name: &str) -> Option<Vec<PathBuf>> {
    while low < high {
        let middle = low + (high - low) / 2;
        let start = if middle == low { low } else { middle + line_at(file, middle - 1)?.len() as u64 };
        if start >= high {
            // No line begins between the middle and the end.
            high = middle;
            continue;
        }
        let line = line_at(file, start)?;
        let entry: Entry = serde_json::from_slice(&line).ok()?;
        match entry.name.as_str().cmp(name) {
            Ordering::Equal => return Some(entry.files),
            Ordering::Less => low = start + line.len() as u64 + 1,
            Ordering::Greater => high = start,
        }
    }
    None
}

/// What stands from there to the end of the line; nothing where no line ends after it.
fn line_at(file: &File, from: u64) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut chunk = [0; CHUNK];
    while line.len() < LARGEST {
        let read = file.read_at(&mut chunk, from + line.len() as u64).ok().filter(|read| *read > 0)?;
        match chunk[..read].iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                line.extend_from_slice(&chunk[..end]);
                return Some(line);
            }
            None => line.extend_from_slice(&chunk[..read]),
        }
    }
    None
}

#[derive(Deserialize)]
struct Answer {
    files: Vec<PathBuf>,
}

/// The files of a target by the daemon that listens on the socket. Without a runtime, and nothing where it does
/// not answer at once: a consumer may not be held up by it.
pub fn asked(socket: &Path, name: &str) -> Option<Vec<PathBuf>> {
    let answer: Answer = serde_json::from_slice(&call(socket, &format!("/places?target={name}")).ok()?).ok()?;
    Some(answer.files)
}

/// One GET over the control socket; its body.
fn call(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    // A daemon that hangs has a full queue, and a blocking connect would wait in it.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let descriptor = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&descriptor, &SocketAddrUnix::new(socket)?)?;
    let mut stream = UnixStream::from(descriptor);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: tokenferry\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LARGEST as u64).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(answer.split_off(end + 4))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::schedule::check::{self, Sources};

    fn plan(schedule: &Path) -> Plan {
        let text = "version: 1\nclusters: {c: {embedded: {}}}\ntargets:\n\
            - {name: ci, cluster: c, serviceAccount: a/b, duration: 1h, deliver: [{file: {path: /run/a/one}}, {file: {path: /run/a/two}, fallback: [{file: {path: /run/b/three}}]}]}\n\
            - {name: ci-2, cluster: c, serviceAccount: a/b, duration: 1h, deliver: [{file: {path: /run/a/four}}]}\n";
        let sources = Sources { path: schedule.to_owned(), text: text.into(), includes: Vec::new() };
        check::plan(&sources, &BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]))
    }

    #[test]
    fn the_index_gives_primaries_and_fallbacks_of_its_schedule_to_everyone() {
        let folder = tempfile::tempdir().unwrap();
        let (records, schedule) = (folder.path().join("records"), folder.path().join("s.yaml"));
        keep(&records, &plan(&schedule));
        let paths = |names: &[&str]| Some(names.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(kept(&records, &schedule, "ci"), paths(&["/run/a/one", "/run/a/two", "/run/b/three"]));
        assert_eq!(kept(&records, &schedule, "ci-2"), paths(&["/run/a/four"]));
        assert_eq!(kept(&records, &schedule, "c"), None);
        assert_eq!(kept(&records, &folder.path().join("other.yaml"), "ci"), None);
        let mode = std::fs::metadata(index(&records)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    fn kept(records: &Path, schedule: &Path, name: &str) -> Option<Vec<PathBuf>> {
        Index::open(records, schedule)?.files(name)
    }

    #[test]
    fn an_index_is_current_until_its_schedule_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (records, schedule) = (folder.path().join("records"), folder.path().join("s.yaml"));
        let is_current = || Index::open(&records, &schedule).unwrap().is_current();
        keep(&records, &plan(&schedule));
        assert!(!is_current(), "a file that nobody saw");
        std::fs::write(&schedule, "version: 1\n").unwrap();
        keep(&records, &plan(&schedule));
        assert!(is_current());
        std::fs::write(&schedule, "version: 1\ncontrol: {socket: /elsewhere}\n").unwrap();
        assert!(!is_current());
    }

    #[test]
    fn a_broken_index_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (records, schedule) = (folder.path().join("records"), folder.path().join("s.yaml"));
        keep(&records, &plan(&schedule));
        let good = std::fs::read_to_string(index(&records)).unwrap();
        let (head, _) = good.split_once('\n').unwrap();
        for text in ["", "\n", "{}\n{\"name\":\"ci\",\n", "\u{0}", head, &format!("{head}\n"), &format!("{head}\n{{\"name\":\"ci\"")] {
            std::fs::write(index(&records), text).unwrap();
            assert_eq!(kept(&records, &schedule, "ci"), None, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn every_target_is_found_in_an_index_of_any_size(count in 0_usize..60, length in 0_usize..12_000) {
            let folder = tempfile::tempdir().unwrap();
            let (records, schedule) = (folder.path().join("records"), folder.path().join("s.yaml"));
            let head = Head { version: VERSION, schedule: schedule.clone(), stamp: None, socket: None };
            let mut text = serde_json::to_string(&head).unwrap() + "\n";
            let files = |number: usize| vec![PathBuf::from(format!("/{}", "x".repeat(length * (number % 3) / 2 + number)))];
            let name = |number: usize| format!("t-{number:03}");
            for number in (0..count).map(|n| n * 2) {
                text += &(serde_json::to_string(&Entry { name: name(number), files: files(number) }).unwrap() + "\n");
            }
            std::fs::write(index(&records), text).unwrap();
            for number in 0..=count * 2 {
                let expected = (number % 2 == 0 && number < count * 2).then(|| files(number));
                proptest::prop_assert_eq!(kept(&records, &schedule, &name(number)), expected);
            }
        }
    }

    #[test]
    fn nobody_and_a_daemon_that_says_nothing_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        assert_eq!(asked(&socket, "ci"), None);
        let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(asked(&socket, "ci"), None);
    }
}
