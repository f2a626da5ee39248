//! What Prometheus is told. Counters are kept by the loop; everything else is read off the status at each request.
//! No label ever holds an error text.

mod fleet;
mod unasked;

use std::collections::HashMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::rotation::Finished;
use super::scene::Scene;
use super::status::Status;
use super::step::Standing;
use crate::record::word;
use crate::schedule::own;

/// Bounds in seconds, from a call on the same host to one that was given up.
const SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rotation {
    result: String,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Delivery {
    sink: String,
    outcome: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sink {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    cluster: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    kind: &'static str,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfTarget {
    target: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Trouble {
    target: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Info {
    target: String,
    cluster: String,
    namespace: String,
    service_account: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

fn histogram() -> Histogram {
    Histogram::new(SECONDS)
}

/// Counts since the start.
#[derive(Clone)]
pub struct Counters {
    rotations: Family<Rotation, Counter>,
    attempts: Family<Delivery, Counter>,
    mint: Family<Cluster, Histogram, fn() -> Histogram>,
    delivery: Family<Sink, Histogram, fn() -> Histogram>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            rotations: Family::default(),
            attempts: Family::default(),
            mint: Family::new_with_constructor(histogram),
            delivery: Family::new_with_constructor(histogram),
        }
    }
}

impl Counters {
    /// Counts one rotation.
    pub fn count(&self, finished: &Finished) {
        let line = &finished.line;
        let reason = line.reason.map(word).unwrap_or_default();
        self.rotations.get_or_create(&Rotation { result: word(line.kind), reason }).inc();
        for sink in &line.sinks {
            let labels = Delivery { sink: sink.sink.clone(), outcome: word(sink.outcome) };
            self.attempts.get_or_create(&labels).inc_by(u64::from(sink.attempts.max(1)));
        }
        if let (Some(took), Some(cluster)) = (finished.mint_took, &line.cluster) {
            self.mint.get_or_create(&Cluster { cluster: cluster.clone() }).observe(took.as_secs_f64());
        }
        for (sink, took) in &finished.places_took {
            self.observe(sink, *took);
        }
    }

    /// Notes how long a delivery took.
    pub fn observe(&self, sink: &str, took: Duration) {
        self.delivery.get_or_create(&Sink { sink: sink.to_owned() }).observe(took.as_secs_f64());
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// Where the text cannot be put together, which the encoder alone knows.
    pub fn text(&self, status: &Status, scene: &Scene) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("tokenferry");
        registry.register("rotations", "Rotations that ended, by their record and reason", self.rotations.clone());
        registry.register("delivery_attempts", "Attempts at places, by sink and outcome", self.attempts.clone());
        registry.register("mint_duration_seconds", "How long the API server took to mint", self.mint.clone());
        registry.register("delivery_duration_seconds", "How long places took, tries and pauses included", self.delivery.clone());
        garbled(&mut registry, scene);
        states(&mut registry, status);
        targets(&mut registry, status);
        troubles(&mut registry, status, scene);
        unasked::register(&mut registry, status);
        fleet::register(&mut registry, status);
        if let Some(daemon) = &status.daemon {
            let lost = Counter::<u64>::default();
            lost.inc_by(daemon.records.lost);
            registry.register("records_lost", "Records that could not be written and did not fit into memory", lost);
            let writable = Gauge::<i64>::default();
            writable.set(i64::from(daemon.records.error.is_none()));
            registry.register("records_writable", "1 where records can be written", writable);
            let since = Gauge::<i64>::default();
            since.set(daemon.since.as_second());
            registry.register("start_timestamp_seconds", "When the daemon started", since);
            let accepted = Gauge::<i64>::default();
            accepted.set(i64::from(daemon.refused.is_none()));
            registry.register("schedule_last_reload_successful", "1 where the schedule file is in force, 0 where it is refused", accepted);
        }
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "The version", build);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Counted since the server came into the schedule.
fn garbled(registry: &mut Registry, scene: &Scene) {
    let family = Family::<Server, Counter>::default();
    let clusters = scene.clusters.iter().map(|c| ("cluster", c.upstream()));
    for (kind, upstream) in clusters.chain(scene.stores.upstreams().map(|u| ("store", u))) {
        family.get_or_create(&Server { kind, name: upstream.name().to_owned() }).inc_by(upstream.garbled());
    }
    registry.register("retry_after_ignored", "Answers whose Retry-After made no sense and was not obeyed", family);
}

fn states(registry: &mut Registry, status: &Status) {
    let family = Family::<InState, Gauge>::default();
    let known = ["new", "fresh", "due", "rotating", "retrying", "atRisk", "expired", "rejected", "suspended"];
    let mut counts: HashMap<String, i64> = known.iter().map(|s| ((*s).to_owned(), 0)).collect();
    let mut owed = 0;
    for target in &status.targets {
        *counts.entry(word(target.state)).or_default() += 1;
        owed += target.sinks.iter().filter(|s| s.outcome.is_some_and(crate::record::Outcome::is_owed)).count();
    }
    for (state, count) in counts {
        family.get_or_create(&InState { state }).set(count);
    }
    registry.register("targets", "Targets by how they stand", family);
    let deliveries = Gauge::<i64>::default();
    deliveries.set(i64::try_from(owed).unwrap_or(i64::MAX));
    registry.register("deliveries_owed", "Places that wait for a token", deliveries);
}

fn targets(registry: &mut Registry, status: &Status) {
    let info = Family::<Info, Gauge>::default();
    let times: [Family<OfTarget, Gauge>; 4] = std::array::from_fn(|_| Family::default());
    for target in &status.targets {
        let (namespace, service_account) = target.service_account.split_once('/').unwrap_or_default();
        let labels = Info {
            target: target.name.clone(),
            cluster: target.cluster.clone(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        };
        info.get_or_create(&labels).set(1);
        for (family, time) in times.iter().zip([target.issued_at, target.expires_at, target.next_rotation, target.proven_at]) {
            if let Some(time) = time {
                family.get_or_create(&OfTarget { target: target.name.clone() }).set(time.as_second());
            }
        }
    }
    let own: [Family<Cluster, Gauge>; 2] = std::array::from_fn(|_| Family::default());
    for target in &status.targets {
        let Some(cluster) = own::cluster_of(&target.name) else { continue };
        for (family, time) in own.iter().zip([target.issued_at, target.expires_at]) {
            if let Some(time) = time {
                family.get_or_create(&Cluster { cluster: cluster.to_owned() }).set(time.as_second());
            }
        }
    }
    let [issued, ends] = own;
    registry.register("own_credential_issued_timestamp_seconds", "When the daemon's own credential for a cluster was issued", issued);
    registry.register("own_credential_expiry_timestamp_seconds", "When it ends", ends);
    registry.register("target_info", "What a target is", info);
    let helps = [
        ("target_issued_timestamp_seconds", "When the token in use was issued"),
        ("target_expiry_timestamp_seconds", "When it ends"),
        ("target_next_rotation_timestamp_seconds", "When it is replaced"),
        ("target_proven_timestamp_seconds", "When it was last proven good"),
    ];
    for ((name, help), family) in helps.into_iter().zip(times) {
        registry.register(name, help, family);
    }
}

/// What only targets in trouble, or with a limit, have: a fleet that is well has none of it.
fn troubles(registry: &mut Registry, status: &Status, scene: &Scene) {
    let trouble = Family::<Trouble, Gauge>::default();
    let (failures, most) = (Family::<OfTarget, Gauge>::default(), Family::<OfTarget, Gauge>::default());
    for target in &status.targets {
        let of = OfTarget { target: target.name.clone() };
        if target.state.is_bad() || target.state == Standing::Retrying {
            trouble.get_or_create(&Trouble { target: target.name.clone(), state: word(target.state) }).set(1);
        }
        if target.failures > 0 {
            failures.get_or_create(&of).set(i64::try_from(target.failures).unwrap_or(i64::MAX));
        }
        if let Some(age) = scene.plan.target(&target.name).and_then(|target| target.compliance.max_age) {
            most.get_or_create(&of).set(i64::try_from(age).unwrap_or(i64::MAX));
        }
    }
    registry.register("target_trouble", "1 for each target that is not well, with how it stands", trouble);
    registry.register("target_failures", "Rotations that failed since the last one that did not", failures);
    registry.register("target_max_age_seconds", "Oldest that its token may get, by its compliance in the schedule", most);
}
