//! The client of one AWS store: our HTTP stack, no hidden retries, credentials by the normal AWS chain.

use std::sync::Arc;

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::config::{ProvideCredentials, SharedCredentialsProvider};

use crate::cluster::awaited::Patience;
use crate::cluster::aws::Login;
use crate::sink::aws::{AwsStore, AwsStoreSpec, refusal};
use crate::sink::{Failure, FailureKind};

pub(super) use aws_sdk_secretsmanager::Client;

impl AwsStore {
    /// The client; made at first use, when credentials have been found once.
    ///
    /// # Errors
    /// `Refused` without region or credentials, `Unavailable` where their source does not answer.
    pub(super) async fn client(&self) -> Result<Arc<Client>, Failure> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref() {
            return Ok(client.clone());
        }
        Ok(kept.insert(Arc::new(self.new_client().await?)).clone())
    }

    async fn new_client(&self) -> Result<Client, Failure> {
        let (config, source) = login(&self.name, &self.spec).await?;
        let mut settings = aws_sdk_secretsmanager::config::Builder::from(&config).credentials_provider(source);
        if let Some(endpoint) = &self.spec.endpoint {
            // Of this service alone: roles are taken over at STS.
            settings = settings.endpoint_url(endpoint);
        }
        Ok(Client::from_conf(settings.build()))
    }
}

/// Region, HTTP client and clock, and the credentials, which have been found once.
///
/// # Errors
/// `Refused` without region or credentials, `Unavailable` where their source does not answer.
pub(super) async fn login(name: &str, spec: &AwsStoreSpec) -> Result<(SdkConfig, SharedCredentialsProvider), Failure> {
    let config = spec.way().config().await;
    let refused = |why: &str| Failure::new(FailureKind::Refused, format!("AWS store `{name}`: {why}"));
    if config.region().is_none() {
        return Err(refused("no AWS region found: set `region` in the store, or AWS_REGION"));
    }
    let source = spec.way().credentials(&config).await.ok_or_else(|| refused(refusal::NO_CREDENTIALS))?;
    tried(name, spec, &source).await?;
    Ok((config, source))
}

/// Logs in once. Where the login's token is one that we keep fresh ourselves, it may be on its way.
async fn tried(name: &str, spec: &AwsStoreSpec, source: &SharedCredentialsProvider) -> Result<(), Failure> {
    let ours = spec.web_identity.as_ref().filter(|identity| identity.target.is_some());
    let mut patience = ours.map(|identity| Patience::new(&identity.token_file));
    loop {
        if let Some(patience) = &mut patience
            && !patience.until_there().await
        {
            return Err(Failure::new(FailureKind::Unavailable, format!("AWS store `{name}`: {}", patience.missing())));
        }
        let Err(error) = source.provide_credentials().await else { return Ok(()) };
        let verdict = refusal::of_credentials(&error).unwrap_or_else(refusal::no_credentials);
        let failure = verdict.into_failure(name);
        let again = match &mut patience {
            Some(patience) => failure.kind == FailureKind::Refused && patience.until_other().await,
            None => false,
        };
        if !again {
            return Err(failure);
        }
    }
}

impl AwsStoreSpec {
    /// How it logs in.
    fn way(&self) -> Login<'_> {
        Login {
            region: self.region.as_deref(),
            profile: self.profile.as_deref(),
            web_identity: self.web_identity.as_ref(),
            assume_role: self.assume_role.as_ref(),
        }
    }
}
