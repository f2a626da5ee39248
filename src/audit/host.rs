//! What a schedule needs of this host: folders, what the unit may write to, and which units the daemon's user may order
//! about. Pure: from the plan alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::after::HookSpec;
use crate::after::message::Recipient;
use crate::after::signal::Receiver;
use crate::schedule::Plan;
use crate::sink::SinkSpec;
use crate::sink::file::{FileSpec, Reader};

/// The daemon's user and group.
const USER: &str = "tokenferry";
/// Folders that the shipped unit may write to.
const SHIPPED: [&str; 2] = ["/run/tokenferry", "/var/lib/tokenferry"];

/// Folders that it hides or empties.
const HIDDEN: [&str; 4] = ["/home", "/root", "/tmp", "/var/tmp"];

/// Files for the host, each empty where the schedule needs none.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Files {
    /// tmpfiles.d(5): the folders that tokens go to.
    pub tmpfiles: String,
    /// systemd.unit(5): a drop-in of the service.
    pub unit: String,
    /// polkit(8): a rule for the units that hooks reload, restart or signal.
    pub polkit: String,
    /// What no file can do.
    pub notes: Vec<String>,
}

#[derive(Default)]
struct Folder {
    groups: BTreeSet<Option<String>>,
    readers: BTreeSet<String>,
}

/// What this plan needs.
pub fn files(plan: &Plan) -> Files {
    let mut folders: BTreeMap<PathBuf, Folder> = BTreeMap::new();
    let (mut owners, mut units, mut commands) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for target in &plan.targets {
        for place in target.places() {
            let spec = match &place.sink {
                SinkSpec::File(spec) => spec,
                SinkSpec::Directory(spec) => &spec.files_as,
                SinkSpec::Command(spec) => {
                    commands.extend(spec.command.first().cloned());
                    continue;
                }
                _ => continue,
            };
            let Some(parent) = spec.path.parent() else { continue };
            folders.entry(parent.to_owned()).or_default().add(spec);
            owners.extend(spec.owner.iter().filter(|owner| *owner != USER).cloned());
        }
        for hook in &target.after {
            match hook {
                HookSpec::Systemd(spec) => drop(units.insert((spec.unit.clone(), spec.verb.word()))),
                HookSpec::Signal(spec) => {
                    if let Receiver::Unit(unit) = &spec.receiver {
                        units.insert((unit.clone(), "kill"));
                    }
                }
                HookSpec::Exec(spec) => commands.extend(spec.command.first().cloned()),
                HookSpec::Http(_) | HookSpec::RolloutRestart(_) => {}
            }
        }
    }
    for alert in &plan.unasked.alerts {
        if let Recipient::Exec(spec) = &alert.to {
            commands.extend(spec.command.first().cloned());
        }
    }
    let mut notes = Vec::new();
    if !commands.is_empty() {
        let list: Vec<String> = commands.into_iter().collect();
        notes.push(format!("these programs run inside the unit's sandbox, as {USER}: {}", list.join(", ")));
    }
    let writes = plan.unasked.textfile.as_deref().and_then(Path::parent);
    if let Some(folder) = writes {
        notes.push(format!("{}: {USER} has to be allowed to write there: setfacl -m u:{USER}:rwx {}", folder.display(), quoted(folder)));
    }
    notes.extend(monitored(plan));
    Files { tmpfiles: tmpfiles(&folders, &mut notes), unit: unit(&folders, writes, &owners), polkit: polkit(&units), notes }
}

impl Folder {
    /// Whether somebody is named whom a private user namespace does not know.
    fn names_others(&self) -> bool {
        !self.readers.is_empty() || self.groups.iter().any(Option::is_some)
    }

    fn add(&mut self, spec: &FileSpec) {
        self.groups.insert(spec.group.clone());
        self.readers.extend(spec.readers.iter().map(|reader| match reader {
            Reader::User(name) => format!("u:{name}"),
            Reader::Group(name) => format!("g:{name}"),
        }));
    }
}

fn tmpfiles(folders: &BTreeMap<PathBuf, Folder>, notes: &mut Vec<String>) -> String {
    let mut text = String::new();
    for (path, folder) in folders.iter().filter(|(path, _)| !SHIPPED.iter().any(|shipped| path.as_path() == Path::new(shipped))) {
        let shown = quoted(path);
        let groups: Vec<&String> = folder.groups.iter().flatten().collect();
        match groups.as_slice() {
            // The setgid bit gives the group to every file, without any right of ours.
            [group] if folder.groups.len() == 1 => text += &format!("d {shown} 2750 {USER} {group} -\n"),
            [] => text += &format!("d {shown} 0711 {USER} {USER} -\n"),
            several => {
                text += &format!("d {shown} 0711 {USER} {USER} -\n");
                let names: Vec<&str> = several.iter().map(|group| group.as_str()).collect();
                notes.push(format!(
                    "{} holds files of several groups ({}): a folder for each needs no right to change groups; as it is {USER} has to be a member of them",
                    path.display(),
                    names.join(", ")
                ));
            }
        }
        if !folder.readers.is_empty() {
            let pass = folder.readers.iter().map(|reader| format!("{reader}:x"));
            let read = folder.readers.iter().map(|reader| format!("d:{reader}:r"));
            text += &format!("a+ {shown} - - - - {}\n", pass.chain(read).collect::<Vec<_>>().join(","));
        }
    }
    headed("tmpfiles.d(5): the folders that tokens go to.", &text)
}

/// What the daemon has to be able to read.
fn monitored(plan: &Plan) -> Vec<String> {
    let (mut hidden, mut read) = (Vec::new(), Vec::new());
    for spec in &plan.unasked.monitor {
        let path = spec.path.display().to_string();
        if HIDDEN.iter().any(|folder| spec.path.starts_with(folder)) { hidden.push(path) } else { read.push(path) }
    }
    let mut notes = Vec::new();
    if !read.is_empty() {
        notes.push(format!(
            "{USER} has to be allowed to read {}: setfacl -m u:{USER}:r FILE, and x on each folder above it",
            read.join(", ")
        ));
    }
    if !hidden.is_empty() {
        notes
            .push(format!("the unit's sandbox hides {}: monitor a copy elsewhere, or ease ProtectHome= or PrivateTmp=", hidden.join(", ")));
    }
    notes
}

fn unit(folders: &BTreeMap<PathBuf, Folder>, writes: Option<&Path>, owners: &BTreeSet<String>) -> String {
    let mut text = String::new();
    let is_outside = |path: &Path| !SHIPPED.iter().any(|shipped| path.starts_with(shipped));
    let other = writes.filter(|path| !folders.contains_key(*path));
    let outside = folders.keys().map(PathBuf::as_path).chain(other).filter(|path| is_outside(path));
    // With a dash: where one is missing the daemon starts all the same, serves the others, and names it.
    let outside: Vec<String> = outside.map(|path| format!("-{}", quoted(path))).collect();
    if !outside.is_empty() {
        text += &format!("ReadWritePaths={}\n", outside.join(" "));
    }
    if !owners.is_empty() || folders.values().any(Folder::names_others) {
        text +=
            "# Files name owners, groups or readers, and a user namespace of the daemon's own would know none of them.\nPrivateUsers=no\n";
    }
    if !owners.is_empty() {
        let list: Vec<&str> = owners.iter().map(String::as_str).collect();
        text += &format!("# Files are given to {}: the one right that takes.\n", list.join(", "));
        text += "AmbientCapabilities=CAP_CHOWN\nCapabilityBoundingSet=CAP_CHOWN\nSystemCallFilter=@chown\n";
    }
    let groups: BTreeSet<&String> =
        folders.values().filter(|folder| folder.groups.len() > 1).flat_map(|folder| folder.groups.iter().flatten()).collect();
    if !groups.is_empty() {
        let list: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
        text += "# Giving a file to a group that the daemon is a member of needs no capability.\n";
        text += &format!("SupplementaryGroups={}\nSystemCallFilter=@chown\n", list.join(" "));
    }
    if text.is_empty() { text } else { headed("A drop-in of tokenferry.service.", &format!("[Service]\n{text}")) }
}

fn polkit(units: &BTreeSet<(String, &'static str)>) -> String {
    if units.is_empty() {
        return String::new();
    }
    let mut by_unit: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (unit, verb) in units {
        by_unit.entry(unit).or_default().push(verb);
    }
    let allowed = serde_json::to_string(&by_unit).expect("names always have a JSON form");
    format!(
        "// polkit(8): the units that hooks of this schedule reload, restart or signal, and nothing else.\n\
         polkit.addRule(function(action, subject) {{\n    \
         var allowed = {allowed};\n    \
         if (action.id != \"org.freedesktop.systemd1.manage-units\" || subject.user != \"{USER}\") return polkit.Result.NOT_HANDLED;\n    \
         var verbs = allowed[action.lookup(\"unit\")];\n    \
         return verbs && verbs.indexOf(action.lookup(\"verb\")) >= 0 ? polkit.Result.YES : polkit.Result.NOT_HANDLED;\n\
         }});\n"
    )
}

fn headed(head: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("# {head} Made by `tokenferry host`.\n{text}") }
}

/// As systemd's files take a path with spaces in it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.contains([' ', '\t', '"', '\\', '%']) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
    } else {
        text
    }
}
