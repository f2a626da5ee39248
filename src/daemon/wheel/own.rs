//! The alarm of the daemon's own credentials.

use super::Wheel;
use crate::daemon::own;
use crate::schedule::own::cluster_of;

impl Wheel {
    /// After a try to renew one of them: warns where it was not renewed for half of its life, or died.
    pub(super) fn alarm(&self, name: &str) {
        let Some(cluster) = cluster_of(name) else { return };
        let status = self.view().status(&|target| *target.name == *name);
        if let Some(note) = status.targets.first().and_then(|row| own::note(row, &self.scene.plan.path)) {
            tracing::warn!(cluster, "{note}");
        }
    }
}
