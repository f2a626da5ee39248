//! Default places: of the system for root and wherever /etc has a schedule, of the user otherwise.

use std::path::PathBuf;

use crate::schedule::Plan;

/// Where things stand unless the schedule says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The schedule.
    pub schedule: PathBuf,
    /// The records folder.
    pub records: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
}

impl Places {
    /// Places of the instance of that name (`tokenferry-NAME`); `variable` reads the environment.
    pub fn new(instance: Option<&str>, is_root: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        let name = instance.map_or_else(|| "tokenferry".to_owned(), |i| format!("tokenferry-{i}"));
        let schedule = PathBuf::from(format!("/etc/tokenferry/{}.yaml", instance.unwrap_or("schedule")));
        let folder = |key: &str, system: &str, own: &str| {
            if is_root || schedule.exists() {
                return PathBuf::from(system).join(&name);
            }
            let base = variable(key).filter(|v| v.starts_with('/')).map(PathBuf::from);
            let home = || variable("HOME").map_or_else(|| PathBuf::from("/tmp"), |home| PathBuf::from(home).join(own));
            base.unwrap_or_else(home).join(&name)
        };
        let state = folder("XDG_STATE_HOME", "/var/lib", ".local/state");
        let runtime = folder("XDG_RUNTIME_DIR", "/run", ".local/run");
        Self { schedule, records: state.join("records"), socket: runtime.join("control.sock") }
    }

    /// As that plan names them, where it does.
    pub fn by(&self, plan: &Plan) -> Self {
        Self {
            schedule: self.schedule.clone(),
            records: plan.records.directory.clone().unwrap_or_else(|| self.records.clone()),
            socket: plan.socket.clone().unwrap_or_else(|| self.socket.clone()),
        }
    }

    /// The places of this process.
    pub fn of_this_process(instance: Option<&str>) -> Self {
        Self::new(instance, rustix::process::geteuid().is_root(), |key| std::env::var(key).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_uses_the_places_of_the_system() {
        let places = Places::new(None, true, |_| None);
        assert_eq!(places.records, PathBuf::from("/var/lib/tokenferry/records"));
        assert_eq!(places.socket, PathBuf::from("/run/tokenferry/control.sock"));
    }

    #[test]
    fn an_instance_has_places_of_its_own() {
        let places = Places::new(Some("edge"), true, |_| None);
        assert_eq!(places.schedule, PathBuf::from("/etc/tokenferry/edge.yaml"));
        assert_eq!(places.records, PathBuf::from("/var/lib/tokenferry-edge/records"));
    }

    #[test]
    fn a_user_has_places_under_xdg() {
        let places = Places::new(Some("none-such"), false, |key| {
            (key == "XDG_STATE_HOME").then(|| "/home/u/s".into()).or((key == "HOME").then(|| "/home/u".into()))
        });
        assert_eq!(places.records, PathBuf::from("/home/u/s/tokenferry-none-such/records"));
        assert_eq!(places.socket, PathBuf::from("/home/u/.local/run/tokenferry-none-such/control.sock"));
    }
}
