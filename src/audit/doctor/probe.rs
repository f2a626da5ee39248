//! Rights to write, tried: each place as a rehearsal tries it, with a token that is none. Files are made beside the place
//! and removed again; Vault is asked what our login may do; an API server judges an apply that it does not keep; AWS
//! tells nothing before it is written to.

use futures_util::future::BoxFuture;

use super::{Finding, Findings, abreast};
use crate::daemon::rehearsal;
use crate::daemon::rotation::Held;
use crate::daemon::scene::Scene;
use crate::schedule::Target;
use crate::sink::Place;
use crate::token::{Claims, Token};

/// Header, claims and signature of nothing.
const NO_TOKEN: &str = "e30.e30.e30";

pub(super) async fn examine(scene: &Scene) -> Vec<Finding> {
    let mut all: Vec<BoxFuture<'_, Vec<Finding>>> = Vec::with_capacity(scene.plan.targets.len());
    for target in &scene.plan.targets {
        all.push(Box::pin(look(scene, target)));
    }
    abreast(all).await
}

async fn look(scene: &Scene, target: &Target) -> Vec<Finding> {
    let token = Token::new(NO_TOKEN.to_owned());
    let Ok(claims) = Claims::of(NO_TOKEN) else { return Vec::new() };
    let held = Held { token, claims, generation: 0 };
    let tried = rehearsal::places(target, scene, &held).await;
    let of = |(place, line): (&Place, crate::record::SinkLine)| {
        let mut found = Findings::about(super::store::subject(target, place));
        let at = format!("{} of target {}", line.place, target.name);
        match (line.tried, line.error) {
            (Some(tried), _) => found.good("writable", format!("{at}: {tried}")),
            (None, why) => {
                let why = why.unwrap_or_default();
                found.bad("writable", format!("{at}: {why}"), "mend it as it says; tokenferry rbac prints the rights that are needed");
            }
        }
        found.list
    };
    target.places().zip(tried).flat_map(of).collect()
}
