//! A watch of a fleet's Leases: one request that tells of every write, for some minutes.

use std::time::Duration;

use http_body_util::BodyExt;
use kube::client::Body;

use super::{CALL_WITHIN, Event, LeaseSpec, broken, event};
use crate::cluster::call::refusal;
use crate::cluster::{Cluster, Issuer, Refusal, Trouble};

/// The API server ends the watch after that; another one begins.
const FOR: u64 = 300;
/// Longest line of a watch, and longest refusal.
const LONGEST: usize = 1 << 20;
/// A watch that tells nothing for that long is dead: our own renewals come back on it.
const SILENT: Duration = Duration::from_secs(20);

impl Cluster {
    /// Tells of every write after that version of the list, until the watch ends.
    ///
    /// # Errors
    /// [`Refusal`], classified; `Unavailable` where it broke off.
    pub async fn watch_leases(&self, spec: &LeaseSpec, version: &str, mut tell: impl FnMut(Event)) -> Result<(), Refusal> {
        let Issuer::Api(api) = &self.issuer else { return Err(broken("an embedded cluster has no Leases")) };
        let broke = |message: String| Refusal { trouble: Trouble::Unavailable, message, retry_after: None, subject: None };
        let clients = api.clients().await.map_err(|e| broke(e.0))?;
        let (_, endpoint) = clients.best();
        let path = format!("{}&watch=true&timeoutSeconds={FOR}&resourceVersion={version}", spec.listed());
        let request = http::Request::get(path).body(Body::empty()).map_err(|_| broken("the watch has no path"))?;
        let late = || broke(format!("{}: no answer to a watch", endpoint.url));
        let answered = tokio::time::timeout(CALL_WITHIN, endpoint.own.send(request)).await.map_err(|_| late())?;
        let (parts, mut body) = answered.map_err(|e| broke(format!("{}: {e}", endpoint.url)))?.into_parts();
        let mut text: Vec<u8> = Vec::new();
        loop {
            let frame =
                tokio::time::timeout(SILENT, body.frame()).await.map_err(|_| broke(format!("{}: the watch fell silent", endpoint.url)))?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|e| broke(format!("{}: the watch broke off: {e}", endpoint.url)))?;
            if let Some(data) = frame.data_ref() {
                text.extend_from_slice(data);
            }
            if text.len() > LONGEST {
                return Err(broken("a line of the watch has no end"));
            }
            while parts.status.is_success()
                && let Some(end) = text.iter().position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Some(event) = event(&line, &spec.name)? {
                    tell(event);
                }
            }
        }
        if parts.status.is_success() { Ok(()) } else { Err(refusal(parts.status, &parts.headers, &text)) }
    }
}
