//! Series of what the daemon tells unasked, and of tokens that others mint.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::daemon::monitor::Verdict;
use crate::daemon::status::outward::Outcome;
use crate::daemon::status::{DaemonStatus, Status};
use crate::record::word;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Recipient {
    kind: &'static str,
    to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFile {
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Trouble {
    path: String,
    state: String,
}

/// Adds them to the registry; those of keys that the schedule has not are left out.
pub(super) fn register(registry: &mut Registry, status: &Status) {
    if let Some(daemon) = &status.daemon {
        alerts(registry, daemon);
        outcome(registry, "heartbeat", "Heartbeats", daemon.heartbeat.as_ref());
        outcome(registry, "textfile", "Texts for node_exporter", daemon.textfile.as_ref());
    }
    if !status.monitored.is_empty() {
        monitored(registry, status);
    }
}

fn alerts(registry: &mut Registry, daemon: &DaemonStatus) {
    if daemon.alerts.is_empty() {
        return;
    }
    let (told, failed) = (Family::<Recipient, Counter>::default(), Family::<Recipient, Counter>::default());
    for alert in &daemon.alerts {
        let labels = Recipient { kind: alert.alert, to: alert.to.clone() };
        told.get_or_create(&labels).inc_by(alert.told);
        failed.get_or_create(&labels).inc_by(alert.failed);
    }
    registry.register("alerts_told", "Messages of alerts that arrived", told);
    registry.register("alerts_failed", "Messages of alerts that did not arrive", failed);
}

fn outcome(registry: &mut Registry, name: &str, what: &str, outcome: Option<&Outcome>) {
    let Some(Outcome { tally, .. }) = outcome else { return };
    let (done, failed, at) = (Counter::<u64>::default(), Counter::<u64>::default(), Gauge::<i64>::default());
    done.inc_by(tally.done);
    failed.inc_by(tally.failed);
    at.set(tally.done_at.map_or(0, jiff::Timestamp::as_second));
    registry.register(format!("{name}_done"), format!("{what} that were taken"), done);
    registry.register(format!("{name}_failed"), format!("{what} that were not"), failed);
    registry.register(format!("{name}_done_timestamp_seconds"), "When the last one was taken; 0 before the first", at);
}

fn monitored(registry: &mut Registry, status: &Status) {
    let (counts, trouble) = (Family::<InState, Gauge>::default(), Family::<Trouble, Gauge>::default());
    let times: [Family<OfFile, Gauge>; 3] = std::array::from_fn(|_| Family::default());
    for state in Verdict::ALL {
        counts.get_or_create(&InState { state: word(state) }).set(0);
    }
    for file in &status.monitored {
        let path = file.path.display().to_string();
        counts.get_or_create(&InState { state: word(file.state) }).inc();
        if file.state != Verdict::Fresh {
            trouble.get_or_create(&Trouble { path: path.clone(), state: word(file.state) }).set(1);
        }
        let seconds = |time: Option<jiff::Timestamp>| time.map(jiff::Timestamp::as_second);
        let age = file.max_age.map(|age| i64::try_from(age).unwrap_or(i64::MAX));
        for (family, value) in times.iter().zip([seconds(file.issued_at), seconds(file.expires_at), age]) {
            if let Some(value) = value {
                family.get_or_create(&OfFile { path: path.clone() }).set(value);
            }
        }
    }
    registry.register("monitored_tokens", "Tokens of others by how they stand", counts);
    registry.register("monitored_trouble", "1 for each of them that is not well, with how it stands", trouble);
    let helps = [
        ("monitored_issued_timestamp_seconds", "When the token there was issued"),
        ("monitored_expiry_timestamp_seconds", "When it ends"),
        ("monitored_max_age_seconds", "Oldest that it may get, by the schedule"),
    ];
    for ((name, help), family) in helps.into_iter().zip(times) {
        registry.register(name, help, family);
    }
}
