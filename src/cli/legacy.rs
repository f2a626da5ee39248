//! `legacy`: tokens without an end are found, replaced, disabled, deleted, and brought back.

mod change;
mod show;

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::kubeconfig::Reach;
use super::print::{self, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::audit::legacy::scan::{self, Question};
use crate::audit::legacy::{Inventory, Name, plan, target};
use crate::audit::trail;
use crate::cluster::pages::Scope;
use crate::daemon::read;

/// Find tokens without an end, replace them, and end them without breaking anybody
///
/// In this order: list, plan, migrate, disable, (watch), delete; restore is the way back from both. Nothing is changed
/// without --apply. No token is ever shown.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry legacy list                                          what there is
  tokenferry legacy plan cicd/old-token --audit-log audit.log     who uses it, and what to do
  tokenferry legacy migrate cicd/old-token --write targets.d/old.yaml
  tokenferry legacy disable cicd/old-token --apply                refused from now on; one command back:
  tokenferry legacy restore cicd/old-token --apply
  tokenferry legacy delete cicd/old-token --backup old.age --backup-recipient age1… --apply
  tokenferry legacy restore old.age --identity key.txt --apply

Rights that you need: list on secrets, serviceaccounts, pods, replicationcontrollers, podtemplates, on deployments,
statefulsets, daemonsets, replicasets (apps) and on jobs, cronjobs (batch), in all namespaces or in those that you may
see; list on namespaces for the latter; get on the ConfigMap kube-apiserver-legacy-service-account-token-tracking in
kube-system. To disable: get, patch on secrets. To delete: get, delete. To restore: get, create, patch on secrets and get
on serviceaccounts. Check one: kubectl auth can-i list secrets -A")]
pub struct Legacy {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    List(List),
    Plan(Plan),
    Migrate(Migrate),
    Disable(change::Disable),
    Delete(change::Delete),
    Restore(change::Restore),
}

/// Show tokens that live too long, who names them, and their last use
///
/// Secrets of the type kubernetes.io/service-account-token, and every other Secret, kubeconfigs in them too, that holds a
/// ServiceAccount's token without an end or with a life longer than --max-lifetime. What may not be read is named, and
/// the exit code is 1 then; 4 where no Secret may be read at all.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.help("Only in this namespace [default: all]")))]
#[command(after_help = "Examples:
  tokenferry legacy list
  tokenferry legacy list -n cicd --max-lifetime 7d
  tokenferry legacy list -o json | jq -r '.finds[] | select(.references == []) | \"\\(.namespace)/\\(.secret)\"'")]
struct List {
    #[command(flatten)]
    wanted: Wanted,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Show for each token what is to be done, in which order, and who uses it
///
/// With --audit-log (JSON lines of the API server's log backend; `-` reads standard input) each token's callers are
/// listed: source addresses and user agents, so that those outside the cluster are known before anything dies. A log that
/// is cut tells what it has; what is missing is said, and the exit code is 1.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.help("Only in this namespace [default: all]")))]
#[command(after_help = "Examples:
  tokenferry legacy plan
  tokenferry legacy plan cicd/old-token --audit-log /var/log/kubernetes/audit.log
  zcat audit-*.log.gz | tokenferry legacy plan --audit-log - -o json | jq '.finds[] | {secret, uses}'")]
struct Plan {
    #[command(flatten)]
    wanted: Wanted,
    /// The API server's audit log
    #[arg(long, value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// How long a disabled token has to go unused before it is deleted
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration)]
    observe: Duration,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Print the targets that replace such tokens
///
/// A list as it stands under `targets`, or in a file that `include` names. A Secret with a kubeconfig or a bare token is
/// kept fresh in its place; the rest goes to a file of this host, to be changed by you. --write makes a new file and
/// never changes one that is there.
#[derive(Debug, Args)]
#[command(mut_arg("namespace", |arg| arg.help("Only in this namespace [default: all]")))]
#[command(after_help = "Examples:
  tokenferry legacy migrate cicd/old-token
  tokenferry legacy migrate cicd/old-token --write targets.d/old.yaml && tokenferry check   # include: [targets.d/*.yaml]
  tokenferry rbac --subject tokenferry/tokenferry | kubectl apply -f -                     # the rights it needs")]
struct Migrate {
    #[command(flatten)]
    wanted: Wanted,
    /// Write them to this new file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

/// Which tokens are meant.
#[derive(Debug, Args)]
struct Wanted {
    /// Only these Secrets: NAMESPACE/NAME, or NAME with -n
    #[arg(value_name = "SECRET")]
    secrets: Vec<String>,
    #[command(flatten)]
    reach: Reach,
    /// A life longer than this is too long
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    max_lifetime: Duration,
}

impl Legacy {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 1 where something is missing or was not done, 2 where what is named is none, 4 where rights are missing.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        match self.what {
            What::List(list) => list.run(context).await,
            What::Plan(plan) => plan.run(context).await,
            What::Migrate(migrate) => migrate.run(context).await,
            What::Disable(disable) => disable.run(context).await,
            What::Delete(delete) => delete.run(context).await,
            What::Restore(restore) => restore.run(context).await,
        }
    }
}

/// Namespace and name of each.
fn names(reach: &Reach, secrets: &[String]) -> Result<Vec<Name>, Exit> {
    let mut names: Vec<Name> = Vec::new();
    for text in secrets {
        let (namespace, name) = reach.object("Secret", text)?;
        let name = Name { namespace, name };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

impl Wanted {
    async fn look(&self, context: &Context, log: Option<trail::Trail<Box<dyn BufRead>>>) -> Result<Inventory, Exit> {
        let names = names(&self.reach, &self.secrets)?;
        let only: BTreeSet<(String, String)> = names.iter().map(|name| (name.namespace.clone(), name.name.clone())).collect();
        let spaces: BTreeSet<&str> = only.iter().map(|(namespace, _)| namespace.as_str()).chain(self.reach.namespace()).collect();
        let scope = match (spaces.len(), spaces.first()) {
            (1, Some(one)) => Scope::Namespace((*one).to_owned()),
            _ => Scope::All,
        };
        let cluster = self.reach.cluster(context)?;
        let longest = i64::try_from(self.max_lifetime.as_secs()).unwrap_or(i64::MAX);
        let question = Question { scope, only: &only, others: true, longest, now: Timestamp::now() };
        let shown = context.progress("looking through the cluster");
        let inventory = scan::look(&cluster, &question, log).await.map_err(|error| Exit::own(error.to_string()));
        drop(shown);
        let inventory = inventory?;
        if inventory.forbidden {
            let message = format!("{}; kubectl auth can-i list secrets -A tells whether you may", inventory.missing.join("; "));
            return Err(Exit { code: 4, message: Some(message) });
        }
        let unknown =
            names.iter().find(|name| !inventory.finds.iter().any(|find| find.namespace == name.namespace && find.secret == name.name));
        match unknown {
            Some(name) if inventory.missing.is_empty() => Err(Exit::usage(format!(
                "{name} is no Secret that holds a ServiceAccount's token of a life over {}: tokenferry legacy list shows those that do",
                print::span(self.max_lifetime.as_secs())
            ))),
            _ => Ok(inventory),
        }
    }
}

/// What is missing, said last and beside the data; then the answer is not whole.
fn whole(inventory: &Inventory) -> Result<(), Exit> {
    for missing in &inventory.missing {
        print::talk(&format!("tokenferry: missing: {missing}"));
    }
    if inventory.missing.is_empty() { Ok(()) } else { Err(Exit::failed()) }
}

impl List {
    async fn run(self, context: &Context) -> Result<(), Exit> {
        let inventory = self.wanted.look(context, None).await?;
        match self.output {
            Output::Json => print::json(&inventory)?,
            Output::Table => show::list(&inventory)?,
        }
        whole(&inventory)
    }
}

impl Plan {
    async fn run(self, context: &Context) -> Result<(), Exit> {
        let log = self.audit_log.as_deref().map(trail::open).transpose().map_err(|error| Exit::own(error.to_string()))?;
        let inventory = self.wanted.look(context, log).await?;
        let seconds = i64::try_from(self.observe.as_secs()).unwrap_or(i64::MAX);
        let observe = (seconds, &*print::span(self.observe.as_secs()));
        let now = Timestamp::now();
        let planned: Vec<plan::Planned> = inventory.finds.iter().map(|find| plan::planned(find, now, observe)).collect();
        match self.output {
            Output::Json => print::json(&show::Whole { finds: &planned, inventory: &inventory })?,
            Output::Table => show::plan(&planned, &inventory)?,
        }
        whole(&inventory)
    }
}

impl Migrate {
    async fn run(self, context: &Context) -> Result<(), Exit> {
        let inventory = self.wanted.look(context, None).await?;
        let cluster = self.cluster(context);
        let made: Vec<String> = inventory.finds.iter().filter_map(|find| target::target(find, &cluster)).collect();
        for find in inventory.finds.iter().filter(|find| find.account.is_none()) {
            print::talk(&format!("tokenferry: {} names no account, so no target can replace it", find.place()));
        }
        if made.is_empty() {
            print::talk("tokenferry: nothing to replace");
            return whole(&inventory);
        }
        let text = made.join("\n");
        match &self.write {
            None => print::data(&text)?,
            Some(path) => {
                let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
                file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())).map_err(|error| {
                    let there = error.kind() == std::io::ErrorKind::AlreadyExists;
                    let message =
                        if there { "is there already, and is left as it is: name a new file".to_owned() } else { error.to_string() };
                    Exit { code: if there { 2 } else { 1 }, message: Some(format!("{}: {message}", path.display())) }
                })?;
                print::talk(&format!("{}: {} targets; `include` it in the schedule, then: tokenferry check", path.display(), made.len()));
            }
        }
        whole(&inventory)
    }

    /// The cluster's name in the schedule: as it was named, else the only one that there is.
    fn cluster(&self, context: &Context) -> String {
        if let Some(name) = self.wanted.reach.cluster_name() {
            return name.to_owned();
        }
        let plan = read::read(&context.schedule(None)).ok().map(|accepted| accepted.plan);
        let names: Vec<String> = plan.iter().flat_map(|plan| plan.clusters.keys()).map(ToString::to_string).collect();
        match names.as_slice() {
            [one] => one.clone(),
            _ => {
                print::talk("tokenferry: `cluster: prod` stands for the cluster's name in your schedule; --cluster NAME says it");
                "prod".to_owned()
            }
        }
    }
}
