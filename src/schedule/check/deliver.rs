//! `deliver`: every place of a target, its fallbacks, and that nobody else writes there.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::audiences::token_bytes;
use super::memo::{Digest, digest_of};
use super::report::Spot;
use super::target::Subject;
use super::{Planner, rules};
use crate::schedule::file::{PlaceFile, later};
use crate::schedule::foreign::instead;
use crate::schedule::measure::{Bytes, shown};
use crate::schedule::problem::Severity;
use crate::schedule::yaml::{At, Step, Value, closest};
use crate::sink::file::FileSpec;
use crate::sink::flaw::Flaw;
use crate::sink::{Place, SINKS, SinkSpec};
use crate::token::Format;

/// Who writes to a place, and where that is said.
pub(super) struct Writer {
    /// Shared with the list of names.
    name: Option<Arc<str>>,
    /// The target itself: names may stand twice.
    target: (usize, At),
    file: usize,
    line: usize,
}

/// Where `deliver` stands, and whose it is.
pub(super) struct Owner<'o> {
    pub subject: &'o Subject<'o>,
    pub spot: Spot<'o>,
    /// Whether it is that of `defaults`.
    shared: bool,
    /// Whether the audiences are checked against stores' limits: their size.
    pub fixed: u64,
    /// The target's cluster.
    cluster: Option<&'o str>,
    pub audiences: &'o [String],
    /// Whether its cluster signs by itself; `None` where that is not known.
    pub embedded: Option<bool>,
}

impl Planner<'_> {
    /// Checks and completes the places of a target.
    pub(super) fn deliver(
        &mut self,
        subject: &Subject<'_>,
        places: Option<&[PlaceFile]>,
        audiences: &[String],
        cluster: Option<&str>,
    ) -> Vec<Place> {
        let here = [Step::Key("deliver")];
        let (spot, shared) = subject.origin(&here);
        let embedded = cluster.and_then(|cluster| self.clusters.get(cluster)?.embedded);
        let owner = Owner { subject, spot, shared, fixed: token_bytes(audiences), cluster, audiences, embedded };
        let written = owner.spot.node.get("deliver");
        if places.is_none_or(<[PlaceFile]>::is_empty) {
            // a list of nothing but faulty places is no empty one
            let empty = matches!(written.map(|node| &node.value), Some(Value::List(list)) if list.is_empty());
            if empty || subject.lacks("deliver") {
                self.report.error(
                    &owner.spot,
                    &here,
                    "the token goes nowhere: write at least one place, such as `deliver: [{file: {path: …}}]`",
                );
            }
            return Vec::new();
        }
        let places = places.unwrap_or_default();
        // A list that grows has room for four; most have one, and there may be a hundred thousand of them.
        let mut planned: Vec<Place> = Vec::with_capacity(places.len());
        planned.extend(places.iter().enumerate().filter_map(|(index, place)| self.place(&owner, &[here[0], index.into()], place, false)));
        if planned.len() == places.len() && planned.iter().all(|place| !place.required) {
            self.report.warning(&owner.spot, &here, "no place is required: a rotation counts as done though the token arrived nowhere");
        }
        planned
    }

    fn place(&mut self, owner: &Owner<'_>, here: &[Step<'_>], file: &PlaceFile, in_fallback: bool) -> Option<Place> {
        let node = owner.spot.marks.node(owner.spot.node, here);
        let given: Vec<&'static str> = SINKS.iter().copied().filter(|kind| node.has(kind)).collect();
        match given[..] {
            [_] => {}
            [] => {
                let planned = node.entries().iter().any(|(key, _)| later("PlaceFile", &key.text));
                let mistyped = node.entries().iter().any(|(key, _)| closest(&key.text, SINKS.iter().copied()).is_some());
                let foreign = node.entries().iter().any(|(key, _)| instead("PlaceFile", &key.text).is_some());
                if !planned && !mistyped && !foreign {
                    self.report.error(&owner.spot, here, &format!("it names no sink: write one of {}", SINKS.join(", ")));
                }
                return None;
            }
            _ => {
                self.report.error(&owner.spot, here, &format!("{} are two places: give each its own dash", given.join(" and ")));
                return None;
            }
        }
        let sink = self.sink(owner, here, file);
        let at = |key| -> Vec<Step<'_>> { here.iter().copied().chain([Step::Key(key)]).collect() };
        if in_fallback {
            if file.required.is_some() {
                self.report.error(&owner.spot, &at("required"), "a fallback takes this from the place that it stands in for: leave it out");
            }
            if file.fallback.is_some() {
                self.report.error(&owner.spot, &at("fallback"), "a fallback has none of its own: write both into one list, in order");
            }
            if file.when_paid.is_some() {
                self.report.error(&owner.spot, &at("whenPaid"), "it belongs beside `fallback`, at the place that this one stands in for");
            }
        } else if file.when_paid.is_some() && file.fallback.is_none() {
            self.report.error(
                &owner.spot,
                &at("whenPaid"),
                "it says what becomes of the copy in a fallback, and there is none: leave it out",
            );
        }
        let mut fallback = Vec::new();
        for (index, place) in file.fallback.iter().flatten().enumerate().filter(|_| !in_fallback) {
            let steps: Vec<Step<'_>> = at("fallback").into_iter().chain([index.into()]).collect();
            fallback.extend(self.place(owner, &steps, place, true));
        }
        let (sink, format) = sink?;
        let required = !in_fallback && file.required.unwrap_or(true);
        let encrypt_to = file.encrypt_to();
        if let Some(to) = &encrypt_to {
            self.encrypted(owner, &joined(here, sink.kind()), &sink, &format, to);
        }
        let encrypt_to = encrypt_to.unwrap_or_default();
        Some(Place { sink, format, encrypt_to, required, fallback, when_paid: file.when_paid.unwrap_or_default() })
    }

    fn sink(&mut self, owner: &Owner<'_>, here: &[Step<'_>], file: &PlaceFile) -> Option<(SinkSpec, Format)> {
        let (kind, sink, format) = if let Some(file) = &file.file {
            ("file", self.file(owner, &joined(here, "file"), &file.spec).map(SinkSpec::File), file.format.clone())
        } else if let Some(directory) = &file.directory {
            let (sink, format) = self.directory(owner, &joined(here, "directory"), directory)?;
            ("directory", Some(sink), format)
        } else if let Some(command) = &file.command {
            ("command", self.command(owner, &joined(here, "command"), &command.spec), command.format.clone())
        } else if let Some(secret) = &file.kubernetes_secret {
            let spec = self.secret_place(&owner.spot, &joined(here, "kubernetesSecret"), &secret.spec, owner.cluster);
            ("kubernetesSecret", Some(SinkSpec::KubernetesSecret(Box::new(spec))), secret.format.clone())
        } else {
            let (mut sink, format) = file.listed()?;
            let own = sink.kind_of().format();
            if own.is_some() && *format != Format::default() {
                let steps = joined(&joined(here, sink.kind()), "format");
                self.report.error(&owner.spot, &steps, "its own settings say how the token is written: leave `format` out");
            }
            let format = own.unwrap_or_else(|| format.clone());
            self.listed(owner, &joined(here, sink.kind()), &mut sink);
            (sink.kind(), Some(sink), format)
        };
        if kind != "directory" {
            self.format(owner, &joined(&joined(here, kind), "format"), kind, &format);
        }
        let sink = sink?;
        self.alone(owner, &joined(here, kind), &sink);
        Some((sink, format))
    }

    pub(super) fn file(&mut self, owner: &Owner<'_>, here: &[Step<'_>], spec: &FileSpec) -> Option<FileSpec> {
        let base = self.base(owner.spot.file);
        let path = rules::written_path(base, &spec.path);
        if let Err(message) = &path {
            self.report.error(&owner.spot, &joined(here, "path"), message);
        }
        let mode = spec.mode.0;
        let said = if mode & 0o002 != 0 {
            Some((Severity::Error, "lets anyone replace the token: write \"0640\" or \"0600\""))
        } else if mode & 0o400 == 0 {
            Some((Severity::Error, "lets not even its owner read the token: write \"0600\""))
        } else if mode & 0o004 != 0 {
            Some((Severity::Warning, "lets every user of this host read the token: write \"0640\" and a `group`"))
        } else if mode & 0o111 != 0 {
            Some((Severity::Warning, "makes the token executable: write \"0640\" or \"0600\""))
        } else {
            None
        };
        if let Some((severity, why)) = said {
            self.report.say(&owner.spot, &joined(here, "mode"), severity, &format!("{mode:04o} {why}"));
        }
        for (key, value) in [("owner", &spec.owner), ("group", &spec.group)] {
            if let Some(Err(message)) = value.as_deref().map(rules::word) {
                self.report.error(&owner.spot, &joined(here, key), &message);
            }
        }
        Some(FileSpec { path: path.ok()?, ..spec.clone() })
    }

    /// What a sink says of itself is told where it is written.
    fn listed(&mut self, owner: &Owner<'_>, here: &[Step<'_>], sink: &mut SinkSpec) {
        if let Some(store) = sink.store() {
            self.store_of(owner, here, store, sink.kind());
        }
        self.flaws(&owner.spot, here, sink.kind_of().flaws());
        for (key, path) in sink.kind_of_mut().files() {
            self.refer(&owner.spot, &joined(here, key), path);
        }
        if let Some((store, limit)) = sink.kind_of().limit() {
            self.fits(owner, store, limit);
        }
    }

    /// Says what is wrong with settings that begin here.
    pub(super) fn flaws(&mut self, spot: &Spot<'_>, here: &[Step<'_>], flaws: Vec<Flaw>) {
        for Flaw { key, is_warning, message } in flaws {
            let steps: Vec<Step<'_>> = here.iter().copied().chain(key.into_iter().map(Step::Key)).collect();
            let severity = if is_warning { Severity::Warning } else { Severity::Error };
            self.report.say(spot, &steps, severity, &message);
        }
    }

    fn store_of(&mut self, owner: &Owner<'_>, here: &[Step<'_>], name: &str, kind: &'static str) {
        let message = match self.stores.get(name).map(|store| store.kind) {
            Some(Some(known)) if known != kind => format!("the store {} is of the kind {known}: name one of the kind {kind}", shown(name)),
            Some(_) => return,
            None => match closest(name, self.stores.keys().map(String::as_str)) {
                Some(near) => format!("there is no store {}: did you mean `{near}`?", shown(name)),
                None if self.stores.is_empty() => format!("there is no store {}: write it under `stores`", shown(name)),
                None => format!(
                    "there is no store {}: `stores` has {}",
                    shown(name),
                    self.stores.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            },
        };
        self.report.error(&owner.spot, &joined(here, "store"), &message);
    }

    /// Whether the parts of a token that are known now alone are too large.
    fn fits(&mut self, owner: &Owner<'_>, store: &str, limit: u64) {
        if owner.fixed > limit {
            let message = format!(
                "the audiences alone make a token of {} bytes, more than the {} that {store} holds: write fewer",
                owner.fixed,
                Bytes(limit)
            );
            self.error(owner.subject, &["audiences".into()], &message);
        }
    }

    /// Stands for the name of a place, by whichever store and words it is written: a hundred thousand names are long.
    pub(super) fn place_key(&self, sink: &SinkSpec) -> Digest {
        let kind = sink.kind_of();
        let identity = kind.store().map(|store| self.stores.get(store).map_or(store, |store| &store.identity));
        let parts = [kind.space().unwrap_or(sink.kind()), " ", identity.unwrap_or_default(), " ", &kind.name()];
        digest_of(&parts.map(str::as_bytes))
    }

    /// Two sinks on one place would overwrite each other for ever.
    fn alone(&mut self, owner: &Owner<'_>, here: &[Step<'_>], sink: &SinkSpec) {
        let place = self.place_key(sink);
        let line = owner.spot.marks.node(owner.spot.node, here).at.line;
        let subject = owner.subject;
        let known = |name: &str| self.names.get_key_value(name).map_or_else(|| name.into(), |(known, _)| Arc::clone(known));
        let name = subject.name.map(known);
        let writer = Writer { name, target: (subject.file, subject.node.at), file: owner.spot.file, line };
        let other = match self.places.entry(place) {
            Entry::Vacant(free) => {
                free.insert(writer);
                return;
            }
            Entry::Occupied(taken) => taken.into_mut(),
        };
        let shown = shown(&sink.place());
        let message = if owner.shared && (other.file, other.line) == (writer.file, writer.line) && other.target != writer.target {
            format!("{shown} would be written by every target without a `deliver` of its own: give each target its own place")
        } else {
            let who = match &other.name {
                _ if other.target == writer.target => "this target".to_owned(),
                Some(name) => format!("target {name}"),
                None => "a target without a name".to_owned(),
            };
            let at = if other.file == writer.file {
                format!("line {}", other.line)
            } else {
                format!("{}:{}", self.report.path(other.file).display(), other.line)
            };
            format!("{shown} is written by {who} already ({at}): give each its own place")
        };
        self.report.error(&owner.spot, here, &message);
    }
}

pub(super) fn joined<'s>(here: &[Step<'s>], key: &'s str) -> Vec<Step<'s>> {
    here.iter().copied().chain([Step::Key(key)]).collect()
}
