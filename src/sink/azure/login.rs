//! Our login at Entra ID, which Microsoft's crates keep until shortly before its end.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::http::{ClientMethodOptions, ClientOptions};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};

use super::refusal::{self, Verdict};
use super::{AzureAuth, AzureStoreSpec};
use crate::cluster::awaited::Patience;
use crate::sink::vault::own;
use crate::sink::{Failure, FailureKind};

/// A login for one service alone.
pub(super) struct Login {
    source: Arc<dyn TokenCredential>,
    scope: String,
    /// What is to be looked at when it is refused.
    way_out: &'static str,
    /// The file of a token that we keep fresh ourselves.
    ours: Option<PathBuf>,
}

impl Login {
    /// As the store says. Nothing is sent yet.
    ///
    /// # Errors
    /// `Local` for a secret's file that cannot be used, `Refused` for settings that Microsoft's crates do not take.
    pub async fn new(spec: &AzureStoreSpec, mut options: ClientOptions) -> Result<Self, Failure> {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = spec.authority();
        options.cloud = Some(Arc::new(CloudConfiguration::from(cloud)));
        let unusable = |_| Failure::new(FailureKind::Refused, "its login cannot be made: check `auth` and `authority`");
        let (source, way_out, ours) = match &spec.auth {
            AzureAuth::WorkloadIdentity(auth) => {
                let (tenant, client, assertion) = (auth.tenant_id.clone(), auth.client_id.clone(), Assertion(auth.token_file.clone()));
                let options = ClientAssertionCredentialOptions { client_options: options };
                let source =
                    ClientAssertionCredential::new(tenant, client, assertion, Some(options)).map_err(unusable)? as Arc<dyn TokenCredential>;
                let ours = auth.target.is_some().then(|| auth.token_file.clone());
                (source, "check `tenantId`, `clientId` and the application's federated credentials", ours)
            }
            AzureAuth::ManagedIdentity(auth) => {
                let user_assigned_id = auth.client_id.clone().map(UserAssignedId::ClientId);
                let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options: options };
                let source = ManagedIdentityCredential::new(Some(options)).map_err(unusable)? as Arc<dyn TokenCredential>;
                (source, "give this machine a managed identity, or name one of its own in `clientId`", None)
            }
            AzureAuth::ClientSecret(auth) => {
                let (secret, _) = own::secret(&auth.secret_file).await?;
                let options = ClientSecretCredentialOptions { client_options: options };
                let (client, secret) = (auth.client_id.clone(), Secret::new(secret.to_string()));
                let source = ClientSecretCredential::new(&auth.tenant_id, client, secret, Some(options)).map_err(unusable)?
                    as Arc<dyn TokenCredential>;
                (source, "check `tenantId`, `clientId` and the secret in `secretFile`", None)
            }
        };
        Ok(Self { source, scope: format!("{}/.default", spec.resource()), way_out, ours })
    }

    /// Logs in, where the login before has ended or is about to. Where its token is one that we keep fresh ourselves, it
    /// may be on its way.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn ready(&self) -> Result<(), Verdict> {
        let mut patience = self.ours.as_deref().map(Patience::new);
        loop {
            if let Some(patience) = &mut patience
                && !patience.until_there().await
            {
                return Err(Verdict::new(FailureKind::Unavailable, patience.missing()));
            }
            let Err(error) = self.source.get_token(&[self.scope.as_str()], None).await else { return Ok(()) };
            let verdict = refusal::of_login(&error, self.way_out);
            let again = match &mut patience {
                Some(patience) => verdict.kind == FailureKind::Refused && patience.until_other().await,
                None => false,
            };
            if !again {
                return Err(verdict);
            }
        }
    }

    /// A vault says itself for which service it wants a login: one for another is never handed to it.
    async fn token(&self, scopes: &[&str], options: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        if scopes != [self.scope.as_str()] {
            return Err(Error::with_message(ErrorKind::Credential, refusal::ANOTHER));
        }
        self.source.get_token(scopes, options).await
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl TokenCredential for Login {
    fn get_token<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        scopes: &'b [&'c str],
        options: Option<TokenRequestOptions<'d>>,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AccessToken>> + Send + 'e>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        Box::pin(self.token(scopes, options))
    }
}

/// A cluster's token as it stands in its file now.
#[derive(Debug)]
struct Assertion(PathBuf);

impl ClientAssertion for Assertion {
    fn secret<'a, 'b, 'c>(
        &'a self,
        _: Option<ClientMethodOptions<'b>>,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<String>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async {
            let found = own::secret(&self.0).await;
            found.map(|(text, _)| text.to_string()).map_err(|failure| Error::new(ErrorKind::Credential, failure))
        })
    }
}
