//! What `legacy` changes in a cluster: a token is disabled, enabled, deleted with a backup, brought back. Each change is
//! of exactly the Secret that was looked at; who changes or uses it in between makes it fail.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::backup::{self, BackupError, Recipients};
use super::scan::{self, Question, Unanswered};
use super::stage::{self, Stage};
use super::{Find, Name};
use crate::cluster::legacy::{ACCOUNT, ACCOUNT_UID, Held, INVALID_SINCE, LAST_USED, USED_BEFORE};
use crate::cluster::pages::Scope;
use crate::cluster::{Cluster, Proven, Refusal, Trouble, Urgency};

/// What became of one Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub secret: String,
    /// `disabled`, `enabled`, `deleted`, `restored`, `unchanged`; `wouldDisable`, …; `refused`.
    pub outcome: &'static str,
    /// What a person should know of it.
    pub notes: Vec<String>,
}

/// Why a change stops before it has begun.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// There is no such Secret, or it is of another type.
    #[error("{0}")]
    Usage(String),
    /// A right is missing.
    #[error("{0}")]
    NotAllowed(String),
    /// Something failed.
    #[error("{0}")]
    Failed(String),
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl From<Unanswered> for Stop {
    fn from(error: Unanswered) -> Self {
        Self::Failed(error.to_string())
    }
}

/// How a change is made.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Do it; else say what would be done.
    pub apply: bool,
    /// A person said to do it although something speaks against it.
    pub anyway: bool,
    /// When.
    pub now: Timestamp,
    /// Seconds that a token has to be refused without a use before it is deleted.
    pub observe: i64,
}

/// What is kept of what is deleted.
pub struct Backup<'b> {
    /// The new file.
    pub path: &'b Path,
    /// Whom it is encrypted to.
    pub recipients: &'b Recipients,
}

fn outcome(held: &Held, outcome: &'static str, notes: Vec<String>) -> Outcome {
    Outcome { namespace: held.namespace().to_owned(), secret: held.name().to_owned(), outcome, notes }
}

fn stopped(verb: &str, name: &Name, refusal: Refusal) -> Stop {
    match refusal.trouble {
        Trouble::Forbidden => Stop::NotAllowed(format!("{name}: {refusal}; it needs: {verb}, in namespace {}", name.namespace)),
        Trouble::Conflict => Stop::Failed(format!("{name}: it was changed or used just now, so nothing was done: look again ({refusal})")),
        _ => Stop::Failed(format!("{name}: {refusal}")),
    }
}

/// Marks tokens invalid.
///
/// # Errors
/// [`Stop`]; what was done before it stands.
pub async fn disable(cluster: &Cluster, names: &[Name], manner: Manner) -> Result<Vec<Outcome>, Stop> {
    let mut told = Vec::new();
    for (held, find) in looked_at(cluster, names, manner.now).await? {
        let place = format!("{}/{}", find.namespace, find.secret);
        if let Some(day) = &find.invalid_since {
            told.push(outcome(&held, "unchanged", vec![format!("it is refused since {day} already")]));
            continue;
        }
        let against = stage::against_disabling(&find);
        if !against.is_empty() && !manner.anyway {
            told.push(outcome(&held, "refused", against));
            continue;
        }
        let mut notes = against;
        notes.extend(find.last_used.iter().map(|day| format!("last used on {day}: whoever that was is without access then")));
        notes.push(format!("the way back: tokenferry legacy restore {place} --apply"));
        if !manner.apply {
            told.push(outcome(&held, "wouldDisable", notes));
            continue;
        }
        let name = Name { namespace: find.namespace.clone(), name: find.secret.clone() };
        cluster.disable(&held, manner.now).await.map_err(|refusal| stopped("patch secrets", &name, refusal))?;
        notes.push("the API server refuses it within 10 s".into());
        told.push(outcome(&held, "disabled", notes));
    }
    Ok(told)
}

/// Takes the mark off again.
///
/// # Errors
/// [`Stop`]; what was done before it stands.
pub async fn enable(cluster: &Cluster, names: &[Name], manner: Manner) -> Result<Vec<Outcome>, Stop> {
    let mut told = Vec::new();
    for name in names {
        let held = token_secret(cluster, name).await?;
        if held.label(INVALID_SINCE).is_none() {
            told.push(outcome(&held, "unchanged", vec!["it is not disabled".into()]));
        } else if manner.apply {
            cluster.enable(&held).await.map_err(|refusal| stopped("patch secrets", name, refusal))?;
            told.push(outcome(&held, "enabled", vec!["the API server accepts its token again".into()]));
        } else {
            told.push(outcome(&held, "wouldEnable", Vec::new()));
        }
    }
    Ok(told)
}

/// Deletes tokens, once their backup is on the disk. All or none: one that something speaks against keeps all.
///
/// # Errors
/// [`Stop`]; what was deleted before it is in the backup.
pub async fn delete(cluster: &Cluster, names: &[Name], backup: Backup<'_>, manner: Manner) -> Result<Vec<Outcome>, Stop> {
    let looked = looked_at(cluster, names, manner.now).await?;
    let against = |find: &Find| {
        let at: Stage = stage::stage(find, manner.now, manner.observe);
        stage::against_deleting(find, at, manner.anyway)
    };
    let refused: Vec<Vec<String>> = looked.iter().map(|(_, find)| against(find)).collect();
    if refused.iter().any(|reasons| !reasons.is_empty()) {
        let told = looked.iter().zip(refused).map(|((held, _), reasons)| {
            if reasons.is_empty() {
                outcome(held, "unchanged", vec!["kept, for another one is".into()])
            } else {
                outcome(held, "refused", reasons)
            }
        });
        return Ok(told.collect());
    }
    let path = backup.path.display().to_string();
    if !manner.apply {
        if backup.path.exists() {
            return Err(BackupError::Exists(path).into());
        }
        return Ok(looked.iter().map(|(held, find)| outcome(held, "wouldDelete", gone(find, &path))).collect());
    }
    let server = cluster.address().await.ok().flatten().map(|(server, _)| server).unwrap_or_default();
    let all: Vec<&Held> = looked.iter().map(|(held, _)| held).collect();
    backup::keep(backup.path, backup.recipients, &all, &server, manner.now)?;
    let mut told = Vec::new();
    for (held, find) in &looked {
        let name = Name { namespace: find.namespace.clone(), name: find.secret.clone() };
        cluster.end(held).await.map_err(|refusal| stopped("delete secrets", &name, refusal))?;
        told.push(outcome(held, "deleted", gone(find, &path)));
    }
    Ok(told)
}

fn gone(find: &Find, path: &str) -> Vec<String> {
    let mut notes = vec![format!("the way back: tokenferry legacy restore {path} --identity KEY --apply")];
    let past: Vec<String> = find.references.iter().filter(|reference| reference.past).map(ToString::to_string).collect();
    if !past.is_empty() {
        notes.push(format!("named by what is over, so a roll back to it would fail: {}", past.join(", ")));
    }
    notes
}

/// Brings the Secrets of a backup back, with their tokens.
///
/// # Errors
/// [`Stop`]; what was done before it stands.
pub async fn restore(cluster: &Cluster, secrets: Vec<Held>, disabled: bool, manner: Manner) -> Result<Vec<Outcome>, Stop> {
    let mut told = Vec::new();
    for held in secrets {
        let name = Name { namespace: held.namespace().to_owned(), name: held.name().to_owned() };
        let account = held.annotation(ACCOUNT).unwrap_or_default().to_owned();
        let found = cluster.account(&name.namespace, &account).await.map_err(|refusal| stopped("get serviceaccounts", &name, refusal))?;
        let Some(found) = found.filter(|found| held.annotation(ACCOUNT_UID).is_none_or(|uid| uid == found.uid)) else {
            let why = format!(
                "the account {}/{account} is gone or was made anew since, and this token died with it: let a target mint tokens for the new one",
                name.namespace
            );
            told.push(outcome(&held, "refused", vec![why]));
            continue;
        };
        if let Some(there) = cluster.held(&name.namespace, &name.name).await.map_err(|refusal| stopped("get secrets", &name, refusal))? {
            let same = there.is_token() && there.as_value()["data"]["token"] == held.as_value()["data"]["token"];
            let (word, why) = match (same, there.label(INVALID_SINCE)) {
                (true, Some(_)) => ("refused", format!("it is there, disabled: tokenferry legacy restore {name} --apply")),
                (true, None) => ("unchanged", "it is there, with the same token".into()),
                (false, _) => ("refused", "another Secret of that name is there: rename or delete it first".into()),
            };
            told.push(outcome(&held, word, vec![why]));
            continue;
        }
        if !manner.apply {
            told.push(outcome(&held, "wouldRestore", Vec::new()));
            continue;
        }
        cluster.make_again(&held, disabled).await.map_err(|refusal| stopped("create secrets", &name, refusal))?;
        let mut notes = if disabled { vec!["disabled, as it was".into()] } else { proven(cluster, &held, &name, &account).await };
        if !found.secrets.iter().any(|listed| listed == held.name()) {
            notes.push("an account does not list a Secret that is brought back: who looks there for its name does not find it".into());
        }
        told.push(outcome(&held, "restored", notes));
    }
    Ok(told)
}

/// Tries the token that was brought back, and takes the trace of that off: the day of the last use is somebody else's.
async fn proven(cluster: &Cluster, held: &Held, name: &Name, account: &str) -> Vec<String> {
    let Some(token) = held.token() else { return vec!["it holds no token: the token controller makes a new one".into()] };
    let subject = format!("system:serviceaccount:{}:{account}", name.namespace);
    let urgency = Urgency { deadline: i64::MIN, retry: false };
    let mut notes = vec![match cluster.prove(&token, &subject, urgency).await {
        Proven::Online | Proven::Signed => "the API server accepts its token".to_owned(),
        Proven::Refused(why) | Proven::Unserved(why) => format!("it is back, but its token is of no use: {why}"),
        Proven::NotOffered(why) | Proven::Unknown(why) => format!("whether its token is accepted is not known: {why}"),
    }];
    let before = held.annotation(USED_BEFORE).filter(|day| !day.is_empty()).or(held.label(LAST_USED));
    let cleaned = match cluster.held(&name.namespace, &name.name).await {
        Ok(Some(now)) => cluster.forget_our_use(&now, before).await,
        Ok(None) => return vec!["it was made and is gone again: the token controller deleted it, for its account is another one".into()],
        Err(refusal) => Err(refusal),
    };
    if let Err(refusal) = cleaned {
        notes.push(format!("trying it counts as a use of today in its label, which could not be taken off: {refusal}"));
    }
    notes
}

async fn token_secret(cluster: &Cluster, name: &Name) -> Result<Held, Stop> {
    let found = cluster.held(&name.namespace, &name.name).await.map_err(|refusal| stopped("get secrets", name, refusal))?;
    let held = found.ok_or_else(|| Stop::Usage(format!("there is no Secret {name}; tokenferry legacy list shows what there is")))?;
    if held.is_token() {
        return Ok(held);
    }
    Err(Stop::Usage(format!(
        "{name} is no service-account-token Secret, so no label ends its token; tokenferry legacy plan {name} says what does"
    )))
}

/// The Secrets with their data, and what was found about each: who hangs on it has to be known whole.
async fn looked_at(cluster: &Cluster, names: &[Name], now: Timestamp) -> Result<Vec<(Held, Find)>, Stop> {
    let mut held = Vec::new();
    for name in names {
        held.push(token_secret(cluster, name).await?);
    }
    let spaces: BTreeSet<&String> = names.iter().map(|name| &name.namespace).collect();
    let only: BTreeSet<(String, String)> = names.iter().map(|name| (name.namespace.clone(), name.name.clone())).collect();
    let mut finds = Vec::new();
    for space in spaces {
        let question = Question { scope: Scope::Namespace(space.clone()), only: &only, others: false, longest: i64::MAX, now };
        let seen = scan::look::<BufReader<std::io::Empty>>(cluster, &question, None).await?;
        if let Some(gap) = seen.blind().or_else(|| seen.gaps.iter().find(|gap| gap.resource == "secrets")) {
            let why = format!("nothing was done, for it is not known whole who hangs on it: {gap}");
            return Err(if gap.forbidden { Stop::NotAllowed(why) } else { Stop::Failed(why) });
        }
        finds.extend(seen.finds);
    }
    let mut looked = Vec::new();
    for held in held {
        let at = finds.iter().position(|find| find.namespace == held.namespace() && find.secret == held.name());
        let at = at.ok_or_else(|| Stop::Failed(format!("{}/{}: it is gone just now", held.namespace(), held.name())))?;
        looked.push((held, finds.swap_remove(at)));
    }
    Ok(looked)
}
