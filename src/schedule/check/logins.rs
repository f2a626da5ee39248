//! Stores that log in with the token of a target: the target has to be there, and to have its token before any store
//! that hangs on it is needed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Planner;
use super::report::Spot;
use crate::schedule::measure::shown;
use crate::schedule::plan::Target;
use crate::schedule::yaml::{Step, closest};
use crate::sink::{SinkSpec, StoreSpec};
use crate::token::Format;
use crate::token::render::FilePart;

/// A file on this host that holds the bare token of the target whenever it has one: no fallback, which holds it
/// at times only.
pub(super) fn readable(target: &Target) -> Option<PathBuf> {
    target.deliver.iter().filter(|place| place.encrypt_to.is_empty()).find_map(|place| match &place.sink {
        SinkSpec::File(spec) => (place.format == Format::Raw).then(|| spec.path.clone()),
        SinkSpec::Directory(spec) => {
            let raw = |part: &FilePart| matches!(part, FilePart::Token(Format::Raw));
            let name = spec.files.iter().find(|(_, part)| raw(part))?.0;
            Some(spec.files_as.path.join(name))
        }
        _ => None,
    })
}

impl Planner<'_> {
    /// Finds the targets that stores log in with, and tells the stores where their tokens stand.
    pub(super) fn logins(&mut self, spot: &Spot<'_>, targets: &mut [Arc<Target>], stores: &mut BTreeMap<String, Arc<StoreSpec>>) {
        let wanted: Vec<(String, &'static str, Vec<&'static str>, String)> = stores
            .iter()
            .filter_map(|(store, spec)| {
                let (kind, settings) = spec.kind_of()?;
                let login = settings.login()?;
                Some((store.clone(), kind, login.key, login.target?.to_owned()))
            })
            .collect();
        for (store, kind, key, name) in wanted {
            let way = ["stores", &*store, kind].into_iter().chain(key).chain(["target"]);
            let steps: Vec<Step<'_>> = way.map(Step::Key).collect();
            let Some(found) = self.login_target(spot, &steps, &name, targets) else { continue };
            let Some(file) = readable(&targets[found]) else {
                let message = match circle(&store, targets, stores) {
                    Some(circle) => format!("the login goes round in a circle: {circle}; give {name} a `file` place in the format raw"),
                    None => format!(
                        "the store reads the token of {name} on this host, and {name} has no file there: give it a `file` place in the format raw"
                    ),
                };
                self.report.error(spot, &steps, &message);
                continue;
            };
            Arc::make_mut(&mut targets[found]).first = true;
            if let Some(place) = stores.get_mut(&store).and_then(|spec| Arc::make_mut(spec).kind_of_mut()?.1.login_file()) {
                *place = file;
            }
        }
    }
}

impl Planner<'_> {
    /// Where the target of that name is; that it is nowhere is told.
    pub(super) fn login_target(&mut self, spot: &Spot<'_>, steps: &[Step<'_>], name: &str, targets: &[Arc<Target>]) -> Option<usize> {
        let found = targets.iter().position(|target| *target.name == *name);
        // What is wrong with a target that is there was said of it.
        if found.is_none() && !self.names.contains_key(name) {
            let mut known: Vec<&str> = self.names.keys().map(|name| &**name).collect();
            known.sort_unstable();
            let message = match closest(name, known.into_iter()) {
                Some(near) => format!("there is no target {}: did you mean `{near}`?", shown(name)),
                None => format!("there is no target {}: write it under `targets`", shown(name)),
            };
            self.report.error(spot, steps, &message);
        }
        found
    }
}

/// The way from the store back to itself, in words: through targets that have no file and the stores that they go to.
fn circle(store: &str, targets: &[Arc<Target>], stores: &BTreeMap<String, Arc<StoreSpec>>) -> Option<String> {
    let mut ways: Vec<Vec<&str>> = vec![vec![store]];
    let mut seen: Vec<&str> = Vec::new();
    while let Some(way) = ways.pop() {
        let here = way.last().copied()?;
        let Some((name, _)) = stores.get(here).and_then(|spec| spec.login()) else { continue };
        let Some(target) = targets.iter().find(|target| *target.name == *name).filter(|target| readable(target).is_none()) else {
            continue;
        };
        for next in target.deliver.iter().filter_map(|place| place.sink.store()) {
            let way: Vec<&str> = way.iter().copied().chain([name, next]).collect();
            if next == store {
                return Some(told(&way));
            }
            if !seen.contains(&next) {
                seen.push(next);
                ways.push(way);
            }
        }
    }
    None
}

/// Stores and targets in turn.
fn told(way: &[&str]) -> String {
    let steps = way
        .windows(3)
        .step_by(2)
        .map(|step| format!("store {} logs in with target {}, which is delivered only into store {}", step[0], step[1], step[2]));
    steps.collect::<Vec<_>>().join("; ")
}
