//! Logging in to Amazon EKS: the API server takes a signed address of AWS STS as a token, and asks STS who signed it
//! (kubernetes-sigs/aws-iam-authenticator). It is made in this process; no AWS program is run, and nobody is asked.

use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::config::{Credentials, ProvideCredentials};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Deserialize;

use super::awaited::Patience;
use super::aws::{AssumeRole, Login, WebIdentity, host};
use super::{MintFailure, MintFailureKind};
use crate::token::Token;

/// How a token of this kind begins.
const PREFIX: &str = "k8s-aws-v1.";
/// The header that binds a token to one cluster.
const CLUSTER: &str = "x-k8s-aws-id";
/// For how long the address is good at STS.
const EXPIRES: Duration = Duration::from_secs(60);
/// For how long EKS takes it, counted from its date.
const GOOD_FOR: i64 = 15 * 60;
/// Finding credentials may take as long; building a client may take 30 s.
const CREDENTIALS_WITHIN: Duration = Duration::from_secs(20);

/// `eks: {name, region, profile, roleArn, externalId, webIdentity}`: the login of a cluster on Amazon EKS, in place of what the
/// kubeconfig's user has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Eks")]
pub struct EksSpec {
    /// Name of the cluster in EKS.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Profile of the shared AWS files.
    pub profile: Option<String>,
    /// The role that is taken over for it; our own identity when absent.
    pub role_arn: Option<String>,
    /// What that role's trust policy may ask for.
    pub external_id: Option<String>,
    /// Log in to AWS with a token of another cluster in place of the normal AWS chain.
    pub web_identity: Option<WebIdentity>,
}

impl EksSpec {
    /// A token, and when it ends, unix seconds.
    ///
    /// # Errors
    /// Why there are no credentials, and the way to some.
    pub(super) async fn log_in(&self) -> Result<(Token, i64), String> {
        let found = tokio::time::timeout(CREDENTIALS_WITHIN, self.credentials()).await;
        let seconds = CREDENTIALS_WITHIN.as_secs();
        let credentials = found.map_err(|_| self.failure(&format!("AWS gave no credentials within {seconds} s")))??;
        let now = SystemTime::now();
        let address = signed(&self.host()?, &self.name, &self.region, credentials, now).map_err(|why| self.failure(why))?;
        let ends = jiff::Timestamp::try_from(now).map(|now| now.as_second() + GOOD_FOR).map_err(|_| self.failure("the clock is wrong"))?;
        Ok((Token::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(address))), ends))
    }

    async fn credentials(&self) -> Result<Credentials, String> {
        if let Some(web) = self.web_identity.as_ref().filter(|web| web.target.is_some()) {
            let mut patience = Patience::new(&web.token_file);
            if !patience.until_there().await {
                return Err(self.failure(&patience.missing()));
            }
        }
        let role = self.role_arn.as_ref().map(|arn| AssumeRole { role_arn: arn.clone(), external_id: self.external_id.clone() });
        let login = Login {
            region: Some(&self.region),
            profile: self.profile.as_deref(),
            web_identity: self.web_identity.as_ref(),
            assume_role: role.as_ref(),
        };
        let none = "no AWS credentials found: give the daemon's user a profile, a web identity (`webIdentity`) or an instance role";
        let source = login.credentials(&login.config().await).await.ok_or_else(|| self.failure(none))?;
        source.provide_credentials().await.map_err(|error| {
            let why = super::client::chain(&error);
            if why.contains("the credential provider was not enabled") { self.failure(none) } else { self.failure(&why) }
        })
    }

    fn failure(&self, why: &str) -> String {
        format!("EKS cluster {}: {why}", self.name)
    }

    /// Where STS of the region is; regions cut off from the rest have addresses of their own.
    fn host(&self) -> Result<String, String> {
        host("sts", &self.region).ok_or_else(|| self.failure(&format!("no address of STS is known for the region {}", self.region)))
    }

    /// A refusal says what EKS looks at.
    pub(super) fn explained(&self, failure: MintFailure) -> MintFailure {
        if failure.kind != MintFailureKind::Unauthorized || !failure.message.starts_with("401") {
            return failure;
        }
        let who = self.role_arn.as_ref().or(self.web_identity.as_ref().map(|identity| &identity.role_arn));
        let message = format!(
            "401: EKS cluster {} does not take our AWS identity ({}): give it an access entry there (or a line in the ConfigMap aws-auth), \
             see that `eks.name` is the cluster's own, and that this host's clock is right",
            self.name,
            who.map_or("that of the normal AWS chain", String::as_str)
        );
        MintFailure { message, ..failure }
    }
}

/// The address that says who we are, signed for one cluster (AWS Signature Version 4 in the query).
fn signed(host: &str, cluster: &str, region: &str, credentials: Credentials, now: SystemTime) -> Result<String, &'static str> {
    const UNSIGNED: &str = "its address cannot be signed with these credentials";
    let address = format!("https://{host}/?Action=GetCallerIdentity&Version=2011-06-15");
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES);
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|_| UNSIGNED)?;
    let headers = [(CLUSTER, cluster)];
    let signable = SignableRequest::new("GET", &*address, headers.into_iter(), SignableBody::Bytes(b"")).map_err(|_| UNSIGNED)?;
    let (instructions, _) = sign(signable, &params.into()).map_err(|_| UNSIGNED)?.into_parts();
    let mut request = http::Request::get(&address).header(CLUSTER, cluster).body(()).map_err(|_| UNSIGNED)?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request.uri().to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ring::hmac;

    use super::*;
    use crate::token::render::hex;

    fn made(session: Option<&str>, now: SystemTime) -> String {
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", session.map(str::to_owned), None, "test");
        signed("sts.eu-central-1.amazonaws.com", "prod", "eu-central-1", credentials, now).unwrap()
    }

    #[test]
    fn an_address_says_what_the_authenticator_of_eks_looks_for() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let address = made(Some("session+/="), now);
        let url = reqwest::Url::parse(&address).unwrap();
        assert_eq!((url.scheme(), url.host_str(), url.path()), ("https", Some("sts.eu-central-1.amazonaws.com"), "/"));
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let says = |key: &str| query.get(key).map(String::as_str);
        assert_eq!((says("Action"), says("Version"), says("X-Amz-Expires")), (Some("GetCallerIdentity"), Some("2011-06-15"), Some("60")));
        assert_eq!((says("X-Amz-Date"), says("X-Amz-SignedHeaders")), (Some("20231114T221320Z"), Some("host;x-k8s-aws-id")));
        assert_eq!(says("X-Amz-Credential"), Some("AKIDEXAMPLE/20231114/eu-central-1/sts/aws4_request"));
        assert_eq!((says("X-Amz-Security-Token"), says("X-Amz-Algorithm")), (Some("session+/="), Some("AWS4-HMAC-SHA256")));
        assert_eq!(query.len(), 9, "{query:?}");
    }

    /// The signature as AWS's own manual has it computed.
    #[test]
    fn the_signature_is_the_one_that_aws_computes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for session in [None, Some("session+/=")] {
            let address = made(session, now);
            let query = address.split_once('?').unwrap().1;
            let (mut pairs, mut signature): (Vec<&str>, _) = (Vec::new(), "");
            for pair in query.split('&') {
                match pair.strip_prefix("X-Amz-Signature=") {
                    Some(found) => signature = found,
                    None => pairs.push(pair),
                }
            }
            pairs.sort_unstable();
            let sha = |text: &[u8]| hex(ring::digest::digest(&ring::digest::SHA256, text).as_ref());
            let canonical = format!(
                "GET\n/\n{}\nhost:sts.eu-central-1.amazonaws.com\nx-k8s-aws-id:prod\n\nhost;x-k8s-aws-id\n{}",
                pairs.join("&"),
                sha(b"")
            );
            let text = format!("AWS4-HMAC-SHA256\n20231114T221320Z\n20231114/eu-central-1/sts/aws4_request\n{}", sha(canonical.as_bytes()));
            let sign = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec();
            let secret = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
            let key = ["20231114", "eu-central-1", "sts", "aws4_request"].iter().fold(secret, |key, part| sign(&key, part));
            assert_eq!(signature, hex(&sign(&key, &text)), "{address}");
        }
    }
}
