//! `--revocable`: the command's token is bound to a Secret of its own, which goes with the command.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::own;
use super::room::{self, Room};
use crate::cli::{Exit, print};
use crate::cluster::marker::{Marker, Purpose};
use crate::cluster::{Ask, Binding, Cluster, MintFailureKind, Urgency};
use crate::token::render::hex;

/// What all markers of commands say of themselves, in place of a target's name.
const KIND: &str = "exec";
/// Markers of killed runs are not waited for any longer.
const SETTLE_WITHIN: Duration = Duration::from_secs(5);
/// Somebody waits for it.
const URGENT: Urgency = Urgency { deadline: i64::MIN, retry: false };

/// The note in the room that outlives a killed run: which Secret has to go, and where.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    server: String,
    namespace: String,
    name: String,
}

impl Note {
    fn purpose(&self) -> Purpose<'_> {
        // The random name is the owner: nobody else makes it.
        Purpose { namespace: &self.namespace, target: KIND, owner: &self.name, generation: 0 }
    }
}

/// A marker while its command runs.
pub struct Bound {
    marker: Marker,
}

impl Bound {
    /// Makes the marker; the note stands before it does.
    pub async fn make(cluster: &Cluster, ask: &Ask, room: &Room) -> Result<Self, Exit> {
        if ask.bound_to.is_some() {
            return Err(Exit::usage("the target's `boundTo` binds its tokens to another object; --revocable needs one of its own"));
        }
        let Some((server, _)) = cluster.address().await.map_err(|error| own(error.0))? else {
            return Err(Exit::usage("an embedded cluster holds no Secrets, so no token of it can be revoked"));
        };
        let mut random = [0u8; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| own("the system has no random bytes"))?;
        let note = Note { server, namespace: ask.namespace.clone(), name: format!("tokenferry.{KIND}.{}", hex(&random)) };
        let text = serde_json::to_vec(&note).map_err(|e| own(e.to_string()))?;
        room.put(room::NOTE, &text).map_err(|e| own(format!("the marker's note cannot be written: {e}")))?;
        match cluster.mark_once(&note.purpose(), &note.name).await {
            Ok(marker) => Ok(Self { marker }),
            Err(failure) => {
                // It may stand all the same where no answer came.
                if !matches!(failure.kind, MintFailureKind::Unavailable | MintFailureKind::BadAnswer) || gone(cluster, &note).await.is_ok()
                {
                    room.forget();
                }
                Err(own(failure.message))
            }
        }
    }

    /// What the TokenRequest asks then.
    pub fn ask(&self, ask: Ask) -> Ask {
        Ask { bound_to: Some(Box::new(Binding::Marker(self.marker.clone()))), ..ask }
    }

    /// Deletes the marker; where that fails the note stays for the next run.
    pub async fn end(self, cluster: &Cluster, room: &Room, account: &str, ends: Option<i64>) {
        let end = ends.and_then(|exp| Timestamp::from_second(exp).ok());
        match cluster.unmark(&self.marker, URGENT).await {
            Ok(()) => {
                room.forget();
                if end.is_some() {
                    print::talk(&format!("tokenferry: the token of {account} is revoked; the API server refuses it within 10 s"));
                }
            }
            Err(refusal) => {
                let until = end.map(|end| format!("; a copy of it would be good until {end}")).unwrap_or_default();
                print::talk(&format!(
                    "tokenferry: the token of {account} could not be revoked ({refusal}){until}. The next exec on this host tries again; \
                     by hand: kubectl -n {} delete secret {}",
                    self.marker.namespace, self.marker.name
                ));
            }
        }
    }
}

async fn gone(cluster: &Cluster, note: &Note) -> Result<(), String> {
    let found = cluster.marker(&note.purpose(), &note.name).await.map_err(|refusal| refusal.message)?;
    match found {
        Some(marker) => cluster.unmark(&marker, URGENT).await.map_err(|refusal| refusal.message),
        None => Ok(()),
    }
}

/// Deletes the markers of this cluster that killed runs left.
pub async fn settle(cluster: &Cluster) {
    let left = Room::left();
    if left.is_empty() {
        return;
    }
    let Ok(Some((server, _))) = cluster.address().await else { return };
    for room in left {
        let Some(note) = read(&room).filter(|note| note.server == server) else { continue };
        match tokio::time::timeout(SETTLE_WITHIN, gone(cluster, &note)).await {
            Ok(Ok(())) => room::remove(&room),
            Ok(Err(why)) => tracing::debug!(note.name, "the marker of a run that was killed stands yet: {why}"),
            Err(_) => tracing::debug!(note.name, "the marker of a run that was killed stands yet: no answer"),
        }
    }
}

fn read(room: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(room.join(room::NOTE)).ok()?).ok()
}
