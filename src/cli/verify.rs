//! `verify`: whether a token is good.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::inspect::{Source, printable, table, warnings};
use super::kubeconfig::Reach;
use super::print::{self, Cell, Colour, Output};
use super::reload::duration;
use super::{Context, Exit};
use crate::audit::inspect::inspect;
use crate::audit::published::Published;
use crate::audit::verify::{Asked, Check, Expected, Verdict, is_good, of_asked, verify};
use crate::cluster::review::keys_at;
use crate::cluster::{Cluster, Urgency};
use crate::token::signature::Keys;

/// Check whether a token is good
///
/// Shows what `inspect` shows, then one line for each check with its verdict. Begin and end are always checked;
/// the rest where it is asked for. Exits 1 where a check fails, or was asked for and cannot be made. A check that
/// nothing was given for (a signature without keys) is said to be unchecked and fails nothing. Nothing is sent
/// anywhere unless --jwks names an address, or --cluster-keys, --review or --token-review asks the API server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry verify --target ci-deployer --jwks jwks.json --subject cicd/cicd-deployer --min-remaining 10m
  tokenferry verify --target ci-deployer --cluster-keys --review
  tokenferry verify ./token --jwks https://oidc.example.com/openid/v1/jwks --bound-to pod/web-1
  tokenferry verify ./token --audience https://vault.example.com --max-lifetime 1h && deploy")]
pub struct Verify {
    #[command(flatten)]
    source: Source,
    /// An audience that it has to have; may be given more than once
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// Whose it has to be: NAMESPACE/NAME or the whole sub claim
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Least life left
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_remaining: Option<Duration>,
    /// Most time since it was issued
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
    /// Longest life that it may have been given
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_lifetime: Option<Duration>,
    /// The object that it has to be bound to, such as pod/web-1, secret/marker or node/n1
    #[arg(long, value_name = "KIND/NAME", value_parser = bound)]
    bound_to: Option<(String, String)>,
    /// Public keys (a JSON Web Key Set), one of which has to have signed it: a file, or an address to read them from
    #[arg(long, value_name = "FILE|URL")]
    jwks: Option<String>,
    /// Certificates that sign for the address of --jwks [default: those of this host]
    #[arg(long, value_name = "FILE", requires = "jwks")]
    ca: Option<PathBuf>,
    /// The keys that the API server serves, one of which has to have signed it
    #[arg(long, conflicts_with = "jwks")]
    cluster_keys: bool,
    /// Ask the API server with the token itself (SelfSubjectReview), as its next use would
    #[arg(long)]
    review: bool,
    /// Ask the API server with your own credential (TokenReview), for the audiences of --audience
    #[arg(long)]
    token_review: bool,
    #[command(flatten)]
    reach: Reach,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

impl Verify {
    /// Does it; a runtime is started where somebody is to be asked.
    ///
    /// # Errors
    /// Exit code 1 where a check fails or there is no token, 2 where the key set cannot be read.
    pub fn run(self, context: &Context) -> Result<(), Exit> {
        let (place, found) = self.source.read(context)?;
        let now = Timestamp::now().as_second();
        let shown = inspect(&found, now).map_err(|why| Exit::own(format!("{place}: {why}")))?;
        let asking = context.progress("asking for keys and reviews");
        let (keys, asked) = self.ask(&found, context)?;
        drop(asking);
        let checks = self.checks(&found, keys, &asked, now);
        let good = is_good(&checks);
        match self.output {
            Output::Json => {
                let mut value = serde_json::to_value(&shown).map_err(|e| Exit::own(e.to_string()))?;
                value["checks"] = serde_json::to_value(&checks).map_err(|e| Exit::own(e.to_string()))?;
                value["good"] = good.into();
                print::json(&value)?;
            }
            Output::Table => {
                let rows: String = checks.iter().map(row).collect();
                print::data(&format!("{}{}{rows}", table(&place, &shown), warnings(&shown)))?;
            }
        }
        if good { Ok(()) } else { Err(Exit::failed()) }
    }

    fn checks(&self, found: &Published, keys: Option<Result<Keys, String>>, asked: &Asked, now: i64) -> Vec<Check> {
        let expected = Expected {
            audiences: self.audiences.clone(),
            subject: self.subject.clone().map(|subject| match subject.split_once('/') {
                Some((namespace, name)) if !subject.contains(':') => format!("system:serviceaccount:{namespace}:{name}"),
                _ => subject,
            }),
            min_remaining: self.min_remaining.map(|d| d.as_secs()),
            max_age: self.max_age.map(|d| d.as_secs()),
            max_lifetime: self.max_lifetime.map(|d| d.as_secs()),
            bound_to: self.bound_to.clone(),
            keys,
        };
        let mut checks = verify(found, &expected, now);
        checks.extend(of_asked(asked, &found.claims.sub));
        checks
    }

    /// The keys, and what the API server says. What cannot be had of another host is an unknown check; a file of this
    /// one that cannot be read is bad usage.
    fn ask(&self, found: &Published, context: &Context) -> Result<(Option<Result<Keys, String>>, Asked), Exit> {
        let asks_api = self.cluster_keys || self.review || self.token_review;
        if !asks_api && !self.reach.is_empty() {
            return Err(Exit::usage(
                "--kubeconfig, --context, --namespace and --cluster say whom to ask: add --cluster-keys, --review or --token-review",
            ));
        }
        let url = self.jwks.as_deref().filter(|text| text.starts_with("https://") || text.starts_with("http://"));
        let keys = match self.jwks.as_deref() {
            Some(file) if url.is_none() => {
                let bytes = std::fs::read(file).map_err(|e| Exit::usage(format!("{file}: {e}")))?;
                Some(Ok(Keys::of(&bytes).map_err(|why| Exit::usage(format!("{file}: {why}")))?))
            }
            _ => None,
        };
        if url.is_none() && !asks_api {
            return Ok((keys, Asked::default()));
        }
        let cluster = if asks_api { Some(self.reach.cluster(context)?) } else { None };
        super::on_one_thread(async {
            let keys = match url {
                Some(url) => Some(keys_at(url, self.ca.as_deref().map(Path::new)).await),
                None => keys,
            };
            Ok(match &cluster {
                Some(cluster) => self.ask_api(found, cluster, keys).await,
                None => (keys, Asked::default()),
            })
        })
    }

    async fn ask_api(
        &self,
        found: &Published,
        cluster: &Cluster,
        keys: Option<Result<Keys, String>>,
    ) -> (Option<Result<Keys, String>>, Asked) {
        let keys = if self.cluster_keys { Some(cluster.served_keys().await) } else { keys };
        let mut asked = Asked::default();
        if self.review {
            let urgency = Urgency { deadline: i64::MAX, retry: false };
            asked.review = Some(cluster.prove(&found.token, &found.claims.sub, urgency).await);
        }
        if self.token_review {
            asked.token_review = Some(cluster.review(&found.token, &self.audiences).await);
        }
        (keys, asked)
    }
}

fn row(check: &Check) -> String {
    let (word, colour) = match check.verdict {
        Verdict::Good => ("good", Colour::Good),
        Verdict::Bad => ("BAD", Colour::Bad),
        Verdict::Unknown => ("UNKNOWN", Colour::Bad),
        Verdict::Unchecked => ("unchecked", Colour::Warn),
    };
    print::row(&[Cell::new(word, colour), check.check.into(), printable(&check.detail).into()], &[12, 12])
}

fn bound(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(kind, name)| ["pod", "secret", "node"].contains(kind) && !name.is_empty());
    parts.map(|(kind, name)| (kind.to_owned(), name.to_owned())).ok_or_else(|| "write pod/NAME, secret/NAME or node/NAME".into())
}
