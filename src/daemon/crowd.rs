//! How many rotations stand in memory at once: of targets that wait for the same cluster, stores and file systems only so
//! many. A rotation is large once its token is minted, and a hundred thousand may be due together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::parts;
use crate::schedule::Target;

/// So many keep the widest API server and the slowest disk busy.
const WIDTH: usize = 1024;

/// Rotations by what they wait for: what hangs there holds up no others.
#[derive(Default)]
pub struct Crowds(Mutex<HashMap<String, Arc<Semaphore>>>);

/// The right to be one of them.
pub struct Pass {
    _permit: OwnedSemaphorePermit,
}

impl Crowds {
    /// The crowd that a target's rotation is one of.
    pub fn of(&self, target: &Target) -> Crowd {
        let key = std::iter::once(target.cluster.to_string()).chain(parts::grounds(target)).collect::<Vec<_>>().join("\n");
        let mut crowds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Crowd(Arc::clone(crowds.entry(key).or_insert_with(|| Arc::new(Semaphore::new(WIDTH)))))
    }
}

/// Rotations that wait for the same.
pub struct Crowd(Arc<Semaphore>);

impl Crowd {
    /// A pass, where there is room.
    pub fn try_enter(&self) -> Option<Pass> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(|permit| Pass { _permit: permit })
    }

    /// A pass, as soon as there is room.
    pub async fn enter(&self) -> Pass {
        Pass { _permit: Arc::clone(&self.0).acquire_owned().await.expect("nobody closes it") }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::{Sources, plan};

    #[tokio::test]
    async fn a_crowd_is_as_large_as_it_may_be_and_holds_up_no_other_one() {
        let text = "version: 1\nclusters: {c: {embedded: {}}, d: {embedded: {}}}\ndefaults: {serviceAccount: a/b, duration: 1h}\ntargets:\n\
            - {name: a, cluster: c, deliver: [{file: {path: /proc/a}}]}\n- {name: b, cluster: c, deliver: [{file: {path: /proc/b}}]}\n\
            - {name: other, cluster: d, deliver: [{file: {path: /proc/other}}]}\n\
            - {name: two, cluster: c, deliver: [{file: {path: /proc/two}}, {command: {command: [/bin/x]}}]}\n";
        let sources = Sources { path: "/etc/s.yaml".into(), text: text.into(), includes: Vec::new() };
        let plan = plan(&sources, &BTreeMap::new()).unwrap_or_else(|problems| panic!("{}", problems[0]));
        let crowds = Crowds::default();
        let of = |name: &str| crowds.of(plan.target(name).unwrap());
        let mut passes: Vec<Pass> = std::iter::from_fn(|| of("a").try_enter()).collect();
        assert_eq!(passes.len(), WIDTH);
        assert!(of("b").try_enter().is_none() && of("other").try_enter().is_some() && of("two").try_enter().is_some());
        passes.pop();
        of("b").enter().await;
    }
}
