//! What the account has, held against what the schedule needs: what is missing, and what is too much.

use serde::Serialize;

use super::Needs;
use crate::cluster::Cluster;
use crate::cluster::access::Access;
use crate::cluster::rights::{Right, Rule};

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `missing`, `surplus` or `unknown`.
    pub verdict: &'static str,
    /// Namespace that was looked at.
    pub namespace: String,
    /// In words: verbs, resource, names.
    pub what: String,
}

/// Compares; asks the API server about our own credential and changes nothing.
pub async fn compare(cluster: &Cluster, needs: &Needs) -> Vec<Difference> {
    let mut found = Vec::new();
    for right in needs.rights() {
        match cluster.has(&right).await {
            Access::Allowed => {}
            Access::Denied { why } => found.push(Difference { verdict: "missing", namespace: right.namespace.clone(), what: why }),
            Access::Unknown { why } => found.push(Difference { verdict: "unknown", namespace: right.namespace.clone(), what: why }),
        }
    }
    let rights = needs.rights();
    for namespace in needs.namespaces() {
        match cluster.rules(namespace).await {
            Ok(rules) => {
                let surplus = rules.iter().filter(|rule| !is_everybodys(rule)).flat_map(|rule| surplus(rule, namespace, &rights));
                found.extend(surplus.map(|what| Difference { verdict: "surplus", namespace: namespace.clone(), what }));
            }
            Err(why) => found.push(Difference { verdict: "unknown", namespace: namespace.clone(), what: why }),
        }
    }
    found
}

/// What every account may do (`system:basic-user`, `system:discovery`): questions about itself.
fn is_everybodys(rule: &Rule) -> bool {
    rule.api_groups.iter().all(|g| g == "authorization.k8s.io" || g == "authentication.k8s.io")
        && rule.resources.iter().all(|r| r.starts_with("selfsubject"))
}

/// The parts of a rule that no need covers.
fn surplus(rule: &Rule, namespace: &str, needed: &[Right]) -> Vec<String> {
    let anything = [String::new()];
    let names = if rule.resource_names.is_empty() { &anything[..] } else { &rule.resource_names };
    let mut found = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                for name in names {
                    let covered = needed.iter().any(|right| {
                        right.namespace == namespace
                            && right.group == *group
                            && right.resource == *resource
                            && right.verbs.contains(verb)
                            && right.name.as_deref().is_none_or(|n| n == name)
                    });
                    if !covered {
                        let group = if group.is_empty() { String::new() } else { format!(" of group {group}") };
                        let name = if name.is_empty() { "whatever its name".into() } else { format!("named {name}") };
                        found.push(format!("{verb} {resource}{group}, {name}"));
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], group: &str, resource: &str, names: &[&str]) -> Rule {
        let owned = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect();
        Rule { verbs: owned(verbs), api_groups: vec![group.into()], resources: vec![resource.into()], resource_names: owned(names) }
    }

    #[test]
    fn a_rule_without_names_is_too_much_where_names_would_do() {
        let needed = [Right::named("ci", "", "serviceaccounts/token", "a", &["create"])];
        assert!(surplus(&rule(&["create"], "", "serviceaccounts/token", &["a"]), "ci", &needed).is_empty());
        assert_eq!(
            surplus(&rule(&["create"], "", "serviceaccounts/token", &["a", "b"]), "ci", &needed),
            ["create serviceaccounts/token, named b"]
        );
        assert_eq!(
            surplus(&rule(&["create"], "", "serviceaccounts/token", &[]), "ci", &needed),
            ["create serviceaccounts/token, whatever its name"]
        );
        assert_eq!(surplus(&rule(&["*"], "*", "*", &[]), "ci", &needed), ["* * of group *, whatever its name"]);
    }

    #[test]
    fn questions_about_oneself_are_everybodys() {
        assert!(is_everybodys(&rule(&["create"], "authorization.k8s.io", "selfsubjectrulesreviews", &[])));
        assert!(!is_everybodys(&rule(&["create"], "", "secrets", &[])));
    }
}
