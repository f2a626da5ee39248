//! The control socket: HTTP/1.1 with JSON over a Unix socket. Access is by its mode and group; who asked is
//! recorded from the peer's credentials. A caller that goes away cancels nothing.

mod astray;
mod call;
mod doctor;
mod orders;
mod peer;
mod report;
mod revoke;

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::ask::{Ask, Explicit, Selector};
use super::listen;
use crate::record::Actor;
use crate::schedule::{Target, pattern};
use crate::sink::file::system_group;

pub use astray::said;
pub use call::{CallError, call};
pub use doctor::Examine;
use doctor::Examiner;
pub use peer::caller;
pub use report::Report;
pub use revoke::Revocation;

/// Callers served at once; more wait.
const CALLERS: usize = 64;
/// A request has to be here within that.
const HEAD: Duration = Duration::from_secs(10);
/// Largest request body.
const LARGEST: usize = 1 << 20;
/// What can be asked.
const KNOWN: &str = "GET /status, GET /places, GET /doctor, GET /metrics, GET /livez, GET /readyz, POST /rotate, POST /rehearse, POST /withdraw, POST /revoke, POST /reload, POST /report";
/// The group that may give orders, where the host has it.
const GROUP: &str = "tokenferry-admin";

/// Which targets are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Choice {
    /// Names or globs; with no labels and no `all` none means every one for `status`, and no one for `rotate`.
    pub targets: Vec<String>,
    /// `KEY=VALUE`, all of which must hold; a value may be a glob.
    pub labels: Vec<String>,
    /// Every target.
    pub all: bool,
    /// For `reload`: how many targets will have what they left deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<usize>,
    /// What was typed, for the record.
    pub command: String,
}

impl Choice {
    /// Whether the target is meant. An empty choice means all.
    pub fn takes(&self, target: &Target) -> bool {
        let named = self.all || self.targets.is_empty() || self.targets.iter().any(|t| pattern::matches(t, &target.name));
        let labelled = self.labels.iter().all(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, "*"));
            target.labels.get(key).is_some_and(|has| pattern::matches(value, has))
        });
        named && labelled
    }

    /// Whether nothing was chosen.
    pub fn is_empty(&self) -> bool {
        !self.all && self.targets.is_empty() && self.labels.is_empty()
    }

    fn selector(self) -> Selector {
        Box::new(move |target| self.takes(target))
    }

    /// For rotations: a suspended target is meant only where it is named.
    fn rotatable(self) -> Selector {
        Box::new(move |target| self.takes(target) && (!target.suspend || self.targets.iter().any(|name| **name == *target.name)))
    }
}

/// Binds the socket, private before anybody can reach it.
///
/// # Errors
/// Why it cannot be made, with its path.
pub fn bind(path: &Path) -> Result<UnixListener, String> {
    let fail = |e: std::io::Error| format!("control socket {}: {e}", path.display());
    make_folder(path).map_err(fail)?;
    // The records lock is ours: whoever bound it before is gone.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(umask);
    let listener = bound.map_err(fail)?;
    if let Some(gid) = system_group(GROUP)
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(gid))
    {
        // In a user namespace of our own the group has no number: there the unit gives the socket away.
        if error.kind() == std::io::ErrorKind::InvalidInput {
            tracing::debug!("the control socket is given to the group {GROUP} by the unit's ExecStartPost=");
        } else {
            tracing::warn!(%error, "the control socket cannot be given to the group {GROUP}; only this user can use it");
        }
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    Ok(listener)
}

/// Makes the folder of a socket where it is missing.
///
/// # Errors
/// What the file system refused.
pub fn make_folder(socket: &Path) -> std::io::Result<()> {
    match socket.parent().filter(|folder| !folder.exists()) {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))
        }
        None => Ok(()),
    }
}

/// Serves until the loop is gone.
pub async fn serve(listener: UnixListener, asks: mpsc::Sender<Ask>, examine: Examine) {
    let examiner = Arc::new(Examiner::new(examine));
    let callers = Arc::new(Semaphore::new(CALLERS));
    loop {
        let Ok(turn) = Arc::clone(&callers).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a caller of the control socket could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (asks, examiner) = (asks.clone(), Arc::clone(&examiner));
        tokio::spawn(async move {
            let actor = peer::actor(&stream);
            let service = hyper::service::service_fn(move |request| {
                let (asks, examiner, actor) = (asks.clone(), Arc::clone(&examiner), actor.clone());
                async move { Ok::<_, Infallible>(answer(request, asks, examiner, actor).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a caller of the control socket went away");
            }
            drop(turn);
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(request: Request<Incoming>, asks: mpsc::Sender<Ask>, examiner: Arc<Examiner>, actor: Actor) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let actor = peer::with_word(actor, request.headers());
    let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await.map(http_body_util::Collected::to_bytes) else {
        return problem(StatusCode::BAD_REQUEST, "the request body is too large or broke off");
    };
    if (&method, path.as_str()) == (&Method::GET, "/doctor") {
        return doctor::answer(&query, &examiner).await;
    }
    if (&method, path.as_str()) == (&Method::POST, "/report") {
        return report::take(&body, &asks, actor).await;
    }
    if (&method, path.as_str()) == (&Method::POST, "/revoke") {
        return revoke::take(&body, &asks, actor).await;
    }
    if method == Method::GET && matches!(path.as_str(), "/metrics" | "/livez" | "/readyz") {
        return listen::page(&path, &asks).await;
    }
    let choice = match choice(&body, &query) {
        Ok(choice) => choice,
        Err(message) => return problem(StatusCode::BAD_REQUEST, &message),
    };
    let actor = Actor { command: choice.command.chars().take(500).collect(), ..actor };
    match (method, path.as_str()) {
        (Method::GET, "/status") => status(choice, &asks).await,
        (Method::GET, "/places") => places(&choice, &asks).await,
        (Method::POST, "/rotate" | "/rehearse" | "/withdraw") => orders::take(&path, choice, &asks, actor).await,
        (Method::POST, "/reload") => reload(&asks, Explicit { actor, remove: choice.remove }).await,
        (
            _,
            "/status" | "/places" | "/doctor" | "/metrics" | "/livez" | "/readyz" | "/rotate" | "/rehearse" | "/withdraw" | "/revoke"
            | "/reload" | "/report",
        ) => problem(StatusCode::METHOD_NOT_ALLOWED, KNOWN),
        _ => problem(StatusCode::NOT_FOUND, KNOWN),
    }
}

/// From the query (`target=…&label=…`) and a JSON body.
fn choice(body: &[u8], query: &str) -> Result<Choice, String> {
    let mut choice = Choice::default();
    if !body.is_empty() {
        choice = serde_json::from_slice(body).map_err(|e| format!("the request body is not what it should be: {e}"))?;
    }
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        match pair.split_once('=') {
            Some(("target", value)) => choice.targets.push(value.to_owned()),
            Some(("label", value)) => choice.labels.push(value.replacen("%3D", "=", 1)),
            _ => {
                return Err(format!(
                    "unknown query `{}`; target=NAME and label=KEY%3DVALUE are known",
                    pair.chars().take(60).collect::<String>()
                ));
            }
        }
    }
    Ok(choice)
}

/// Where one target's token stands on this host: places, never tokens.
async fn places(choice: &Choice, asks: &mpsc::Sender<Ask>) -> Answer {
    let [name] = choice.targets.as_slice() else { return problem(StatusCode::BAD_REQUEST, "name one target: /places?target=NAME") };
    let (reply, answer) = oneshot::channel();
    if asks.send(Ask::Places(name.clone(), reply)).await.is_err() {
        return going();
    }
    match answer.await {
        Ok(Some(files)) => json(&serde_json::json!({ "target": name, "files": files })),
        Ok(None) => problem(StatusCode::NOT_FOUND, "no target of the schedule is meant by that"),
        Err(_) => going(),
    }
}

async fn status(choice: Choice, asks: &mpsc::Sender<Ask>) -> Answer {
    let (reply, answer) = oneshot::channel();
    if asks.send(Ask::Status(choice.selector(), reply)).await.is_err() {
        return going();
    }
    match answer.await {
        Ok(status) => json(&status),
        Err(_) => going(),
    }
}

async fn reload(asks: &mpsc::Sender<Ask>, asked: Explicit) -> Answer {
    let (reply, verdict) = oneshot::channel();
    if asks.send(Ask::Reload(Some(asked), reply)).await.is_err() {
        return going();
    }
    match verdict.await {
        Ok(verdict) => json(&verdict),
        Err(_) => going(),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => respond(StatusCode::OK, bytes),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn going() -> Answer {
    problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is about to stop")
}

fn problem(status: StatusCode, message: &str) -> Answer {
    respond(status, serde_json::json!({ "error": message }).to_string().into_bytes())
}

fn respond(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
