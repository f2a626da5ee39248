//! Markers of single commands: each has a name of its own.

use super::refused::failure;
use super::{Marker, Purpose, marker};
use crate::cluster::{Cluster, MintFailure, MintFailureKind, Refusal, Trouble, Urgency, Verdict};

impl Cluster {
    /// The marker of that name and purpose, where it stands.
    ///
    /// # Errors
    /// [`Refusal`], classified.
    pub async fn marker(&self, purpose: &Purpose<'_>, name: &str) -> Result<Option<Marker>, Refusal> {
        let turn = self.turn(Urgency { deadline: i64::MAX, retry: false }).await;
        let found = self.secret(purpose.namespace, name).await;
        turn.end(found.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
        let ours = found?.filter(|secret| secret.metadata.is_marker_of(purpose));
        Ok(ours.map(|secret| marker(purpose, name, &secret.metadata.uid)))
    }

    /// A marker of that name for a single command.
    ///
    /// # Errors
    /// [`MintFailure`], classified.
    pub async fn mark_once(&self, purpose: &Purpose<'_>, name: &str) -> Result<Marker, MintFailure> {
        let turn = self.turn(Urgency { deadline: i64::MIN, retry: false }).await;
        let made = self.make(purpose, name).await;
        turn.end(made.as_ref().map_or_else(Refusal::verdict, |_| Verdict::Healthy));
        match made {
            Ok(Some(marker)) => Ok(marker),
            Ok(None) => {
                Err(MintFailure::new(MintFailureKind::Unavailable, format!("a Secret {}/{name} stands already", purpose.namespace)))
            }
            Err(refusal) if refusal.trouble == Trouble::Forbidden => Err(MintFailure::new(
                MintFailureKind::Refused,
                format!(
                    "403: we may not make the marker Secret {}/{name}: grant create, patch and delete on secrets in namespace {} ({})",
                    purpose.namespace, purpose.namespace, refusal.message
                ),
            )),
            Err(refusal) => Err(failure(purpose, &refusal)),
        }
    }
}
