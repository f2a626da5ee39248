//! `mint`: one token to stdout.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::kubeconfig;
use super::reload::duration;
use super::tell::Tale;
use super::token::{MintForm as Form, hand_out};
use super::whence::Whence;
use super::{Context, Exit};
use crate::cluster::{Ask, Binding, Cluster, Minted};
use crate::token::{Format, Surroundings, render};

/// Mint one token for a ServiceAccount and print it
///
/// As `kubectl create token`, with your own kubeconfig, the credentials that a cluster of the schedule names, or as a
/// CI job with the job's own identity (--server, --oidc).
/// Says on stderr when the server gave it a shorter life than was asked for. On a terminal a newline follows the
/// token, in a file or pipe none. Exits 4 where you may not mint for the account. Nothing is scheduled or kept; a
/// daemon whose socket you may use records that you did it. For a command's lifetime see `exec`, for always the
/// schedule.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry mint cicd-deployer -n cicd --duration 15m > token
  tokenferry mint cicd/cicd-deployer --audience https://vault.example.com -o json
  tokenferry mint cicd/cicd-deployer --bound-object-kind Secret --bound-object-name marker
  tokenferry mint cicd/cicd-deployer --duration 15m -o kubeconfig > deployer.kubeconfig
As a credential plugin: command: tokenferry, args: [mint, cicd/cicd-deployer, -o, exec-credential]")]
pub struct Mint {
    /// The ServiceAccount: NAME, or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    whence: Whence,
    /// Life to ask for; 10m is the least that an API server takes
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    duration: Duration,
    /// Kind of the object whose end is the token's end
    #[arg(long, value_enum, ignore_case = true, value_name = "KIND", requires = "bound_object_name")]
    bound_object_kind: Option<Kind>,
    /// Name of that object
    #[arg(long, value_name = "NAME", requires = "bound_object_kind")]
    bound_object_name: Option<String>,
    /// UID that it has to have
    #[arg(long, value_name = "UID", requires = "bound_object_kind")]
    bound_object_uid: Option<String>,
    /// How to print it; json is the TokenRequest that kubectl prints
    #[arg(short, long, value_enum, default_value = "raw")]
    output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Kind {
    Pod,
    Secret,
    Node,
}

impl Mint {
    /// Does it.
    ///
    /// # Errors
    /// Exit code 4 where RBAC says no, 1 where there is no token for another reason, 2 for names that are none.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        let (namespace, service_account) = self.whence.account(&self.name)?;
        let bound_to = self.bound_object_kind.zip(self.bound_object_name.clone()).map(|(kind, name)| match kind {
            Kind::Pod => Binding::Pod(name),
            Kind::Secret => Binding::Secret(name),
            Kind::Node => Binding::Node(name),
        });
        let ask = Ask {
            namespace,
            service_account,
            duration: self.duration.as_secs(),
            audiences: self.whence.audiences().to_vec(),
            bound_to: bound_to.map(Box::new),
        };
        let cluster = self.whence.cluster(context)?;
        let asking = context.spinner("asking for a token");
        let minted = kubeconfig::mint(&cluster, &ask).await.map_err(|failure| kubeconfig::refused(&failure))?;
        drop(asking);
        Tale::begin(context, None, self.whence.is_of_schedule(), &cluster, &ask).await.minted(&minted).await;
        if let Some(wanted) = &self.bound_object_uid {
            let own = &minted.claims.kubernetes;
            let found = [&own.pod, &own.secret, &own.node].into_iter().flatten().find(|object| object.uid == *wanted);
            if found.is_none() {
                return Err(Exit::own(
                    "the object of that name has another UID (409); it was made anew meanwhile, and the token is not given out",
                ));
            }
        }
        hand_out(&self.shown(&cluster, &ask, &minted).await?)
    }

    async fn shown(&self, cluster: &Cluster, ask: &Ask, minted: &Minted) -> Result<String, Exit> {
        let format = match self.output {
            Form::Json => {
                let value = minted.as_answer(ask, self.bound_object_uid.as_deref());
                return Ok(serde_json::to_string_pretty(&value).map_err(|e| Exit::own(e.to_string()))? + "\n");
            }
            Form::Raw => Format::Raw,
            Form::ExecCredential => Format::ExecCredential,
            Form::Kubeconfig => Format::Kubeconfig(Box::default()),
        };
        let address = if format.needs_cluster() { cluster.address().await.map_err(|e| Exit::own(e.to_string()))? } else { None };
        let (server, ca) = address.map_or((None, None), |(server, ca)| (Some(server), ca.map(|pem| pem.to_vec())));
        let surroundings = Surroundings {
            target: ask.service_account.clone(),
            cluster: cluster.name().to_owned(),
            namespace: ask.namespace.clone(),
            service_account: ask.service_account.clone(),
            server,
            ca,
        };
        let payload = render(&minted.token, &minted.claims, &format, &surroundings).map_err(|e| Exit::own(e.to_string()))?;
        Ok(String::from_utf8_lossy(payload.expose()).into_owned())
    }
}
