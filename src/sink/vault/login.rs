//! Our login: taken from a file or asked for, kept in memory, renewed at two thirds of its lease, asked for
//! again when it is lost. One login at a time; everybody else waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use vaultrs::api::AuthInfo;
use vaultrs::error::ClientError;
use zeroize::Zeroizing;

use crate::cluster::awaited::Patience;
use crate::sink::vault::client::{Answer, Request, Wire};
use crate::sink::vault::own::{self, Stamp};
use crate::sink::vault::{AppRoleAuth, JwtAuth, VaultAuth, VaultStore, refusal};
use crate::sink::{Failure, FailureKind};

/// The lease in use, and how the last login failed.
#[derive(Default)]
pub(super) struct State {
    lease: Option<Arc<Lease>>,
    failed: Option<(Instant, Failure)>,
}

/// A Vault token with what is known of its end.
pub(super) struct Lease {
    token: Zeroizing<String>,
    /// The file's stamp, where the token is kept in one.
    stamp: Option<Stamp>,
    since: Instant,
    /// `None`: it does not end.
    lasts: Option<Duration>,
    /// What it lasted when it was new: renewals shorten towards the token's last day.
    lasted: Option<Duration>,
    renewable: bool,
}

/// What is to be done with a lease before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Fresh,
    /// Good, but past two thirds of its time.
    Due,
    Over,
}

fn age(elapsed: Duration, lasts: Option<Duration>) -> Age {
    match lasts {
        None => Age::Fresh,
        Some(lasts) if elapsed >= lasts => Age::Over,
        Some(lasts) if elapsed >= lasts * 2 / 3 => Age::Due,
        Some(_) => Age::Fresh,
    }
}

impl Lease {
    fn granted(auth: AuthInfo, lasted: Option<Duration>) -> Self {
        let lasts = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
        let token = Zeroizing::new(auth.client_token);
        Self { token, stamp: None, since: Instant::now(), lasts, lasted: lasted.or(lasts), renewable: auth.renewable }
    }

    /// A renewal that gives less than half of the first lease: the token's longest life is near.
    fn waning(&self) -> bool {
        matches!((self.lasts, self.lasted), (Some(lasts), Some(lasted)) if lasts < lasted / 2)
    }
}

impl VaultStore {
    /// Sends one request with our login; a login that turns out to be lost is made anew, once.
    ///
    /// # Errors
    /// As for a login, and where there is no whole answer.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let wire = self.wire().await?;
        let lease = self.lease(&wire).await?;
        let answer = self.send(&wire, request, &lease.token).await?;
        if answer.status != 403 {
            return Ok(answer);
        }
        match self.after_refusal(&wire, &lease).await? {
            Some(lease) => self.send(&wire, request, &lease.token).await,
            None => Ok(answer),
        }
    }

    async fn lease(&self, wire: &Wire) -> Result<Arc<Lease>, Failure> {
        let asked = Instant::now();
        let mut state = self.login.lock().await;
        if let VaultAuth::Token(auth) = &self.spec.auth {
            let stamp = own::stamp(&auth.file).await;
            if let Some(lease) = state.lease.as_ref().filter(|lease| stamp.is_some() && lease.stamp == stamp) {
                return Ok(lease.clone());
            }
            return Ok(state.lease.insert(Arc::new(self.kept_in(&auth.file).await?)).clone());
        }
        let Some(lease) = state.lease.clone() else { return self.new_lease(wire, &mut state, asked).await };
        match age(lease.since.elapsed(), lease.lasts) {
            Age::Fresh => Ok(lease),
            Age::Over => self.new_lease(wire, &mut state, asked).await,
            Age::Due => Ok(self.refreshed(wire, &mut state, lease, asked).await),
        }
    }

    /// Renews a good lease, or logs in anew; while neither works the good one is used on.
    async fn refreshed(&self, wire: &Wire, state: &mut State, lease: Arc<Lease>, asked: Instant) -> Arc<Lease> {
        if lease.renewable {
            match self.renewal(wire, &lease).await {
                Ok(renewed) if !renewed.waning() => return state.lease.insert(Arc::new(renewed)).clone(),
                Ok(renewed) => state.lease = Some(Arc::new(renewed)),
                Err(failure) if failure.kind != FailureKind::Refused => return lease,
                Err(_) => {}
            }
        }
        match self.new_lease(wire, state, asked).await {
            Ok(new) => new,
            Err(failure) => {
                tracing::warn!(store = self.name, "{failure}; the login before is used on until it ends");
                state.lease.clone().unwrap_or(lease)
            }
        }
    }

    /// The lease to try again with after a 403, `None` where our login is good and a right is missing.
    async fn after_refusal(&self, wire: &Wire, refused: &Arc<Lease>) -> Result<Option<Arc<Lease>>, Failure> {
        let asked = Instant::now();
        let kept_in_file = matches!(self.spec.auth, VaultAuth::Token(_));
        if !kept_in_file && self.is_good(wire, refused).await? {
            return Ok(None);
        }
        let mut state = self.login.lock().await;
        if let Some(lease) = state.lease.as_ref().filter(|lease| !Arc::ptr_eq(lease, refused)) {
            return Ok(Some(lease.clone()));
        }
        if let VaultAuth::Token(auth) = &self.spec.auth {
            let read = Arc::new(self.kept_in(&auth.file).await?);
            let changed = read.token != refused.token;
            state.lease = Some(read.clone());
            return Ok(changed.then_some(read));
        }
        self.new_lease(wire, &mut state, asked).await.map(Some)
    }

    /// Logs in. A caller that waited while a login failed takes that failure for its own.
    async fn new_lease(&self, wire: &Wire, state: &mut State, asked: Instant) -> Result<Arc<Lease>, Failure> {
        if let Some((when, failure)) = &state.failed
            && *when >= asked
        {
            return Err(failure.clone());
        }
        match self.logged_in(wire).await {
            Ok(lease) => {
                state.failed = None;
                Ok(state.lease.insert(Arc::new(lease)).clone())
            }
            Err(failure) => {
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    async fn kept_in(&self, file: &std::path::Path) -> Result<Lease, Failure> {
        let (token, stamp) = own::secret(file).await.map_err(|e| self.failure(e.kind, e.message))?;
        let since = Instant::now();
        Ok(Lease { token, stamp: Some(stamp), since, lasts: None, lasted: None, renewable: false })
    }

    /// Logs in; where the login's token is one that we keep fresh ourselves, it may be on its way.
    async fn logged_in(&self, wire: &Wire) -> Result<Lease, Failure> {
        let (VaultAuth::Kubernetes(JwtAuth { target: Some(_), token_file, .. })
        | VaultAuth::Jwt(JwtAuth { target: Some(_), token_file, .. })) = &self.spec.auth
        else {
            return self.log_in(wire).await;
        };
        let mut patience = Patience::new(token_file);
        loop {
            if !patience.until_there().await {
                return Err(self.failure(FailureKind::Unavailable, patience.missing()));
            }
            match self.log_in(wire).await {
                Err(failure) if failure.kind == FailureKind::Refused && patience.until_other().await => {}
                other => return other,
            }
        }
    }

    async fn log_in(&self, wire: &Wire) -> Result<Lease, Failure> {
        let client = self.vaultrs(wire, "")?;
        let secret = |file| async move { own::secret(file).await.map(|(text, _)| text).map_err(|e| self.failure(e.kind, e.message)) };
        let (mount, way_out, outcome) = match &self.spec.auth {
            VaultAuth::Token(auth) => return self.kept_in(&auth.file).await,
            VaultAuth::AppRole(AppRoleAuth { mount, role_id, secret_id_file }) => {
                let (mount, id) = (mount.as_deref().unwrap_or("approle"), secret(secret_id_file).await?);
                let call = vaultrs::auth::approle::login(&client, mount, role_id, &id);
                (mount, "check `roleId`, the secret id in `secretIdFile` and `mount`", unlogged(call).await)
            }
            VaultAuth::Kubernetes(JwtAuth { mount, role, token_file, .. }) => {
                let (mount, jwt) = (mount.as_deref().unwrap_or("kubernetes"), secret(token_file).await?);
                let call = vaultrs::auth::kubernetes::login(&client, mount, role, &jwt);
                (mount, "check `role`, which accounts and audiences it takes, the token in `tokenFile` and `mount`", unlogged(call).await)
            }
            VaultAuth::Jwt(JwtAuth { mount, role, token_file, .. }) => {
                let (mount, jwt) = (mount.as_deref().unwrap_or("jwt"), secret(token_file).await?);
                let call = vaultrs::auth::oidc::login(&client, mount, &jwt, Some(role.clone()));
                (mount, "check `role`, which subjects and audiences it takes, the token in `tokenFile` and `mount`", unlogged(call).await)
            }
        };
        let doing = format!("cannot log in at `auth/{mount}`");
        outcome.map(|auth| Lease::granted(auth, None)).map_err(|e| refusal::of_vaultrs(&e, &doing, way_out).into_failure(&self.name))
    }

    async fn renewal(&self, wire: &Wire, lease: &Lease) -> Result<Lease, Failure> {
        let client = self.vaultrs(wire, &lease.token)?;
        let auth = unlogged(vaultrs::token::renew_self(&client, None)).await;
        let refused =
            |e| refusal::of_vaultrs(&e, "cannot renew the login", "its token is gone or may not be renewed").into_failure(&self.name);
        auth.map(|auth| Lease::granted(auth, lease.lasted)).map_err(refused)
    }

    /// Whether Vault still knows the token: tells a lost login from a missing right.
    async fn is_good(&self, wire: &Wire, lease: &Lease) -> Result<bool, Failure> {
        let client = self.vaultrs(wire, &lease.token)?;
        match unlogged(vaultrs::token::lookup_self(&client)).await {
            Ok(_) => Ok(true),
            Err(ClientError::APIError { code: 403 | 401 | 404, .. }) => Ok(false),
            Err(error) => Err(refusal::of_vaultrs(&error, "cannot look up the login", "its token is gone").into_failure(&self.name)),
        }
    }
}

/// vaultrs writes the server's error texts and URLs to the log; here nobody listens.
async fn unlogged<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    call.with_subscriber(NoSubscriber::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_renewed_from_two_thirds_of_its_time_on() {
        let hour = Some(seconds(3600));
        assert_eq!(age(seconds(2399), hour), Age::Fresh);
        assert_eq!(age(seconds(2400), hour), Age::Due);
        assert_eq!(age(seconds(3600), hour), Age::Over);
        assert_eq!(age(seconds(1 << 40), None), Age::Fresh);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_gives_little_calls_for_a_new_login() {
        let lease = |lasts| Lease {
            token: Zeroizing::default(),
            stamp: None,
            since: Instant::now(),
            lasts: Some(seconds(lasts)),
            lasted: Some(seconds(3600)),
            renewable: true,
        };
        assert!(!lease(3600).waning());
        assert!(!lease(1800).waning());
        assert!(lease(1799).waning());
    }
}
