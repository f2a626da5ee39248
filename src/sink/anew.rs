//! A client with a login, which several places of a store share: kept until it is refused, then made anew once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::{Failure, FailureKind};

/// Does it with the client that `login` gives, and once more with one made anew where `is_refused` says so of its login.
///
/// # Errors
/// What `login` fails with.
pub(super) async fn attempt<C, T, V, L, F>(
    kept: &Mutex<Option<Arc<C>>>,
    login: impl Fn() -> L,
    attempt: impl Fn(Arc<C>) -> F,
    is_refused: impl Fn(&V) -> bool,
) -> Result<Result<T, V>, Failure>
where
    L: Future<Output = Result<Arc<C>, Failure>>,
    F: Future<Output = Result<T, V>>,
{
    let client = login().await?;
    match attempt(Arc::clone(&client)).await {
        Err(verdict) if is_refused(&verdict) => {
            forget(kept, &client).await;
            Ok(attempt(login().await?).await)
        }
        outcome => Ok(outcome),
    }
}

/// Another one may have been made meanwhile, and stays.
async fn forget<C>(kept: &Mutex<Option<Arc<C>>>, refused: &Arc<C>) {
    let mut kept = kept.lock().await;
    if kept.as_ref().is_some_and(|client| Arc::ptr_eq(client, refused)) {
        *kept = None;
    }
}

/// Waits for it that long. The clients of clouds log addresses and answers at their finer levels; here nobody listens.
///
/// # Errors
/// Its own; `Unavailable`, as `failure` words it, where it takes longer.
pub(super) async fn quietly<T>(
    limit: Duration,
    whole: impl Future<Output = Result<T, Failure>>,
    failure: impl FnOnce(FailureKind, String) -> Failure,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, whole).with_subscriber(NoSubscriber::default()).await {
        Ok(outcome) => outcome,
        Err(_) => Err(failure(FailureKind::Unavailable, format!("no answer within {} s", limit.as_secs_f32()))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// How often somebody logged in and tried, where the first `bad` logins are refused, and the end of it.
    async fn tried(bad: u32) -> (u32, u32, Result<u32, &'static str>) {
        let (kept, logins, tries) = (Mutex::new(None::<Arc<u32>>), AtomicU32::new(0), AtomicU32::new(0));
        let login = || async {
            let mut kept = kept.lock().await;
            let client = kept.get_or_insert_with(|| Arc::new(logins.fetch_add(1, Ordering::Relaxed) + 1));
            Ok(Arc::clone(client))
        };
        let put = |client: Arc<u32>| {
            tries.fetch_add(1, Ordering::Relaxed);
            async move { if *client > bad { Ok(*client) } else { Err("401") } }
        };
        let end = attempt(&kept, login, put, |why| *why == "401").await.unwrap();
        (logins.load(Ordering::Relaxed), tries.load(Ordering::Relaxed), end)
    }

    #[tokio::test]
    async fn a_login_that_is_refused_is_made_anew_once() {
        assert_eq!(tried(0).await, (1, 1, Ok(1)));
        assert_eq!(tried(1).await, (2, 2, Ok(2)));
        assert_eq!(tried(9).await, (2, 2, Err("401")));
    }

    #[tokio::test]
    async fn a_client_that_somebody_else_made_anew_meanwhile_stays() {
        let (old, new) = (Arc::new(1), Arc::new(2));
        let kept = Mutex::new(Some(Arc::clone(&new)));
        forget(&kept, &old).await;
        assert!(kept.lock().await.as_ref().is_some_and(|client| Arc::ptr_eq(client, &new)));
        forget(&kept, &new).await;
        assert!(kept.lock().await.is_none());
    }
}
