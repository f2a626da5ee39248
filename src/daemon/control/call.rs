//! The caller's side of the control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

use super::GROUP;

/// Why a daemon could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No daemon listens there: exit code 3.
    #[error("no daemon listens on {}; start one with `tokenferry run` or `systemctl start tokenferry`", .0.display())]
    Nobody(PathBuf),
    /// The socket is not ours to use: exit code 4.
    #[error("{} may not be used by this user; join the group {GROUP} (`usermod -aG {GROUP} USER`) or use sudo", .0.display())]
    NotAllowed(PathBuf),
    /// It took too long.
    #[error("no answer from the daemon within {} s; it goes on all the same", .0.as_secs())]
    Late(Duration),
    /// It answered that it cannot.
    #[error("{1}")]
    Refused(u16, String),
    /// What came back is no answer of a tokenferry.
    #[error("{}: {}", .0.display(), .1)]
    Broken(PathBuf, String),
}

/// Asks the daemon that listens there.
///
/// # Errors
/// [`CallError`].
pub async fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: &impl Serialize,
    timeout: Duration,
) -> Result<serde_json::Value, CallError> {
    let broken = |what: String| CallError::Broken(socket.to_owned(), what);
    let stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => CallError::Nobody(socket.to_owned()),
        std::io::ErrorKind::PermissionDenied => CallError::NotAllowed(socket.to_owned()),
        _ => broken(e.to_string()),
    })?;
    let talk = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.to_string()))?;
        let pump = tokio::spawn(connection);
        let body = serde_json::to_vec(body).map_err(|e| broken(e.to_string()))?;
        let request = Request::builder().method(method).uri(path).header("host", "tokenferry");
        let request = match super::peer::own_name() {
            Some(name) => request.header(super::peer::HEADER, name),
            None => request,
        };
        let request = request.body(Full::new(Bytes::from(body)));
        let response = sender.send_request(request.map_err(|e| broken(e.to_string()))?).await.map_err(|e| broken(e.to_string()))?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|e| broken(e.to_string()))?.to_bytes();
        pump.abort();
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|_| broken("the answer is not JSON".into()))?;
        if status.is_success() {
            return Ok(value);
        }
        Err(CallError::Refused(status.as_u16(), value["error"].as_str().unwrap_or("refused").to_owned()))
    };
    tokio::time::timeout(timeout, talk).await.unwrap_or(Err(CallError::Late(timeout)))
}
