//! Which targets stand on the same file systems and stores: they are looked at together, and what hangs there holds up
//! no others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::files;
use crate::schedule::Target;
use crate::sink::{SinkSpec, file};

/// A folder that does not list itself within that is not swept.
const SWEEP: Duration = Duration::from_secs(10);

/// Parts targets so that those of one part stand on the same file systems and stores: what hangs there holds up the
/// look at its own part alone.
pub fn parts(targets: Vec<Arc<Target>>) -> Vec<Vec<Arc<Target>>> {
    let mut parts: BTreeMap<BTreeSet<String>, Vec<Arc<Target>>> = BTreeMap::new();
    for target in targets {
        let on = grounds(&target).collect();
        parts.entry(on).or_default().push(target);
    }
    parts.into_values().collect()
}

/// The file system or store that each place of a target stands on.
pub fn grounds(target: &Target) -> impl Iterator<Item = String> {
    target.places().map(|place| match (&place.sink, place.sink.store()) {
        (SinkSpec::File(spec), _) => file::file_system(&spec.path),
        (SinkSpec::Directory(spec), _) => file::file_system(&spec.files_as.path),
        (sink, store) => format!("{} {}", sink.kind(), store.unwrap_or_default()),
    })
}

/// Removes the temporary files that an earlier run left beside the places of these targets.
pub async fn sweep(targets: &[Arc<Target>]) {
    let swept = files::sweep(targets, SWEEP).await;
    if swept > 0 {
        tracing::info!(files = swept, "temporary files of an earlier run were removed");
    }
}
