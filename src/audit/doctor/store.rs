//! Stores: whether they answer, let us log in, and let us read what we are to write.

use futures_util::StreamExt;

use super::{ABREAST, Finding, Findings, WITHIN};
use crate::daemon::scene::Scene;
use crate::schedule::Target;
use crate::sink::{FailureKind, Place, SinkSpec, held};

pub(super) async fn examine(scene: &Scene) -> Vec<Finding> {
    let looks = scene.plan.targets.iter().flat_map(|target| {
        let places = target.places();
        let elsewhere = places.filter(|place| !matches!(place.sink, SinkSpec::File(_) | SinkSpec::Directory(_)));
        elsewhere.map(move |place| look(scene, target, place))
    });
    let all: Vec<Vec<Finding>> = futures_util::stream::iter(looks).buffered(ABREAST).collect().await;
    let mut findings: Vec<Finding> = all.into_iter().flatten().collect();
    for name in scene.plan.stores.keys() {
        let used = scene.plan.targets.iter().flat_map(|target| target.places()).any(|place| place.sink.store() == Some(name));
        if !used {
            let mut found = Findings::about(format!("store {name}"));
            found.warn("used", "no target delivers to it", "remove it, or deliver to it");
            findings.extend(found.list);
        }
    }
    findings
}

async fn look(scene: &Scene, target: &Target, place: &Place) -> Vec<Finding> {
    let mut found = Findings::about(match (place.sink.store(), place.sink.cluster()) {
        (Some(store), _) => format!("store {store}"),
        (None, Some(cluster)) => format!("cluster {cluster}"),
        (None, None) => format!("target {}", target.name),
    });
    let at = format!("{} of target {}", place.sink.place(), target.name);
    if let SinkSpec::Command(spec) = &place.sink {
        let program = spec.command.first().map(String::as_str).unwrap_or_default();
        if is_program(program) {
            found.good("program", format!("{program} is there"));
        } else {
            found.bad("program", format!("{program} is not there, or may not be run"), "install it, or write its path");
        }
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
                FailureKind::Refused => "mend the login or its policy: tokenferry rbac --for vault|aws prints what it needs",
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

fn is_program(program: &str) -> bool {
    let runs = |path: &std::path::Path| {
        path.is_file() && rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS).is_ok()
    };
    if program.contains('/') {
        return runs(std::path::Path::new(program));
    }
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| runs(&folder.join(program))))
}
