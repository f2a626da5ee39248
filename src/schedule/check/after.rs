//! `after`: every hook of a target, completed.

use std::collections::HashSet;
use std::time::Duration;

use super::deliver::joined;
use super::report::Spot;
use super::target::Subject;
use super::{Planner, rules};
use crate::after::HookSpec;
use crate::after::exec::ExecSpec;
use crate::after::http::HttpSpec;
use crate::after::rollout::{RolloutSpec, Sort, Which};
use crate::after::signal::{Receiver, Signal, SignalSpec};
use crate::after::systemd::{SystemdSpec, Verb};
use crate::schedule::hooks::{ExecFile, HookFile, HttpFile, RolloutFile, SignalFile, SystemdFile};
use crate::schedule::measure::{Seconds, shown};
use crate::schedule::plan::Rotate;
use crate::schedule::yaml::Step;
use crate::sink::{Place, SinkSpec};

/// Time limits where `timeout` is absent, seconds.
const EXEC: u64 = 30;
const UNIT: u64 = 90;
const HTTP: u64 = 10;
const ROLLOUT: u64 = 600;
/// Longest time limits: a hook that needs more is a service of its own.
const LONGEST: u64 = 3600;
/// `minGap` where it is absent, unless the target leaves less room.
const GAP: u64 = 300;
/// Programs that need rights which the unit's sandbox keeps from every child.
const SETUID: [&str; 5] = ["sudo", "su", "doas", "pkexec", "runuser"];
/// Folders that the unit's sandbox hides or empties.
const HIDDEN: [&str; 4] = ["/home/", "/root/", "/tmp/", "/var/tmp/"];

/// What a hook can take from its target.
struct Around<'a> {
    cluster: Option<&'a str>,
    deliver: &'a [Place],
    /// Seconds that the token before is still good for when the next one arrives, as planned.
    room: Option<u64>,
}

impl Planner<'_> {
    /// Checks and completes the hooks of a target.
    pub(super) fn after(
        &mut self,
        subject: &Subject<'_>,
        hooks: &[HookFile],
        cluster: Option<&str>,
        deliver: &[Place],
        (duration, rotate): (Option<u64>, &Rotate),
    ) -> Vec<HookSpec> {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // below 2^33
        let room = duration.map(|life| (life as f64 * (1.0 - rotate.at)).round() as u64);
        let around = Around { cluster, deliver, room };
        let (spot, _) = subject.origin(&["after".into()]);
        let mut planned = Vec::new();
        let mut known = HashSet::new();
        for (index, hook) in hooks.iter().enumerate() {
            let here = [Step::Key("after"), index.into()];
            let Some(hook) = self.hook(&spot, &here, hook, &around) else { continue };
            if known.insert(hook.key()) {
                planned.push(hook);
            } else {
                self.report.error(&spot, &here, &format!("{} stands here twice: keep one", shown(&hook.key())));
            }
        }
        planned
    }

    fn hook(&mut self, spot: &Spot<'_>, here: &[Step<'_>], hook: &HookFile, around: &Around<'_>) -> Option<HookSpec> {
        Some(match hook {
            HookFile::Exec(file) => HookSpec::Exec(self.exec_hook(spot, &joined(here, "exec"), file)?),
            HookFile::Signal(file) => HookSpec::Signal(self.signal_hook(spot, &joined(here, "signal"), file)?),
            HookFile::Systemd(file) => HookSpec::Systemd(self.systemd_hook(spot, &joined(here, "systemd"), file)?),
            HookFile::Http(file) => HookSpec::Http(self.http_hook(spot, &joined(here, "http"), file)?),
            HookFile::RolloutRestart(file) => {
                HookSpec::RolloutRestart(self.rollout_hook(spot, &joined(here, "rolloutRestart"), file, around)?)
            }
        })
    }

    fn limit(&mut self, spot: &Spot<'_>, here: &[Step<'_>], written: Option<Seconds>, otherwise: u64) -> Duration {
        let seconds = written.map_or(otherwise, |written| written.0);
        if seconds == 0 || seconds > LONGEST {
            let message = format!("{} is no time limit for a hook: write 1s to {}", Seconds(seconds), Seconds(LONGEST));
            self.report.error(spot, &joined(here, "timeout"), &message);
        }
        Duration::from_secs(seconds)
    }

    pub(super) fn exec_hook(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &ExecFile) -> Option<ExecSpec> {
        let timeout = self.limit(spot, here, file.timeout, EXEC);
        let at = joined(here, "command");
        let Some(program) = file.command.first().filter(|program| !program.is_empty()) else {
            self.report.error(spot, &at, "there is no command: write such as [/usr/local/bin/reload-app, now]");
            return None;
        };
        if file.command.iter().any(|word| word.contains('\0')) {
            self.report.error(spot, &at, "a word of the command has a zero byte in it: take it out");
        }
        if program.contains('/') && !program.starts_with('/') {
            let message = format!("{} counts from no folder: write the whole path, or a name that PATH has", shown(program));
            self.report.error(spot, &at, &message);
        } else if program.contains(char::is_whitespace) {
            let message = format!("no shell takes {} apart: give each word its own element", shown(program));
            self.report.error(spot, &at, &message);
        } else if SETUID.contains(&program.rsplit('/').next().unwrap_or_default()) {
            let message =
                format!("in the unit's sandbox {} gains no rights: use systemd, or a .path unit (examples/hooks.path)", shown(program));
            self.report.warning(spot, &at, &message);
        } else if HIDDEN.iter().any(|folder| program.starts_with(folder)) {
            let message = format!(
                "the unit's sandbox hides {}: put it under /usr/local/bin, or use a .path unit (examples/hooks.path)",
                shown(program)
            );
            self.report.warning(spot, &at, &message);
        }
        Some(ExecSpec { command: file.command.clone(), timeout })
    }

    fn unit(&mut self, spot: &Spot<'_>, here: &[Step<'_>], unit: &str) -> String {
        // systemd.unit(5): at most 255 characters of these.
        let known = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        if unit.is_empty() || unit.len() > 255 || unit.starts_with('-') || !unit.bytes().all(known) {
            self.report.error(spot, here, &format!("{} is no name of a unit: write such as nginx.service", shown(unit)));
        }
        if unit.contains('.') { unit.to_owned() } else { format!("{unit}.service") }
    }

    fn signal_hook(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &SignalFile) -> Option<SignalSpec> {
        let signal = Signal::named(&file.signal);
        if signal.is_none() {
            let known: Vec<&str> = Signal::ALL.iter().map(|signal| signal.name()).collect();
            let message = format!("{} is no signal that a hook sends: write one of {}", shown(&file.signal), known.join(", "));
            self.report.error(spot, &joined(here, "signal"), &message);
        }
        let receiver = match (&file.pid_file, &file.unit) {
            (Some(path), None) => {
                let base = self.base(spot.file);
                match rules::written_path(base, path) {
                    Ok(path) => Receiver::PidFile(path),
                    Err(message) => {
                        self.report.error(spot, &joined(here, "pidFile"), &message);
                        return None;
                    }
                }
            }
            (None, Some(unit)) => Receiver::Unit(self.unit(spot, &joined(here, "unit"), unit)),
            (None, None) => {
                self.report.error(spot, here, "nobody gets the signal: write pidFile: PATH or unit: NAME");
                return None;
            }
            (Some(_), Some(_)) => {
                self.report.error(spot, here, "pidFile and unit exclude each other: keep one");
                return None;
            }
        };
        Some(SignalSpec { receiver, signal: signal? })
    }

    fn systemd_hook(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &SystemdFile) -> Option<SystemdSpec> {
        let timeout = self.limit(spot, here, file.timeout, UNIT);
        let (verb, key, unit) = match (&file.reload_unit, &file.restart_unit) {
            (Some(unit), None) => (Verb::Reload, "reloadUnit", unit),
            (None, Some(unit)) => (Verb::Restart, "restartUnit", unit),
            (None, None) => {
                self.report.error(spot, here, "it names no unit: write reloadUnit: NAME or restartUnit: NAME");
                return None;
            }
            (Some(_), Some(_)) => {
                self.report.error(spot, here, "reloadUnit and restartUnit exclude each other: keep one");
                return None;
            }
        };
        Some(SystemdSpec { verb, unit: self.unit(spot, &joined(here, key), unit), timeout })
    }

    pub(super) fn http_hook(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &HttpFile) -> Option<HttpSpec> {
        let timeout = self.limit(spot, here, file.timeout, HTTP);
        let uri = file.url.parse::<http::Uri>().ok();
        let authority = uri.as_ref().and_then(http::Uri::authority).map(http::uri::Authority::as_str);
        let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
        // The URL itself is not quoted: what is wrong with it may be that a secret stands in it.
        if !matches!(scheme, Some("http" | "https")) || authority.is_none_or(str::is_empty) {
            self.report.error(spot, &joined(here, "url"), "it is no URL: write such as https://ci.example.com/token-changed");
        } else if authority.is_some_and(|authority| authority.contains('@')) {
            self.report.error(spot, &joined(here, "url"), "a user or password stands in it: secrets are never written in a schedule");
        }
        let method = file.method.clone().unwrap_or_else(|| "POST".into());
        if !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].contains(&&*method) {
            let message = format!("{} is no method: write one of GET, HEAD, POST, PUT, PATCH, DELETE", shown(&method));
            self.report.error(spot, &joined(here, "method"), &message);
        }
        Some(HttpSpec { url: file.url.clone(), method, timeout })
    }

    fn rollout_hook(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &RolloutFile, around: &Around<'_>) -> Option<RolloutSpec> {
        let timeout = self.limit(spot, here, file.timeout, ROLLOUT);
        let which = self.workload(spot, here, file);
        let secret =
            around.deliver.iter().find_map(|place| if let SinkSpec::KubernetesSecret(spec) = &place.sink { Some(spec) } else { None });
        let cluster = self.reachable(spot, here, file.cluster.as_deref(), secret.map(|s| &*s.cluster).or(around.cluster));
        let namespace = match (&file.namespace, secret) {
            (Some(namespace), _) => {
                if let Err(message) = rules::namespace(namespace) {
                    self.report.error(spot, &joined(here, "namespace"), &message);
                }
                namespace.clone()
            }
            (None, Some(secret)) => secret.namespace.clone(),
            (None, None) => {
                self.report.error(
                    spot,
                    here,
                    "the namespace is missing: write `namespace:` (only a target with a kubernetesSecret tells it)",
                );
                return None;
            }
        };
        let min_gap = self.gap(spot, here, file.min_gap, around.room);
        Some(RolloutSpec { cluster, namespace, which: which?, timeout, min_gap })
    }

    fn workload(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &RolloutFile) -> Option<Which> {
        let named = [(Sort::Deployment, &file.deployment), (Sort::StatefulSet, &file.stateful_set), (Sort::DaemonSet, &file.daemon_set)];
        let mut given: Vec<(&str, Which)> =
            named.into_iter().filter_map(|(sort, name)| Some((sort.key(), Which::One(sort, name.clone()?)))).collect();
        given.extend(file.selector.clone().map(|selector| ("selector", Which::Selector(selector))));
        if given.len() != 1 {
            let keys: Vec<&str> = given.iter().map(|(key, _)| *key).collect();
            let message = match keys.is_empty() {
                true => "it names no workload: write one of deployment, statefulSet, daemonSet, selector".to_owned(),
                false => format!("{} exclude each other: keep one, or give each a hook of its own", keys.join(" and ")),
            };
            self.report.error(spot, here, &message);
            return None;
        }
        let (key, which) = given.pop()?;
        match &which {
            Which::One(_, name) if !rules::subdomain(name) => {
                self.report.error(spot, &joined(here, key), &format!("{} is no name of a workload: write a-z, 0-9, - and .", shown(name)));
            }
            Which::Selector(selector) if selector.trim().is_empty() || selector.chars().any(char::is_control) => {
                self.report.error(spot, &joined(here, key), "it selects nothing, or everything: write labels, such as app=web,tier=api");
            }
            _ => {}
        }
        Some(which)
    }

    /// A gap that outlasts the token before would leave Pods with a dead one.
    fn gap(&mut self, spot: &Spot<'_>, here: &[Step<'_>], written: Option<Seconds>, room: Option<u64>) -> Duration {
        let Some(Seconds(gap)) = written else { return Duration::from_secs(room.map_or(GAP, |room| GAP.min(room / 2))) };
        if let Some(room) = room.filter(|room| gap >= *room) {
            let message = format!(
                "a restart may wait {}, and the token before ends {} after the next one arrives: write less, or rotate earlier",
                Seconds(gap),
                Seconds(room)
            );
            self.report.error(spot, &joined(here, "minGap"), &message);
        }
        Duration::from_secs(gap)
    }
}
