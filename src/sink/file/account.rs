//! Owner, group and readers of a published file: names become ids.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::acl::{Acl, Reader};
use super::blame::{local, our_group, ours};
use super::folder::Folder;
use super::{FileSpec, lane};
use crate::sink::Failure;

/// How long a found id is believed: long enough to spare the look-ups of a wave, short enough for a renamed user.
const BELIEVED: Duration = Duration::from_secs(60);
/// Longest that looking one up may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How long a directory service may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ids by name, each with the moment at which it was found.
type Found = HashMap<(Database, String), (u32, Instant)>;

static FOUND: LazyLock<Mutex<Found>> = LazyLock::new(Mutex::default);

/// Owner, group, mode and readers that a published file shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) mode: u32,
    /// Ours when `None`.
    pub(super) uid: Option<u32>,
    /// The folder's, where it gives one, else ours when `None`.
    pub(super) gid: Option<u32>,
    /// Who reads it beside them.
    pub(super) acl: Acl,
}

impl Wish {
    /// Whether a file in `folder` with these ids is as wished.
    pub(super) fn owners_match(&self, folder: &Folder, uid: u32, gid: u32) -> bool {
        let group = self.gid.or(folder.gives_group).unwrap_or_else(our_group);
        uid == self.uid.unwrap_or_else(ours) && gid == group
    }
}

/// What a place wishes, with the names looked up.
pub(super) async fn wish(spec: &FileSpec) -> Result<Wish, Failure> {
    let uid = id("owner", Database::Users, spec.owner.as_deref()).await?;
    let gid = id("group", Database::Groups, spec.group.as_deref()).await?;
    let (mut users, mut groups) = (Vec::new(), Vec::new());
    for reader in &spec.readers {
        match reader {
            Reader::User(name) => users.extend(id("readers", Database::Users, Some(name)).await?),
            Reader::Group(name) => groups.extend(id("readers", Database::Groups, Some(name)).await?),
        }
    }
    Ok(Wish { mode: spec.mode.0, uid, gid, acl: Acl::new(users, groups) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Database {
    Users,
    Groups,
}

impl Database {
    /// As `getent` and the file under `/etc` are called.
    fn word(self) -> &'static str {
        match self {
            Self::Users => "passwd",
            Self::Groups => "group",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Users => "user",
            Self::Groups => "group",
        }
    }
}

async fn id(key: &str, database: Database, wanted: Option<&str>) -> Result<Option<u32>, Failure> {
    let Some(name) = wanted else { return Ok(None) };
    if let Ok(number) = name.parse() {
        return Ok(Some(number));
    }
    let entry = (database, name.to_owned());
    let found = FOUND.lock().unwrap_or_else(PoisonError::into_inner).get(&entry).copied();
    if let Some((id, since)) = found
        && since.elapsed() < BELIEVED
    {
        return Ok(Some(id));
    }
    let name = name.to_owned();
    // The files stand under /etc, so the look-up takes that file system's lane.
    let id = lane::run(WITHIN, Path::new("/etc"), move || Ok(look_up(database, &name))).await?;
    let Some(id) = id else {
        let (noun, name) = (database.noun(), &entry.1);
        return Err(local(format!("`{key}: {name}`: this host knows no {noun} `{name}`: make it, or write another name or an id")));
    };
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).insert(entry, (id, Instant::now()));
    Ok(Some(id))
}

/// The local file first: it needs no process and no network. Then whatever else the host asks (LDAP, SSSD).
fn look_up(database: Database, name: &str) -> Option<u32> {
    let sound = !name.is_empty() && !name.contains(|c: char| c == ':' || c.is_control());
    in_file(database, name).or_else(|| in_table(&getent(database, name).filter(|_| sound)?, name))
}

/// The id of an account of the system itself, as sysusers.d(5) writes them into `/etc/passwd`.
pub fn system_user(name: &str) -> Option<u32> {
    in_file(Database::Users, name)
}

/// The id of a group of the system itself, likewise.
pub fn system_group(name: &str) -> Option<u32> {
    in_file(Database::Groups, name)
}

fn in_file(database: Database, name: &str) -> Option<u32> {
    in_table(&std::fs::read_to_string(format!("/etc/{}", database.word())).ok()?, name)
}

/// The id of `name` in text of the form `NAME:…:ID:…` (passwd(5), group(5)).
fn in_table(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn getent(database: Database, name: &str) -> Option<String> {
    let program = ["/usr/bin/getent", "/bin/getent"].into_iter().find(|path| Path::new(path).exists())?;
    let mut command = Command::new(program);
    command.args(["--", database.word(), name]).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let end = Instant::now() + PATIENCE;
    // One line of answer fits the pipe, so the child never waits for us to read.
    while child.try_wait().ok()?.is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut text = String::new();
    child.stdout.take()?.take(64 << 10).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(owner: &str) -> FileSpec {
        FileSpec { path: "/run/x".into(), mode: Default::default(), owner: Some(owner.into()), group: None, readers: Vec::new() }
    }

    #[test]
    fn a_table_is_searched_by_whole_name() {
        let table = "root:x:0:0:root:/root:/bin/sh\nci:x:1001:1001::/home/ci:/bin/sh\nbroken\nlonger-ci:x:7:7:::\n";
        assert_eq!((in_table(table, "ci"), in_table(table, "c"), in_table(table, "broken")), (Some(1001), None, None));
    }

    #[tokio::test]
    async fn numbers_are_ids_and_names_are_looked_up() {
        assert_eq!(wish(&spec("4242")).await.unwrap().uid, Some(4242));
        assert_eq!(wish(&spec("root")).await.unwrap().uid, Some(0));
    }

    #[tokio::test]
    async fn an_unknown_name_is_a_failure_that_says_which_key_and_name() {
        let message = wish(&spec("no-such-user-here")).await.unwrap_err().message;
        assert!(message.contains("`owner: no-such-user-here`"), "{message}");
    }
}
