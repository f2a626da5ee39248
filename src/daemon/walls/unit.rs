//! The service manager's side: whether it started this process, and which folders it lets it write to.

use std::path::{Path, PathBuf};

use crate::sink::file::mount_point;

/// Variables with the folders that a unit asks for, several with colons between them (systemd.exec(5)).
const FOLDERS: [&str; 4] = ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY"];
/// What programs expect to be able to write to wherever they run.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// The kernel's own, whatever their mounts allow.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The unit that this process is the main one of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its name, such as `tokenferry.service`.
    pub name: String,
    /// What it may write to.
    pub folders: Vec<PathBuf>,
}

impl Unit {
    /// The unit around the process of that number, from its variables, mounts (proc_pid_mountinfo(5)) and control group;
    /// `None` where no service manager started it, or gave it no folder.
    ///
    /// Under `ProtectSystem=strict` the root is read-only, and what may be written to are the mounts that are not: the unit's
    /// folders, `ReadWritePaths=` of its drop-ins, its temporary folders. Where the root can be written to, the mounts say
    /// nothing, and the unit's folders and the temporary ones are what counts.
    pub fn around(process: u32, variable: impl Fn(&str) -> Option<String>, mounts: &str, groups: &str) -> Option<Self> {
        if variable("SYSTEMD_EXEC_PID")?.parse() != Ok(process) {
            return None;
        }
        let lists = FOLDERS.iter().filter_map(|name| variable(name));
        let named = lists.flat_map(|list| list.split(':').map(PathBuf::from).collect::<Vec<_>>());
        let mut folders: Vec<PathBuf> = named.filter(|folder| folder.is_absolute() && folder.parent().is_some()).collect();
        if folders.is_empty() {
            return None;
        }
        folders.extend(writable(mounts).unwrap_or_else(|| TEMPORARY.iter().map(PathBuf::from).collect()));
        folders.sort();
        folders.dedup_by(|folder, before| folder.starts_with(before));
        Some(Self { name: name(groups).unwrap_or("tokenferry.service").to_owned(), folders })
    }
}

/// The command that gives a unit the folders of its schedule.
pub(super) fn host_command(unit: &str) -> String {
    let instance = unit.strip_prefix("tokenferry@").and_then(|rest| rest.strip_suffix(".service"));
    match (unit, instance) {
        ("tokenferry.service", _) => "tokenferry host --apply".into(),
        (_, Some(instance)) => format!("tokenferry --instance {instance} host --apply --unit {unit}"),
        _ => format!("tokenferry host --apply --unit {unit}"),
    }
}

/// The drop-in that this command writes.
pub(super) fn drop_in(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.d/50-schedule.conf")
}

/// The mounts that can be written to, where the root cannot.
fn writable(mounts: &str) -> Option<Vec<PathBuf>> {
    // A later mount on the same point hides the one before.
    let mut found: Vec<(PathBuf, bool)> = Vec::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next().map(mount_point), fields.next()) else { continue };
        found.retain(|(known, _)| *known != point);
        found.push((point, options.split(',').any(|option| option == "rw")));
    }
    let root = found.iter().find(|(point, _)| point == Path::new("/"))?;
    if root.1 {
        return None;
    }
    let is_temporary = |point: &Path| TEMPORARY.iter().any(|folder| point == Path::new(folder));
    let is_kernels = |point: &Path| KERNELS.iter().any(|folder| point.starts_with(folder));
    let points = found.into_iter().filter(|(point, can)| *can && (is_temporary(point) || !is_kernels(point)));
    Some(points.map(|(point, _)| point).collect())
}

/// `0::/system.slice/tokenferry.service` (cgroups(7)).
fn name(groups: &str) -> Option<&str> {
    let last = |line: &'_ str| -> Option<usize> { line.rfind('/').map(|at| at + 1) };
    groups.lines().filter_map(|line| line.get(last(line)?..)).find(|name| name.ends_with(".service"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: &str = "1 0 8:1 / / ro,relatime - ext4 /dev/sda rw\n\
                          2 1 0:20 / /proc rw,nosuid - proc proc rw\n\
                          3 1 0:21 / /dev ro - tmpfs tmpfs rw\n\
                          4 3 0:22 / /dev/shm rw - tmpfs tmpfs rw\n\
                          5 3 0:23 / /dev/mqueue rw - mqueue mqueue rw\n\
                          6 1 8:1 /data /data\\040one rw - ext4 /dev/sda rw\n\
                          7 1 0:24 / /tmp rw - tmpfs tmpfs rw\n\
                          8 1 0:25 / /old rw - tmpfs tmpfs rw\n\
                          9 1 0:26 / /old ro - tmpfs tmpfs rw\n";

    fn around(variables: &[(&str, &str)], mounts: &str) -> Option<Unit> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Unit::around(7, variable, mounts, "1:name=systemd:/x\n0::/system.slice/system-tokenferry.slice/tokenferry@edge.service\n")
    }

    fn folders(unit: Option<Unit>) -> Vec<String> {
        unit.unwrap().folders.iter().map(|folder| folder.display().to_string()).collect()
    }

    const GIVEN: [(&str, &str); 3] =
        [("SYSTEMD_EXEC_PID", "7"), ("STATE_DIRECTORY", "/var/lib/t:/var/lib/t/home"), ("RUNTIME_DIRECTORY", "/run/t")];

    #[test]
    fn under_a_strict_unit_its_folders_and_its_writable_mounts_count_and_nothing_of_the_kernel() {
        let unit = around(&GIVEN, STRICT);
        assert_eq!(unit.as_ref().unwrap().name, "tokenferry@edge.service");
        assert_eq!(folders(unit), ["/data one", "/dev/shm", "/run/t", "/tmp", "/var/lib/t"]);
    }

    #[test]
    fn under_a_unit_that_may_write_everywhere_its_folders_and_the_temporary_ones_count() {
        let open = STRICT.replacen("ro,relatime", "rw,relatime", 1);
        assert_eq!(folders(around(&GIVEN, &open)), ["/dev/shm", "/run/t", "/tmp", "/var/lib/t", "/var/tmp"]);
        assert_eq!(folders(around(&GIVEN, "")), ["/dev/shm", "/run/t", "/tmp", "/var/lib/t", "/var/tmp"]);
    }

    #[test]
    fn a_process_that_no_service_manager_started_or_that_it_gave_no_folder_has_no_unit() {
        assert_eq!(around(&[], STRICT), None);
        assert_eq!(around(&GIVEN[1..], STRICT), None);
        assert_eq!(around(&GIVEN[..1], STRICT), None);
        assert_eq!(around(&[("SYSTEMD_EXEC_PID", "8"), GIVEN[1]], STRICT), None, "a child of another service's process");
        assert_eq!(around(&[GIVEN[0], ("STATE_DIRECTORY", "/")], STRICT), None, "the root is no folder of its own");
    }

    proptest::proptest! {
        #[test]
        fn no_text_of_the_kernel_breaks_it(mounts in "[ /a-c0-9:,\\\\rwo\n-]{0,120}", groups in "[0-9:/a-z.@\n]{0,60}") {
            let _ = Unit::around(7, |name| GIVEN.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()), &mounts, &groups);
        }
    }
}
