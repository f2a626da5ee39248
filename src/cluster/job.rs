//! The login of a CI job: the identity token that its CI system issues to it (OpenID Connect), which an API server takes
//! by structured authentication (`--authentication-config`, Kubernetes 1.30 and later). Nothing of it is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};
use reqwest::Url;
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{MintFailure, MintFailureKind};
use crate::token::{Claims, Token, mask};

/// GitHub: where a job asks for its token.
const GITHUB_URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
/// GitHub: what it asks with.
const GITHUB_BEARER: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
/// GitLab: the variable that `id_tokens` is told to fill, unless another is named.
pub const GITLAB_VARIABLE: &str = "KUBE_ID_TOKEN";
/// GitHub is asked this often, and each time for this long: within the time that building a client may take.
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_secs(1);
/// Far more than a token with its frame.
const LARGEST_ANSWER: usize = 256 << 10;

/// `--oidc`: who gives the job its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// GitHub Actions, on request.
    GitHub,
    /// GitLab CI, in the variable of that name.
    GitLab(String),
    /// Somebody, in that file.
    File(PathBuf),
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| {
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        };
        match text.split_once(':') {
            None if text == "github" => Ok(Self::GitHub),
            None if text == "gitlab" => Ok(Self::GitLab(GITLAB_VARIABLE.into())),
            Some(("gitlab", name)) if is_name(name) => Ok(Self::GitLab(name.into())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("write github, gitlab, gitlab:VARIABLE or file:PATH".into()),
        }
    }
}

/// An API server, and the job that logs in to it. It holds names, no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLogin {
    /// The API server's address: https.
    pub server: String,
    /// The CA that alone is trusted; the host's when absent.
    pub ca: Option<PathBuf>,
    /// Where the job's token comes from.
    pub source: Source,
    /// For whom the job's token has to be.
    pub audience: Option<String>,
}

/// What was shown to the API server, in words, and for how long it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    words: String,
    until: Option<i64>,
}

impl JobLogin {
    /// The variables that hold what the job logs in with; nothing that it starts has to know them.
    pub fn variables(&self) -> Vec<&str> {
        match &self.source {
            Source::GitHub => vec![GITHUB_URL, GITHUB_BEARER],
            Source::GitLab(name) => vec![name],
            Source::File(_) => Vec::new(),
        }
    }

    /// The files that the login depends on.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let token = if let Source::File(path) = &self.source { Some(path.clone()) } else { None };
        self.ca.clone().into_iter().chain(token).collect()
    }

    /// What a kubeconfig would say, with the job's token in it.
    ///
    /// # Errors
    /// Why the job has no token, and what gives it one.
    pub(super) async fn log_in(&self) -> Result<(Kubeconfig, Shown), String> {
        let token = self.token().await?;
        let shown = self.judged(&token)?;
        let name = || "job".to_owned();
        let cluster = Cluster {
            server: Some(self.server.clone()),
            certificate_authority: self.ca.as_ref().map(|path| path.display().to_string()),
            ..Cluster::default()
        };
        let user = AuthInfo { token: Some(SecretString::from(token.expose().to_owned())), ..AuthInfo::default() };
        let context = Context { cluster: name(), user: Some(name()), ..Context::default() };
        let kubeconfig = Kubeconfig {
            clusters: vec![NamedCluster { name: name(), cluster: Some(cluster), other: BTreeMap::new() }],
            auth_infos: vec![NamedAuthInfo { name: name(), auth_info: Some(user), other: BTreeMap::new() }],
            contexts: vec![NamedContext { name: name(), context: Some(context), other: BTreeMap::new() }],
            current_context: Some(name()),
            ..Kubeconfig::default()
        };
        Ok((kubeconfig, shown))
    }

    async fn token(&self) -> Result<Token, String> {
        match &self.source {
            Source::GitHub => self.of_github().await,
            Source::GitLab(name) => {
                let text = variable(name).ok_or_else(|| {
                    format!(
                        "GitLab gave this job no identity token: the variable {name} is not set. Write `id_tokens: {{{name}: {{aud: {}}}}}` \
                         in the job; with another name there, write --oidc gitlab:NAME",
                        self.audience.as_deref().unwrap_or("AUDIENCE")
                    )
                })?;
                Ok(Token::new(text))
            }
            Source::File(path) => read(path).await,
        }
    }

    /// Asks GitHub; where it does not answer, again.
    async fn of_github(&self) -> Result<Token, String> {
        let (Some(url), Some(bearer)) = (variable(GITHUB_URL), variable(GITHUB_BEARER).map(Zeroizing::new)) else {
            return Err(format!(
                "GitHub gives this job no identity token: {GITHUB_URL} and {GITHUB_BEARER} are not set. Write `permissions: {{id-token: \
                 write}}` in the job or its workflow; what a pull request from a fork starts gets none"
            ));
        };
        let mut url = Url::parse(&url).map_err(|_| format!("{GITHUB_URL} is no address"))?;
        if let Some(audience) = &self.audience {
            url.query_pairs_mut().append_pair("audience", audience);
        }
        let mut why = Refused { words: String::new(), for_good: false };
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match asked(&url, &bearer).await {
                Ok(token) => return Ok(token),
                Err(refused) => why = refused,
            }
            if why.for_good {
                break;
            }
        }
        Err(format!("GitHub gave this job no identity token: {} {}", url.host_str().unwrap_or_default(), why.words))
    }

    /// What can be told of the token without its issuer. Whether it is over is left to the API server: this clock may be
    /// wrong.
    fn judged(&self, token: &Token) -> Result<Shown, String> {
        let from = match &self.source {
            Source::GitHub => "what GitHub gave".to_owned(),
            Source::GitLab(name) => format!("the variable {name}"),
            Source::File(path) => path.display().to_string(),
        };
        let claims = token.claims().map_err(|why| format!("{from} is no identity token: {why}"))?;
        if let Some(wanted) = self.audience.as_ref().filter(|wanted| !claims.aud.contains(wanted)) {
            return Err(format!(
                "the job's token is for {}, and not for {wanted}: {}",
                listed(&claims.aud),
                match &self.source {
                    Source::GitLab(name) => format!("write `id_tokens: {{{name}: {{aud: {wanted}}}}}` in the job"),
                    _ => "whoever issues it has to be asked for that audience".to_owned(),
                }
            ));
        }
        Ok(Shown::of(&claims))
    }
}

impl Shown {
    fn of(claims: &Claims) -> Self {
        let words = format!("issuer {}, audience {}, subject {}", claims.iss, listed(&claims.aud), claims.sub);
        // Whoever issued it, it is text from outside.
        Self { words: mask::mask(&words).chars().filter(|c| !c.is_control()).take(400).collect(), until: claims.exp }
    }

    /// When the token ends, unix seconds.
    pub fn until(&self) -> Option<i64> {
        self.until
    }

    /// A failure whose cause may be the job's token says all that is known of it: the API server itself never says why.
    pub(super) fn explained(&self, failure: MintFailure, now: Timestamp) -> MintFailure {
        if failure.kind != MintFailureKind::Unauthorized {
            return failure;
        }
        let ended = self.until.and_then(|until| Timestamp::from_second(until).ok()).filter(|until| *until <= now);
        let message = match ended {
            Some(ended) => format!(
                "401: the API server refuses the job's token, which ended at {ended}: a job that takes longer than its token needs one \
                 that lasts (GitLab's ends with the job's `timeout`), or --oidc github, which is asked anew ({})",
                self.words
            ),
            None => format!(
                "401: the API server refuses the job's token ({}): its AuthenticationConfiguration has to name that issuer with that \
                 audience, and its claimValidationRules have to let this job in; if they do, see its log for whether it reaches the issuer",
                self.words
            ),
        };
        MintFailure { message, ..failure }
    }
}

fn listed(audiences: &[String]) -> String {
    if audiences.is_empty() { "nobody".into() } else { audiences.join(", ") }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

async fn read(path: &Path) -> Result<Token, String> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| format!("the job's token {}: {error}", path.display()))?;
    let token = Token::new(text);
    if token.expose().is_empty() { Err(format!("the job's token {} is empty", path.display())) } else { Ok(token) }
}

/// Why GitHub gave none, and whether asking again is of no use.
struct Refused {
    words: String,
    for_good: bool,
}

#[derive(Deserialize)]
struct Answer {
    value: String,
}

async fn asked(url: &Url, bearer: &str) -> Result<Token, Refused> {
    let soon = |words: String| Refused { words, for_good: false };
    let never = |words: String| Refused { words, for_good: true };
    let mut builder = reqwest::Client::builder()
        .tls_backend_rustls()
        .timeout(ATTEMPT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("tokenferry/", env!("CARGO_PKG_VERSION")));
    // reqwest insists on roots even where no TLS is spoken.
    if url.scheme() == "http" {
        builder = builder.tls_certs_only(Vec::new());
    }
    let client = builder.build().map_err(|_| never("cannot be asked: no TLS client can be made".into()))?;
    let no_answer = |error: reqwest::Error| soon(format!("does not answer: {}", super::client::chain(&error.without_url())));
    let mut answer = client.get(url.clone()).bearer_auth(bearer).send().await.map_err(no_answer)?;
    match answer.status().as_u16() {
        200 => {}
        code @ (401 | 403) => {
            return Err(never(format!("answers {code}: it refuses {GITHUB_BEARER}, which is good only while its job runs")));
        }
        code @ (408 | 429 | 500..=599) => return Err(soon(format!("answers {code}, several times"))),
        code => return Err(never(format!("answers {code}"))),
    }
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(no_answer)? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(never("gives an answer without end".into()));
        }
        body.extend_from_slice(&chunk);
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| never("gives an answer with no `value` in it".into()))?;
    Ok(Token::new(answer.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_named_by_its_system_and_what_that_needs() {
        assert_eq!("github".parse(), Ok(Source::GitHub));
        assert_eq!("gitlab".parse(), Ok(Source::GitLab("KUBE_ID_TOKEN".into())));
        assert_eq!("gitlab:OTHER_1".parse(), Ok(Source::GitLab("OTHER_1".into())));
        assert_eq!("file:/run/a:b".parse(), Ok(Source::File("/run/a:b".into())));
        for bad in ["", "GitHub", "gitlab:", "gitlab:A=B", "gitlab:1A", "file:", "file", "/run/token", "github:x"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }

    fn login(audience: &str) -> JobLogin {
        JobLogin { server: "https://k".into(), ca: None, source: Source::GitLab("T".into()), audience: Some(audience.into()) }
    }

    fn token(claims: &str) -> Token {
        use base64::Engine;
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        Token::new(format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(claims), part("signature")))
    }

    #[test]
    fn a_token_for_somebody_else_is_told_before_it_is_shown_to_anybody() {
        let token = token(r#"{"iss":"https://gitlab.example.com","sub":"project_path:a/b","aud":"https://vault"}"#);
        let why = login("https://kubernetes").judged(&token).unwrap_err();
        assert!(why.contains("for https://vault, and not for https://kubernetes") && why.contains("id_tokens: {T: {aud:"), "{why}");
        assert!(login("https://vault").judged(&token).is_ok());
        let why = login("a").judged(&Token::new("glpat-secret".into())).unwrap_err();
        assert!(why.contains("the variable T is no identity token") && !why.contains("secret"), "{why}");
    }

    #[test]
    fn a_refused_token_is_described_and_one_that_is_over_is_told_apart() {
        let shown = Shown::of(&token(r#"{"iss":"I","sub":"S","aud":["A","B"],"exp":1000}"#).claims().unwrap());
        let at = |second| Timestamp::from_second(second).unwrap();
        let said = |kind, now| shown.explained(MintFailure::new(kind, "401: generic"), at(now)).message;
        assert!(said(MintFailureKind::Unauthorized, 999).contains("issuer I, audience A, B, subject S): its AuthenticationConfiguration"));
        assert!(said(MintFailureKind::Unauthorized, 1000).contains("which ended at 1970-01-01T00:16:40Z"));
        assert_eq!(said(MintFailureKind::Unavailable, 999), "401: generic");
    }
}
