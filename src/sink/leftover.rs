//! What a target leaves behind at a place, named so that it can be found again without the schedule that wrote it, and
//! taken back: the records keep this while a deletion is owed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aws::AwsSpec;
use super::file::FileSpec;
use super::file::directory::{self, DirectorySpec};
use super::kubernetes::SecretSpec;
use super::vault::VaultSpec;
use crate::cluster::Urgency;
use crate::cluster::marker::Marker;

use super::{Failure, FailureKind, Ours, Place, Removal, SinkSpec, Stores, aws, file, kubernetes, vault};

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
    /// A field of a KV secret in Vault or OpenBao.
    Vault {
        /// Name of the store in the schedule.
        store: String,
        /// Mount of the KV engine.
        mount: String,
        /// Path of the secret below it.
        path: String,
        /// The field.
        key: String,
    },
    /// A secret of AWS Secrets Manager, or a field of it.
    AwsSecretsManager {
        /// Name of the store in the schedule.
        store: String,
        /// Name or ARN of the secret.
        secret_id: String,
        /// The field; the whole secret when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
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

impl Leftover {
    /// What that place is left with. `None` where nothing can be taken back: what a program was handed, and entries
    /// in a kubeconfig that others share.
    pub fn of(place: &Place) -> Option<Self> {
        if place.format.merges() {
            return None;
        }
        Some(match &place.sink {
            SinkSpec::Command(_) => return None,
            SinkSpec::File(spec) => Self::File { path: spec.path.clone(), owner: spec.owner.clone() },
            SinkSpec::Directory(spec) => {
                let FileSpec { path, owner, .. } = spec.files_as.clone();
                Self::Directory { path, files: spec.files.keys().cloned().collect(), owner }
            }
            SinkSpec::Vault(spec) => {
                let VaultSpec { store, mount, path, key, .. } = spec.clone();
                Self::Vault { store, mount, path, key }
            }
            SinkSpec::AwsSecretsManager(spec) => {
                let AwsSpec { store, secret_id, key, .. } = spec.clone();
                Self::AwsSecretsManager { store, secret_id, key }
            }
            SinkSpec::KubernetesSecret(spec) => {
                let SecretSpec { cluster, namespace, name, key, .. } = spec.clone();
                Self::KubernetesSecret { cluster, namespace, name, key }
            }
        })
    }

    /// The sink that wrote it, as far as it matters here; none wrote a marker.
    pub fn sink(&self) -> Option<SinkSpec> {
        Some(match self.clone() {
            Self::Marker { .. } => return None,
            Self::File { path, owner } => SinkSpec::File(FileSpec { path, owner, ..FileSpec::default() }),
            Self::Directory { path, files, owner } => SinkSpec::Directory(DirectorySpec {
                files_as: FileSpec { path, owner, ..FileSpec::default() },
                files: files.into_iter().map(|name| (name, crate::token::render::FilePart::Namespace)).collect(),
            }),
            Self::Vault { store, mount, path, key } => SinkSpec::Vault(VaultSpec { store, mount, path, key, ..VaultSpec::default() }),
            Self::AwsSecretsManager { store, secret_id, key } => {
                SinkSpec::AwsSecretsManager(AwsSpec { store, secret_id, key, ..AwsSpec::default() })
            }
            Self::KubernetesSecret { cluster, namespace, name, key } => {
                SinkSpec::KubernetesSecret(SecretSpec { cluster, namespace, name, key, adopt: false })
            }
        })
    }

    /// Makes one attempt to take it back, where what stands there is ours.
    ///
    /// # Errors
    /// [`Failure`], classified by the sink itself.
    pub async fn remove(&self, ours: Ours<'_>, stores: &Stores, timeout: Duration) -> Result<Removal, Failure> {
        let Some(sink) = self.sink() else { return self.unmark(stores).await };
        let attempt = async {
            match &sink {
                SinkSpec::File(spec) => file::remove(spec, ours, timeout).await,
                SinkSpec::Directory(spec) => directory::remove(spec, ours, timeout).await,
                SinkSpec::Vault(spec) => vault::remove(spec, ours, stores, timeout).await,
                SinkSpec::AwsSecretsManager(spec) => aws::remove(spec, ours, stores, timeout).await,
                SinkSpec::KubernetesSecret(spec) => kubernetes::remove(spec, ours, stores, timeout).await,
                SinkSpec::Command(_) => Ok(Removal::Left),
            }
        };
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
