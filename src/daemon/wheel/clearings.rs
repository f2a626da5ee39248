//! Copies in fallbacks are removed, when the timetable says that they may go.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Done, Wheel};
use crate::daemon::rotation::{identify, sealed_at, tell};
use crate::daemon::scene::Scene;
use crate::daemon::start::readable;
use crate::daemon::timetable::Clearing;
use crate::record::fold::TargetState;
use crate::record::{Hex, Kind, Line, Outcome, SinkLine};
use crate::schedule::Target;
use crate::sink::{self, Leftover, Ours, Removal};
use crate::token::Payload;

/// A place that does not answer within that is left for the next time.
const WITHIN: Duration = Duration::from_secs(10);

impl Wheel {
    /// Removes copies, and records which are gone.
    pub(super) fn clear(&mut self, clearing: Clearing) {
        let (scene, writer) = (Arc::clone(&self.scene), self.writer.clone());
        self.tasks.spawn(async move {
            let Clearing { name, target, state, copies } = clearing;
            let mut gone = Vec::new();
            for (index, copy) in copies {
                match remove(&scene, &target, &state, index, &copy).await {
                    Ok(line) => gone.push(line),
                    Err(why) => tracing::warn!(target_name = &*target.name, copy, "the copy in the fallback stays for now: {why}"),
                }
            }
            let line = (!gone.is_empty()).then(|| {
                let mut line = Line::new(Kind::Cleared, Timestamp::now());
                identify(&mut line, &target);
                line.generation = Some(state.generation);
                line.jti = state.jti.as_ref().map(ToString::to_string);
                line.sinks = gone;
                line
            });
            if let Some(line) = &line {
                tell(line);
                writer.append(vec![line.clone()]).await;
            }
            Done::Cleared(name, line.map(Box::new))
        });
    }
}

/// Removes one copy, after one more look: the place has to hold the bytes that were recorded of it, and the copy a
/// token of this target that is no newer.
async fn remove(scene: &Scene, target: &Target, state: &TargetState, index: usize, copy: &str) -> Result<SinkLine, String> {
    let place = &target.deliver[index];
    let (kind, at) = (place.sink.kind(), place.sink.place());
    let recorded = state.place(kind, &at).and_then(|p| p.sha256.as_ref());
    let held = sink::held(&place.sink, &scene.stores, WITHIN).await.map_err(|failure| failure.message)?;
    let sha256 = held.map(|payload| payload.sha256());
    if sha256.is_none() || sha256.as_deref().map(Hex::from).as_ref() != recorded {
        return Err(format!("{at} does not hold what was delivered there"));
    }
    let stands = place.fallback.iter().find(|f| f.sink.place() == copy).and_then(Leftover::of);
    let Some(stands) = stands else { return Err("it cannot be taken back".into()) };
    let issued = state.issued_at.map(Timestamp::as_second);
    let sealed = |held: &Payload| sealed_at(held.expose(), target).map(Some);
    let since = |held: &Payload| readable(held, target).map(|(_, claims)| claims.iat).or_else(|| sealed(held));
    let older = |held: &Payload| since(held).is_some_and(|since| since <= issued);
    match stands.remove(Ours(&older), &scene.stores, WITHIN).await.map_err(|failure| failure.message)? {
        Removal::Gone | Removal::Nothing => {}
        Removal::Left => return Err("it holds something else than an older token of this target".into()),
    }
    Ok(SinkLine { sha256, fallback: Some(copy.to_owned()), ..SinkLine::new(kind, at, Outcome::Unchanged) })
}
