//! Tells the daemon of this host what a person did with a token of his own, for the records. Where none runs, or
//! the person may not use its socket, nothing is told and nothing fails.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;

use super::Context;
use crate::cluster::{Ask, Cluster, Minted};
use crate::daemon::control::{self, Report};
use crate::record::Kind;

/// Nobody waits longer for a daemon that hangs.
const WITHIN: Duration = Duration::from_secs(1);

/// What is told, as far as it is known; each token adds its own.
pub struct Tale {
    socket: PathBuf,
    report: Report,
}

impl Tale {
    /// The tale of one command; `named` is the cluster's name in the schedule, where it has one.
    pub async fn begin(context: &Context, target: Option<&str>, named: bool, cluster: &Cluster, ask: &Ask) -> Self {
        // A person's own kubeconfig is known to nobody else: its server is.
        let server = || async { cluster.address().await.ok().flatten().map(|(url, _)| url) };
        let report = Report {
            kind: Kind::Minted,
            target: target.map(str::to_owned),
            cluster: if named { Some(cluster.name().to_owned()) } else { server().await },
            service_account: format!("{}/{}", ask.namespace, ask.service_account),
            requested: ask.duration,
            granted: None,
            issued_at: None,
            expires_at: None,
            jti: None,
            audit_id: None,
            error: None,
            command: typed(std::env::args_os().map(|word| word.to_string_lossy().into_owned())),
        };
        Self { socket: context.socket(), report }
    }

    /// A token was minted.
    pub async fn minted(&mut self, minted: &Minted) {
        let time = |seconds: Option<i64>| seconds.and_then(|s| Timestamp::from_second(s).ok());
        let claims = &minted.claims;
        self.report.granted = claims.lifetime().and_then(|life| u64::try_from(life).ok());
        (self.report.issued_at, self.report.expires_at) = (time(claims.iat), time(claims.exp));
        self.report.jti = claims.jti.clone();
        self.report.audit_id.clone_from(&minted.audit_id);
        self.tell(Kind::Minted, None).await;
    }

    /// The command ended with that code.
    pub async fn executed(&mut self, code: u8) {
        self.tell(Kind::Executed, (code != 0).then(|| format!("exit code {code}"))).await;
    }

    async fn tell(&mut self, kind: Kind, error: Option<String>) {
        (self.report.kind, self.report.error) = (kind, error);
        if let Err(error) = control::call(&self.socket, Method::POST, "/report", &self.report, WITHIN).await {
            tracing::debug!(%error, "this left no record");
        }
    }
}

/// What was typed, of a command after `--` its name alone: its arguments are not ours, and may hold secrets.
fn typed(words: impl Iterator<Item = String>) -> String {
    let mut shown = vec!["tokenferry".to_owned()];
    let mut words = words.skip(1);
    for word in words.by_ref() {
        let last = word == "--";
        shown.push(word);
        if last {
            break;
        }
    }
    shown.extend(words.next());
    if words.next().is_some() {
        shown.push("…".into());
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_of_another_program_are_not_told() {
        let told = |line: &str| typed(line.split(' ').map(str::to_owned));
        assert_eq!(told("/usr/bin/tokenferry exec a/b --env T -- curl -H secret"), "tokenferry exec a/b --env T -- curl …");
        assert_eq!(told("tokenferry exec a/b -- true"), "tokenferry exec a/b -- true");
        assert_eq!(told("tokenferry mint a/b"), "tokenferry mint a/b");
    }
}
