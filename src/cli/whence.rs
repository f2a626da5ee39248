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
    /// For whom that token is: an audience of the server's AuthenticationConfiguration (github is asked for it)
    #[arg(long, value_name = "AUDIENCE", requires = "oidc")]
    oidc_audience: Option<String>,
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

    fn job(&self) -> Result<Option<JobLogin>, Exit> {
        let (Some(server), Some(source)) = (self.server.clone(), self.oidc.clone()) else { return Ok(None) };
        if source == Source::GitHub && self.oidc_audience.is_none() {
            return Err(Exit::usage(
                "--oidc github needs --oidc-audience: GitHub gives a token for whom it is asked (--audience is for the token that is minted)",
            ));
        }
        Ok(Some(JobLogin { server, ca: self.ca.clone(), source, audience: self.oidc_audience.clone() }))
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
