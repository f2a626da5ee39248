//! The least rights that a schedule needs, folded from what each part states beside its code, as manifests for
//! kubectl, as a Vault policy, as an IAM policy; and what an account has too little or too much of.

pub mod diff;
pub mod objects;
pub mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::after::HookSpec;
use crate::cluster::lease::LeaseSpec;
use crate::cluster::rights::Right;
use crate::cluster::{marker, mint, prove};
use crate::schedule::{Plan, Target, WhenRemoved};
use crate::sink::{Place, SinkSpec, WhenPaid};

/// Who gets the rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A ServiceAccount.
    Account {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A user of a client certificate or of OIDC.
    User(String),
    /// A group of users.
    Group(String),
}

impl Subject {
    /// `NAMESPACE/NAME`, `user:NAME`, `group:NAME`, or a name as the API server gives it.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(name) = text.strip_prefix("group:").filter(|n| !n.is_empty()) {
            return Some(Self::Group(name.into()));
        }
        if let Some(name) = text.strip_prefix("user:").filter(|n| !n.is_empty()) {
            return Some(Self::User(name.into()));
        }
        let account = text.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let (namespace, name) = account.or_else(|| text.split_once('/'))?;
        let plain =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        (plain(namespace) && plain(name)).then(|| Self::Account { namespace: namespace.into(), name: name.into() })
    }

    /// From the user name that the API server tells (SelfSubjectReview).
    pub fn of_user(name: &str) -> Self {
        name.strip_prefix("system:serviceaccount:").and_then(|_| Self::parse(name)).unwrap_or_else(|| Self::User(name.into()))
    }

    fn yaml(&self) -> String {
        match self {
            Self::Account { namespace, name } => {
                format!("{{kind: ServiceAccount, namespace: {}, name: {}}}", quoted(namespace), quoted(name))
            }
            Self::User(name) => format!("{{kind: User, apiGroup: rbac.authorization.k8s.io, name: {}}}", quoted(name)),
            Self::Group(name) => format!("{{kind: Group, apiGroup: rbac.authorization.k8s.io, name: {}}}", quoted(name)),
        }
    }
}

/// Names of one rule's objects; `None` among them: any.
type Names = BTreeSet<Option<String>>;

/// Group, resource and verbs of a rule.
type Kind = (String, String, Vec<String>);

/// What one cluster has to grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// By namespace, the rules: group, resource and verbs with the names of the objects.
    rules: BTreeMap<String, BTreeMap<Kind, Names>>,
    /// ClusterRoles that come with Kubernetes, to be bound.
    cluster_roles: BTreeSet<&'static str>,
}

impl Needs {
    /// Of the plan's targets on that cluster.
    pub fn of(plan: &Plan, cluster: &str) -> Self {
        let mut needs = Self::default();
        // The daemon's account mints its own successor.
        // Whoever is a member, of whichever targets.
        needs.add_all(plan.fleet.iter().filter(|lease| lease.cluster == cluster).map(LeaseSpec::right).collect());
        let own = plan.clusters.get(cluster).and_then(|spec| spec.own.as_ref()?.ask());
        needs.add_all(own.iter().map(mint::right).collect());
        for target in &plan.targets {
            needs.add_all(elsewhere(target, cluster));
        }
        for target in plan.targets.iter().filter(|t| *t.cluster == *cluster) {
            for right in rights(target) {
                needs.add(&right);
            }
            // Tokens for others cannot be tried on the API server; their signature can be checked.
            if target.prove && !target.ask.audiences.is_empty() {
                needs.cluster_roles.insert(prove::READ_KEYS);
            }
        }
        needs.fold();
        needs
    }

    /// Drops rules for named objects that a rule for any object of the same resource grants already.
    fn fold(&mut self) {
        for rules in self.rules.values_mut() {
            let whole: Vec<Kind> = rules.iter().filter(|(_, names)| names.contains(&None)).map(|(kind, _)| kind.clone()).collect();
            rules.retain(|(group, resource, verbs), names| {
                names.contains(&None)
                    || !whole.iter().any(|(g, r, more)| g == group && r == resource && verbs.iter().all(|verb| more.contains(verb)))
            });
        }
    }

    fn add_all(&mut self, rights: Vec<Right>) {
        rights.iter().for_each(|right| self.add(right));
    }

    /// Adds one right.
    pub fn add(&mut self, right: &Right) {
        let key = (right.group.clone(), right.resource.clone(), right.verbs.clone());
        self.rules.entry(right.namespace.clone()).or_default().entry(key).or_default().insert(right.name.clone());
    }

    /// Every single right again, one for each object.
    pub fn rights(&self) -> Vec<Right> {
        let mut all = Vec::new();
        for (namespace, rules) in &self.rules {
            for ((group, resource, verbs), names) in rules {
                all.extend(names.iter().map(|name| Right {
                    namespace: namespace.clone(),
                    group: group.clone(),
                    resource: resource.clone(),
                    name: name.clone(),
                    verbs: verbs.clone(),
                }));
            }
        }
        all
    }

    /// The namespaces in which something is granted.
    pub fn namespaces(&self) -> impl Iterator<Item = &String> {
        self.rules.keys()
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.cluster_roles.is_empty()
    }

    /// Roles and bindings, as `kubectl apply -f -` takes them. `name` is theirs.
    pub fn manifests(&self, name: &str, subject: &Subject) -> String {
        let mut documents = Vec::new();
        for (namespace, rules) in &self.rules {
            let mut role = format!("{HEAD}kind: Role\nmetadata: {{name: {name}, namespace: {}}}\nrules:\n", quoted(namespace));
            for ((group, resource, verbs), names) in rules {
                role.push_str(&rule(group, resource, verbs, names));
            }
            documents.push(role);
            documents.push(format!(
                "{HEAD}kind: RoleBinding\nmetadata: {{name: {name}, namespace: {}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\nsubjects:\n  - {}\n",
                quoted(namespace),
                subject.yaml()
            ));
        }
        for role in &self.cluster_roles {
            let suffix = role.rsplit(':').next().unwrap_or(role);
            documents.push(format!(
                "{HEAD}kind: ClusterRoleBinding\nmetadata: {{name: {name}-{suffix}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: \"{role}\"}}\nsubjects:\n  - {}\n",
                subject.yaml()
            ));
        }
        documents.join("---\n")
    }
}

const HEAD: &str = "apiVersion: rbac.authorization.k8s.io/v1\n";

/// Everything that one target needs of its cluster.
fn rights(target: &Target) -> Vec<Right> {
    let mut rights = vec![mint::right(&target.ask)];
    if target.revocable {
        rights.extend(marker::rights(&target.ask.namespace, &target.name));
    }
    rights
}

fn rule(group: &str, resource: &str, verbs: &[String], names: &Names) -> String {
    let mut text =
        format!("  - apiGroups: [{}]\n    resources: [{}]\n    verbs: [{}]\n", quoted(group), quoted(resource), verbs.join(", "));
    if !names.contains(&None) {
        let names: Vec<String> = names.iter().flatten().map(|n| quoted(n)).collect();
        // Writing to a String does not fail.
        let _ = writeln!(text, "    resourceNames: [{}]", names.join(", "));
    }
    text
}

/// As YAML, whatever a plain word would mean there (`no`, `1e3`). A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The places of a target, fallbacks included, and whether what stands there is taken back one day: by
/// `whenRemoved: delete`, or as a copy in a fallback.
fn leaving(target: &Target) -> impl Iterator<Item = (&Place, bool)> {
    let goes = target.when_removed == WhenRemoved::Delete;
    let copies = move |place: &Place| goes || place.when_paid == WhenPaid::Remove;
    target.deliver.iter().flat_map(move |place| {
        let fallback = place.fallback.iter().map(move |copy| (copy, copies(place)));
        std::iter::once((place, goes)).chain(fallback)
    })
}

/// What a target's Secrets and restarts need on that cluster, whichever issues its token.
fn elsewhere(target: &Target, cluster: &str) -> Vec<Right> {
    let mut rights: Vec<Right> = leaving(target)
        .filter_map(|(place, leaves)| match &place.sink {
            SinkSpec::KubernetesSecret(spec) if spec.cluster == cluster => Some(spec.right(leaves)),
            _ => None,
        })
        .collect();
    for hook in &target.after {
        if let HookSpec::RolloutRestart(spec) = hook
            && spec.cluster == cluster
        {
            rights.extend(spec.rights());
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(namespace: &str, name: &str) -> Right {
        Right::named(namespace, "", "serviceaccounts/token", name, &["create"])
    }

    #[test]
    fn accounts_of_one_namespace_share_a_rule_and_each_namespace_has_its_role() {
        let mut needs = Needs::default();
        for (namespace, name) in [("b", "y"), ("a", "x"), ("a", "no"), ("a", "x")] {
            needs.add(&right(namespace, name));
        }
        let subject = Subject::parse("ops/tokenferry").unwrap();
        let text = needs.manifests("tokenferry", &subject);
        assert_eq!(text.matches("kind: Role\n").count(), 2);
        assert!(text.contains("resourceNames: [\"no\", \"x\"]"), "{text}");
        assert!(text.contains("- {kind: ServiceAccount, namespace: \"ops\", name: \"tokenferry\"}"), "{text}");
        assert_eq!(needs.rights().len(), 3);
    }

    #[test]
    fn a_name_that_a_rule_for_all_grants_already_is_not_granted_twice() {
        let mut needs = Needs::default();
        needs.add(&Right::named("a", "apps", "deployments", "web", &["get", "patch"]));
        needs.add(&Right::named("a", "apps", "statefulsets", "db", &["get", "patch"]));
        needs.add(&Right { name: None, ..Right::named("a", "apps", "deployments", "", &["list", "get", "patch"]) });
        needs.fold();
        let kept: Vec<(String, Option<String>)> = needs.rights().into_iter().map(|right| (right.resource, right.name)).collect();
        assert_eq!(kept, [("deployments".into(), None), ("statefulsets".into(), Some("db".into()))]);
    }

    #[test]
    fn a_subject_is_an_account_a_user_or_a_group() {
        let account = Subject::Account { namespace: "a".into(), name: "b".into() };
        assert_eq!(Subject::parse("a/b"), Some(account.clone()));
        assert_eq!(Subject::of_user("system:serviceaccount:a:b"), account);
        assert_eq!(Subject::of_user("a/b"), Subject::User("a/b".into()));
        assert_eq!(Subject::parse("group:ops"), Some(Subject::Group("ops".into())));
        for wrong in ["", "a", "a/", "/b", "user:", "A/b", "a/b\n"] {
            assert_eq!(Subject::parse(wrong), None, "{wrong}");
        }
    }
}
