//! Rehearsals beside everything else: they change no course and no state.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Done, Wheel};
use crate::daemon::ask::Selector;
use crate::daemon::course::{Told, Waiter};
use crate::daemon::rehearsal;
use crate::daemon::rotation::tell;
use crate::record::Actor;
use crate::schedule::Target;

impl Wheel {
    /// Begins them; each outcome is told. One that is under way when the daemon stops is given up.
    pub(super) fn rehearse(&mut self, meant: &Selector, actor: &Actor, waiter: &Waiter) -> Vec<String> {
        let targets: Vec<Arc<Target>> = self.scene.plan.targets.iter().filter(|target| meant(target)).cloned().collect();
        for target in &targets {
            let standing = self.table.standing(&target.name, Timestamp::now());
            let (target, scene, writer) = (Arc::clone(target), Arc::clone(&self.scene), self.writer.clone());
            let (actor, waiter, mut stop) = (actor.clone(), waiter.clone(), self.stop.subscribe());
            self.tasks.spawn(async move {
                let line = tokio::select! {
                    line = rehearsal::rehearse(&target, &scene, Some(actor)) => line,
                    _ = stop.wait_for(|stop| *stop) => return Done::Rehearsed,
                };
                tell(&line);
                writer.append(vec![line.clone()]).await;
                // A caller that went away cancels nothing.
                let _ = waiter.send(Told { line, standing });
                Done::Rehearsed
            });
        }
        targets.iter().map(|target| target.name.to_string()).collect()
    }
}
