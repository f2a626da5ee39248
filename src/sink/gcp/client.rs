//! The client of one project: Google's, over our own way, with credentials from a file or the normal chain.

use google_cloud_auth::credentials::{self, Credentials, external_account, impersonated, service_account, user_account};
use google_cloud_secretmanager_v1::client::SecretManagerService;
use serde_json::Value;

use super::federation::{Exchange, Federated};
use super::way::Way;
use super::{GcpStore, WorkloadIdentity};
use crate::cluster::awaited::Patience;
use crate::sink::vault::own::{self, Stamp};
use crate::sink::{Failure, FailureKind};

/// What Secret Manager asks of a credential.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A client, and the file that its credentials came from.
pub(super) struct Kept {
    client: SecretManagerService,
    stamp: Option<Stamp>,
}

impl GcpStore {
    /// The client; made anew when the credentials' file changed.
    ///
    /// # Errors
    /// `Local` for a file that cannot be used, `Refused` where there are no credentials.
    pub(super) async fn client(&self) -> Result<SecretManagerService, Failure> {
        let mut kept = self.client.lock().await;
        let stamp = match &self.spec.credentials_file {
            Some(path) => own::stamp(path).await,
            None => None,
        };
        if let Some(kept) = kept.as_ref().filter(|kept| kept.stamp == stamp || stamp.is_none()) {
            return Ok(kept.client.clone());
        }
        let credentials = self.credentials().await?;
        let way = Way::new(credentials, self.spec.endpoint.as_deref()).await;
        let client = SecretManagerService::from_stub::<Way>(way.map_err(|why| self.failure(FailureKind::Local, why))?);
        Ok(kept.insert(Kept { client, stamp }).client.clone())
    }

    async fn credentials(&self) -> Result<Credentials, Failure> {
        if let Some(identity) = &self.spec.workload_identity {
            return self.federated(identity).await;
        }
        let Some(path) = &self.spec.credentials_file else {
            let none = "no Google credentials found: write `credentialsFile`, or give the daemon's user application default credentials";
            return credentials::Builder::default().build().map_err(|_| self.failure(FailureKind::Refused, none));
        };
        let (bytes, _) = own::read(path).await?;
        let wrong = |why: &str| self.failure(FailureKind::Local, format_args!("{} {why}", path.display()));
        let found: Value = serde_json::from_slice(&bytes).map_err(|_| wrong("is no JSON, as Google's credentials are"))?;
        let kind = found["type"].as_str().unwrap_or_default().to_owned();
        let built = match kind.as_str() {
            "service_account" => service_account::Builder::new(found).build(),
            "external_account" if let Some(exchange) = Exchange::of(&found) => return self.exchanging(exchange),
            "external_account" => external_account::Builder::new(found).with_scopes([SCOPE]).build(),
            "impersonated_service_account" => impersonated::Builder::new(found).build(),
            "authorized_user" => user_account::Builder::new(found).build(),
            _ => {
                return Err(wrong(
                    "has no `type` of credentials that is known: service_account, external_account, impersonated_service_account, authorized_user",
                ));
            }
        };
        built.map_err(|_| wrong("is no whole set of credentials: fetch it anew from Google"))
    }

    /// By a token of a cluster. One that we keep fresh ourselves may be on its way.
    async fn federated(&self, identity: &WorkloadIdentity) -> Result<Credentials, Failure> {
        if identity.target.is_some() {
            let mut patience = Patience::new(&identity.token_file);
            if !patience.until_there().await {
                return Err(self.failure(FailureKind::Unavailable, patience.missing()));
            }
        }
        self.exchanging(Exchange::by(identity))
    }

    fn exchanging(&self, exchange: Exchange) -> Result<Credentials, Failure> {
        Federated::new(exchange).map(Credentials::from).map_err(|why| self.failure(FailureKind::Local, why))
    }
}
