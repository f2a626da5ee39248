//! Is the token good? Before it replaces a working one, and on every beat after it was delivered: asked of the API
//! server where its audience is the API server's, else held against the keys that the cluster serves.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::rotation::Job;
use super::scene::Scene;
use super::timetable::Turn;
use crate::cluster::{Cluster, MintFailure, MintFailureKind, Minted, Proven, Urgency};
use crate::record::Proof;
use crate::schedule::Target;
use crate::token::{Claims, Token};

/// Tries of the proof before it is put off.
pub const TRIES: u32 = 3;
/// Share of the old token's life below which the new one is published without its proof.
const TOO_LATE: f64 = 0.1;
/// Keys that old prove a fresh token; one that they do not know has them read anew.
const KEYS_SERVE: Duration = Duration::from_secs(300);

/// Proves a fresh token.
///
/// # Errors
/// [`MintFailure`] where it is refused, or where nobody can be asked while the one in use has time left.
pub(super) async fn of_fresh(job: &Job, cluster: &Cluster, minted: &Minted) -> Result<Proof, MintFailure> {
    if !job.turn.target.prove || cluster.is_embedded() {
        return Ok(Proof::Claims);
    }
    let failure = |kind, message| MintFailure { kind, message, retry_after: None, audit_id: minted.audit_id.clone() };
    let mut unknown = String::new();
    for attempt in 0..TRIES {
        match ask(&job.turn.target, cluster, &minted.token, &minted.claims, Turn::urgency_of_proof(attempt), KEYS_SERVE).await {
            Proven::Online => return Ok(Proof::Online),
            Proven::Signed => return Ok(Proof::Signature),
            // Nobody can say more of it than its claims and the connection that it came over.
            Proven::NotOffered(_) | Proven::Unserved(_) => return Ok(Proof::Claims),
            Proven::Refused(why) => {
                return Err(failure(MintFailureKind::BadAnswer, format!("the fresh token failed its proof: {why}; the one in use stays")));
            }
            Proven::Unknown(why) => unknown = why,
        }
        tokio::time::sleep(Duration::from_millis(250 << attempt)).await;
    }
    if too_late(&job.turn, Timestamp::now()) {
        tracing::warn!(
            target_name = &*job.turn.target.name,
            "the fresh token cannot be proven now ({unknown}); it is published on its claims"
        );
        return Ok(Proof::Claims);
    }
    Err(failure(MintFailureKind::Unavailable, format!("the fresh token cannot be proven now ({unknown}); the one in use stays")))
}

/// Proves the token of a rehearsal, once.
///
/// # Errors
/// Why it is refused, or could not be proven now.
pub(super) async fn of_rehearsed(target: &Target, cluster: &Cluster, minted: &Minted) -> Result<Proof, String> {
    if !target.prove || cluster.is_embedded() {
        return Ok(Proof::Claims);
    }
    match ask(target, cluster, &minted.token, &minted.claims, Turn::urgency_of_proof(0), KEYS_SERVE).await {
        Proven::Online => Ok(Proof::Online),
        Proven::Signed => Ok(Proof::Signature),
        Proven::NotOffered(_) | Proven::Unserved(_) => Ok(Proof::Claims),
        Proven::Refused(why) | Proven::Unknown(why) => Err(why),
    }
}

/// Proves a token that was delivered; `None` where nobody can be asked. `recorded` is how this very token was proven
/// when it was published: a key that signed it then, and that the cluster serves no more, has it refused by
/// everyone who follows the cluster's keys.
pub(super) async fn of_delivered(
    scene: &Scene,
    target: &Target,
    token: &Token,
    claims: &Claims,
    recorded: Option<Proof>,
) -> Option<Proven> {
    let cluster: &Arc<Cluster> = scene.cluster(&target.cluster).filter(|c| !c.is_embedded())?;
    let urgency = Urgency { deadline: claims.exp.unwrap_or(0), retry: false };
    // Half a beat: a key that changed is noticed on the next one.
    let age = KEYS_SERVE.min(Duration::from_secs(target.prove_every) / 2);
    match ask(target, cluster, token, claims, urgency, age).await {
        Proven::Unserved(why) if recorded == Some(Proof::Signature) => Some(Proven::Refused(why)),
        Proven::Unserved(_) | Proven::NotOffered(_) => None,
        proven => Some(proven),
    }
}

async fn ask(target: &Target, cluster: &Cluster, token: &Token, claims: &Claims, urgency: Urgency, age: Duration) -> Proven {
    if is_for_api_server(target, claims) {
        match cluster.prove(token, &claims.sub, urgency).await {
            Proven::NotOffered(_) => {}
            proven => return proven,
        }
    }
    cluster.check_signature(token, urgency, age).await
}

/// Whether the API server itself is an audience of the token: others answer for themselves alone.
pub(super) fn is_for_api_server(target: &Target, claims: &Claims) -> bool {
    target.ask.audiences.is_empty() || claims.aud.iter().any(|a| *a == claims.iss || a.starts_with("https://kubernetes.default.svc"))
}

/// Whether the old token is so near its end that the new one is published without its proof.
pub fn too_late(turn: &Turn, now: Timestamp) -> bool {
    is_late(turn.in_use, now.as_second())
}

/// Whether the token in use (`iat`, `exp`) has too little life left to wait for a proof of the next; also where
/// there is none.
fn is_late(in_use: Option<(i64, i64)>, now: i64) -> bool {
    #[allow(clippy::cast_precision_loss)] // seconds of this era are exact
    in_use.is_none_or(|(iat, exp)| ((exp - now) as f64) < TOO_LATE * (exp - iat).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_tenth_of_a_life_is_too_late_to_wait_for_a_proof() {
        assert!(!is_late(Some((0, 3600)), 3240));
        assert!(is_late(Some((0, 3600)), 3241));
        assert!(is_late(None, 0));
    }

    proptest! {
        #[test]
        fn once_it_is_too_late_it_stays_so(iat in 0i64..1_000_000, life in 1i64..1_000_000, now in 0i64..3_000_000, more in 0i64..1_000_000) {
            let in_use = Some((iat, iat + life));
            prop_assert!(!is_late(in_use, now) || is_late(in_use, now + more));
            prop_assert!(is_late(in_use, iat + life));
            prop_assert!(!is_late(in_use, iat));
        }
    }
}
