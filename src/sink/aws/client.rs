//! The client of one AWS store: our HTTP stack, no hidden retries, credentials by the normal AWS chain.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;

use crate::sink::aws::{AwsStore, AwsStoreSpec, WebIdentity, refusal};
use crate::sink::patience::Patience;
use crate::sink::{Failure, FailureKind};

pub(super) use aws_sdk_secretsmanager::Client;

/// An endpoint that does not take our connection in this time is called unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections are closed soon: their buffers hold what went through them.
const IDLE: Duration = Duration::from_secs(15);

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

    /// Forgets a client whose credentials were refused: the next one reads them anew.
    pub(super) async fn forget(&self, refused: &Arc<Client>) {
        let mut kept = self.client.lock().await;
        if kept.as_ref().is_some_and(|client| Arc::ptr_eq(client, refused)) {
            *kept = None;
        }
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
    let config = configured(spec).await;
    let refused = |why: &str| Failure::new(FailureKind::Refused, format!("AWS store `{name}`: {why}"));
    if config.region().is_none() {
        return Err(refused("no AWS region found: set `region` in the store, or AWS_REGION"));
    }
    let source = credentials(spec, &config).await.ok_or_else(|| refused(refusal::NO_CREDENTIALS))?;
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

async fn configured(spec: &AwsStoreSpec) -> SdkConfig {
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).pool_idle_timeout(IDLE).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build());
    if let Some(region) = &spec.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &spec.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

async fn credentials(spec: &AwsStoreSpec, config: &SdkConfig) -> Option<SharedCredentialsProvider> {
    let own = match &spec.web_identity {
        Some(identity) => web_identity(identity, config),
        None => config.credentials_provider()?,
    };
    let Some(role) = &spec.assume_role else { return Some(own) };
    let mut assumed = AssumeRoleProvider::builder(&role.role_arn).session_name("tokenferry").configure(config);
    if let Some(id) = &role.external_id {
        assumed = assumed.external_id(id);
    }
    Some(SharedCredentialsProvider::new(assumed.build().await))
}

/// `AssumeRoleWithWebIdentity` at STS, which takes no other credential; the file is read at each login.
fn web_identity(identity: &WebIdentity, config: &SdkConfig) -> SharedCredentialsProvider {
    let mut provider = aws_config::provider_config::ProviderConfig::without_region()
        .with_region(config.region().cloned())
        .with_retry_config(RetryConfig::disabled())
        .with_timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build());
    if let Some(http) = config.http_client() {
        provider = provider.with_http_client(http);
    }
    let login = StaticConfiguration {
        web_identity_token_file: identity.token_file.clone(),
        role_arn: identity.role_arn.clone(),
        session_name: "tokenferry".into(),
    };
    let source = WebIdentityTokenCredentialsProvider::builder().configure(&provider).static_configuration(login).build();
    SharedCredentialsProvider::new(source)
}
