//! `exec`: a command with a token of its own.

mod child;
mod marker;
mod room;

use std::convert::Infallible;
use std::ffi::OsString;
use std::time::Duration;

use base64::Engine;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::kubeconfig;
use super::print;
use super::reload::duration;
use super::tell::Tale;
use super::whence::Whence;
use super::{Context, Exit};
use crate::cluster::{Ask, Cluster, Minted, Urgency};
use crate::daemon::read;
use marker::Bound;
use room::Room;

/// Share of its life after which a token is replaced under a command that still runs.
const AT: f64 = 0.8;
/// The wall clock is looked at this often, so that a host that slept is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Between attempts to replace it, seconds.
const RETRY: (u64, u64) = (2, 30);

/// Run a command with a token of its own, gone afterwards
///
/// Mints a token, puts it into a private file in memory, names the file to the command in TOKENFERRY_TOKEN_FILE,
/// and removes it when the command ends, however it ends. Under a command that runs long the file is replaced
/// before the token's end: read it again for each use. Signals go to the command; its exit code is ours
/// (128+n by signal n, 127 no such command, 126 no program, 125 no token or another failure of our own). A daemon
/// whose socket you may use records each token and how the command ended, of its arguments none.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tokenferry exec cicd/cicd-deployer --duration 15m --with-kubeconfig -- kubectl apply -f deploy.yaml
  tokenferry exec --target ci-deployer -- sh -c './deploy --token-file \"$TOKENFERRY_TOKEN_FILE\"'
  tokenferry exec cicd/cicd-deployer --revocable --with-kubeconfig -- ./deploy.sh
  tokenferry exec cicd/vault-reader --audience https://vault.example.com --env JWT -- ./login.sh
  tokenferry exec cicd/cicd-deployer --server https://kubernetes.example.com:6443 --ca ca.crt --oidc gitlab -- ./deploy.sh
A CI job needs no secret for the last one: it logs in with the identity that its CI system gives it, and the command
does not see the variables which that takes. GitLab: `id_tokens: {KUBE_ID_TOKEN: {aud: AUDIENCE}}` in the job. GitHub:
`permissions: {id-token: write}`, --oidc github --audience AUDIENCE. The API server trusts the CI system by its
--authentication-config.")]
pub struct Exec {
    /// The ServiceAccount, with your own kubeconfig
    #[arg(value_name = "NAMESPACE/NAME", required_unless_present = "target", conflicts_with = "target")]
    account: Option<String>,
    /// A target of the schedule, with the credentials and settings that the schedule names
    #[arg(short, long, value_name = "NAME", add = super::completions::targets())]
    target: Option<String>,
    #[command(flatten)]
    whence: Whence,
    /// Life to ask for [default: 1h, or the target's]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Put the token itself into this variable as well; it is not replaced there
    #[arg(long, value_name = "NAME", value_parser = variable)]
    env: Option<String>,
    /// Write a kubeconfig beside the token, and name it in KUBECONFIG
    #[arg(long)]
    with_kubeconfig: bool,
    /// End the token with the command, also a copy of it (needs create, patch and delete on secrets)
    #[arg(long)]
    revocable: bool,
    /// The command with its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<OsString>,
}

fn variable(text: &str) -> Result<String, String> {
    let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if good { Ok(text.to_owned()) } else { Err("a name of letters, digits and _ that begins with no digit".into()) }
}

impl Exec {
    /// Does it.
    ///
    /// # Errors
    /// The command's exit code where it is not 0; 125 for every failure of our own but bad usage.
    pub async fn run(self, context: &Context) -> Result<(), Exit> {
        match self.story(context).await? {
            0 => Ok(()),
            code => Err(Exit { code, message: None }),
        }
    }

    async fn story(self, context: &Context) -> Result<u8, Exit> {
        let (cluster, ask) = self.meant(context)?;
        child::find(&self.command)?;
        let caught = child::catch().map_err(|e| own(format!("signals cannot be caught: {e}")))?;
        let room = Room::make().map_err(own)?;
        marker::settle(&cluster).await;
        let account = format!("{}/{}", ask.namespace, ask.service_account);
        let mut ends = None;
        if !self.revocable {
            let result = self.serve(context, (&cluster, &ask), &room, caught, &mut ends).await;
            drop(room);
            farewell(&account, ends);
            return result;
        }
        let bound = Bound::make(&cluster, &ask, &room).await?;
        let ask = bound.ask(ask);
        let result = self.serve(context, (&cluster, &ask), &room, caught, &mut ends).await;
        bound.end(&cluster, &room, &account, ends).await;
        result
    }

    /// Mints, runs the command, and keeps its token fresh; `ends` is the latest end of what was minted.
    async fn serve(
        &self,
        context: &Context,
        (cluster, ask): (&Cluster, &Ask),
        room: &Room,
        mut caught: child::Caught,
        ends: &mut Option<i64>,
    ) -> Result<u8, Exit> {
        let begun = Timestamp::now();
        let minted = tokio::select! {
            minted = kubeconfig::mint(cluster, ask) => minted.map_err(|failure| own(failure.message))?,
            // Nothing runs yet that it could be passed on to.
            Some(kind) = caught.recv() => return Ok(128 + u8::try_from(kind.as_raw()).unwrap_or(0)),
        };
        *ends = minted.claims.exp;
        room.put("token", minted.token.expose().as_bytes()).map_err(|e| own(format!("the token cannot be written: {e}")))?;
        let named = self.target.is_some() || self.whence.is_of_schedule();
        let mut tale = Tale::begin(context, self.target.as_deref(), named, cluster, ask).await;
        tale.minted(&minted).await;
        let variables = self.variables(room, cluster, ask, &minted).await?;
        let mut child = match child::spawn(&self.command, &variables, &self.whence.secrets()) {
            Ok(child) => child,
            Err(exit) => {
                room.clear();
                tale.executed(exit.code).await;
                return Err(exit);
            }
        };
        let status = {
            let fresh = keep_fresh(cluster, ask, room, &mut tale, begun, minted, ends);
            tokio::pin!(fresh);
            loop {
                tokio::select! {
                    biased;
                    status = child.wait() => break status,
                    Some(kind) = caught.recv() => child::pass(&child, kind),
                    never = &mut fresh => match never {},
                }
            }
        };
        room.clear();
        let status = status.map_err(|e| own(format!("the command's end cannot be learned: {e}")))?;
        let code = child::code(status);
        tale.executed(code).await;
        Ok(code)
    }

    /// Where to mint and what to ask for.
    fn meant(&self, context: &Context) -> Result<(Cluster, Ask), Exit> {
        let asked = self.duration.map(|d| d.as_secs());
        if let Some(name) = &self.target {
            if !self.whence.is_empty() {
                return Err(Exit::usage(
                    "a target has its own cluster and account; --kubeconfig, --context, --namespace, --cluster and --server are for NAMESPACE/NAME",
                ));
            }
            let accepted = read::read(&context.schedule(None)).map_err(|problems| Exit::refused(&problems))?;
            let target = accepted.plan.target(name).ok_or_else(|| Exit::usage(format!("the schedule has no target `{name}`")))?;
            let mut ask = target.ask.clone();
            ask.duration = asked.unwrap_or(ask.duration);
            if !self.whence.audiences().is_empty() {
                ask.audiences = self.whence.audiences().to_vec();
            }
            return Ok((kubeconfig::of_plan(&accepted, &target.cluster, context)?, ask));
        }
        let (namespace, service_account) = self.whence.account(self.account.as_deref().unwrap_or_default())?;
        let ask = Ask {
            namespace,
            service_account,
            duration: asked.unwrap_or(3600),
            audiences: self.whence.audiences().to_vec(),
            bound_to: None,
        };
        let cluster = self.whence.cluster(context).map_err(|exit| Exit { code: if exit.code == 2 { 2 } else { 125 }, ..exit })?;
        Ok((cluster, ask))
    }

    async fn variables(&self, room: &Room, cluster: &Cluster, ask: &Ask, minted: &Minted) -> Result<Vec<(String, OsString)>, Exit> {
        let mut variables = vec![("TOKENFERRY_TOKEN_FILE".to_owned(), room.place("token").into_os_string())];
        if self.with_kubeconfig {
            let address = cluster.address().await.map_err(|error| own(error.0))?;
            let Some((server, ca)) = address else {
                return Err(Exit::usage("an embedded cluster has no API server, so no kubeconfig can name one"));
            };
            let text = config(
                &server,
                ca.as_deref().map(Vec::as_slice),
                cluster.spec().proxy_url.as_deref(),
                &room.place("token"),
                &ask.namespace,
            );
            room.put("kubeconfig", text.as_bytes()).map_err(|e| own(format!("the kubeconfig cannot be written: {e}")))?;
            variables.push(("KUBECONFIG".into(), room.place("kubeconfig").into_os_string()));
        }
        if let Some(name) = &self.env {
            variables.push((name.clone(), minted.token.expose().into()));
        }
        Ok(variables)
    }
}

fn own(message: impl Into<String>) -> Exit {
    Exit { code: 125, message: Some(message.into()) }
}

/// Says when a token that somebody copied would die; one that is dead already needs no word.
fn farewell(account: &str, ends: Option<i64>) {
    if let Some(end) = ends.and_then(|exp| Timestamp::from_second(exp).ok()).filter(|end| *end > Timestamp::now()) {
        print::talk(&format!(
            "tokenferry: the token of {account} is removed here; a copy would be good until {end} ({})",
            print::distance(Some(end), Timestamp::now())
        ));
    }
}

/// A kubeconfig that reads the token file anew; JSON is YAML.
fn config(server: &str, ca: Option<&[u8]>, proxy: Option<&str>, token: &std::path::Path, namespace: &str) -> String {
    let mut cluster = json!({ "server": server });
    if let Some(ca) = ca {
        cluster["certificate-authority-data"] = base64::engine::general_purpose::STANDARD.encode(ca).into();
    }
    if let Some(proxy) = proxy {
        cluster["proxy-url"] = proxy.into();
    }
    let name = "tokenferry";
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"tokenFile": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
    })
    .to_string()
}

/// Replaces the token at a share of its life, for as long as the command runs. The life is counted from our own
/// clock: the server's may differ.
async fn keep_fresh(
    cluster: &Cluster,
    ask: &Ask,
    room: &Room,
    tale: &mut Tale,
    begun: Timestamp,
    minted: Minted,
    ends: &mut Option<i64>,
) -> Infallible {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // seconds of one life
    let due = |begun: Timestamp, minted: &Minted| begun.as_second() + (minted.claims.lifetime().unwrap_or(0).max(1) as f64 * AT) as i64;
    let (mut next, mut wait, mut failed) = (due(begun, &minted), RETRY.0, false);
    drop(minted);
    loop {
        let left = u64::try_from(next - Timestamp::now().as_second()).unwrap_or(0);
        if left > 0 {
            tokio::time::sleep(LOOK_EVERY.min(Duration::from_secs(left))).await;
            continue;
        }
        let begun = Timestamp::now();
        let turn = cluster.turn(Urgency { deadline: ends.unwrap_or(i64::MIN), retry: failed }).await;
        let written = match cluster.mint(ask, turn).await {
            Ok(minted) => room.put("token", minted.token.expose().as_bytes()).map(|()| minted).map_err(|e| e.to_string()),
            Err(failure) => Err(failure.message),
        };
        match written {
            Ok(minted) => {
                (next, wait, failed) = (due(begun, &minted), RETRY.0, false);
                *ends = minted.claims.exp.max(*ends);
                tale.minted(&minted).await;
            }
            Err(why) => {
                let until = ends.and_then(|exp| Timestamp::from_second(exp).ok()).map(|t| t.to_string()).unwrap_or_default();
                print::talk(&format!(
                    "tokenferry: the command's token could not be replaced: {why}; it is good until {until}, next attempt in {wait} s"
                ));
                let now = Timestamp::now().as_second();
                (next, wait, failed) = (now.saturating_add(i64::try_from(wait).unwrap_or(30)), (wait * 2).min(RETRY.1), true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_a_name_that_shells_know() {
        assert!(variable("KUBE_TOKEN").is_ok() && variable("_a1").is_ok());
        assert!(["", "1A", "A-B", "A=B", "Ä"].iter().all(|bad| variable(bad).is_err()));
    }

    #[test]
    fn the_kubeconfig_names_the_file_and_holds_no_token() {
        let text = config("https://k:6443", Some(b"PEM"), None, std::path::Path::new("/dev/shm/x/token"), "ci");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["users"][0]["user"], json!({"tokenFile": "/dev/shm/x/token"}));
        assert_eq!(value["clusters"][0]["cluster"]["certificate-authority-data"], "UEVN");
        assert_eq!(value["contexts"][0]["context"]["namespace"], "ci");
    }
}
