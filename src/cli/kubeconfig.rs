//! Which cluster a person means, and whose token: the flags that kubectl has, or a cluster of the schedule.

use std::path::PathBuf;

use clap::Args;

use super::{Context, Exit};
use crate::cluster::mint::MintFailure;
use crate::cluster::person::Wish;
use crate::cluster::{Ask, Cluster, Minted, Urgency};
use crate::daemon::read;
use crate::daemon::scene::embedded_beside;

/// Arguments of commands that talk to a cluster for a person.
#[derive(Debug, Args)]
pub struct Reach {
    /// The kubeconfig to use [default: $KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the account [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// A cluster of the schedule instead, with the credentials that the schedule names
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kubeconfig", "context"])]
    cluster: Option<String>,
}

impl Reach {
    /// Whether anything was named.
    pub fn is_empty(&self) -> bool {
        self.kubeconfig.is_none() && self.context.is_none() && self.namespace.is_none() && self.cluster.is_none()
    }

    /// Whether a cluster of the schedule was named.
    pub fn is_of_schedule(&self) -> bool {
        self.cluster.is_some()
    }

    fn wish(&self) -> Wish {
        Wish::of_this_process(self.kubeconfig.clone(), self.context.clone())
    }

    /// The namespace that was named.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The cluster of the schedule that was named.
    pub fn cluster_name(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Namespace and name of an account, `NAME` or `NAMESPACE/NAME`.
    pub fn account(&self, text: &str) -> Result<(String, String), Exit> {
        self.object("ServiceAccount", text)
    }

    /// Namespace and name of an object of that kind, `NAME` or `NAMESPACE/NAME`.
    pub fn object(&self, kind: &str, text: &str) -> Result<(String, String), Exit> {
        let (namespace, name) = match (text.split_once('/'), &self.namespace) {
            (Some((namespace, name)), None) => (namespace.to_owned(), name.to_owned()),
            (Some((namespace, name)), Some(other)) if namespace == other => (namespace.to_owned(), name.to_owned()),
            (Some(_), Some(_)) => return Err(Exit::usage(format!("`{text}` names another namespace than --namespace"))),
            (None, Some(namespace)) => (namespace.clone(), text.to_owned()),
            (None, None) if self.cluster.is_some() => return Err(Exit::usage(format!("name the namespace too: NAMESPACE/{text}"))),
            (None, None) => (self.wish().namespace().unwrap_or_else(|| "default".into()), text.to_owned()),
        };
        // Both become part of a URL.
        let plain = |part: &str| {
            !part.is_empty()
                && part.len() <= 253
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b))
        };
        let label = !namespace.contains('.');
        if plain(&namespace) && label && plain(&name) {
            Ok((namespace, name))
        } else {
            Err(Exit::usage(format!("`{text}` is no {kind}; write NAMESPACE/NAME, or NAME with -n NAMESPACE")))
        }
    }

    /// The cluster meant.
    pub fn cluster(&self, context: &Context) -> Result<Cluster, Exit> {
        match &self.cluster {
            None => Ok(Cluster::new("kubeconfig", &self.wish().cluster().map_err(Exit::own)?, std::path::Path::new("/nonexistent"))),
            Some(name) => {
                let accepted = read::read(&context.schedule(None)).map_err(|problems| Exit::refused(&problems))?;
                of_plan(&accepted, name, context)
            }
        }
    }
}

/// A cluster of the schedule.
pub fn of_plan(accepted: &read::Accepted, name: &str, context: &Context) -> Result<Cluster, Exit> {
    let records = context.places.by(&accepted.plan).records;
    let Some(spec) = accepted.plan.clusters.get(name) else {
        let known: Vec<&str> = accepted.plan.clusters.keys().map(String::as_str).collect();
        return Err(Exit::usage(format!("the schedule has no cluster `{name}`; it has: {}", known.join(", "))));
    };
    Ok(Cluster::new(name, spec, &embedded_beside(&records)))
}

/// Mints one token for a person, and says on stderr what the server changed about it.
pub async fn mint(cluster: &Cluster, ask: &Ask) -> Result<Minted, MintFailure> {
    let turn = cluster.turn(Urgency { deadline: i64::MIN, retry: false }).await;
    let minted = cluster.mint(ask, turn).await?;
    for warning in &minted.warnings {
        super::print::talk(&format!("tokenferry: warning: {warning}"));
    }
    let granted = minted.claims.lifetime().and_then(|life| u64::try_from(life).ok()).unwrap_or(0);
    if granted < ask.duration && minted.warnings.is_empty() {
        let span = super::print::span;
        super::print::talk(&format!(
            "tokenferry: warning: the server shortened the life of the token from {} to {}",
            span(ask.duration),
            span(granted)
        ));
    }
    Ok(minted)
}

/// A refused mint as an exit: 4 where a right is missing.
pub fn refused(failure: &MintFailure) -> Exit {
    Exit { code: if failure.is_forbidden() { 4 } else { 1 }, message: Some(failure.message.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(namespace: Option<&str>) -> Reach {
        Reach { kubeconfig: Some("/nonexistent".into()), context: None, namespace: namespace.map(str::to_owned), cluster: None }
    }

    fn account(namespace: Option<&str>, text: &str) -> Option<(String, String)> {
        reach(namespace).account(text).ok()
    }

    #[test]
    fn an_account_is_named_with_a_slash_or_a_flag() {
        let wanted = Some(("ci".to_owned(), "bot".to_owned()));
        assert_eq!(account(None, "ci/bot"), wanted);
        assert_eq!(account(Some("ci"), "bot"), wanted);
        assert_eq!(account(Some("ci"), "ci/bot"), wanted);
        assert_eq!(account(None, "bot"), Some(("default".into(), "bot".into())));
        for (namespace, text) in
            [(Some("other"), "ci/bot"), (None, "ci/"), (None, "/bot"), (None, "ci/bot/x"), (None, "../x"), (None, "a/b?c"), (None, "A/b")]
        {
            assert_eq!(account(namespace, text), None, "{namespace:?} {text}");
        }
    }
}
