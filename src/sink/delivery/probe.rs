//! One place is tried without publishing anything: in its turn at the store, and once.

use super::tries::{WITHIN, verdict};
use super::{Load, context, made};
use crate::sink::{self, Failure, FailureKind, Place, Stores};

/// What was tried at the place, in words.
///
/// # Errors
/// [`Failure`], as an attempt to deliver would give it.
pub async fn probe(place: &Place, load: &Load<'_>, stores: &Stores) -> Result<String, Failure> {
    let payload = made(place, load)?;
    let context = context(place, load);
    let Some(upstream) = place.sink.upstream(stores) else {
        return sink::probe(&place.sink, &payload, context, stores).await;
    };
    let upstream = upstream?;
    let Some(permit) = upstream.turn(load.urgency, WITHIN).await else {
        let what = format!("{} answered nobody within {} s", upstream.name(), WITHIN.as_secs());
        return Err(Failure::new(FailureKind::Unavailable, what));
    };
    let found = sink::probe(&place.sink, &payload, context, stores).await;
    permit.end(verdict(found.as_ref().err()));
    found
}
