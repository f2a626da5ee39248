//! Writes whose end nobody knows. AWS Secrets Manager has no check-and-set: a put that was given up, and is still on
//! its way, would land over a newer token. But a `ClientRequestToken` names one version for good. So before anything
//! newer is written, the name of a doubtful put is used up by a version that nobody reads: the put that comes after
//! it is refused (`ResourceExistsException`), and one that came before it lies under what is written next.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_sdk_secretsmanager::error::SdkError;

use crate::sink::aws::client::Client;
use crate::sink::aws::refusal::{self, Verdict};

/// The staging label of such a version: never `AWSCURRENT`.
const STAGE: &str = "TOKENFERRY_SUPERSEDED";
/// Its text.
const TEXT: &str = "superseded before it arrived";

/// Puts of which no answer has come, by secret: their request tokens.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<String, Vec<String>>>);

impl Doubts {
    /// Notes that a put is on its way.
    pub(super) fn sent(&self, secret_id: &str, token: &str) {
        let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = doubts.entry(secret_id.to_owned()).or_default();
        if !tokens.iter().any(|known| known == token) {
            tokens.push(token.to_owned());
        }
    }

    /// Notes that AWS has decided on it.
    pub(super) fn decided(&self, secret_id: &str, token: &str) {
        let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokens) = doubts.get_mut(secret_id) {
            tokens.retain(|known| known != token);
            if tokens.is_empty() {
                doubts.remove(secret_id);
            }
        }
    }

    /// Makes sure that no doubtful put other than `token` can change the secret from now on.
    ///
    /// # Errors
    /// Where AWS does not say so: then nothing newer may be written.
    pub(super) async fn fence(&self, client: &Client, secret_id: &str, token: &str) -> Result<(), Verdict> {
        let doubtful = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(secret_id).cloned().unwrap_or_default();
        for old in doubtful.iter().filter(|old| *old != token) {
            let put = client.put_secret_value().secret_id(secret_id).client_request_token(old).version_stages(STAGE).secret_string(TEXT);
            match put.send().await {
                Ok(_) => {}
                // It has landed already, or there is no secret that it could land in.
                Err(SdkError::ServiceError(refused))
                    if refused.err().is_resource_exists_exception() || refused.err().is_resource_not_found_exception() => {}
                Err(error) => {
                    let doing = format!("cannot rule out an earlier write to `{secret_id}`");
                    return Err(refusal::of(&error, &doing, "secretsmanager:PutSecretValue"));
                }
            }
            self.decided(secret_id, old);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(doubts: &Doubts) -> usize {
        doubts.0.lock().unwrap().values().map(Vec::len).sum()
    }

    #[test]
    fn a_put_is_in_doubt_until_it_is_decided_and_leaves_nothing_behind() {
        let doubts = Doubts::default();
        doubts.sent("a", "1");
        doubts.sent("a", "1");
        doubts.sent("a", "2");
        doubts.decided("a", "1");
        assert_eq!(known(&doubts), 1);
        doubts.decided("a", "2");
        doubts.decided("b", "2");
        assert!(doubts.0.lock().unwrap().is_empty());
    }
}
