//! `bootstrap`: the daemon's account, rights, kubeconfig and first token, with a person's own kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::print;
use super::reload::duration;
use super::{Context, Exit};
use crate::audit::bootstrap::{Fate, Stop, Wanted};
use crate::cluster::Cluster;
use crate::cluster::person::Wish;
use crate::daemon::{own, read};

/// Make what the daemon needs of a cluster, once, with your own kubeconfig
///
/// The cluster needs `own: {serviceAccount: NAMESPACE/NAME}` in the schedule. Makes the namespace where it is missing,
/// the ServiceAccount, the least rights that the schedule needs (see `rbac`), the kubeconfig that the schedule names, and
/// the first token, which the daemon keeps fresh from then on. Done again it renews the token and adapts the rights.
/// What others made is never changed: it stops and says what is in the way. Exits 4 where you lack a right.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry bootstrap prod
  tokenferry bootstrap prod --context prod-admin --dry-run
  sudo KUBECONFIG=$HOME/.kube/config tokenferry bootstrap prod
  tokenferry bootstrap prod --remove")]
pub struct Bootstrap {
    /// The cluster, by its name in the schedule
    #[arg(value_name = "CLUSTER")]
    cluster: String,
    /// Your own kubeconfig [default: $KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Take away what was made
    #[arg(long)]
    remove: bool,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

impl Bootstrap {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 4 where the person or this user lacks a right, 2 where the schedule does not say what is needed, 1
    /// where something is in the way or fails.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let accepted = read::read(&context.schedule(None)).map_err(|problems| Exit::refused(&problems))?;
        let records = context.places.by(&accepted.plan).records;
        let wanted = Wanted::new(&accepted.plan, &self.cluster, own::state(&records)).map_err(stopped)?;
        let spec = Wish::of_this_process(self.kubeconfig.clone(), self.context.clone()).cluster().map_err(Exit::own)?;
        let person = Cluster::new("kubeconfig", &spec, Path::new("/nonexistent"));
        let tell = |what: &str, fate: &Fate| self.tell(what, fate);
        let work = async {
            if self.remove { wanted.unmake(&person, self.dry_run, &tell).await } else { wanted.make(&person, self.dry_run, &tell).await }
        };
        let late = || Exit::own(format!("not done within {} s; do it again to go on", self.timeout.as_secs()));
        tokio::time::timeout(self.timeout, work).await.map_err(|_| late())?.map_err(stopped)?;
        if !self.dry_run && !self.remove {
            print::talk(&format!("cluster {} is ready: a running daemon takes the token by itself", self.cluster));
        }
        Ok(())
    }

    /// A line of progress; in a dry run it is what was asked for, so it is data.
    fn tell(&self, what: &str, fate: &Fate) {
        let (done, would) = match fate {
            Fate::Made => ("made", "would be made"),
            Fate::Changed => ("changed", "would be changed"),
            Fate::Unchanged => ("unchanged", "stays as it is"),
            Fate::Removed => ("removed", "would be removed"),
            Fate::Missing => ("not there", "is not there"),
            Fate::Kept(why) => {
                return self.say(&format!("{what}: left alone, for {why}"));
            }
        };
        self.say(&format!("{what}: {}", if self.dry_run { would } else { done }));
    }

    fn say(&self, line: &str) {
        if self.dry_run {
            // Who closed the pipe has read what he wanted.
            let _ = print::data(&format!("{line}\n"));
        } else {
            print::talk(line);
        }
    }
}

fn stopped(stop: Stop) -> Exit {
    match stop {
        Stop::NotAllowed(message) => Exit { code: 4, message: Some(message) },
        Stop::Failed(message) => Exit::own(message),
        Stop::Usage(message) => Exit::usage(message),
    }
}
