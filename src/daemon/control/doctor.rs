//! `GET /doctor`: what the daemon itself sees of host, clusters and stores. A root shell stands outside its sandbox. How
//! to look is handed in: what examines stands to the left of the daemon.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::StatusCode;
use tokio::sync::Mutex;

use super::{Answer, json, problem};

/// Examines everything, with probes where that is asked for.
pub type Examine = Arc<dyn Fn(bool) -> BoxFuture<'static, serde_json::Value> + Send + Sync>;

/// Lets one caller examine at a time: it asks every cluster and store.
pub(super) struct Examiner {
    examine: Examine,
    turn: Mutex<()>,
}

impl Examiner {
    pub(super) fn new(examine: Examine) -> Self {
        Self { examine, turn: Mutex::new(()) }
    }
}

/// The findings; `?probe=true` tries rights to write as well.
pub(super) async fn answer(query: &str, examiner: &Examiner) -> Answer {
    let probe = match query {
        "" => false,
        "probe=true" => true,
        _ => return problem(StatusCode::BAD_REQUEST, "only probe=true is known"),
    };
    let _turn = examiner.turn.lock().await;
    json(&(examiner.examine)(probe).await)
}
