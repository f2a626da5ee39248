//! The daemon's own credential for a cluster: kept fresh like a target's, and the way back when it has died.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::client::{ApiServer, Ends};
use super::{Ask, Cluster, ClusterSpec, Issuer, MintFailure, MintFailureKind, Minted, Permit, Urgency, credential, mint};

/// `own: {serviceAccount: NAMESPACE/NAME, duration: 24h}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Own")]
pub struct OwnSpec {
    /// `NAMESPACE/NAME` of the daemon's account.
    pub service_account: String,
    /// Life to ask for, as written.
    #[serde(default = "a_day")]
    pub duration: String,
    /// The same in seconds; planning reads it.
    #[serde(skip)]
    pub seconds: u64,
    /// Where the token stands; known once a plan is joined with its state folder.
    #[serde(skip)]
    pub token_file: Option<PathBuf>,
}

fn a_day() -> String {
    "24h".into()
}

impl OwnSpec {
    /// What is asked of the API server; `None` where the account is no `NAMESPACE/NAME`.
    pub fn ask(&self) -> Option<Ask> {
        let (namespace, name) = self.service_account.split_once('/')?;
        let (namespace, service_account) = (namespace.to_owned(), name.to_owned());
        Some(Ask { namespace, service_account, duration: self.seconds, audiences: Vec::new(), bound_to: None })
    }
}

/// `spare: {kubeconfig: …}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Spare")]
pub struct SpareSpec {
    /// Another kubeconfig on this host.
    pub kubeconfig: PathBuf,
    /// The context in it; its current one when absent.
    pub context: Option<String>,
}

/// The client of the spare credential: the same API server, another way in.
pub(super) fn spare(spec: &ClusterSpec) -> Option<ApiServer> {
    let spare = spec.spare.as_ref()?;
    let own = ClusterSpec {
        kubeconfig: Some(spare.kubeconfig.clone()),
        context: spare.context.clone(),
        eks: None,
        own: None,
        spare: None,
        ..spec.clone()
    };
    Some(ApiServer::new(&own))
}

impl Cluster {
    /// When our own credential ends, unix seconds: a token that says so, or a client certificate.
    pub async fn own_expiry(&self) -> Option<Ends> {
        self.api().await.ok()?.own_until
    }

    /// Mints our own credential. Where the one in use has died, the spare is used, and only then.
    ///
    /// # Errors
    /// [`MintFailure`]; where the spare fails too, both are told.
    pub async fn renew(&self, ask: &Ask, turn: Permit) -> Result<Minted, MintFailure> {
        let failure = match self.mint(ask, turn).await {
            Ok(minted) => return Ok(minted),
            Err(failure) => failure,
        };
        let Some(spare) = self.spare.as_ref().filter(|_| failure.kind == MintFailureKind::Unauthorized) else { return Err(failure) };
        tracing::warn!(cluster = self.name, "{failure}; the spare one renews it");
        let turn = self.turn(Urgency { deadline: i64::MIN, retry: false }).await;
        let result = self.ask(spare, ask).await;
        turn.end(mint::verdict(&result));
        match result {
            Ok(minted) => Ok(Minted { through_spare: true, ..minted }),
            Err(other) => {
                Err(MintFailure { message: format!("{}; the spare credential fails too: {}", failure.message, other.message), ..other })
            }
        }
    }

    /// Whether we keep our own credential fresh and it has died, or never was.
    pub(super) fn is_without_own(&self) -> bool {
        let file = self.spec.own.as_ref().and_then(|own| own.token_file.as_ref());
        matches!(self.issuer, Issuer::Api(_)) && file.is_some_and(|file| credential::alive(file).is_none())
    }

    /// A failure whose cause is that our own credential died, with the way back.
    pub(super) fn explained(&self, failure: MintFailure) -> MintFailure {
        if failure.kind != MintFailureKind::Unauthorized || self.spec.own.is_none() {
            return failure;
        }
        // What a person without `own` would be told is not the way here.
        let why = if failure.message.starts_with("401") { "401: the API server refuses it" } else { &failure.message };
        let message =
            format!("our own credential for cluster {} is no good ({why}); renew it: tokenferry bootstrap {}", self.name, self.name);
        MintFailure { message, ..failure }
    }
}
