//! Where a token is minted from for whoever asks now: a person's kubeconfig, a cluster of the schedule, or an API server
//! that a CI job logs in to as itself.

use std::path::{Path, PathBuf};

use clap::Args;

use super::kubeconfig::Reach;
use super::{Context, Exit};
use crate::cluster::job::{JobLogin, Source};
use crate::cluster::{Cluster, ClusterSpec};

/// Arguments of commands that mint for a person or a CI job.
#[derive(Debug, Args)]
pub struct Whence {
    #[command(flatten)]
    reach: Reach,
    /// The API server that a CI job logs in to with its own identity, in place of a kubeconfig
    #[arg(long, value_name = "URL", requires = "oidc", conflicts_with_all = ["kubeconfig", "context", "cluster"], value_parser = server)]
    server: Option<String>,
    /// The CA of that server [default: those that the host trusts]
    #[arg(long, value_name = "FILE", requires = "server")]
    ca: Option<PathBuf>,
    /// Who gives the job its identity token: github, gitlab (in $KUBE_ID_TOKEN), gitlab:VARIABLE, file:PATH
    #[arg(long, value_name = "SOURCE", requires = "server")]
    oidc: Option<Source>,
    /// For whom that identity token is, where --audience is to say for whom the minted one is
    #[arg(long, value_name = "AUDIENCE", requires = "oidc")]
    oidc_audience: Option<String>,
    /// For whom; may be given more than once [default: the API server, or the target's]. With --oidc alone it is the job's
    /// identity token that has to be for it: an audience of the server's AuthenticationConfiguration
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
}

fn server(text: &str) -> Result<String, String> {
    let address = text.trim_end_matches('/');
    let host = address.strip_prefix("https://").ok_or("write https://HOST:PORT: an API server takes tokens over TLS alone")?;
    let uri = address.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none());
    if uri.is_none() || host.contains('@') {
        Err("it is no address such as https://kubernetes.example.com:6443".into())
    } else {
        Ok(address.to_owned())
    }
}

impl Whence {
    /// Whether anything was named.
    pub fn is_empty(&self) -> bool {
        self.reach.is_empty() && self.server.is_none()
    }

    /// Whether a cluster of the schedule was named.
    pub fn is_of_schedule(&self) -> bool {
        self.reach.is_of_schedule()
    }

    /// Namespace and name of an account, `NAME` or `NAMESPACE/NAME`.
    pub fn account(&self, text: &str) -> Result<(String, String), Exit> {
        if self.server.is_some() && self.reach.namespace().is_none() && !text.contains('/') {
            return Err(Exit::usage(format!("name the namespace too: NAMESPACE/{text}")));
        }
        self.reach.account(text)
    }

    /// The cluster meant.
    pub fn cluster(&self, context: &Context) -> Result<Cluster, Exit> {
        let Some(job) = self.job()? else { return self.reach.cluster(context) };
        let spec = ClusterSpec { job: Some(job), ..ClusterSpec::default() };
        Ok(Cluster::new("server", &spec, Path::new("/nonexistent")))
    }

    /// The variables that a command must not find, for they hold what we log in with.
    pub fn secrets(&self) -> Vec<String> {
        let job = self.job().ok().flatten();
        job.iter().flat_map(|job| job.variables()).map(str::to_owned).collect()
    }

    /// Audiences of the token that is minted; none: those of the API server, or the target's.
    pub fn audiences(&self) -> &[String] {
        if self.oidc.is_some() && self.oidc_audience.is_none() { &[] } else { &self.audiences }
    }

    fn job(&self) -> Result<Option<JobLogin>, Exit> {
        let (Some(server), Some(source)) = (self.server.clone(), self.oidc.clone()) else { return Ok(None) };
        let audience = match (&self.oidc_audience, &self.audiences[..]) {
            (Some(named), _) => Some(named.clone()),
            (None, []) if source == Source::GitHub => {
                return Err(Exit::usage("--oidc github needs --audience: GitHub gives a token for whom it is asked"));
            }
            (None, audiences @ ([] | [_])) => audiences.first().cloned(),
            (None, _) => {
                return Err(Exit::usage(
                    "with --oidc, --audience says for whom the job's identity token is, and that is one: name it with --oidc-audience, \
                     and those of the minted token with --audience",
                ));
            }
        };
        Ok(Some(JobLogin { server, ca: self.ca.clone(), source, audience }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_that_tokens_may_be_sent_to() {
        assert_eq!(server("https://k.example.com:6443/").as_deref(), Ok("https://k.example.com:6443"));
        assert_eq!(server("https://10.0.0.1").as_deref(), Ok("https://10.0.0.1"));
        for bad in ["http://k.example.com", "k.example.com:6443", "https://", "https://u:p@k", "https://k?x=1", "https://a b"] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
