//! What the daemon needs of a cluster before it can begin, made with a person's own rights: its account, its least
//! rights there, and on this host its kubeconfig and its first token. Done again it renews; and it can all be taken
//! away. Nothing is touched that does not carry our mark.

mod host;
mod objects;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit::rbac::Needs;
use crate::cluster::access::Access;
use crate::cluster::object::Object;
use crate::cluster::{Ask, Cluster, ClusterSpec, MintFailure, MintFailureKind, Minted, Proven, Refusal, Trouble, Urgency};
use crate::schedule::{Plan, own};

pub use host::Fate;

/// Whether the daemon's new credential is taken is asked that often: rights reach an API server's cache a moment late.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(250);

/// Why it stopped. What was done before stays done, and doing it again goes on from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The person may not: exit code 4.
    #[error("{0}")]
    NotAllowed(String),
    /// Something of somebody else stands in the way, or something failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The schedule does not say what is needed: exit code 2.
    #[error("{0}")]
    Usage(String),
}

/// What is to be made, by the schedule.
pub struct Wanted {
    cluster: String,
    spec: ClusterSpec,
    ask: Ask,
    needs: Needs,
    kubeconfig: PathBuf,
    token: PathBuf,
    /// The state folder: what stands in it belongs to whom it belongs to.
    state: PathBuf,
}

/// Takes a line of progress: what, and what became of it.
pub type Tell<'a> = &'a (dyn Fn(&str, &Fate) + Sync);

impl Wanted {
    /// Of a plan, for one of its clusters; `state` is the daemon's state folder.
    ///
    /// # Errors
    /// [`Stop::Usage`] where the schedule has no such cluster, or does not say that we keep its credential fresh.
    pub fn new(plan: &Plan, cluster: &str, state: &Path) -> Result<Self, Stop> {
        let Some(spec) = plan.clusters.get(cluster) else {
            let known: Vec<&str> = plan.clusters.keys().map(String::as_str).collect();
            return Err(Stop::Usage(format!("the schedule has no cluster `{cluster}`; it has: {}", known.join(", "))));
        };
        let Some(kubeconfig) = &spec.kubeconfig else {
            return Err(Stop::Usage(format!("cluster {cluster} needs no kubeconfig, so there is nothing to make")));
        };
        let Some(ask) = spec.own.as_ref().and_then(|own| own.ask()) else {
            return Err(Stop::Usage(format!(
                "the schedule does not say which account is the daemon's: write under clusters.{cluster} such as own: {{serviceAccount: tokenferry/tokenferry, duration: 24h}}"
            )));
        };
        Ok(Self {
            cluster: cluster.into(),
            spec: ClusterSpec::clone(spec),
            ask,
            needs: Needs::of(plan, cluster),
            kubeconfig: kubeconfig.clone(),
            token: own::token_file(state, cluster),
            state: state.to_owned(),
        })
    }

    /// Whose daemon it is, as marks say it.
    fn owner(&self) -> String {
        format!("{}/{}", self.ask.namespace, self.ask.service_account)
    }

    /// Everything in the cluster, in the order in which it is made.
    fn objects(&self) -> Vec<Object> {
        let (namespace, account) = (&self.ask.namespace, &self.ask.service_account);
        let mut objects = vec![Object::namespace(namespace), Object::account(namespace, account)];
        objects.extend(self.needs.objects(&self.roles(), namespace, account));
        objects
    }

    /// What its Roles are called: two daemons on one cluster have each their own.
    fn roles(&self) -> String {
        match self.owner().as_str() {
            "tokenferry/tokenferry" => "tokenferry".into(),
            _ => format!("tokenferry.{}.{}", self.ask.namespace, self.ask.service_account),
        }
    }

    /// Makes or renews all of it with the person's rights; `dry`: only says what would be done.
    ///
    /// # Errors
    /// [`Stop`], with the way out.
    pub async fn make(&self, person: &Cluster, dry: bool, tell: Tell<'_>) -> Result<(), Stop> {
        let kubeconfig = self.kubeconfig_text(person).await?;
        // What is in the way on this host is told before anything is changed anywhere.
        let place = host::Place::kubeconfig(&self.kubeconfig);
        let fate = place.fate(&kubeconfig)?;
        self.apply(person, dry, tell).await?;
        if !dry {
            place.write(&kubeconfig)?;
        }
        tell(&format!("kubeconfig {}", self.kubeconfig.display()), &fate);
        let shown = format!("token {}", self.token.display());
        if dry {
            tell(&shown, &Fate::Made);
            return Ok(());
        }
        let minted = self.first_token(person).await?;
        host::Place::token(&self.token, &self.state).write(minted.token.expose())?;
        tell(&shown, &Fate::Made);
        self.tried(&minted).await
    }

    async fn first_token(&self, person: &Cluster) -> Result<Minted, Stop> {
        let turn = person.turn(Urgency { deadline: i64::MIN, retry: false }).await;
        let minted = person.mint(&self.ask, turn).await.map_err(|failure| not_minted(&failure))?;
        match person.prove(&minted.token, &minted.claims.sub, Urgency { deadline: i64::MIN, retry: false }).await {
            Proven::Refused(why) => Err(Stop::Failed(format!("the new token failed its proof, the one before stays: {why}"))),
            Proven::Unknown(why) => Err(Stop::Failed(format!("the new token cannot be proven now, the one before stays: {why}"))),
            _ => Ok(minted),
        }
    }

    /// Whether the daemon can begin: its kubeconfig and token are tried as it will use them.
    async fn tried(&self, minted: &Minted) -> Result<(), Stop> {
        let mut spec = self.spec.clone();
        if let Some(own) = &mut spec.own {
            own.token_file = Some(self.token.clone());
        }
        let daemon = Cluster::new(&self.cluster, &spec, Path::new("/nonexistent"));
        let mut last = String::new();
        for _ in 0..TRIES {
            match daemon.own_name().await {
                Ok(name) if name == minted.claims.sub => match self.lacking(&daemon).await {
                    None => return Ok(()),
                    Some(why) => last = why,
                },
                Ok(name) => last = format!("the API server takes it for {name}"),
                Err(why) => last = why,
            }
            tokio::time::sleep(BETWEEN).await;
        }
        Err(Stop::Failed(format!("all is made, but the kubeconfig {} does not work yet: {last}", self.kubeconfig.display())))
    }

    /// The first right of a namespace that the daemon's account does not have yet: rules reach the API server's own
    /// cache a moment after they were written, all of one Role at once.
    async fn lacking(&self, daemon: &Cluster) -> Option<String> {
        for namespace in self.needs.namespaces() {
            let right = self.needs.rights().into_iter().find(|right| right.namespace == *namespace)?;
            match daemon.has(&right).await {
                Access::Allowed => {}
                Access::Denied { why } | Access::Unknown { why } => return Some(why),
            }
        }
        None
    }

    async fn kubeconfig_text(&self, person: &Cluster) -> Result<String, Stop> {
        let address = person.address().await.map_err(|error| Stop::Failed(error.to_string()))?;
        let Some((server, ca)) = address else { return Err(Stop::Failed("the kubeconfig names no API server".into())) };
        let context = self.spec.context.as_deref().unwrap_or(&self.cluster);
        Ok(host::kubeconfig(&self.cluster, context, &server, ca.as_ref().map(|pem| pem.as_slice()), &self.token))
    }

    /// Takes away what was made, and nothing else.
    ///
    /// # Errors
    /// [`Stop`], with the way out.
    pub async fn unmake(&self, person: &Cluster, dry: bool, tell: Tell<'_>) -> Result<(), Stop> {
        let kubeconfig = host::Place::kubeconfig(&self.kubeconfig);
        let token = host::Place::token(&self.token, &self.state);
        self.remove(person, dry, tell).await?;
        tell(&format!("kubeconfig {}", self.kubeconfig.display()), &kubeconfig.remove(dry)?);
        tell(&format!("token {}", self.token.display()), &token.remove(dry)?);
        Ok(())
    }
}

fn not_minted(failure: &MintFailure) -> Stop {
    if failure.is_forbidden() {
        return Stop::NotAllowed(failure.message.clone());
    }
    let way = if failure.kind == MintFailureKind::Unauthorized { "; log in again with your own kubeconfig" } else { "" };
    Stop::Failed(format!("{}{way}", failure.message))
}

/// A refusal of the API server about an object.
fn refused(refusal: &Refusal, verb: &str, object: &Object) -> Stop {
    let shown = object.shown();
    match refusal.trouble {
        Trouble::Forbidden => Stop::NotAllowed(format!(
            "you may not {verb} {} {}: {}. Somebody who may can run the same command, or apply what `tokenferry rbac` prints",
            object.resource, object.name, refusal.message
        )),
        Trouble::Unauthorized => Stop::Failed(format!(
            "{shown}: the API server refuses your credential: log in again, or name another --kubeconfig or --context"
        )),
        Trouble::NotFound if object.namespace.is_some() => {
            Stop::Failed(format!("{shown}: {}: make the namespace, or mend the target that needs it", refusal.message))
        }
        Trouble::Owned => Stop::Failed(format!(
            "{shown}: somebody else set what we have to set, and owns it ({}): delete it, and do this again",
            refusal.message
        )),
        Trouble::Conflict => Stop::Failed(format!("{shown}: somebody wrote it in this moment ({}): do this again", refusal.message)),
        _ => Stop::Failed(format!("{shown}: {}", refusal.message)),
    }
}
