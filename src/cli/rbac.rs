//! `rbac`: the least rights that a schedule needs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::print::{self, Cell, Colour, Output};
use super::{Context, Exit};
use crate::audit::rbac::diff::{self, Difference};
use crate::audit::rbac::{Needs, Subject, stores};
use crate::daemon::read;
use crate::daemon::scene::Scene;
use crate::schedule::{Plan, WhenRemoved};
use crate::sink::SYSTEMS;

/// Show the least rights that a schedule needs
///
/// For Kubernetes: a Role and RoleBinding for each namespace, with the name of each account, as `kubectl apply -f -`
/// takes them. Whom they are for is the account under `own`, else asked from the API server with the schedule's own
/// kubeconfig, or said by --subject. For Vault: a policy for the store's login. For AWS: an IAM policy. For other clouds:
/// roles, and the commands that grant them.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tokenferry rbac schedule.yaml --subject tokenferry/tokenferry | kubectl apply -f -\n  tokenferry rbac --cluster prod --diff     what the account lacks, and what it could do without\n  tokenferry rbac --for vault | vault policy write tokenferry -\n  tokenferry rbac --for aws"
)]
pub struct Rbac {
    /// The schedule
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Whose rights
    #[arg(long = "for", value_name = "SYSTEM", default_value = KUBERNETES, value_parser = PossibleValuesParser::new(systems()))]
    system: String,
    /// Only this cluster of the schedule
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only this store of the schedule
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// Who gets them: NAMESPACE/NAME of a ServiceAccount, user:NAME or group:NAME
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Name of the Roles and bindings
    #[arg(long, value_name = "NAME", default_value = "tokenferry")]
    name: String,
    /// Version of the KV engine of Vault's mounts
    #[arg(long, value_name = "1|2", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=2))]
    kv: u8,
    /// With the rights to take back what stands at every place, as `withdraw` does
    #[arg(long)]
    withdraw: bool,
    /// The account, the project's number or the subscription, to narrow the rights to it
    #[arg(long, value_name = "ID")]
    account: Option<String>,
    /// Compare with what the account really has: exits 1 where it lacks something or has too much
    #[arg(long)]
    diff: bool,
    /// How to show the differences
    #[arg(short, long, value_enum, default_value = "table", requires = "diff")]
    output: Output,
}

/// The word for the rights in clusters.
const KUBERNETES: &str = "kubernetes";

/// Whose rights can be shown.
fn systems() -> Vec<&'static str> {
    let mut systems = vec![KUBERNETES];
    systems.extend(SYSTEMS);
    let mut seen = BTreeSet::new();
    systems.retain(|system| seen.insert(*system));
    systems
}

#[derive(Serialize)]
struct Row {
    cluster: String,
    #[serde(flatten)]
    difference: Difference,
}

impl Rbac {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 2 where the schedule is refused or names no such cluster or store, 1 where the API server cannot be
    /// asked and where `--diff` finds something.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let accepted = read::read(&context.schedule(self.file.as_ref())).map_err(|problems| Exit::refused(&problems))?;
        let mut plan = accepted.plan;
        if self.withdraw {
            for target in &mut plan.targets {
                Arc::make_mut(&mut Arc::make_mut(target).terms).when_removed = WhenRemoved::Delete;
            }
        }
        let plan = Arc::new(plan);
        match self.system.as_str() {
            KUBERNETES if self.diff => self.compare(&plan, context).await,
            KUBERNETES => self.manifests(&plan, context).await,
            _ if self.diff => Err(Exit::usage("--diff compares rights in Kubernetes; leave --for out")),
            _ => self.policies(&plan),
        }
    }

    fn clusters<'a>(&self, plan: &'a Plan) -> Result<Vec<&'a String>, Exit> {
        let names: Vec<&String> = plan.clusters.keys().filter(|name| self.cluster.as_ref().is_none_or(|wanted| wanted == *name)).collect();
        match &self.cluster {
            Some(wanted) if names.is_empty() => Err(Exit::usage(format!("the schedule has no cluster `{wanted}`"))),
            _ => Ok(names),
        }
    }

    async fn manifests(&self, plan: &Arc<Plan>, context: &Context) -> Result<(), Exit> {
        let said = match &self.subject {
            Some(text) => {
                let subject = Subject::parse(text);
                Some(subject.ok_or_else(|| Exit::usage(format!("--subject `{text}` is none of NAMESPACE/NAME, user:NAME, group:NAME")))?)
            }
            None => None,
        };
        let scene = Scene::new(Arc::clone(plan), &context.places.records, None);
        let names = self.clusters(plan)?;
        let mut text = String::new();
        for name in &names {
            let needs = Needs::of(plan, name);
            let Some(cluster) = scene.cluster(name).filter(|c| !c.is_embedded() && !needs.is_empty()) else {
                print::talk(&format!("cluster {name} needs no rights"));
                continue;
            };
            let own = plan.clusters.get(*name).and_then(|spec| Subject::parse(&spec.own.as_ref()?.service_account));
            let subject = match said.clone().or(own) {
                Some(subject) => subject,
                None => Subject::of_user(&cluster.own_name().await.map_err(|why| {
                    Exit::own(format!("cluster {name} does not say whom the rights are for ({why}); say it with --subject NAMESPACE/NAME"))
                })?),
            };
            text.push_str(&format!(
                "{}# cluster {name}\n{}",
                if text.is_empty() { "" } else { "---\n" },
                needs.manifests(&self.name, &subject)
            ));
        }
        if names.len() > 1 {
            print::talk("several clusters: take one at a time with --cluster NAME to apply them");
        }
        print::data(&text)
    }

    async fn compare(&self, plan: &Arc<Plan>, context: &Context) -> Result<(), Exit> {
        let scene = Scene::new(Arc::clone(plan), &context.places.records, None);
        let mut rows = Vec::new();
        for name in self.clusters(plan)? {
            if let Some(cluster) = scene.cluster(name).filter(|c| !c.is_embedded()) {
                let shown = context.progress("asking what the account may do");
                let found = diff::compare(cluster, &Needs::of(plan, name)).await;
                drop(shown);
                rows.extend(found.into_iter().map(|difference| Row { cluster: name.clone(), difference }));
            }
        }
        match self.output {
            Output::Json => print::json(&rows)?,
            Output::Table if rows.is_empty() => print::talk("the account has what the schedule needs, and no more"),
            Output::Table => {
                let cells = |row: &Row| {
                    let colour = if row.difference.verdict == "missing" { Colour::Bad } else { Colour::Warn };
                    let Difference { verdict, namespace, what } = &row.difference;
                    vec![row.cluster.as_str().into(), Cell::new(*verdict, colour), namespace.as_str().into(), what.as_str().into()]
                };
                print::data(&print::table(&["CLUSTER", "VERDICT", "NAMESPACE", "WHAT"], &rows.iter().map(cells).collect::<Vec<_>>()))?;
            }
        }
        if rows.is_empty() { Ok(()) } else { Err(Exit::failed()) }
    }

    fn policies(&self, plan: &Plan) -> Result<(), Exit> {
        let mut names = stores::of_system(plan, &self.system);
        names.retain(|name| self.store.as_ref().is_none_or(|wanted| wanted == name));
        match names.as_slice() {
            [] => Err(Exit::usage(format!("the schedule has no {} store of that name", self.system))),
            [_, _, ..] => Err(Exit::usage(format!("several stores: choose one with --store ({})", names.join(", ")))),
            [name] => print::data(&stores::policy(plan, name, self.kv, self.account.as_deref()).unwrap_or_default()),
        }
    }
}
