//! Our Lease renewed, and those of others watched, for as long as the daemon runs.

use std::sync::Arc;
use std::time::Duration;

use super::members::{LEASE, RENEW};
use super::{Fleet, lock, uptime};
use crate::cluster::lease::{Event, Lease};
use crate::cluster::{Refusal, Trouble};
use crate::daemon::clock::now_ms;

/// What failed is tried again after that, ms.
const AGAIN: i64 = 2_000;
/// Who lives is judged that often, beside every event.
const JUDGED: Duration = Duration::from_millis(500);

/// Keeps our seat until it is dropped.
pub(super) async fn keep(fleet: Arc<Fleet>) {
    tokio::join!(hear(&fleet), renew(&fleet));
}

/// Watches all Leases; whenever the watch ends, they are listed anew.
async fn hear(fleet: &Fleet) {
    loop {
        if let Err(refusal) = heard(fleet).await {
            tracing::debug!(%refusal, "the Leases of the fleet cannot be watched");
            tokio::time::sleep(Duration::from_millis(AGAIN.unsigned_abs())).await;
        }
    }
}

async fn heard(fleet: &Fleet) -> Result<(), Refusal> {
    let cluster = Arc::clone(&lock(&fleet.cluster));
    let begun = uptime();
    let (leases, version) = cluster.leases(&fleet.spec).await.inspect_err(|refusal| complain(fleet, begun, refusal))?;
    fleet.tell(|members| members.listed(leases, begun, uptime(), now_ms()));
    let watched = cluster.watch_leases(&fleet.spec, &version, |event| {
        fleet.tell(|members| match event {
            Event::Written(lease) => members.written(lease, uptime(), now_ms()),
            Event::Gone(lease) => members.gone(&lease, uptime()),
        });
    });
    tokio::pin!(watched);
    loop {
        tokio::select! {
            ended = &mut watched => return ended,
            () = tokio::time::sleep(JUDGED) => {
                // Our own renewals come back on the watch: one that brings none is dead, whatever the connection says.
                if !fleet.tell(|members| { members.tick(uptime()); members.hears(uptime()) }) {
                    return Ok(());
                }
            }
        }
    }
}

/// Renews our Lease, and says so whenever it was tried.
async fn renew(fleet: &Fleet) {
    loop {
        let begun = uptime();
        let pause = match renewed(fleet, begun).await {
            Ok(true) => RENEW,
            Ok(false) => AGAIN,
            Err(refusal) => {
                complain(fleet, begun, &refusal);
                AGAIN
            }
        };
        fleet.tried();
        sweep(fleet).await;
        let left = u64::try_from(begun + pause - uptime()).unwrap_or(0);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(left)) => {}
            () = fleet.hurry.notified() => {}
        }
    }
}

/// One try; false where the seat is another's.
async fn renewed(fleet: &Fleet, begun: i64) -> Result<bool, Refusal> {
    let cluster = Arc::clone(&lock(&fleet.cluster));
    let (said, held) = (lock(&fleet.members).said().clone(), lock(&fleet.held).clone());
    let before = match held {
        Some(held) => Some(held),
        None => match free_seat(fleet).await? {
            Seat::Empty => None,
            Seat::Ours(lease) => Some(*lease),
            Seat::Taken => return Ok(false),
        },
    };
    match hold(fleet, before.as_ref(), begun).await {
        Err(refusal) if matches!(refusal.trouble, Trouble::Conflict | Trouble::NotFound) => {
            let listed = uptime();
            let (leases, _) = cluster.leases(&fleet.spec).await?;
            let own = leases.iter().find(|lease| lease.said.member == said.member).cloned();
            // A renewal that was given up may have come through, and a person may have written beside it.
            let ours = own.filter(|own| own.said.run == said.run);
            lock(&fleet.held).clone_from(&ours);
            fleet.tell(|members| members.listed(leases, listed, uptime(), now_ms()));
            if ours.is_none() {
                return Ok(false);
            }
            hold(fleet, ours.as_ref(), begun).await.map(|()| true)
        }
        other => other.map(|()| true),
    }
}

async fn hold(fleet: &Fleet, before: Option<&Lease>, begun: i64) -> Result<(), Refusal> {
    let cluster = Arc::clone(&lock(&fleet.cluster));
    let said = lock(&fleet.members).said().clone();
    let lease = cluster.hold_lease(&fleet.spec, &said, LEASE.unsigned_abs() / 1000, before).await?;
    fleet.tell(|members| {
        let now = uptime();
        members.joins(lease.written, now);
        members.renewed(&lease.record, begun, now);
    });
    *lock(&fleet.held) = Some(lease);
    Ok(())
}

enum Seat {
    /// No Lease of our name is there.
    Empty,
    /// It is that of a run of ours before this one, or of one that is dead.
    Ours(Box<Lease>),
    /// Another daemon with our name lives.
    Taken,
}

/// Whether a Lease of our name may be taken: at once where this very daemon left it, else once it does not change any
/// more.
async fn free_seat(fleet: &Fleet) -> Result<Seat, Refusal> {
    let cluster = Arc::clone(&lock(&fleet.cluster));
    let said = lock(&fleet.members).said().clone();
    let mut seen: Option<(String, i64)> = None;
    loop {
        let begun = uptime();
        let (leases, _) = cluster.leases(&fleet.spec).await?;
        let own = leases.iter().find(|lease| lease.said.member == said.member).cloned();
        fleet.tell(|members| members.listed(leases, begun, uptime(), now_ms()));
        let Some(own) = own else { return Ok(Seat::Empty) };
        // Where somebody took our Lease from us, that somebody lives.
        let robbed = lock(&fleet.members).is_lost();
        if own.said.daemon == said.daemon && !robbed {
            return Ok(Seat::Ours(Box::new(own)));
        }
        match &seen {
            None => seen = Some((own.record.clone(), uptime())),
            Some((record, _)) if *record != own.record => {
                let why = format!(
                    "another daemon is member {} of fleet {} and lives: give each host or Pod a name of its own, or set {}",
                    said.member,
                    fleet.spec.shown(),
                    super::VARIABLE
                );
                tracing::error!("{why}");
                fleet.tell(|members| members.failed(uptime(), &why));
                return Ok(Seat::Taken);
            }
            Some((_, since)) if uptime() - since >= LEASE => return Ok(Seat::Ours(Box::new(own))),
            Some(_) => {}
        }
        fleet.tried();
        tokio::time::sleep(Duration::from_millis(RENEW.unsigned_abs() / 2)).await;
    }
}

/// Removes what members left that are dead for long.
async fn sweep(fleet: &Fleet) {
    let forgotten = lock(&fleet.members).forgotten(uptime());
    let cluster = Arc::clone(&lock(&fleet.cluster));
    for lease in forgotten {
        // Others do so too, and who comes back makes it anew.
        if let Err(refusal) = cluster.drop_lease(&fleet.spec, &lease).await {
            tracing::debug!(member = lease.said.member, %refusal, "the Lease of a dead member stays");
        }
    }
}

fn complain(fleet: &Fleet, begun: i64, refusal: &Refusal) {
    let (lease, message) = (fleet.spec.shown(), &refusal.message);
    let why = match refusal.trouble {
        Trouble::Forbidden => {
            let right = fleet.spec.right();
            let (verbs, namespace) = (right.verbs.join(", "), right.namespace);
            format!(
                "fleet {lease}: our account may not {verbs} leases in namespace {namespace} ({message}): tokenferry rbac | kubectl apply -f -"
            )
        }
        Trouble::NotFound => format!("fleet {lease}: its namespace is not there ({message}): make it"),
        Trouble::Unauthorized => format!("fleet {lease}: the API server refuses our own credential ({message})"),
        _ => format!("fleet {lease}: its API server does not answer ({message}); whoever owns a target goes on, and nobody takes over"),
    };
    if fleet.tell(|members| {
        let before = members.turns();
        members.failed(begun, &why);
        before != members.turns()
    }) {
        tracing::error!("{why}");
    }
}
