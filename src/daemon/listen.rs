//! `metrics.listen`: HTTP for Prometheus and probes. It shows what `status` shows and takes no orders.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::ask::Ask;

/// Callers served at once.
const CALLERS: usize = 16;

/// The loop turns many times a second; one that does not within that hangs.
const TURNS_WITHIN: Duration = Duration::from_secs(10);

/// Binds the address.
///
/// # Errors
/// Why it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| format!("metrics.listen {address}: {e}"))
}

/// Serves until the loop is gone.
pub async fn serve(listener: TcpListener, asks: mpsc::Sender<Ask>) {
    let callers = Arc::new(Semaphore::new(CALLERS));
    loop {
        let Ok(turn) = Arc::clone(&callers).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a caller of the metrics listener could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let asks = asks.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let asks = asks.clone();
                async move { Ok::<_, Infallible>(answer(&request, &asks).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            // A scraper may keep its connection, but not for ever.
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(300), served).await {
                tracing::debug!(%error, "a caller of the metrics listener went away");
            }
            drop(turn);
        });
    }
}

async fn answer(request: &Request<Incoming>, asks: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into());
    }
    page(request.uri().path(), asks).await
}

/// A page for machines: of the metrics listener, and of the control socket.
pub(super) async fn page(path: &str, asks: &mpsc::Sender<Ask>) -> Response<Full<Bytes>> {
    match path {
        "/livez" if turns(asks).await => text(StatusCode::OK, "ok\n".into()),
        "/livez" => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon's loop does not turn\n".into()),
        "/readyz" => match status(asks).await {
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is about to stop\n".into()),
            Some(status) => {
                let bad: Vec<&str> = status.targets.iter().filter(|t| t.state.is_bad()).map(|t| &*t.name).collect();
                if bad.is_empty() {
                    text(StatusCode::OK, "ok\n".into())
                } else {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not well: {}\n", bad.join(", ")))
                }
            }
        },
        "/status" => match status(asks).await.and_then(|s| serde_json::to_string(&s).ok()) {
            Some(body) => typed(StatusCode::OK, "application/json", body),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is about to stop\n".into()),
        },
        "/metrics" => {
            let (reply, metrics) = oneshot::channel();
            let sent = asks.send(Ask::Metrics(reply)).await.is_ok();
            match metrics.await {
                Ok(body) if sent => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is about to stop\n".into()),
            }
        }
        _ => text(StatusCode::NOT_FOUND, "/metrics, /livez, /readyz, /status\n".into()),
    }
}

/// Whether the loop answers in time.
async fn turns(asks: &mpsc::Sender<Ask>) -> bool {
    let (reply, turned) = oneshot::channel();
    let asked = async { asks.send(Ask::Turn(reply)).await.is_ok() && turned.await.is_ok() };
    tokio::time::timeout(TURNS_WITHIN, asked).await.unwrap_or(false)
}

async fn status(asks: &mpsc::Sender<Ask>) -> Option<super::status::Status> {
    let (reply, status) = oneshot::channel();
    asks.send(Ask::Status(Box::new(|_| true), reply)).await.ok()?;
    status.await.ok()
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_is_not_alive_and_one_that_does_is() {
        let (asks, mut asked) = mpsc::channel(4);
        assert_eq!(page("/livez", &asks).await.status(), StatusCode::SERVICE_UNAVAILABLE, "nobody takes what is asked");
        let turning = tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                if let Ask::Turn(reply) = ask {
                    // The first one is that of a caller who went away.
                    let _ = reply.send(());
                }
            }
        });
        assert_eq!(page("/livez", &asks).await.status(), StatusCode::OK);
        turning.abort();
        let _ = turning.await;
        assert_eq!(page("/livez", &asks).await.status(), StatusCode::SERVICE_UNAVAILABLE, "the loop is gone");
    }
}
