//! Versions of the past: disabled, then destroyed.

use google_cloud_secretmanager_v1::model::SecretVersion;
use google_cloud_secretmanager_v1::model::secret_version::State;

use super::refusal::Verdict;
use super::secret::{Place, number};
use crate::sink::Context;
use crate::sink::manners::retirable;

/// Versions that are looked at: the newest. What lies behind them was destroyed long ago.
const LOOK: i32 = 100;

/// Disables what was replaced as long ago as the overlap, and destroys what an earlier delivery disabled; only from our
/// own first version on. By the times of the versions, so that nothing need be remembered between.
pub(super) async fn retire(place: &Place<'_>, context: &Context<'_>, first: u64) {
    if let Err(verdict) = take_out(place, context, first).await {
        // The token stands there: what is only untidy does not make its delivery fail.
        tracing::warn!(
            target_name = context.target,
            place = place.spec.secret_id,
            error = verdict.why,
            "old versions stay until the next delivery"
        );
    }
}

async fn take_out(place: &Place<'_>, context: &Context<'_>, first: u64) -> Result<(), Verdict> {
    let list = place.client.list_secret_versions().set_parent(&place.name).set_page_size(LOOK).send().await;
    let list = list.map_err(|error| place.refused(&error, "list the versions of", "secretmanager.versions.list"))?;
    let keep = usize::try_from(place.spec.keep_versions.unwrap_or(1)).unwrap_or(usize::MAX);
    let overlap = i64::try_from(context.manners.overlap.as_secs()).unwrap_or(i64::MAX);
    for version in old(&list.versions, first, keep, overlap) {
        if version.state == State::Enabled {
            let disable = place.client.disable_secret_version().set_name(&version.name).set_etag(&version.etag);
            let disabled = disable.send().await;
            disabled.map_err(|error| place.refused(&error, "disable an old version of", "secretmanager.versions.disable"))?;
        } else {
            let destroy = place.client.destroy_secret_version().set_name(&version.name).set_etag(&version.etag);
            let destroyed = destroy.send().await;
            destroyed.map_err(|error| place.refused(&error, "destroy an old version of", "secretmanager.versions.destroy"))?;
        }
    }
    Ok(())
}

/// Those of ours that are neither destroyed nor kept, oldest first.
fn old(versions: &[SecretVersion], first: u64, keep: usize, overlap: i64) -> Vec<&SecretVersion> {
    // Where a secret delays it, a version that is destroyed waits for that, disabled.
    let waits = |version: &SecretVersion| version.scheduled_destroy_time.is_some();
    let alive = versions.iter().filter(|version| matches!(version.state, State::Enabled | State::Disabled) && !waits(version));
    let times: Vec<(i64, u64)> = alive
        .filter_map(|version| Some((version.create_time.as_ref()?.seconds(), number(&version.name)?)))
        .filter(|(_, number)| *number >= first)
        .collect();
    let gone = retirable(&times, keep, overlap);
    gone.into_iter().filter_map(|gone| versions.iter().find(|version| number(&version.name) == Some(gone))).collect()
}

#[cfg(test)]
mod tests {
    use google_cloud_wkt::Timestamp;

    use super::*;

    #[test]
    fn versions_go_after_the_overlap_and_those_from_before_our_time_and_the_newest_never() {
        let version = |number: u64, at: i64, state: State| {
            let name = format!("projects/p/secrets/s/versions/{number}");
            SecretVersion::new().set_name(name).set_create_time(Timestamp::clamp(at, 0)).set_state(state)
        };
        let versions = [
            version(6, 2_100, State::Enabled),
            version(5, 2_000, State::Enabled),
            version(4, 1_000, State::Enabled),
            version(3, 500, State::Disabled),
            version(2, 400, State::Destroyed),
            version(1, 0, State::Enabled),
        ];
        let gone =
            |first, keep, overlap| old(&versions, first, keep, overlap).into_iter().filter_map(|v| number(&v.name)).collect::<Vec<_>>();
        assert_eq!(gone(2, 1, 600), [3], "version 4 was replaced just now");
        assert_eq!(gone(2, 1, 100), [3, 4], "version 5 was replaced just now");
        assert_eq!(gone(2, 3, 0), [3]);
        assert_eq!(gone(5, 1, 0), [5]);
        assert_eq!(gone(1, 1, 0), [1, 3, 4, 5]);
        let waiting = [version(2, 900, State::Enabled), version(1, 0, State::Disabled).set_scheduled_destroy_time(Timestamp::clamp(99, 0))];
        assert!(old(&waiting, 1, 1, 0).is_empty(), "its destruction is on its way");
    }
}
