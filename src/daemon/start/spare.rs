//! A token that is found elsewhere, where no place shows one.

use jiff::Timestamp;

use super::{LOOK, readable, recorded_at};
use crate::daemon::scene::Scene;
use crate::record::Outcome;
use crate::record::fold::TargetState;
use crate::schedule::Target;
use crate::schedule::plan::is_of_a_host;
use crate::sink::{self, Place};
use crate::token::{Claims, Token};

/// A token elsewhere, where no file place has one: in the fallback that was written, or, where the records
/// are lost, in a store.
pub(super) async fn spare(scene: &Scene, target: &Target, state: Option<&TargetState>, now: Timestamp) -> Option<(Token, Claims)> {
    let mut found = Vec::new();
    for place in &target.deliver {
        let recorded = state.and_then(|s| recorded_at(s, place));
        let fell_back = recorded.is_some_and(|p| p.outcome == Outcome::FellBack);
        // What it has on this host was seen.
        let itself = (state.is_none() && !is_of_a_host(place)).then_some(place);
        let places = place.fallback.iter().filter(|_| fell_back || state.is_none()).chain(itself);
        for place in places {
            if is_without_login(scene, place).await {
                continue;
            }
            let held = tokio::time::timeout(LOOK, sink::held(&place.sink, &scene.stores, LOOK)).await;
            let held = held.ok().and_then(Result::ok).flatten();
            found.extend(held.and_then(|payload| readable(&payload, target)));
        }
    }
    found.retain(|(_, claims)| claims.exp.is_some_and(|exp| exp > now.as_second()));
    found.into_iter().max_by_key(|(_, claims)| claims.iat)
}

/// Whether the store of a place logs in with a token that its own target has yet to bring: a put would wait for it, a
/// look need not.
async fn is_without_login(scene: &Scene, place: &Place) -> bool {
    let store = place.sink.store().and_then(|name| scene.plan.stores.get(name));
    let Some((_, file)) = store.and_then(|store| store.login()) else { return false };
    !matches!(tokio::time::timeout(LOOK, tokio::fs::try_exists(file)).await, Ok(Ok(true)))
}
