//! The file places of every target, for who looks for them without planning a schedule: asked from the daemon,
//! or from an index that it leaves beside the records folder, where consumers can read it.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::status::{FallbackStatus, SinkStatus};
use crate::schedule::{Plan, Target};

/// Longest that the daemon may take to answer, before the index is asked.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Largest answer and index that are read.
const LARGEST: u64 = 64 << 20;

/// Every file that a target writes, each before what stands in for it.
pub fn of(target: &Target) -> Vec<PathBuf> {
    let places = target.deliver.iter().flat_map(|place| std::iter::once(place).chain(&place.fallback));
    places.filter_map(|place| place.sink.file().map(Path::to_owned)).collect()
}

/// The first line of an index.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    schedule: PathBuf,
}

/// One line for each target; the name comes first, so that its line is found without reading the others.
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
    let mut text = serde_json::to_vec(&Head { version: 1, schedule: plan.path.clone() })?;
    text.push(b'\n');
    for target in &plan.targets {
        serde_json::to_writer(&mut text, &Entry { name: target.name.clone(), files: of(target) })?;
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

/// The files of a target by the index beside the records, where it is of that schedule and has the target.
pub fn kept(records: &Path, schedule: &Path, name: &str) -> Option<Vec<PathBuf>> {
    let mut text = String::new();
    std::fs::File::open(index(records)).ok()?.take(LARGEST).read_to_string(&mut text).ok()?;
    let (head, _) = text.split_once('\n')?;
    let head: Head = serde_json::from_str(head).ok()?;
    if head.version != 1 || head.schedule != std::path::absolute(schedule).ok()? {
        return None;
    }
    let start = text.find(&format!("\n{{\"name\":{},", serde_json::to_string(name).ok()?))? + 1;
    let entry: Entry = serde_json::from_str(text[start..].lines().next()?).ok()?;
    Some(entry.files)
}

#[derive(Deserialize)]
struct Answer {
    targets: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    sinks: Vec<SinkStatus>,
}

/// The files of a target by the daemon that listens on the socket. Without a runtime, and nothing where it does
/// not answer at once: a consumer may not be held up by it.
pub fn asked(socket: &Path, name: &str) -> Option<Vec<PathBuf>> {
    let answer: Answer = serde_json::from_slice(&call(socket, &format!("/status?target={name}")).ok()?).ok()?;
    let row = answer.targets.into_iter().find(|row| row.name == name)?;
    let file = |sink: &str, place: String| (sink == "file").then(|| PathBuf::from(place));
    let places = row.sinks.into_iter().flat_map(|s| {
        let stands_in = s.fallbacks.into_iter().filter_map(move |FallbackStatus { sink, place }| file(&sink, place));
        file(&s.sink, s.place).into_iter().chain(stands_in).collect::<Vec<_>>()
    });
    Some(places.collect())
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
    stream.take(LARGEST).read_to_end(&mut answer)?;
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

    #[test]
    fn a_broken_index_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (records, schedule) = (folder.path().join("records"), folder.path().join("s.yaml"));
        for text in ["", "\n", "{}\n{\"name\":\"ci\",\n", "\u{0}"] {
            std::fs::write(index(&records), text).unwrap();
            assert_eq!(kept(&records, &schedule, "ci"), None, "{text}");
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
