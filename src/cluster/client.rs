//! Clients of one API server: built from a kubeconfig or the Pod's account, and built anew when the
//! kubeconfig or a file that it names changes.

mod certificate;
mod tries;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ClusterSpec;
use super::credential::{self, Stamp, adopt_files, alive, stamps};
use super::eks::EksSpec;
use super::job::{JobLogin, Shown};
use crate::token::Claims;
use tries::Tries;
use words::{explain, pem, reading, spared};

/// Changed files are noticed at most this much later.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Building may run a credential plugin, which kube does without a limit of its own.
const BUILD_WITHIN: Duration = Duration::from_secs(30);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const READ_WITHIN: Duration = Duration::from_secs(30);
/// What the API server's audit log has of us: our own calls are told from those of a token's consumers.
const AGENT: &str = concat!("tokenferry/", env!("CARGO_PKG_VERSION"));

/// No client can be made of what the schedule names. Says what is wrong with which file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoClient(pub String);

/// The clients of one API server.
pub struct ApiServer {
    kubeconfig: Option<PathBuf>,
    job: Option<JobLogin>,
    eks: Option<EksSpec>,
    context: Option<String>,
    endpoints: Vec<String>,
    proxy: Option<String>,
    /// The file with the credential that we keep fresh ourselves, where we do.
    own: Option<PathBuf>,
    built: Mutex<Option<Built>>,
    tries: Tries,
    stale: AtomicBool,
    favourite: Arc<AtomicUsize>,
}

struct Built {
    clients: Clients,
    files: Vec<(PathBuf, Stamp)>,
    looked: Instant,
    /// When what was got by logging in ends, unix seconds: a plugin's token or certificate, our own for EKS, a job's.
    until: Option<i64>,
}

/// What a client is made of.
struct Origin {
    config: Config,
    files: Vec<(PathBuf, Stamp)>,
    shown: Option<Arc<Shown>>,
    /// When a token that was got for it ends, unix seconds.
    until: Option<i64>,
}

/// What one call needs: the endpoints of a cluster, the healthiest first.
#[derive(Clone)]
pub struct Clients {
    /// One for each endpoint.
    pub endpoints: Arc<Vec<Endpoint>>,
    favourite: Arc<AtomicUsize>,
    /// CA certificates, PEM, for kubeconfigs that we write.
    pub ca: Option<Arc<Vec<u8>>>,
    /// When what we come with ends, where it says so.
    pub own_until: Option<Ends>,
    /// What a CI job shows of itself, where one logs in.
    pub shown: Option<Arc<Shown>>,
}

/// When our own credential ends, unix seconds, by what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// A token, which programs renew.
    Token(i64),
    /// A client certificate, which people renew.
    Certificate(i64),
}

/// One API server process.
pub struct Endpoint {
    /// Its URL.
    pub url: String,
    /// With our own credentials.
    pub own: Client,
    /// With none: for calls that carry a token to be proven.
    pub bare: Client,
}

impl Clients {
    /// The endpoint to ask now.
    pub fn best(&self) -> (usize, &Endpoint) {
        let index = self.favourite.load(Ordering::Relaxed) % self.endpoints.len();
        (index, &self.endpoints[index])
    }

    /// Notes that the endpoint did not answer: the next call goes to the one after it.
    pub fn failed(&self, index: usize) {
        let next = (index + 1) % self.endpoints.len();
        // Only the first of many calls that fail together moves it on.
        let _ = self.favourite.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl ApiServer {
    /// Nothing is opened before the first call.
    pub fn new(spec: &ClusterSpec) -> Self {
        Self {
            kubeconfig: spec.kubeconfig.clone(),
            job: spec.job.clone(),
            eks: spec.eks.clone(),
            context: spec.context.clone(),
            endpoints: spec.endpoints.clone(),
            proxy: spec.proxy_url.clone(),
            own: spec.own.as_ref().and_then(|own| own.token_file.clone()),
            built: Mutex::new(None),
            tries: Tries::default(),
            stale: AtomicBool::new(false),
            favourite: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Reads our own credentials anew before the next call: they were refused.
    pub fn reload(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// Whether clients have been in the making for that long.
    pub fn is_slow_to_build(&self, than: Duration) -> bool {
        self.built.try_lock().is_err() && self.tries.began_before(than)
    }

    /// Clients by the newest files.
    ///
    /// # Errors
    /// [`NoClient`] where the kubeconfig cannot be read, names what is not there, or its plugin fails.
    pub async fn clients(&self) -> Result<Clients, NoClient> {
        let asked = Instant::now();
        let mut built = self.built.lock().await;
        if let Some(why) = self.tries.failed_after(asked) {
            return Err(why);
        }
        if let Some(have) = built.as_mut()
            && !self.stale.load(Ordering::Relaxed)
            && have.until.is_none_or(|until| jiff::Timestamp::now().as_second() < until - 60)
        {
            if have.looked.elapsed() < LOOK_EVERY {
                return Ok(have.clients.clone());
            }
            let files: Vec<PathBuf> = have.files.iter().map(|(path, _)| path.clone()).collect();
            let now = tokio::task::spawn_blocking(move || stamps(files)).await.unwrap_or_default();
            if now == have.files {
                have.looked = Instant::now();
                return Ok(have.clients.clone());
            }
        }
        self.tries.begin();
        // Boxed: it is seldom done, and each call would be as large as it.
        let fresh = match tokio::time::timeout(BUILD_WITHIN, Box::pin(self.build())).await {
            Ok(fresh) => fresh,
            Err(_) => Err(NoClient(format!("{}: its credential plugin did not end within {} s", self.source(), BUILD_WITHIN.as_secs()))),
        };
        match fresh {
            Ok(fresh) => {
                self.stale.store(false, Ordering::Relaxed);
                Ok(built.insert(fresh).clients.clone())
            }
            // A kubeconfig that is being rewritten must not stop a daemon that holds good clients.
            Err(broken) => match built.as_mut() {
                Some(have) if !self.stale.load(Ordering::Relaxed) => {
                    tracing::warn!(error = %broken, "the kubeconfig changed but cannot be used; the one before stays in use");
                    have.looked = Instant::now();
                    Ok(have.clients.clone())
                }
                _ => {
                    self.tries.fail(&broken);
                    Err(broken)
                }
            },
        }
    }

    fn source(&self) -> String {
        match (&self.job, &self.kubeconfig) {
            (Some(job), _) => job.server.clone(),
            (None, Some(path)) => path.display().to_string(),
            (None, None) => "the Pod's own account".into(),
        }
    }

    async fn build(&self) -> Result<Built, NoClient> {
        let source = self.source();
        let Origin { mut config, files, shown, until } = self.origin().await?;
        // Retries, time limits and their records are ours: kube's would hide up to 15 tries (dependencies: kube ≥ 4).
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = Some(READ_WITHIN);
        config.reset_reader_on_write = true;
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(AGENT)));
        if let Some(proxy) = &self.proxy {
            config.proxy_url = Some(proxy.parse().map_err(|_| NoClient(format!("{source}: proxyUrl is no URL")))?);
        } else if std::env::var("NO_PROXY")
            .or_else(|_| std::env::var("no_proxy"))
            .is_ok_and(|list| spared(&list, config.cluster_url.host()))
        {
            config.proxy_url = None;
        }
        let mut urls: Vec<http::Uri> = Vec::new();
        for url in &self.endpoints {
            urls.push(url.parse().map_err(|_| NoClient(format!("{source}: endpoint {url} is no URL")))?);
        }
        if urls.is_empty() {
            urls.push(config.cluster_url.clone());
        }
        let ca = config.root_cert.as_ref().map(|ders| Arc::new(pem(ders)));
        // What is got anew by itself ends unnoticed.
        let kept = config.auth_info.token.as_ref().filter(|_| until.is_none());
        let mut own_until = kept.and_then(|token| Claims::of(token.expose_secret()).ok()?.exp).map(Ends::Token);
        let mut endpoints = Vec::new();
        for url in urls {
            let mut own = config.clone();
            own.cluster_url = url.clone();
            let mut bare = own.clone();
            bare.auth_info = kube::config::AuthInfo::default();
            let label = source.clone();
            // It reads files and blocks the thread.
            let made = tokio::task::spawn_blocking(move || {
                let certified = certificate::of_user(&own.auth_info);
                let own = Client::try_from(own).map_err(|e| NoClient(explain(&label, &e)))?;
                let bare = Client::try_from(bare).map_err(|e| NoClient(explain(&label, &e)))?;
                Ok::<_, NoClient>((own, bare, certified))
            });
            let (own, bare, certified) = made.await.map_err(|_| NoClient(format!("{source}: building the client was cut short")))??;
            own_until = own_until.or(certified.map(Ends::Certificate).filter(|_| until.is_none()));
            endpoints.push(Endpoint { url: url.to_string().trim_end_matches('/').to_owned(), own, bare });
        }
        let clients = Clients { endpoints: Arc::new(endpoints), favourite: Arc::clone(&self.favourite), ca, own_until, shown };
        Ok(Built { clients, files, looked: Instant::now(), until })
    }

    /// Where it is, and who we are there.
    async fn origin(&self) -> Result<Origin, NoClient> {
        if let Some(job) = &self.job {
            let (config, files, shown) = self.log_in(job).await?;
            let until = shown.until();
            return Ok(Origin { config, files, shown: Some(Arc::new(shown)), until });
        }
        let (config, files, until) = match &self.kubeconfig {
            Some(path) => self.read(path).await?,
            None => (Config::incluster().map_err(|e| NoClient(format!("inCluster: {}", chain(&e))))?, Vec::new(), None),
        };
        Ok(Origin { config, files, shown: None, until })
    }

    async fn log_in(&self, job: &JobLogin) -> Result<(Config, Vec<(PathBuf, Stamp)>, Shown), NoClient> {
        let files = job.files();
        // Before they are read: one that changes meanwhile is read again.
        let files = tokio::task::spawn_blocking(move || stamps(files)).await.unwrap_or_default();
        let (kubeconfig, shown) = job.log_in().await.map_err(NoClient)?;
        let made = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = made.map_err(|e| NoClient(format!("{}: {}", job.server, reading(&e))))?;
        Ok((config, files, shown))
    }

    /// By the kubeconfig; with the end of a token that was got for it.
    async fn read(&self, path: &Path) -> Result<(Config, Vec<(PathBuf, Stamp)>, Option<i64>), NoClient> {
        let (login, until) = match &self.eks {
            Some(eks) if self.own.as_deref().and_then(alive).is_none() => {
                let (token, until) = eks.log_in().await.map_err(NoClient)?;
                (Some(token), Some(until))
            }
            _ => (None, None),
        };
        let (owned, context, own) = (path.to_owned(), self.context.clone(), self.own.clone());
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let mut kubeconfig = Kubeconfig::read_from(&owned).map_err(|e| format!("{}: {}", owned.display(), reading(&e)))?;
            let files = adopt_files(&mut kubeconfig, &owned, context.as_deref(), own.as_deref(), login)?;
            Ok::<_, String>((kubeconfig, stamps(files)))
        });
        let (mut kubeconfig, files) = read.await.map_err(|_| NoClient(format!("{shown}: reading it was cut short")))?.map_err(NoClient)?;
        let ran = credential::plugged(&mut kubeconfig, path, self.context.as_deref()).await;
        let until = until.or(ran.map_err(|why| NoClient(format!("{shown}: {why}")))?);
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| NoClient(format!("{shown}: {}", reading(&e))))?;
        Ok((config, files, until))
    }
}

/// An error with its causes, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    crate::token::mask::mask(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let spec = ClusterSpec { kubeconfig: Some("/nonexistent/prod.kubeconfig".into()), ..blank() };
        let Err(error) = ApiServer::new(&spec).clients().await else { panic!("made of nothing") };
        assert!(error.0.contains("/nonexistent/prod.kubeconfig") && error.0.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_context_is_told_with_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        std::fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncontexts:\n- {name: one, context: {cluster: c, user: u}}\nclusters: []\nusers: []\n",
        )
        .unwrap();
        let spec = ClusterSpec { kubeconfig: Some(path), context: Some("two".into()), ..blank() };
        let Err(error) = ApiServer::new(&spec).clients().await else { panic!("made of nothing") };
        assert!(error.0.contains("no context `two`") && error.0.contains("one"), "{error}");
    }

    fn blank() -> ClusterSpec {
        ClusterSpec::default()
    }
}
