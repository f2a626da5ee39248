//! Credentials of AWS, for its stores and for clusters that know us by AWS's word: the normal chain, a login with a token
//! of a cluster, a role that is taken over. Our HTTP stack, and no hidden retries.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::SharedCredentialsProvider;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use schemars::JsonSchema;
use serde::Deserialize;

/// An endpoint that does not take our connection in this time is called unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle connections are closed soon: their buffers hold what went through them.
const IDLE: Duration = Duration::from_secs(15);

/// `webIdentity: {roleArn, tokenFile | target}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebIdentity {
    /// The role whose trust policy names the cluster's issuer.
    pub role_arn: String,
    /// File that holds the token; read at each login. With `target`, that target's own file: planning fills it in.
    #[serde(default)]
    pub token_file: PathBuf,
    /// Whose token it is, where we keep it fresh ourselves.
    pub target: Option<String>,
}

/// `assumeRole: {roleArn, externalId}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AssumeRole {
    /// The role.
    pub role_arn: String,
    /// What its trust policy may ask for.
    pub external_id: Option<String>,
}

/// How somebody logs in to AWS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Login<'a> {
    /// Region; the normal chain's when absent.
    pub region: Option<&'a str>,
    /// Profile of the shared AWS files.
    pub profile: Option<&'a str>,
    /// With a token, in place of the normal chain.
    pub web_identity: Option<&'a WebIdentity>,
    /// The role that is taken over then.
    pub assume_role: Option<&'a AssumeRole>,
}

impl Login<'_> {
    /// Region, HTTP client and clock.
    pub async fn config(&self) -> SdkConfig {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).pool_idle_timeout(IDLE).build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build());
        if let Some(region) = self.region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        if let Some(profile) = self.profile {
            loader = loader.profile_name(profile);
        }
        loader.load().await
    }

    /// Where the credentials come from; `None` where there is nothing that could give any.
    pub async fn credentials(&self, config: &SdkConfig) -> Option<SharedCredentialsProvider> {
        let own = match self.web_identity {
            Some(identity) => web_identity(identity, config),
            None => config.credentials_provider()?,
        };
        let Some(role) = self.assume_role else { return Some(own) };
        let config = config.clone().into_builder().credentials_provider(own).build();
        let mut assumed = AssumeRoleProvider::builder(&role.role_arn).session_name("tokenferry").configure(&config);
        if let Some(id) = &role.external_id {
            assumed = assumed.external_id(id);
        }
        Some(SharedCredentialsProvider::new(assumed.build().await))
    }
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

/// The host of a service in a region, where one is known: China has a domain of its own, and regions that are cut off from
/// the rest have others.
pub fn host(service: &str, region: &str) -> Option<String> {
    let plain = !region.is_empty() && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let apart = ["us-iso", "eu-iso", "eusc-"].iter().any(|start| region.starts_with(start));
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    (plain && !apart).then(|| format!("{service}.{region}.{domain}"))
}
