//! Stores: whether they answer, let us log in, and let us read what we are to write.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use super::{Finding, Findings, WITHIN, abreast};
use crate::daemon::scene::Scene;
use crate::schedule::Target;
use crate::sink::{FailureKind, Place, SinkSpec, held};

pub(super) async fn examine(scene: &Scene) -> Vec<Finding> {
    let mut looks: Vec<BoxFuture<'_, Vec<Finding>>> = Vec::new();
    for target in &scene.plan.targets {
        for place in target.places().filter(|place| !matches!(place.sink, SinkSpec::File(_) | SinkSpec::Directory(_))) {
            looks.push(Box::pin(look(scene, target, place)));
        }
    }
    let mut findings = abreast(looks).await;
    for name in scene.plan.stores.keys() {
        let used = scene.plan.targets.iter().flat_map(|target| target.places()).any(|place| place.sink.store() == Some(name));
        if !used {
            let mut found = Findings::about(format!("store {name}"));
            found.warn("used", "no target delivers to it", "remove it, or deliver to it");
            findings.extend(found.list);
        }
    }
    findings.extend(untried(scene));
    findings
}

/// Sinks in use of which nobody has seen yet how the real service takes them.
fn untried(scene: &Scene) -> Vec<Finding> {
    let sinks = scene.plan.targets.iter().flat_map(|target| target.places()).map(|place| &place.sink);
    let known: BTreeMap<&str, &str> = sinks.filter_map(|sink| Some((sink.kind(), sink.kind_of().untried()?))).collect();
    let say = |(kind, stand_in): (&str, &str)| {
        let mut found = Findings::about(format!("sink {kind}"));
        let what = format!("it was tried against {stand_in}, never against the real service");
        found.unknown("tried", what, "deliver once and read the place yourself before you rely on it");
        found.list
    };
    known.into_iter().flat_map(say).collect()
}

/// Whom a finding about a place is about.
pub(super) fn subject(target: &Target, place: &Place) -> String {
    match (place.sink.store(), place.sink.cluster()) {
        (Some(store), _) => format!("store {store}"),
        (None, Some(cluster)) => format!("cluster {cluster}"),
        (None, None) => format!("target {}", target.name),
    }
}

async fn look(scene: &Scene, target: &Target, place: &Place) -> Vec<Finding> {
    let mut found = Findings::about(subject(target, place));
    let at = format!("{} of target {}", place.sink.place(), target.name);
    if let SinkSpec::Command(spec) = &place.sink {
        match spec.look() {
            Ok(there) => found.good("program", there),
            Err(failure) => found.bad("program", failure.message, "install it, or write its path"),
        }
        return found.list;
    }
    if !place.sink.is_readable() {
        found.unknown("readable", format!("{at}: what it holds cannot be read back"), "say how, where the sink has a key for it");
        return found.list;
    }
    let read = tokio::time::timeout(WITHIN, held(&place.sink, &scene.stores, WITHIN)).await;
    match read {
        Ok(Ok(Some(_))) => found.good("readable", format!("{at}: it holds a value that we may read")),
        Ok(Ok(None)) => found.good("readable", format!("{at}: it answers, and holds nothing yet")),
        Ok(Err(failure)) => {
            let remedy = match failure.kind {
                FailureKind::Unavailable => "mend the address, the network or the store",
                FailureKind::Throttled => "ask less often, or raise the store's quota",
                FailureKind::Refused => "mend the login or its policy: tokenferry rbac --for SYSTEM prints what it needs",
                _ => "see what answers there",
            };
            found.bad("readable", format!("{at}: {}", failure.message), remedy);
        }
        Err(_) => {
            found.bad("readable", format!("{at}: no answer within {} s", WITHIN.as_secs()), "mend the address, the network or the store")
        }
    }
    found.list
}
