//! Stores: what they are and how we log in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Planner;
use super::deliver::joined;
use super::report::Spot;
use super::rules;
use crate::schedule::yaml::Step;
use crate::sink::{STORES, StoreSpec};

/// What places have to know of a store.
#[derive(Debug, Clone)]
pub struct StoreFacts {
    /// The key that names its kind; `None` where its settings do not tell.
    pub kind: Option<&'static str>,
    /// What server or account it is: two stores with the same one are the same place.
    pub identity: String,
}

impl Planner<'_> {
    /// Checks and completes `stores`.
    pub(super) fn stores(&mut self, spot: &Spot<'_>, specs: BTreeMap<String, StoreSpec>) -> BTreeMap<String, Arc<StoreSpec>> {
        let written = spot.node.get("stores").map(|node| node.entries()).unwrap_or_default();
        for (key, _) in written {
            self.stores.insert(key.text.to_string(), StoreFacts { kind: None, identity: key.text.to_string() });
        }
        let mut planned = BTreeMap::new();
        for (name, mut spec) in specs {
            self.store(spot, &name, &mut spec);
            planned.insert(name, Arc::new(spec));
        }
        planned
    }

    fn store(&mut self, spot: &Spot<'_>, name: &str, spec: &mut StoreSpec) {
        let here: [Step<'_>; 2] = ["stores".into(), name.into()];
        if let Err(message) = rules::own_name(name) {
            self.report.error(spot, &here, &message);
        }
        let node = spot.marks.node(spot.node, &here);
        let given: Vec<&'static str> = STORES.iter().copied().filter(|kind| node.has(kind)).collect();
        match given[..] {
            [] if node.entries().iter().any(|(key, _)| crate::schedule::file::later("StoreSpec", &key.text)) => {}
            [] => {
                let message = format!("it says of no store what it is: write one of {}: {{…}}", STORES.join(": {…}, "));
                self.report.error(spot, &here, &message);
            }
            [kind] => {
                let identity = spec.kind_of().map_or_else(|| name.to_owned(), |(kind, settings)| format!("{kind} {}", settings.identity()));
                self.stores.insert(name.to_owned(), StoreFacts { kind: Some(kind), identity });
            }
            _ => self.report.error(spot, &here, &format!("{} exclude each other: give each a store of its own", given.join(" and "))),
        }
        if let Some((kind, settings)) = spec.kind_of_mut() {
            let here = [here[0], here[1], kind.into()];
            let below = |key: Vec<&'static str>| -> Vec<Step<'_>> { here.iter().copied().chain(key.into_iter().map(Step::Key)).collect() };
            self.flaws(spot, &here, settings.flaws());
            for (key, path) in settings.files() {
                self.refer(spot, &below(key), path);
            }
            if let Some(login) = settings.login() {
                let (steps, ours) = (below(login.key), login.target.is_some());
                if let Some(file) = settings.login_file() {
                    self.login_token(spot, &steps, file, ours);
                }
            }
        }
        self.limits(spot, &[here[0], here[1], "limits".into()], spec.limits);
    }

    /// The token of a login: in a file that somebody else writes, or a target's, which is looked for when all are known.
    pub(super) fn login_token(&mut self, spot: &Spot<'_>, here: &[Step<'_>], file: &mut PathBuf, ours: bool) {
        let node = spot.marks.node(spot.node, here);
        match (node.has("tokenFile"), ours || node.has("target")) {
            (true, true) => self.report.error(spot, &joined(here, "target"), "tokenFile and target exclude each other: keep one"),
            (true, false) => self.refer(spot, &joined(here, "tokenFile"), file),
            (false, true) => {}
            (false, false) => {
                let message = "the token to log in with is missing: write tokenFile: PATH, or target: NAME for one that tokenferry mints";
                self.report.error(spot, here, message);
            }
        }
    }
}
