//! What a target leaves behind at a place, named so that it can be found again without the schedule that wrote it, and
//! taken back: the records keep this while a deletion is owed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::FileSpec;
use super::file::directory::DirectorySpec;
use super::kinds::{Trace, kinds};
use super::kubernetes::SecretSpec;
use crate::cluster::Urgency;
use crate::cluster::marker::Marker;

use super::{Failure, FailureKind, Ours, Place, Removal, SinkSpec, Stores, kubernetes};

macro_rules! leftover {
    ($($(#[$doc:meta])* $field:ident, $kind:literal: $variant:ident($spec:ty);)*) => {
        /// One place, with what it takes to find our part of it.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
        pub enum Leftover {
            /// A file on this host.
            File {
                /// Its path.
                path: PathBuf,
                /// User name or id that it belongs to, where it is not ours.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                owner: Option<String>,
            },
            /// Several files on this host, switched as one.
            Directory {
                /// Their folder.
                path: PathBuf,
                /// Their names.
                files: BTreeSet<String>,
                /// User name or id that they belong to, where it is not ours.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                owner: Option<String>,
            },
            $($(#[$doc])* $variant($spec),)*
            /// A key of a Secret in a cluster.
            KubernetesSecret {
                /// Name of the cluster in the schedule.
                cluster: String,
                /// Its namespace.
                namespace: String,
                /// Its name.
                name: String,
                /// The key.
                key: String,
            },
            /// What the tokens of a revocable target are bound to: they die with it.
            Marker {
                /// Name of the cluster in the schedule.
                cluster: String,
                /// Its namespace.
                namespace: String,
                /// Its name.
                name: String,
                /// Its UID: another object of that name is somebody else's.
                uid: String,
            },
        }

        /// What a sink of the list leaves.
        fn left(sink: &SinkSpec) -> Option<Leftover> {
            match sink {
                $(SinkSpec::$variant(spec) => spec.trace().map(Leftover::$variant),)*
                _ => None,
            }
        }

        /// The sink of the list that left it.
        fn by(leftover: Leftover) -> Option<SinkSpec> {
            match leftover {
                $(Leftover::$variant(spec) => Some(SinkSpec::$variant(Box::new(spec))),)*
                _ => None,
            }
        }
    };
}
kinds!(leftover);

impl Leftover {
    /// What that place is left with. `None` where nothing can be taken back: what a program was handed, and entries
    /// in a kubeconfig that others share.
    pub fn of(place: &Place) -> Option<Self> {
        if place.format.merges() {
            return None;
        }
        Some(match &place.sink {
            SinkSpec::File(spec) => Self::File { path: spec.path.clone(), owner: spec.owner.clone() },
            SinkSpec::Directory(spec) => {
                let FileSpec { path, owner, .. } = spec.files_as.clone();
                Self::Directory { path, files: spec.files.keys().cloned().collect(), owner }
            }
            SinkSpec::KubernetesSecret(spec) => {
                let SecretSpec { cluster, namespace, name, key, .. } = (**spec).clone();
                Self::KubernetesSecret { cluster, namespace, name, key }
            }
            SinkSpec::Command(_) => return None,
            listed => return left(listed),
        })
    }

    /// The sink that wrote it, as far as it matters here; none wrote a marker.
    pub fn sink(&self) -> Option<SinkSpec> {
        Some(match self.clone() {
            Self::Marker { .. } => return None,
            Self::File { path, owner } => SinkSpec::File(FileSpec { path, owner, ..FileSpec::default() }),
            Self::Directory { path, files, owner } => SinkSpec::Directory(Box::new(DirectorySpec {
                files_as: FileSpec { path, owner, ..FileSpec::default() },
                files: files.into_iter().map(|name| (name, crate::token::render::FilePart::Namespace)).collect(),
            })),
            Self::KubernetesSecret { cluster, namespace, name, key } => {
                SinkSpec::KubernetesSecret(Box::new(SecretSpec { cluster, namespace, name, key, adopt: false }))
            }
            listed => return by(listed),
        })
    }

    /// Makes one attempt to take it back, where what stands there is ours.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    pub async fn remove(&self, ours: Ours<'_>, stores: &Stores, timeout: Duration) -> Result<Removal, Failure> {
        let Some(sink) = self.sink() else { return self.unmark(stores).await };
        let attempt = sink.kind_of().remove(ours, stores, timeout);
        let Some(upstream) = sink.upstream(stores) else { return attempt.await };
        // What goes can wait for what is to be delivered.
        let permit = upstream?.enter(Urgency { deadline: i64::MAX, retry: false }).await;
        let result = attempt.await;
        permit.end(super::delivery::tries::verdict(result.as_ref().err()));
        result
    }

    /// Deletes the marker: whatever became of its tokens, nobody uses them any more.
    async fn unmark(&self, stores: &Stores) -> Result<Removal, Failure> {
        let Self::Marker { cluster, namespace, name, uid } = self else { return Ok(Removal::Left) };
        let unknown = || Failure::new(FailureKind::Refused, format!("the schedule has no cluster `{cluster}`"));
        let issuer = stores.cluster(cluster).ok_or_else(unknown)?;
        let marker = Marker { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() };
        let gone = issuer.unmark(&marker, Urgency { deadline: i64::MAX, retry: false }).await;
        gone.map(|()| Removal::Gone).map_err(|refusal| {
            let message = format!("marker {namespace}/{name} of cluster {cluster}: {}", refusal.message);
            Failure { retry_after: refusal.retry_after, ..Failure::new(kubernetes::kind(refusal.trouble), message) }
        })
    }
}
