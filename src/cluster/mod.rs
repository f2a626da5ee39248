//! Who issues it? One API server (or the embedded signer) each: clients, minting, proof, load limits.

pub mod access;
pub mod awaited;
pub mod aws;
pub mod call;
pub mod client;
mod credential;
pub mod eks;
pub mod embedded;
pub mod job;
mod keys;
pub mod lease;
pub mod legacy;
pub mod marker;
pub mod mint;
pub mod object;
pub mod own;
pub mod pages;
pub mod patience;
pub mod person;
mod plugin;
pub mod prove;
mod refusal;
pub mod review;
pub mod rights;
mod spec;
pub mod upstream;
pub mod view;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::token::Token;

pub use call::{Call, Refusal, Trouble};
pub use mint::{MintFailure, MintFailureKind, Minted};
pub use prove::Proven;
pub use spec::{ClusterSpec, EmbeddedSpec, InCluster, Limits};
pub use upstream::{Permit, Upstream, Urgency, Verdict};

/// Whose token, for whom and how long: what one TokenRequest asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub service_account: String,
    /// Seconds of life asked for.
    pub duration: u64,
    /// Audiences; empty = those of the API server.
    pub audiences: Vec<String>,
    /// The object whose end is the token's end.
    pub bound_to: Option<Box<Binding>>,
}

/// `boundTo: {secret|pod|node: NAME}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "BoundTo")]
pub enum Binding {
    /// A Secret of the account's namespace.
    Secret(String),
    /// A Pod of the account's namespace that runs as the account.
    Pod(String),
    /// A Node (Kubernetes 1.31 and later).
    Node(String),
    /// A marker of ours, that very object; no schedule writes it.
    #[serde(skip)]
    #[schemars(skip)]
    Marker(marker::Marker),
}

/// A cluster at work: one issuer with the load that it gets from us.
pub struct Cluster {
    name: String,
    spec: ClusterSpec,
    issuer: Issuer,
    /// Asked for nothing but our own credential, when that has died.
    spare: Option<client::ApiServer>,
    keys: keys::ServedKeys,
    upstream: Arc<Upstream>,
}

enum Issuer {
    Api(Box<client::ApiServer>),
    Embedded(Box<embedded::Embedded>),
}

impl Cluster {
    /// Nothing is opened before the first call. An embedded cluster without a folder of its own keeps its
    /// key in `beside/NAME`.
    pub fn new(name: &str, spec: &ClusterSpec, beside: &Path) -> Self {
        let (issuer, limits) = match &spec.embedded {
            Some(own) => {
                let directory = own.directory.clone().unwrap_or_else(|| beside.join(name));
                let issuer = own.issuer.clone().unwrap_or_else(|| format!("https://{name}.tokenferry.invalid"));
                (Issuer::Embedded(Box::new(embedded::Embedded::new(directory, issuer))), spec.limits)
            }
            None => (Issuer::Api(Box::new(client::ApiServer::new(spec))), spec.limits),
        };
        let (keys, upstream) = (keys::ServedKeys::default(), Upstream::new(name, limits));
        Self { name: name.into(), spec: spec.clone(), issuer, spare: own::spare(spec), keys, upstream }
    }

    /// Its name in the schedule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its settings.
    pub fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// The load that it gets from us.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Whether it signs with a key of our own.
    pub fn is_embedded(&self) -> bool {
        matches!(self.issuer, Issuer::Embedded(_))
    }

    /// Waits for the turn of a request that is that urgent. Dropping the future gives the turn up.
    pub async fn turn(&self, urgency: Urgency) -> Permit {
        self.upstream.enter(urgency).await
    }

    /// Mints one token in its turn. A refusal of our own credential makes it read anew, once.
    ///
    /// # Errors
    /// [`MintFailure`], classified.
    pub async fn mint(&self, ask: &Ask, turn: Permit) -> Result<Minted, MintFailure> {
        let result = match &self.issuer {
            Issuer::Embedded(signer) => signer.mint(ask).await,
            Issuer::Api(api) => {
                let first = self.ask(api, ask).await;
                if first.as_ref().is_err_and(|e| e.kind == MintFailureKind::Unauthorized) {
                    api.reload();
                    self.ask(api, ask).await
                } else {
                    first
                }
            }
        };
        turn.end(mint::verdict(&result));
        result.map_err(|failure| self.explained(failure))
    }

    async fn ask(&self, api: &client::ApiServer, ask: &Ask) -> Result<Minted, MintFailure> {
        let kind = |own| if own { MintFailureKind::Unauthorized } else { MintFailureKind::Unavailable };
        let clients = api.clients().await.map_err(|e| MintFailure::new(kind(self.is_without_own()), e.0))?;
        let mut result = mint::mint(&clients, &self.upstream, ask).await;
        // One dead API server of several costs no rotation: the next in health is asked at once.
        for _ in 1..clients.endpoints.len() {
            if !result.as_ref().is_err_and(|e| e.kind == MintFailureKind::Unavailable) {
                break;
            }
            result = mint::mint(&clients, &self.upstream, ask).await;
        }
        match (&clients.shown, &self.spec.eks) {
            (Some(shown), _) => result.map_err(|failure| shown.explained(failure, jiff::Timestamp::now())),
            (None, Some(eks)) => result.map_err(|failure| eks.explained(failure)),
            (None, None) => result,
        }
    }

    /// Tries a token of that subject on the API server; an embedded cluster has nobody to ask.
    pub async fn prove(&self, token: &Token, subject: &str, urgency: Urgency) -> Proven {
        let api = match &self.issuer {
            Issuer::Embedded(_) => return Proven::NotOffered("an embedded cluster has no API server".into()),
            Issuer::Api(api) => api,
        };
        let clients = match api.clients().await {
            Ok(clients) => clients,
            Err(error) => return Proven::Unknown(error.0),
        };
        let permit = self.upstream.enter(urgency).await;
        let proven = prove::prove(&clients, token, subject).await;
        permit.end(if matches!(proven, Proven::Unknown(_)) { Verdict::Failed } else { Verdict::Healthy });
        proven
    }

    /// Checks a token's signature against the keys that the cluster serves, read no longer than `age` ago. It needs
    /// the ClusterRole `system:service-account-issuer-discovery`; an embedded cluster serves none.
    pub async fn check_signature(&self, token: &Token, urgency: Urgency, age: Duration) -> Proven {
        let api = match &self.issuer {
            Issuer::Embedded(_) => return Proven::NotOffered("an embedded cluster serves no keys".into()),
            Issuer::Api(api) => api,
        };
        let clients = match api.clients().await {
            Ok(clients) => clients,
            Err(error) => return Proven::Unknown(error.0),
        };
        self.keys.check(token, age, || Box::pin(keys::read(&clients, &self.upstream, urgency))).await
    }

    /// Asks the API server something that anybody may ask, for the time that its answer shows. Whether it answered.
    pub async fn ask_time(&self) -> bool {
        let Issuer::Api(api) = &self.issuer else { return true };
        let Ok(clients) = api.clients().await else { return false };
        let permit = self.upstream.enter(Urgency { deadline: i64::MAX, retry: false }).await;
        let answered = mint::ask_time(&clients, &self.upstream).await;
        permit.end(if answered { Verdict::Healthy } else { Verdict::Failed });
        answered
    }

    /// Whether we may mint for the account, without minting.
    pub async fn may_mint(&self, ask: &Ask) -> access::Access {
        match &self.issuer {
            Issuer::Embedded(_) => access::Access::Allowed,
            Issuer::Api(api) => match api.clients().await {
                Ok(clients) => access::may_mint(&clients, &self.upstream, ask).await,
                Err(error) => access::Access::Unknown { why: error.0 },
            },
        }
    }

    /// Whether our own credential has a right.
    pub async fn has(&self, right: &rights::Right) -> access::Access {
        match self.api().await {
            Ok(clients) => rights::has(&clients, &self.upstream, right).await,
            Err(why) => access::Access::Unknown { why },
        }
    }

    /// Everything that our own credential may do in a namespace.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn rules(&self, namespace: &str) -> Result<Vec<rights::Rule>, String> {
        rights::rules(&self.api().await?, &self.upstream, namespace).await
    }

    /// Who the API server takes our own credential for.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub async fn own_name(&self) -> Result<String, String> {
        rights::own_name(&self.api().await?, &self.upstream).await
    }

    async fn api(&self) -> Result<client::Clients, String> {
        match &self.issuer {
            Issuer::Embedded(_) => Err("an embedded cluster has no API server".into()),
            Issuer::Api(api) => api.clients().await.map_err(|error| error.0),
        }
    }

    /// Whether somebody has been logging in to it for that long, so that one more would wait.
    pub fn is_slow_to_log_in(&self, than: Duration) -> bool {
        if let Issuer::Api(api) = &self.issuer { api.is_slow_to_build(than) } else { false }
    }

    /// Its API server's URL and CA, for formats that name them; neither for an embedded one.
    ///
    /// # Errors
    /// The reason why no client can be made.
    pub async fn address(&self) -> Result<Option<(String, Option<Arc<Vec<u8>>>)>, client::NoClient> {
        match &self.issuer {
            Issuer::Embedded(_) => Ok(None),
            Issuer::Api(api) => {
                let clients = api.clients().await?;
                Ok(Some((clients.best().1.url.clone(), clients.ca.clone())))
            }
        }
    }
}

/// Live clusters by name, made once from a plan.
#[derive(Clone, Default)]
pub struct Clusters(BTreeMap<String, Arc<Cluster>>);

impl Clusters {
    /// Clusters as a plan has them; one whose settings did not change keeps its clients.
    pub fn new(specs: &BTreeMap<String, Arc<ClusterSpec>>, beside: &Path, before: Option<&Clusters>) -> Self {
        let one = |name: &String, spec: &Arc<ClusterSpec>| {
            let kept = before.and_then(|b| b.0.get(name)).filter(|old| old.spec == **spec);
            kept.cloned().unwrap_or_else(|| Arc::new(Cluster::new(name, spec, beside)))
        };
        Self(specs.iter().map(|(name, spec)| (name.clone(), one(name, spec))).collect())
    }

    /// The cluster of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.0.values()
    }
}
