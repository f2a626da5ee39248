//! One target: its defaults filled in, its values checked.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::report::{Prefix, Spot};
use super::{Defaults, Planner, rules};
use crate::cluster::{Ask, Binding};
use crate::schedule::file::{TargetFile, later};
use crate::schedule::foreign::instead;
use crate::schedule::measure::{Seconds, shown};
use crate::schedule::plan::{Target, Terms};
use crate::schedule::problem::Severity;
use crate::schedule::yaml::{self, Marks, Node, Step, Value, closest};

/// Shortest life that a real API server grants (`BoundServiceAccountTokenVolume` validation).
pub(super) const SHORTEST: u64 = 600;
/// Shortest life on an embedded cluster.
const SHORTEST_EMBEDDED: u64 = 10;
/// Longest life that the API takes.
pub(super) const LONGEST: u64 = 1 << 32;
/// With this life, kube-apiserver takes a Pod-bound token for one of its own mounts and extends it to a year.
const EXTENDED: u64 = 3607;
/// Seconds between proofs where `prove.every` is absent.
const PROVE_EVERY: u64 = 3600;
/// Keys that a target cannot do without.
const FIELDS: [&str; 5] = ["name", "cluster", "serviceAccount", "duration", "deliver"];

/// A target while it is checked: its own tree, and that of `defaults` for what it leaves out.
pub(super) struct Subject<'s> {
    pub file: usize,
    pub node: &'s Node,
    pub marks: &'s Marks,
    pub prefix: Prefix,
    pub name: Option<&'s str>,
    pub defaults: Option<&'s Defaults<'s>>,
}

impl<'s> Subject<'s> {
    /// The tree that a value comes from: `defaults` where the target leaves it out. `rotate` is merged key by key.
    pub fn origin(&self, steps: &[Step<'_>]) -> (Spot<'s>, bool) {
        let has = |node: &Node| match steps {
            [Step::Key("rotate"), Step::Key(key), ..] => node.get("rotate").is_some_and(|rotate| rotate.has(key)),
            [Step::Key(key), ..] => node.has(key),
            _ => true,
        };
        match self.defaults.filter(|defaults| !has(self.node) && has(defaults.node)) {
            Some(defaults) => (Spot { file: 0, node: defaults.node, marks: &defaults.marks, prefix: Prefix::Defaults, target: None }, true),
            None => (Spot { file: self.file, node: self.node, marks: self.marks, prefix: self.prefix, target: self.name }, false),
        }
    }

    /// Whether `rotate.cron` has a value, here or in `defaults`.
    pub fn writes_cron(&self) -> bool {
        let steps = ["rotate".into(), "cron".into()];
        let node = self.origin(&steps).0.node;
        node.get("rotate").and_then(|rotate| rotate.get("cron")).is_some_and(|cron| !cron.is_empty())
    }

    /// Whether a key stands neither here nor in `defaults`, not even mistyped or by another tool's word (which is said
    /// already).
    pub fn lacks(&self, key: &str) -> bool {
        let quoted = format!("`{key}");
        let is_meant = |word: &str| match instead("TargetFile", word) {
            Some(said) => said.contains(&quoted),
            None => closest(word, FIELDS.into_iter()) == Some(key),
        };
        let meant = |node: &Node| node.has(key) || node.entries().iter().any(|(known, _)| is_meant(&known.text));
        !meant(self.node) && !self.defaults.is_some_and(|defaults| meant(defaults.node))
    }
}

impl Planner<'_> {
    pub(super) fn say(&mut self, subject: &Subject<'_>, steps: &[Step<'_>], severity: Severity, message: &str) {
        let (spot, _) = subject.origin(steps);
        self.report.say(&spot, steps, severity, message);
    }

    pub(super) fn error(&mut self, subject: &Subject<'_>, steps: &[Step<'_>], message: &str) {
        self.say(subject, steps, Severity::Error, message);
    }

    /// Checks one target. `None` where anything is wrong with it.
    pub(super) fn target(&mut self, file: usize, node: &Node, prefix: Prefix, defaults: Option<&Defaults<'_>>) -> Option<Target> {
        let before = self.report.errors();
        let mut found = Vec::new();
        let (own, marks) = yaml::read::<TargetFile>(node, later, &mut found);
        let name = node.get("name").and_then(|name| if let Value::Scalar { text, .. } = &name.value { Some(&**text) } else { None });
        self.report.findings(&Spot { file, node, marks: &marks, prefix, target: name }, found);
        let own = own?;
        let subject = Subject { file, node, marks: &marks, prefix, name, defaults };
        let none = TargetFile::default();
        let shared = defaults.map_or(&none, |defaults| &defaults.file);
        let name = self.name(&subject, own.name.as_deref());
        let cluster = self.cluster_of(&subject, own.cluster.as_ref().or(shared.cluster.as_ref()));
        let embedded = cluster.as_deref().and_then(|cluster| self.clusters.get(cluster)?.embedded);
        let account = self.account(&subject, own.service_account.as_deref().or(shared.service_account.as_deref()));
        let binding = own.bound_to.as_ref().or(shared.bound_to.as_ref());
        self.binding(&subject, binding);
        let duration = self.duration(&subject, own.duration.or(shared.duration), embedded, binding);
        let (revocable, overlap) = self.revocable(&subject, (&own, shared), embedded, binding.is_some(), duration);
        let audiences = own.audiences.as_ref().or(shared.audiences.as_ref()).cloned().unwrap_or_default();
        self.audiences(&subject, &audiences);
        let told = self.report.errors();
        let rotate = self.rotate(&subject, own.rotate.as_ref(), shared.rotate.as_ref(), duration, embedded);
        let compliance = own.compliance.or(shared.compliance).unwrap_or_default();
        // Ages that come of a `rotate` that is not meant so would be told of where nothing is wrong.
        let sound = self.report.errors() == told && rotate.cron.is_empty() != subject.writes_cron();
        let compliance = self.compliance(&subject, compliance, &rotate, duration, sound);
        let (prove, prove_every) = self.prove(&subject, own.prove.or(shared.prove));
        let deliver = self.deliver(&subject, own.deliver.as_deref().or(shared.deliver.as_deref()), &audiences, cluster.as_deref());
        self.hosts(&subject, own.hosts.as_deref().or(shared.hosts.as_deref()), &deliver);
        let hooks = own.after.as_deref().or(shared.after.as_deref()).unwrap_or_default();
        let after = self.after(&subject, hooks, cluster.as_deref(), &deliver, (duration, &rotate));
        if self.report.errors() > before {
            return None;
        }
        let (namespace, service_account) = account?;
        let terms = Terms {
            labels: own.labels.or_else(|| shared.labels.clone()).unwrap_or_default(),
            cluster: self.shared_name(cluster?),
            revocable,
            overlap,
            rotate,
            suspend: own.suspend.or(shared.suspend).unwrap_or(false),
            prove,
            prove_every,
            compliance,
            when_removed: own.when_removed.or(shared.when_removed).unwrap_or_default(),
            after,
            hosts: own.hosts.or_else(|| shared.hosts.clone()).unwrap_or_default(),
        };
        let target = Target {
            name: name?.into(),
            terms: self.shared(terms),
            ask: Ask { namespace, service_account, duration: duration?, audiences, bound_to: binding.cloned().map(Box::new) },
            deliver,
            first: false,
            line: node.entries().first().map_or(node.at.line, |(key, _)| key.at.line),
        };
        self.store_pace(&subject, &target);
        Some(target)
    }

    /// These terms, or those of the target before where they are the same: a hundred thousand targets mostly have the same.
    fn shared(&mut self, terms: Terms) -> Arc<Terms> {
        match &self.terms {
            Some(last) if **last == terms => Arc::clone(last),
            _ => Arc::clone(self.terms.insert(Arc::new(terms))),
        }
    }

    /// The same of the cluster in them.
    fn shared_name(&self, cluster: String) -> Arc<str> {
        match &self.terms {
            Some(last) if *last.cluster == *cluster => Arc::clone(&last.cluster),
            _ => cluster.into(),
        }
    }

    fn name(&mut self, subject: &Subject<'_>, name: Option<&str>) -> Option<String> {
        let steps = ["name".into()];
        let Some(name) = name else {
            if subject.lacks("name") {
                self.error(subject, &steps, "the target has no name: write `name: …`");
            }
            return None;
        };
        if let Err(message) = rules::target_name(name) {
            self.error(subject, &steps, &message);
        }
        let line = subject.marks.node(subject.node, &steps).at.line;
        let other = match self.names.entry(name.into()) {
            Entry::Vacant(free) => {
                free.insert((subject.file, line));
                None
            }
            Entry::Occupied(taken) => Some(*taken.get()),
        };
        if let Some((file, line)) = other {
            let place = self.report.path(file).display();
            let place = if file == subject.file { format!("in line {line}") } else { format!("in {place}:{line}") };
            self.error(subject, &steps, &format!("another target is called {} already, {place}: give each its own name", shown(name)));
        }
        Some(name.to_owned())
    }

    fn cluster_of(&mut self, subject: &Subject<'_>, cluster: Option<&String>) -> Option<String> {
        let steps = ["cluster".into()];
        let known = || self.clusters.keys().map(String::as_str);
        let all = || known().collect::<Vec<_>>().join(", ");
        let message = match cluster {
            Some(name) if self.clusters.contains_key(name) => return Some(name.clone()),
            Some(name) => match closest(name, known()) {
                Some(near) => format!("there is no cluster {}: did you mean `{near}`?", shown(name)),
                None if self.clusters.is_empty() => format!("there is no cluster {}: write it under `clusters`", shown(name)),
                None => format!("there is no cluster {}: `clusters` has {}", shown(name), all()),
            },
            None if !subject.lacks("cluster") => return None,
            None if self.clusters.is_empty() => "the cluster is missing: write one under `clusters`, and its name here".into(),
            None => format!("the cluster is missing: write `cluster:` with one of {}", all()),
        };
        self.error(subject, &steps, &message);
        None
    }

    fn account(&mut self, subject: &Subject<'_>, account: Option<&str>) -> Option<(String, String)> {
        let steps = ["serviceAccount".into()];
        let message = match account.map(rules::service_account) {
            Some(Ok(account)) => return Some(account),
            Some(Err(message)) => message,
            None if subject.lacks("serviceAccount") => "the account is missing: write `serviceAccount: NAMESPACE/NAME`".into(),
            None => return None,
        };
        self.error(subject, &steps, &message);
        None
    }

    fn binding(&mut self, subject: &Subject<'_>, binding: Option<&Binding>) {
        let (kind, name) = match binding {
            Some(Binding::Secret(name)) => ("secret", name),
            Some(Binding::Pod(name)) => ("pod", name),
            Some(Binding::Node(name)) => ("node", name),
            Some(Binding::Marker(_)) | None => return,
        };
        if !rules::subdomain(name) {
            let message = format!("{} is no name of a {kind}: write it without the namespace", shown(name));
            self.error(subject, &["boundTo".into(), kind.into()], &message);
        }
    }

    fn duration(
        &mut self,
        subject: &Subject<'_>,
        duration: Option<Seconds>,
        embedded: Option<bool>,
        binding: Option<&Binding>,
    ) -> Option<u64> {
        let Some(duration) = duration else {
            if subject.lacks("duration") {
                self.error(subject, &["duration".into()], "the duration is missing: write such as `duration: 1h`");
            }
            return None;
        };
        let message = match duration.0 {
            short @ ..SHORTEST if embedded == Some(false) => {
                format!("{} is less than the 10m (600s) that Kubernetes gives at least: write 10m or more", Seconds(short))
            }
            short @ ..SHORTEST_EMBEDDED if embedded == Some(true) => {
                format!("{} is less than the 10s that an embedded cluster gives at least: write 10s or more", Seconds(short))
            }
            0 => "a token cannot live for no time: write such as 1h".into(),
            long if long > LONGEST => format!("{} is more than Kubernetes takes (4294967296s): write such as 1h", Seconds(long)),
            EXTENDED if embedded != Some(true) && matches!(binding, Some(Binding::Pod(_))) => {
                "3607s and a Pod make Kubernetes extend the token to a year: write 3600s or 3610s".into()
            }
            fine => return Some(fine),
        };
        self.error(subject, &["duration".into()], &message);
        None
    }

    fn prove(&mut self, subject: &Subject<'_>, prove: Option<crate::schedule::choice::ProveFile>) -> (bool, u64) {
        let every = prove.and_then(|prove| prove.every);
        if every.is_some_and(|every| every.0 == 0) {
            self.error(
                subject,
                &["prove".into(), "every".into()],
                "it would be proven without a pause: write 1s or more, or `prove: false`",
            );
        }
        (prove.is_none_or(|prove| prove.prove), every.map_or(PROVE_EVERY, |every| every.0))
    }
}
