//! Clients of one API server: built from a kubeconfig or the Pod's account, and built anew when the
//! kubeconfig or a file that it names changes.

mod certificate;

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
use super::credential::{Stamp, adopt_files, stamps};
use crate::token::Claims;

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
    context: Option<String>,
    endpoints: Vec<String>,
    proxy: Option<String>,
    /// The file with the credential that we keep fresh ourselves, where we do.
    own: Option<PathBuf>,
    built: Mutex<Option<Built>>,
    stale: AtomicBool,
    favourite: Arc<AtomicUsize>,
}

struct Built {
    clients: Clients,
    files: Vec<(PathBuf, Stamp)>,
    looked: Instant,
    /// When an exec plugin's client certificate ends, unix seconds.
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
            context: spec.context.clone(),
            endpoints: spec.endpoints.clone(),
            proxy: spec.proxy_url.clone(),
            own: spec.own.as_ref().and_then(|own| own.token_file.clone()),
            built: Mutex::new(None),
            stale: AtomicBool::new(false),
            favourite: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Reads our own credentials anew before the next call: they were refused.
    pub fn reload(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// Clients by the newest files.
    ///
    /// # Errors
    /// [`NoClient`] where the kubeconfig cannot be read, names what is not there, or its plugin fails.
    pub async fn clients(&self) -> Result<Clients, NoClient> {
        let mut built = self.built.lock().await;
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
        let fresh = match tokio::time::timeout(BUILD_WITHIN, self.build()).await {
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
                _ => Err(broken),
            },
        }
    }

    fn source(&self) -> String {
        self.kubeconfig.as_ref().map_or_else(|| "the Pod's own account".into(), |path| path.display().to_string())
    }

    async fn build(&self) -> Result<Built, NoClient> {
        let source = self.source();
        let (mut config, files) = match &self.kubeconfig {
            Some(path) => self.read(path).await?,
            None => (Config::incluster().map_err(|e| NoClient(format!("inCluster: {}", chain(&e))))?, Vec::new()),
        };
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
        let mut own_until = config.auth_info.token.as_ref().and_then(|token| Claims::of(token.expose_secret()).ok()?.exp).map(Ends::Token);
        let (mut endpoints, mut until) = (Vec::new(), None);
        for url in urls {
            let mut own = config.clone();
            own.cluster_url = url.clone();
            let mut bare = own.clone();
            bare.auth_info = kube::config::AuthInfo::default();
            let label = source.clone();
            // kube runs credential plugins while it builds, and blocks the thread.
            let made = tokio::task::spawn_blocking(move || {
                let certified = certificate::of_user(&own.auth_info);
                let own = Client::try_from(own).map_err(|e| NoClient(explain(&label, &e)))?;
                let bare = Client::try_from(bare).map_err(|e| NoClient(explain(&label, &e)))?;
                Ok::<_, NoClient>((own, bare, certified))
            });
            let (own, bare, certified) = made.await.map_err(|_| NoClient(format!("{source}: building the client was cut short")))??;
            own_until = own_until.or(certified.map(Ends::Certificate));
            until = own.valid_until().as_ref().map(|t| t.as_second());
            endpoints.push(Endpoint { url: url.to_string().trim_end_matches('/').to_owned(), own, bare });
        }
        let clients = Clients { endpoints: Arc::new(endpoints), favourite: Arc::clone(&self.favourite), ca, own_until };
        Ok(Built { clients, files, looked: Instant::now(), until })
    }

    async fn read(&self, path: &Path) -> Result<(Config, Vec<(PathBuf, Stamp)>), NoClient> {
        let (owned, context, own) = (path.to_owned(), self.context.clone(), self.own.clone());
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let mut kubeconfig = Kubeconfig::read_from(&owned).map_err(|e| format!("{}: {}", owned.display(), reading(&e)))?;
            let files = adopt_files(&mut kubeconfig, &owned, context.as_deref(), own.as_deref())?;
            Ok::<_, String>((kubeconfig, stamps(files)))
        });
        let (kubeconfig, files) = read.await.map_err(|_| NoClient(format!("{shown}: reading it was cut short")))?.map_err(NoClient)?;
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| NoClient(format!("{shown}: {}", reading(&e))))?;
        Ok((config, files))
    }
}

fn pem(ders: &[Vec<u8>]) -> Vec<u8> {
    use base64::Engine;
    let mut text = String::new();
    for der in ders {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        for line in body.as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap_or_default());
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

/// Whether a `NO_PROXY` list names the host: as itself, as the end of its name, or with `*`.
fn spared(list: &str, host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    list.split(',')
        .map(|entry| entry.trim().trim_start_matches('.'))
        .filter(|e| !e.is_empty())
        .any(|entry| entry == "*" || host == entry || host.strip_suffix(entry).is_some_and(|front| front.ends_with('.')))
}

/// What a kubeconfig error may say: kube's own texts, which name keys and files but quote no secret.
fn reading(error: &kube::config::KubeconfigError) -> String {
    use kube::config::KubeconfigError as E;
    match error {
        E::ReadConfig(io, _) => io.to_string(),
        E::Parse(_) => "it is no kubeconfig that can be read (its YAML is broken)".into(),
        other => chain(other),
    }
}

fn explain(source: &str, error: &kube::Error) -> String {
    let text = chain(error);
    let hint = if text.contains("UnsupportedCertVersion") {
        "; its client certificate is X.509 version 1, which rustls refuses: have it issued as version 3"
    } else if text.contains("o CA certificates") || text.contains("no valid") {
        "; name the cluster's CA in the kubeconfig (certificate-authority-data)"
    } else {
        ""
    };
    format!("{source}: {text}{hint}")
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

    #[test]
    fn no_proxy_names_hosts_and_domains() {
        assert!(spared("localhost, .example.com", Some("api.example.com")));
        assert!(spared("api.example.com", Some("api.example.com")));
        assert!(spared("*", Some("x")));
        assert!(!spared("example.com", Some("badexample.com")));
        assert!(!spared("", Some("x")));
    }

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
        ClusterSpec {
            kubeconfig: None,
            context: None,
            in_cluster: None,
            embedded: None,
            endpoints: Vec::new(),
            proxy_url: None,
            limits: super::super::Limits::default(),
            own: None,
            spare: None,
        }
    }
}
